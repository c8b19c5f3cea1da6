package filter

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/postern-project/postern/filter/flow"
)

// ask decides a flow by both and compares. The decision is not empty before, as that
// of a loop is not.
func ask(t *testing.T, c *Cache, rs *Ruleset, tu flow.Tuple) Decision {
	t.Helper()
	all := Outcome{Accept, Reasons - 1, true, true, 99}
	d := Decision{Accept, Reasons - 1, flow.Egress, all, all}
	c.DecideInto(rs, &tu, &d)
	if want := rs.Decide(tu); d != want {
		t.Fatalf("%s: with a cache %+v, without %+v", tu, d, want)
	}
	return d
}

// everyAddress has those of testSpec and some that nobody has.
func everyAddress() (out []netip.Addr) {
	for _, family := range names {
		for _, a := range family {
			out = append(out, netip.MustParseAddr(a))
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return append(out, addrs("10.0.0.3", "::ffff:10.0.0.1", "fe80::1%eth0")...)
}

// TestCacheIsTheRuleset asks for all that a key is made of, often enough that things
// put each other out of their places.
func TestCacheIsTheRuleset(t *testing.T) {
	t.Parallel()
	rs, hits := testRuleset(t), uint64(0)
	for _, src := range everyAddress() {
		c := new(Cache) // one for all would soon pause
		for round := range 3 {
			for _, dst := range everyAddress() {
				for _, p := range []flow.Proto{flow.TCP, flow.UDP, flow.SCTP, flow.ICMP, flow.ICMPv6, 47} {
					for x := range uint16(30) {
						tu := flow.Tuple{Src: src, Dst: dst, Proto: p, Ported: p.HasPorts() && x > 0, SrcPort: uint16(round), DstPort: 70 + x}
						if !p.HasPorts() {
							tu.ICMPType, tu.ICMPCode = uint8(x), uint8(round)
						}
						ask(t, c, rs, tu)
						ask(t, c, rs, tu)
					}
				}
			}
		}
		ask(t, c, rs, flow.Tuple{})
		hits += c.Hits()
	}
	if hits < 10_000 {
		t.Errorf("%d hits", hits)
	}
}

// TestCacheHits says of whom there is a decision at the second time.
func TestCacheHits(t *testing.T) {
	t.Parallel()
	rs := testRuleset(t)
	for _, tt := range []struct {
		name     string
		src, dst string
		kept     bool
	}{
		{"both ends here", "10.0.0.1", "10.0.0.2", true},
		{"sender here", "fd00::1", "2001:db8::1", true},
		{"receiver here, which logs", "192.168.1.1", "10.0.0.2", true},
		{"no namespace", "10.0.0.4", "192.168.1.1", true},
		{"nobody here", "192.168.1.1", "203.0.113.1", false},
		{"two claim the receiver", "10.0.0.1", "10.0.0.3", false},
		{"two claim the sender", "10.0.0.3", "10.0.0.2", false},
		{"two families", "10.0.0.1", "fd00::2", false},
	} {
		c := new(Cache)
		tu := tuple(tt.src, tt.dst, flow.TCP, 80)
		ask(t, c, rs, tu) // begins
		ask(t, c, rs, tu)
		if ask(t, c, rs, tu); c.Hits() == 1 != tt.kept {
			t.Errorf("%s: %d hits, want one: %v", tt.name, c.Hits(), tt.kept)
		}
	}
}

// TestCacheAsksForSourcePorts: what another source port may change is not kept.
func TestCacheAsksForSourcePorts(t *testing.T) {
	t.Parallel()
	spec := testSpec()
	spec.Rules[denyUDP-1].Source.Ports = &PortMatch{Ranges: []flow.PortRange{{Min: 53, Max: 53}}}
	rs, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	c, verdicts := new(Cache), [Accept + 1]int{}
	for i := range 100 {
		tu := tuple("192.168.1.1", "10.0.0.2", flow.UDP, 80)
		if tu.Src, tu.SrcPort = netip.MustParseAddr("10.0.0.1"), 53; i%2 == 0 {
			tu.SrcPort = 54
		}
		verdicts[ask(t, c, rs, tu).Verdict]++
	}
	if verdicts != [...]int{50, 50} || c.Hits() != 0 {
		t.Errorf("verdicts %v, %d hits", verdicts, c.Hits())
	}
}

// TestCacheIsOfOneRuleset: with another ruleset nothing of the one before is left, also
// if they change each time, and one that has gone comes back.
func TestCacheIsOfOneRuleset(t *testing.T) {
	t.Parallel()
	spec := testSpec()
	spec.Rules[allowWeb-1].Info.Action = Deny
	other, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	rs, c, tu := testRuleset(t), new(Cache), tuple("10.0.0.1", "10.0.0.2", flow.TCP, 80)
	for i, turn := range []struct {
		rs   *Ruleset
		asks int
		want Verdict
	}{{rs, 3, Accept}, {other, 1, Drop}, {rs, 2, Accept}, {other, 3, Drop}, {testRuleset(t), 1, Accept}} {
		for range turn.asks {
			if got := ask(t, c, turn.rs, tu).Verdict; got != turn.want {
				t.Errorf("ruleset %d: %v, want %v", i, got, turn.want)
			}
		}
	}
	if c.Hits() != 2 { // the first begins, the second is kept
		t.Errorf("%d hits, want 2", c.Hits())
	}
}

// TestCachePauses: flows of which none comes again turn it off, and it tries again.
func TestCachePauses(t *testing.T) {
	t.Parallel()
	rs, c := testRuleset(t), new(Cache)
	t1, t2, d := tuple("10.0.0.1", "10.0.0.2", flow.TCP, 1), tuple("192.168.1.1", "10.0.0.2", flow.TCP, 1), Decision{}
	for i := range 2 * trial { // every port once
		tu := t1
		if tu.DstPort = uint16(i); i == 0 {
			tu = t2
		}
		c.DecideInto(rs, &tu, &d)
	}
	if c.pause == 0 || c.Hits() > 0 {
		t.Fatalf("after %d flows of which none came again: %d hits, pause %d", 2*trial, c.Hits(), c.pause)
	}
	other := testRuleset(t) // ends no pause
	for c.pause > 0 {
		c.DecideInto(other, &t1, &d)
	}
	if c.Hits() > 0 {
		t.Errorf("%d hits in a pause", c.Hits())
	}
	for range 3 * trial { // one that always comes again does not turn it off
		c.DecideInto(rs, &t1, &d)
	}
	if want := uint64(3*trial - 2); c.Hits() != want || c.serial != rs.serial {
		t.Errorf("%d hits after the pause, want %d", c.Hits(), want)
	}
}

// TestCacheKeepsWhatComesOften: it stays in its place although others belong there.
func TestCacheKeepsWhatComesOften(t *testing.T) {
	t.Parallel()
	rs, c := testRuleset(t), new(Cache)
	often := tuple("10.0.0.1", "10.0.0.2", flow.TCP, 80)
	ask(t, c, rs, often)
	ask(t, c, rs, often)
	const others = 1<<16 - 1
	for port := range uint16(others) {
		ask(t, c, rs, often)
		ask(t, c, rs, often)
		ask(t, c, rs, tuple("10.0.0.1", "10.0.0.2", flow.UDP, 1+port))
	}
	if c.Hits() != 2*others {
		t.Errorf("%d hits of %d", c.Hits(), 2*others)
	}
}

// TestCacheOfManyClasses: classes of numbers that keys have no room for are decided
// without it.
func TestCacheOfManyClasses(t *testing.T) {
	t.Parallel()
	few := testRuleset(t)
	many := *few
	many.serial = serials.Add(1)
	many.classes = make([]class, 1<<maxBits+1)
	copy(many.classes, few.classes)
	c, tu := new(Cache), tuple("10.0.0.1", "10.0.0.2", flow.TCP, 80)
	for _, rs := range []*Ruleset{&many, &many, &many, few, &many, &many} {
		if ask(t, c, rs, tu); c.Hits() > 0 {
			t.Fatal("a hit")
		}
	}
}

func TestCacheDoesNotAllocate(t *testing.T) {
	rs, other, c := testRuleset(t), testRuleset(t), new(Cache)
	var d Decision
	for _, tt := range decisions {
		for _, names := range names {
			tu := tuple(names[tt.src], names[tt.dst], tt.proto, tt.dport)
			if n := testing.AllocsPerRun(100, func() {
				c.DecideInto(rs, &tu, &d)
				c.DecideInto(rs, &tu, &d)
				c.DecideInto(other, &tu, &d)
			}); n != 0 {
				t.Errorf("%s: DecideInto allocates %v times", tt.name, n)
			}
		}
	}
}
