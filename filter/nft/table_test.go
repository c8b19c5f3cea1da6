package nft

import (
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netns"
)

var update = flag.Bool("update", false, "rewrite golden files")

// inNamespace puts the test's thread into a network namespace of its own, whose
// nftables are empty. The thread dies with the test.
func inNamespace(t testing.TB) *Conn {
	t.Helper()
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("this test needs root (CAP_SYS_ADMIN), to make a network namespace: %v", err)
	}
	t.Cleanup(func() { ns.Close() })
	c, err := Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseLasting() })
	return c
}

func addrs(text ...string) (as []netip.Addr) {
	for _, s := range text {
		as = append(as, netip.MustParseAddr(s))
	}
	return as
}

func newTable(t testing.TB, c *Conn, via QueueVia) *Table {
	t.Helper()
	m, err := NewMarks(DefaultMask)
	if err != nil {
		t.Fatal(err)
	}
	table, err := NewTable(c, Config{Marks: m, Queues: Queues{First: 100, Count: 2}, Via: via, ToHost: ToHostReject, VXLANPort: DefaultVXLANPort,
		Local: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("fd00:1::/64")},
		Guard: DefaultGuard, GuardPortless: DefaultGuardPortless, GuardKnown: DefaultGuardKnown,
	})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// list is what the nft program prints, which is also the proof that it can.
func list(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft list ruleset: %v: %s", err, out)
	}
	return string(out)
}

// How the kernel hands packets over, and how nft prints that, depends on the
// kernel and on the host's nft; the golden file holds neither.
var (
	queueText   = regexp.MustCompile(`(?s)(counter name "queued").*?( comment "ask")`)
	warningText = regexp.MustCompile(`(?m)^# Warning:.*\n`)
)

func TestTableText(t *testing.T) {
	c := inNamespace(t)
	via, err := Probe(c)
	if err != nil {
		t.Fatal(err)
	}
	table := newTable(t, c, via)
	if err := table.Apply(State{Ingress: addrs("10.0.1.10", "fd00:1::10"), Egress: addrs("10.0.1.15"), Pods: addrs("10.0.1.10", "10.0.1.15", "fd00:1::10"), Epoch: 3, Past: []uint32{2, 1}, Dirty: addrs("10.0.1.10")}); err != nil {
		t.Fatal(err)
	}
	got := queueText.ReplaceAllString(warningText.ReplaceAllString(list(t), ""), "$1 QUEUE$2")
	const golden = "testdata/table.nft"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("the table differs from %s (-want +got):\n%s", golden, d)
	}
}

// TestApply walks through a list of states, forwards and with the process
// exchanged before every step.
func TestApply(t *testing.T) {
	many := make([]netip.Addr, 3*chunk+7)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})
	}
	states := []State{
		{},
		{Ingress: addrs("10.0.1.10", "fd00:1::10")},
		{Ingress: addrs("10.0.1.10", "10.0.1.11"), Egress: addrs("fd00:1::11", "10.0.1.10"), Epoch: 1},
		{Ingress: many, Epoch: 2, Past: []uint32{1, 0}, Dirty: addrs("10.0.1.10", "fd00:1::11")},
		{Egress: many[5:], Pods: many, Epoch: 3, Past: []uint32{2}, Dirty: many},
		{Epoch: 4},
	}
	for _, restart := range []bool{false, true} {
		c := inNamespace(t)
		via, err := Probe(c)
		if err != nil {
			t.Fatal(err)
		}
		table := newTable(t, c, via)
		for i, s := range states {
			if restart {
				table = newTable(t, c, via)
			}
			if err := table.Apply(s); err != nil {
				t.Fatalf("restart %v, state %d: %v", restart, i, err)
			}
			want := map[string]int{"epoch": 1}
			if len(s.Past) > 0 {
				want["past"] = len(s.Past)
			}
			for _, a := range s.Dirty {
				want[map[bool]string{true: "dirty4", false: "dirty6"}[a.Is4()]]++
			}
			for _, a := range s.Ingress {
				want[map[bool]string{true: "ingress4", false: "ingress6"}[a.Is4()]]++
			}
			for _, a := range s.Egress {
				want[map[bool]string{true: "egress4", false: "egress6"}[a.Is4()]]++
			}
			for _, a := range s.Pods {
				want[map[bool]string{true: "pods4", false: "pods6"}[a.Is4()]]++
			}
			got := map[string]int{}
			for _, set := range table.sets.kept() {
				els, err := c.GetSetElements(set)
				if err != nil {
					t.Fatal(err)
				}
				if len(els) > 0 {
					got[set.Name] = len(els)
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("restart %v, state %d: elements (-want +got):\n%s", restart, i, d)
			}
		}
		if err := table.Remove(); err != nil {
			t.Fatal(err)
		}
		if out := list(t); out != "" {
			t.Errorf("left behind after Remove:\n%s", out)
		}
		if err := table.Remove(); err != nil {
			t.Errorf("Remove of nothing: %v", err)
		}
	}
}

