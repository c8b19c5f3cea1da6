package e2e

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/test/lab"
)

// podCIDRs are the flags that say from which prefixes the examples' pods have their
// addresses.
var podCIDRs = []string{"--pod-cidr", "10.244.0.0/24", "--pod-cidr", "fd00:244::/64"}

// withoutPod starts the daemon on manifests in which a pod is missing, and returns
// what makes it known.
func (b *bench) withoutPod(name string, args ...string) (appear func()) {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, "pods.yaml"))
	if err != nil {
		b.Fatal(err)
	}
	var rest, gone []string
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		if strings.Contains(doc, "  name: "+name+"\n  namespace: prod-engineering\n") {
			gone = append(gone, doc)
		} else {
			rest = append(rest, doc)
		}
	}
	if len(gone) != 1 {
		b.Fatalf("%d pods are called %s", len(gone), name)
	}
	b.writeOnly("pods.yaml", strings.Join(rest, "\n---\n"))
	b.start(append(podCIDRs, args...)...)
	return func() { b.write("late.yaml", gone[0]) }
}

// TestHold: the first packets of a pod that is not known yet wait, also towards pods
// that no policy protects, and are decided by the policy of the pod once it is known.
func TestHold(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pod, from, to string
		want          int
	}{
		{"api", "prod-engineering/api", "prod-engineering/db", 1},            // ingress allows the account
		{"reports", "prod-engineering/reports", "prod-engineering/db", 0},    // ingress does not
		{"intern-1", "prod-engineering/intern-1", "prod-engineering/web", 0}, // its own egress does not
		{"web", "prod-engineering/web", "prod-engineering/api", 1},           // nothing is about either
		{"db", "prod-engineering/api", "prod-engineering/db", 1},             // towards the unknown pod
		{"db", "prod-engineering/reports", "prod-engineering/db", 0},
	} {
		t.Run(tc.from+" to "+tc.to+" before "+tc.pod, func(t *testing.T) {
			t.Parallel()
			b := setup(t, examples)
			appear := b.withoutPod(tc.pod, "--hold-time", "30s")
			sink := b.sniff(b.pods[tc.to])
			arrived := func(six bool) int {
				return sink.Count(func(p lab.Packet) bool { return p.DstPort == 514 && p.Src.Is6() == six })
			}
			for _, six := range []bool{false, true} {
				if err := b.pods[tc.from].Send(udp(at(b.pods[tc.from], six, 4000), at(b.pods[tc.to], six, 514), []byte("first"))); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "both packets wait", func() bool { return b.kernel().Waiting == 2 })
			if n := arrived(false) + arrived(true); n != 0 {
				t.Fatalf("%d packets arrived before the pod was known", n)
			}
			appear()
			eventually(t, "no packet waits", func() bool { return b.kernel().Waiting == 0 })
			if tc.want == 1 {
				eventually(t, "both packets arrive", func() bool { return arrived(false) == 1 && arrived(true) == 1 })
				return
			}
			time.Sleep(100 * time.Millisecond)
			if n := arrived(false) + arrived(true); n != 0 {
				t.Errorf("%d denied packets arrived", n)
			}
		})
	}
}

// TestHoldExpires: a pod that never becomes known gets nothing through, its packets
// wait for a bounded time, and one source cannot have more wait than its share.
func TestHoldExpires(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.withoutPod("intern-1", "--hold-time", "2s", "--holds-per-source", "5")
	const from, to = "prod-engineering/intern-1", "prod-engineering/web"
	sink := b.sniff(b.pods[to])
	for i := range 20 {
		if err := b.pods[from].Send(udp(at(b.pods[from], false, uint16(4000+i)), at(b.pods[to], false, 514), []byte("first"))); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the share of one source waits", func() bool { return b.kernel().Waiting <= 5 && b.kernel().LastID >= 20 })
	eventually(t, "none waits any more", func() bool { return b.kernel().Waiting == 0 })
	if n := sink.Count(func(p lab.Packet) bool { return p.DstPort == 514 }); n != 0 {
		t.Errorf("%d packets of a pod that nobody knows arrived", n)
	}
	denied, _, err := b.daemon.Wait(0, patience, func(l lab.Line) bool { return l.Text("reason") == "unknown-pod" })
	if err != nil || denied.Text("verdict") != "deny" {
		t.Errorf("not logged: %v, %v", denied, err)
	}
}

// TestHostsOwnAddress: an address of this host among those of its pods, as a bridge has one, is
// no unknown pod's: the host talks to itself by it.
func TestHostsOwnAddress(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.output(b.Node, "ip", "addr", "add", "10.244.0.1/32", "dev", "node0")
	b.output(b.Node, "ip", "-6", "addr", "add", "fd00:244::1/128", "dev", "node0", "nodad")
	b.serve(5432)
	b.start(podCIDRs...)
	for _, ends := range [][2]netip.Addr{
		{netip.MustParseAddr("10.244.0.1"), lab.NodeAddr4},
		{netip.MustParseAddr("fd00:244::1"), lab.NodeAddr6},
	} {
		if err := b.Node.Do(func() error {
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(ends[0], 0)), Timeout: patience}
			c, err := d.Dial("tcp", netip.AddrPortFrom(ends[1], 5432).String())
			if err != nil {
				return err
			}
			defer c.Close()
			return lab.Echo(c, []byte("hello"), patience)
		}); err != nil {
			t.Errorf("host, %v -> %v: %v", ends[0], ends[1], err)
		}
	}
}
