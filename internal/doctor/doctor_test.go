package doctor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/nfq"
	"github.com/postern-project/postern/filter/nft"
	"github.com/postern-project/postern/test/lab"
)

var usual = Config{Mask: nft.DefaultMask, Queues: nft.Queues{First: 100, Count: 2}, QueueLength: nfq.DefaultMaxLen}

// sick makes a host of its own, damages it, and gives what the doctor finds.
func sick(t *testing.T, damage func() error) []Finding {
	t.Helper()
	l, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	var found []Finding
	if err := l.Node.Do(func() error {
		if err := damage(); err != nil {
			return err
		}
		before := state(t)
		found = Judge(Look(usual))
		if after := state(t); after != before {
			t.Errorf("the host was\n%s\nand is now\n%s", before, after)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// state is what must stay as it was.
func state(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "--stateless", "list", "ruleset").CombinedOutput()
	if err != nil && !strings.Contains(string(out), "permitted") {
		t.Fatalf("nft list ruleset: %v: %s", err, out)
	}
	return fmt.Sprint(string(out), boundQueues())
}

func run(program string, args ...string) func() error {
	return func() error {
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s %v: %w: %s", program, args, err, out)
		}
		return nil
	}
}

// rules loads a table inet other with a chain at a hook.
func rules(hook, text string) func() error {
	return run("nft", "add table inet other; add chain inet other c { type filter hook "+hook+"; }; add rule inet other c "+text)
}

func write(sysctl, value string) func() error {
	return func() error { return os.WriteFile("/proc/sys/"+sysctl, []byte(value), 0o644) }
}

func find(fs []Finding, check string, text string) *Finding {
	for i := range fs {
		if fs[i].Check == check && strings.Contains(fs[i].Found, text) {
			return &fs[i]
		}
	}
	return nil
}

// TestDamage damages hosts, and looks whether the damage is found; a host that nobody
// damaged has none of it.
func TestDamage(t *testing.T) {
	healthy := sick(t, func() error { return nil })
	if Worst(healthy) == Fail || Worst(healthy) == Warn {
		t.Fatalf("a host that nobody damaged: %+v", healthy)
	}
	for _, check := range []string{"capabilities", "kernel", "queue", "tables", "tables.offload", "marks", "forwarding", "ipv6", "rp_filter", "buffers"} {
		if f := find(healthy, check, ""); f == nil || f.Level != OK {
			t.Errorf("%s: %+v, want it to be ok", check, f)
		}
	}
	for name, tc := range map[string]struct {
		damage func() error
		check  string
		level  Level
		text   string
	}{
		"packet mark set":        {rules("prerouting priority mangle", "meta mark set 0x01000000"), "marks.written", Fail, "inet other c changes bits 0xffffffff of the packet mark"},
		"packet mark, masked":    {rules("prerouting priority mangle", "meta mark set meta mark and 0xfeffffff or 0x2"), "marks.written", Fail, "changes bits 0x1000002 of the packet mark"},
		"conntrack mark copied":  {rules("postrouting priority mangle", "ct mark set meta mark"), "marks.written", Fail, "of the conntrack mark"},
		"packet mark compared":   {rules("output priority filter", "meta mark and 0x0f000000 == 0x01000000 accept"), "marks.read", Warn, "compares bits 0xf000000"},
		"whole mark compared":    {rules("output priority filter", "ct mark 0x7 accept"), "marks.read", Warn, "compares bits 0xffffffff of the conntrack mark"},
		"mark by iptables":       {run("iptables-nft", "-t", "mangle", "-A", "PREROUTING", "-j", "MARK", "--set-xmark", "0x1000000/0x1000000"), "marks.written", Fail, "ip mangle PREROUTING changes bits 0x1000000 of the packet mark"},
		"connmark by iptables":   {run("iptables-nft", "-t", "mangle", "-A", "POSTROUTING", "-j", "CONNMARK", "--save-mark"), "marks.written", Fail, "of the conntrack mark"},
		"restored by iptables":   {run("iptables-nft", "-t", "mangle", "-A", "PREROUTING", "-j", "CONNMARK", "--restore-mark", "--nfmask", "0xff000000", "--ctmask", "0xff000000"), "marks.written", Fail, "changes bits 0xff000000 of the packet mark"},
		"compared by iptables":   {run("iptables-nft", "-A", "INPUT", "-m", "mark", "--mark", "0x1000000/0x1000000", "-j", "ACCEPT"), "marks.read", Warn, "ip filter INPUT compares bits 0x1000000"},
		"routing by mark":        {run("ip", "rule", "add", "fwmark", "0x1", "lookup", "100"), "marks.routing", Warn, "fwmark 0x1/0xffffffff lookup 100"},
		"routing by mark, IPv6":  {run("ip", "-6", "rule", "add", "fwmark", "0x1000000/0x1000000", "lookup", "100"), "marks.routing", Warn, "ip -6 rule"},
		"source NAT before":      {run("nft", "add table ip early; add chain ip early nat { type nat hook postrouting priority 90; }"), "tables.nat", Fail, "ip early nat translates sources at priority 90"},
		"another firewall":       {run("nft", "add table inet other; add chain inet other c { type filter hook input priority filter; policy drop; }"), "tables.policy", Info, "inet other c (hook input) drops"},
		"order of tables":        {rules("postrouting priority -150", "accept"), "tables", Info, "postrouting: inet other c (-150), postern (95)"},
		"tables behind":          {rules("input priority 500", "accept"), "tables", Info, "input: postern (101), inet other c (500)"},
		"chain of a device":      {run("nft", "add table netdev early; add chain netdev early c { type filter hook ingress device lo priority 0; }"), "tables.netdev", Warn, "netdev early c is called at ingress"},
		"untracked":              {rules("prerouting priority raw", "udp dport 53 notrack"), "tables.notrack", Warn, "inet other c"},
		"untracked by iptables":  {run("iptables-nft", "-t", "raw", "-A", "PREROUTING", "-p", "udp", "-j", "CT", "--notrack"), "tables.notrack", Warn, "ip raw PREROUTING"},
		"queue shared":           {run("iptables-nft", "-A", "INPUT", "-j", "NFQUEUE", "--queue-balance", "98:100"), "queue.shared", Fail, "ip filter INPUT queues to 98-100"},
		"no forwarding":          {write("net/ipv4/ip_forward", "0"), "forwarding", Warn, "ip_forward is 0"},
		"IPv6 not routed":        {write("net/ipv6/conf/all/forwarding", "0"), "ipv6", Info, "forwarding is 0"},
		"IPv6 off":               {write("net/ipv6/conf/all/disable_ipv6", "1"), "ipv6", Info, "switched off"},
		"strict reverse path":    {write("net/ipv4/conf/all/rp_filter", "1"), "rp_filter", Info, "strict"},
		"liberal conntrack":      {write("net/netfilter/nf_conntrack_tcp_be_liberal", "1"), "conntrack.liberal", Info, "is 1"},
		"conntrack is not loose": {write("net/netfilter/nf_conntrack_tcp_loose", "0"), "conntrack.loose", Info, "is 0"},
		"bridge": {func() error {
			for _, name := range []string{"iptables", "ip6tables"} {
				if err := write("net/bridge/bridge-nf-call-"+name, "0")(); err != nil && !errors.Is(err, os.ErrNotExist) {
					return err
				}
			}
			return run("ip", "link", "add", "b1", "type", "veth", "peer", "name", "b2")()
		}, "bridges", Warn, "node0"},
		"no capability": {func() error {
			var none [2]unix.CapUserData
			return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
		}, "capabilities", Fail, "no CAP_NET_ADMIN"},
	} {
		t.Run(name, func(t *testing.T) {
			if find(healthy, tc.check, tc.text) != nil {
				t.Fatal("it is found on a healthy host too")
			}
			damage := tc.damage
			if name == "bridge" {
				damage = func() error {
					if err := tc.damage(); err != nil {
						return err
					}
					return run("ip", "link", "set", "b1", "master", "node0")()
				}
			}
			found := sick(t, damage)
			f := find(found, tc.check, tc.text)
			if f == nil || f.Level != tc.level {
				t.Fatalf("want %s %s %q: %+v", tc.level, tc.check, tc.text, found)
			}
			if f.Means == "" || f.Do == "" && tc.level != Info {
				t.Errorf("says too little: %+v", f)
			}
		})
	}
}

// TestNeighbours: who uses other bits, queues and numbers is no clash.
func TestNeighbours(t *testing.T) {
	found := sick(t, func() error {
		for _, do := range []func() error{
			// As kube-proxy and Calico with masks of their own do.
			rules("prerouting priority mangle", "meta mark set meta mark or 0x4000"),
			run("nft", "add rule inet other c meta mark and 0x8000 == 0x8000 drop"),
			run("nft", "add rule inet other c ct mark set ct mark and 0xffff0fff xor 0x1000"),
			run("nft", "add rule inet other c meta l4proto tcp"),
			run("iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-j", "MARK", "--set-xmark", "0x4000/0x0"),
			run("iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-m", "mark", "--mark", "0x4000/0x4000", "-j", "MASQUERADE"),
			run("iptables-nft", "-A", "INPUT", "-j", "NFQUEUE", "--queue-num", "102"),
			run("ip", "rule", "add", "fwmark", "0x10000/0x10000", "lookup", "100"),
		} {
			if err := do(); err != nil {
				return err
			}
		}
		return nil
	})
	if w := Worst(found); w != Info {
		t.Errorf("worst is %s: %+v", w, found)
	}
	if f := find(found, "marks", ""); f == nil || f.Level != OK {
		t.Errorf("%+v", f)
	}
}

// TestQueueTaken: somebody else holds the queue.
func TestQueueTaken(t *testing.T) {
	found := sick(t, func() error {
		q, err := nfq.Open(nfq.Config{Queue: 101, MaxLen: 16, CopyRange: 128}, &filter.Engine{})
		if err == nil {
			t.Cleanup(func() { q.Close() })
		}
		return err
	})
	if f := find(found, "queue.taken", "queue 101"); f == nil || f.Level != Fail {
		t.Errorf("%+v", found)
	}
}

// TestFlowtable: flows that go past the hooks. Not every kernel has flowtables; one
// without must say so itself.
func TestFlowtable(t *testing.T) {
	refused := false
	found := sick(t, func() error {
		err := run("nft", "add table inet other; add flowtable inet other ft { hook ingress priority 0; devices = { lo }; }; "+
			"add chain inet other c { type filter hook forward priority 0; }; add rule inet other c ip protocol tcp flow add @ft")()
		if err != nil && (strings.Contains(err.Error(), "not supported") || strings.Contains(err.Error(), "No such file")) {
			refused = true
			return nil
		}
		return err
	})
	want := Fail
	if refused {
		want = OK
	}
	if f := find(found, "tables.offload", ""); f == nil || f.Level != want {
		t.Errorf("the kernel has flowtables: %v: %+v", !refused, found)
	}
}

// TestJudge is about what cannot be brought about in a network namespace without
// touching the machine, or on every kernel.
func TestJudge(t *testing.T) {
	t.Parallel()
	there := "/run/postern.sock"
	for name, tc := range map[string]struct {
		damage func(*Facts)
		check  string
		level  Level
		text   string
	}{
		"conntrack fills":  {func(f *Facts) { f.Sysctls["net.netfilter.nf_conntrack_count"] = "80000" }, "conntrack", Warn, "80000 of 100000"},
		"conntrack full":   {func(f *Facts) { f.Sysctls["net.netfilter.nf_conntrack_count"] = "99999" }, "conntrack", Fail, "99999 of 100000"},
		"conntrack absent": {func(f *Facts) { delete(f.Sysctls, "net.netfilter.nf_conntrack_max") }, "conntrack", Info, "not loaded"},
		"conntrack drops":  {func(f *Facts) { f.Drops.Drop = 3 }, "conntrack.drops", Warn, "dropped 3 packets"},
		"small buffers":    {func(f *Facts) { f.InitialUser = false; f.Sysctls["net.core.rmem_max"] = "212992" }, "buffers", Warn, "212992"},
		"no queue":         {func(f *Facts) { f.Features = []nft.Feature{{Name: "q", Queue: true, Err: unix.ENOENT}} }, "kernel", Fail, "no queue"},
		"one queue":        {func(f *Facts) { f.Features = append(f.Features, nft.Feature{Name: "q", Queue: true, Err: unix.ENOENT}) }, "kernel", OK, "whole"},
		"no fib":           {func(f *Facts) { f.Features = append(f.Features, nft.Feature{Name: "fib", Err: unix.ENOENT}) }, "kernel", Fail, "refuses fib"},
		"queue refused":    {func(f *Facts) { f.QueueErr = unix.EPERM }, "queue", Fail, "bound"},
		"bad mask":         {func(f *Facts) { f.Mask = 0xf }, "marks", Fail, "0xf"},
		"unread": {func(f *Facts) {
			f.Survey.Unread = map[nft.Place]error{{Family: "ip", Table: "t", Name: "c"}: unix.EINVAL}
		}, "tables.unread", Info, "ip t c"},
		"legacy":  {func(f *Facts) { f.Legacy = []string{"ip nat"} }, "tables.legacy", Info, "ip nat"},
		"clock":   {func(f *Facts) { f.ClockSynced = false }, "clock", Info, "not synchronised"},
		"stopped": {func(f *Facts) { f.Survey.Ours = true; f.Daemon = Daemon{Socket: there} }, "daemon", Warn, "its table is there"},
		"elsewhere": {func(f *Facts) {
			f.Survey.Ours, f.Bound, f.Postern = true, []uint16{100, 65535}, ": process 7 (postern run)"
			f.Daemon = Daemon{Socket: there}
		}, "daemon", Warn, "a postern runs here: process 7 (postern run), and there is no socket " + there},
		"not installed": {func(f *Facts) { f.Daemon = Daemon{Socket: there} }, "daemon", Info, "does not run"},
		"dead":          {func(f *Facts) { f.Daemon = Daemon{Socket: there, Exists: true, Err: unix.ECONNREFUSED} }, "daemon", Fail, "refused"},
		"flushed":       {func(f *Facts) { f.Daemon = Daemon{Socket: there, Exists: true, Enforcing: true} }, "daemon", Fail, "its table is not"},
		"not yet":       {func(f *Facts) { f.Daemon = Daemon{Socket: there, Exists: true} }, "daemon", Warn, "does not enforce yet"},
		"degraded": {func(f *Facts) {
			f.Survey.Ours = true
			f.Daemon = Daemon{Socket: there, Exists: true, Enforcing: true, Degraded: []string{"old"}}
		}, "daemon", Warn, "degraded: old"},
		"running": {func(f *Facts) {
			f.Survey.Ours = true
			f.Bound = []uint16{100}
			f.Daemon = Daemon{Socket: there, Exists: true, Enforcing: true}
		}, "daemon", OK, "enforces"},
	} {
		f := &Facts{
			Config: usual, Capabilities: 1 << unix.CAP_NET_ADMIN, InitialUser: true, ClockSynced: true,
			Features: []nft.Feature{{Name: "queue", Queue: true}}, Sysctls: map[string]string{
				"net.netfilter.nf_conntrack_max": "100000", "net.netfilter.nf_conntrack_count": "5", "net.ipv4.ip_forward": "1",
				"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.all.forwarding": "1",
			},
		}
		if w := Worst(Judge(f)); w != OK {
			t.Fatalf("healthy facts are %s: %+v", w, Judge(f))
		}
		tc.damage(f)
		found := Judge(f)
		got := find(found, tc.check, tc.text)
		if got == nil || got.Level != tc.level {
			t.Errorf("%s: want %s %s %q: %+v", name, tc.level, tc.check, tc.text, found)
		}
		if (name == "running" || name == "elsewhere") && find(found, "queue.taken", "") != nil {
			t.Errorf("the daemon's own queue is taken: %+v", found)
		}
	}
}