// TestRefusedInManyWords: of a transaction that was refused nothing is left in the socket,
// also where the kernel had more to say than there was room for. The next one has its own answer.
func TestRefusedInManyWords(t *testing.T) {
	inNamespace(t)
	c, err := dial(16<<20, 4096)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseLasting() })
	nowhere := &nftables.Table{Family: nftables.TableFamilyINet, Name: "nowhere"}
	for range 200 {
		c.AddChain(&nftables.Chain{Table: nowhere, Name: "c"})
	}
	if err := c.Flush(); err == nil {
		t.Fatal("a chain of no table was made")
	}
	c.AddTable(nowhere)
	if err := c.Flush(); err != nil {
		t.Errorf("a table: %v", err)
	}
	if there, err := Exists(c); err != nil || there {
		t.Errorf("is there a table of ours: %v, %v", there, err)
	}
}

// TestAdoptsDamage: what an earlier process left, and somebody has damaged since, is no
// reason to enforce nothing.
func TestAdoptsDamage(t *testing.T) {
	for _, damage := range []string{
		"flush set inet postern epoch",
		"add element inet postern epoch { 1, 2 }",
		"flush chain inet postern pod_postrouting; delete chain inet postern pod_postrouting; add chain inet postern pod_postrouting",
		"delete table inet postern; table inet postern { set ingress4 { type inet_service; }; }",
	} {
		c := inNamespace(t)
		via, err := Probe(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := newTable(t, c, via).Apply(State{Epoch: 3}); err != nil {
			t.Fatal(err)
		}
		want := list(t)
		if out, err := exec.Command("nft", damage).CombinedOutput(); err != nil {
			t.Fatalf("nft %s: %v: %s", damage, err, out)
		}
		table := newTable(t, c, via)
		if _, _, err := table.Epoch(); err != nil {
			t.Errorf("after %s: %v", damage, err)
		}
		if err := table.Apply(State{Epoch: 3}); err != nil {
			t.Errorf("after %s: %v", damage, err)
		} else if d := cmp.Diff(want, list(t)); d != "" {
			t.Errorf("after %s: the table (-want +got):\n%s", damage, d)
		}
	}
}

// TestRenewKeepsBaseChains: a restart must not delete a base chain, which would
// drop the packets that wait in queues. The kernel numbers what it makes, so the
// handles tell.
func TestRenewKeepsBaseChains(t *testing.T) {
	c := inNamespace(t)
	via, err := Probe(c)
	if err != nil {
		t.Fatal(err)
	}
	handles := func() string {
		out, err := exec.Command("nft", "-a", "list", "chains").Output()
		if err != nil {
			t.Fatal(err)
		}
		var hs []string
		for _, line := range strings.Split(string(out), "\n") {
			if strings.Contains(line, "# handle") {
				hs = append(hs, line)
			}
		}
		if len(hs) == 0 {
			t.Fatalf("no chains in %s", out)
		}
		return strings.Join(hs, "\n")
	}
	if err := newTable(t, c, via).Apply(State{}); err != nil {
		t.Fatal(err)
	}
	before := handles()
	if err := newTable(t, c, via).Apply(State{Ingress: addrs("10.0.0.1")}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, handles()); d != "" {
		t.Errorf("chains were made anew (-before +after):\n%s", d)
	}
}

// TestAdoptKeepsSourceCheck: a daemon that starts again leaves no moment without the check of
// source addresses that the one before it put in.
func TestAdoptKeepsSourceCheck(t *testing.T) {
	c := inNamespace(t)
	via, err := Probe(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := newTable(t, c, via).Apply(State{}); err != nil {
		t.Fatal(err)
	}
	if err := NewSources(c, SourcesDropped, nil).Apply([]int{1}); err != nil {
		t.Fatal(err)
	}
	check := func() string {
		var text string
		for _, chain := range []string{chainArrived, chainSources} {
			out, err := exec.Command("nft", "list", "chain", "inet", TableName, chain).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			text += string(out)
		}
		return text
	}
	before := check()
	if !strings.Contains(before, "an answer would go back this way") {
		t.Fatalf("no check in %s", before)
	}
	if err := newTable(t, c, via).Apply(State{Ingress: addrs("10.0.0.1"), Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, check()); d != "" {
		t.Errorf("the check is another one (-before +after):\n%s", d)
	}
}

func TestCount(t *testing.T) {
	c := inNamespace(t)
	via, err := Probe(c)
	if err != nil {
		t.Fatal(err)
	}
	table := newTable(t, c, via)
	if n, err := table.Count(); err != nil || len(n) != 0 {
		t.Errorf("Count without a table: %v, %v", n, err)
	}
	if err := table.Apply(State{}); err != nil {
		t.Fatal(err)
	}
	n, err := table.Count()
	if err != nil {
		t.Fatal(err)
	}
	want := map[Counter]uint64{}
	for _, k := range Counters {
		want[k] = 0
	}
	if d := cmp.Diff(want, n); d != "" {
		t.Errorf("counters (-want +got):\n%s", d)
	}
}

// TestProbeLeavesNothing and says what this kernel's rules can really use.
func TestProbeLeavesNothing(t *testing.T) {
	c := inNamespace(t)
	via, err := Probe(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("this kernel queues by way of: %v", via)
	if out := list(t); out != "" {
		t.Errorf("left behind by Probe:\n%s", out)
	}
	// The native expression must work if it was chosen and fail if it was not.
	err = newTable(t, c, ViaNative).Apply(State{})
	if (err == nil) != (via == ViaNative) {
		t.Errorf("probe said %v, native rules: %v", via, err)
	}
}

func TestNewTableRefuses(t *testing.T) {
	t.Parallel()
	m, _ := NewMarks(DefaultMask)
	for _, cfg := range []Config{
		{Marks: m, Queues: Queues{First: 1}, Via: ViaTarget},
		{Marks: m, Queues: Queues{First: 65535, Count: 2}, Via: ViaTarget},
		{Marks: m, Queues: Queues{First: 1, Count: 1}},
	} {
		if _, err := NewTable(nil, cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

func TestMarks(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		mask uint32
		ok   bool
	}{
		{DefaultMask, true}, {0x00ff0000, true}, {0xff, true}, {0xffffffff, true},
		{0xfc000000, true},
		{0, false}, {0x1f000000, false}, {0xff00ff00, false}, {0xf0f00000, false},
	} {
		m, err := NewMarks(tc.mask)
		if (err == nil) != tc.ok {
			t.Errorf("NewMarks(%#x): %v", tc.mask, err)
		}
		if !tc.ok {
			continue
		}
		seen := map[uint32]bool{0: true}
		for _, v := range []uint32{m.at(stateLocal, 0), m.Reply(), m.Pass(), m.Learn(), m.Deny(), m.Flow(0), m.Flow(m.Epochs() - 1), m.Denied(0), m.Denied(m.Epochs() - 1)} {
			if v&^tc.mask != 0 || seen[v] {
				t.Errorf("mask %#x: value %#x is outside the mask or not unique", tc.mask, v)
			}
			seen[v] = true
		}
		for e := range min(m.Epochs(), 64) {
			for _, accepted := range []bool{false, true} {
				mark := m.Denied(e)
				if accepted {
					mark = m.Flow(e)
				}
				if epoch, was, ok := m.Judged(mark | ^tc.mask); epoch != e || was != accepted || !ok {
					t.Errorf("mask %#x: Judged(%#x) = %d, %v, %v", tc.mask, mark, epoch, was, ok)
				}
			}
		}
		if _, _, ok := m.Judged(m.Pass()); ok {
			t.Errorf("mask %#x: a packet's mark passes for a flow's", tc.mask)
		}
	}
}

// TestLastingChains: those that a change leaves alone must be what they would be if they
// were made anew.
func TestLastingChains(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{false, true} {
		b, _ := rightRules(t, keep)
		b.cfg.CountUnanswered = true
		want := b.lasting()
		for epoch := range b.cfg.Marks.Epochs() {
			for _, carry := range []bool{false, true} {
				b.inForce = inForce{epoch, carry}
				if !reflect.DeepEqual(b.lasting(), want) {
					t.Fatalf("in epoch %d, carry %t, the lasting chains are others", epoch, carry)
				}
			}
		}
	}
}

// TestChangeLeavesQueueRule: with another epoch the rule that asks is not made anew.
// Where the queue is an xt target that took longer, probably because the kernel waits
// until the old one is destroyed, for a grace period of RCU.
func TestChangeLeavesQueueRule(t *testing.T) {
	c := inNamespace(t)
	via, err := Probe(c)
	if err != nil {
		t.Fatal(err)
	}
	table := newTable(t, c, via)
	handle := func() string {
		out, err := exec.Command("nft", "-a", "list", "chain", "inet", "postern", "enforce").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for line := range strings.SplitSeq(string(out), "\n") {
			if _, h, ok := strings.Cut(line, `comment "ask" # handle `); ok {
				return h
			}
		}
		t.Fatalf("no rule asks:\n%s", out)
		return ""
	}
	var first string
	for epoch := range uint32(4) {
		if err := table.Apply(State{Ingress: addrs("10.0.0.1"), Epoch: epoch, Past: []uint32{7}}); err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = handle()
		}
		if h := handle(); h != first {
			t.Errorf("epoch %d: the rule has handle %s, and %s before", epoch, h, first)
		}
	}
	// Two epochs on, the caches are of the same parity.
	if err := table.Apply(State{Epoch: 5, Past: []uint32{3}}); err != nil {
		t.Error(err)
	}
}
