package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// kernel stands in for the kernel's sets. At every change it checks the promise of
// the package: whatever it protects, the engine can judge.
type kernel struct {
	*testing.T
	engine  *filter.Engine
	holds   Addresses
	changes int
	failAt  int // fails this change, counted from 1
}

var errKernel = errors.New("no")

func (k *kernel) protect(a Addresses) error {
	k.changes++
	if k.changes == k.failAt {
		return errKernel
	}
	k.holds = a
	k.check()
	return nil
}

func (k *kernel) check() {
	k.Helper()
	rs := k.engine.Ruleset()
	for d, addrs := range map[string][]netip.Addr{"ingress": k.holds.Ingress, "egress": k.holds.Egress} {
		if !slices.IsSortedFunc(addrs, netip.Addr.Compare) {
			k.Errorf("addresses out of order: %v", addrs)
		}
		for _, a := range addrs {
			if rs == nil {
				k.Errorf("the kernel asks about %v and the engine has no ruleset", a)
			} else if ep, ok := rs.Endpoint(a); !ok || !ep.Hosted {
				k.Errorf("the kernel asks about %v (%s), which the engine does not know", a, d)
			}
		}
	}
}

// state makes a snapshot: pods named by one letter, those in ingress and egress
// isolated in that direction.
func state(generation uint64, pods, ingress, egress string) *policy.Snapshot {
	s := &policy.Snapshot{
		Generation: generation,
		Tiers:      []policy.Tier{{Name: policy.DefaultTier, Order: policy.DefaultTierOrder}},
		Namespaces: []*policy.Namespace{{Name: "ns"}},
	}
	for _, c := range pods {
		s.Endpoints = append(s.Endpoints, &policy.Endpoint{
			Namespace: "ns", Name: string(c), Labels: map[string]string{"pod": string(c)},
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(c)}), netip.MustParseAddr(fmt.Sprintf("fd00::%x", c))},
		})
	}
	isolate := func(c rune, ingress bool) {
		s.Policies = append(s.Policies, &policy.Policy{
			Kind: policy.NetworkPolicy, Namespace: "ns", Name: fmt.Sprintf("%c-%v", c, ingress), Tier: policy.DefaultTier, Order: policy.Unordered,
			Selector: selector.Equals("pod", string(c)), AppliesIngress: ingress, AppliesEgress: !ingress,
		})
	}
	for _, c := range ingress {
		isolate(c, true)
	}
	for _, c := range egress {
		isolate(c, false)
	}
	return s
}

func states() []*policy.Snapshot {
	return []*policy.Snapshot{
		state(1, "", "", ""),
		state(2, "ab", "a", ""),
		state(3, "abc", "ab", "c"),
		state(4, "bc", "b", "cb"),
		state(5, "ac", "c", "a"),
		state(6, "abc", "", ""),
		state(7, "abc", "abc", "abc"),
		state(8, "d", "d", ""),
		state(9, "", "", ""),
	}
}

// TestApply runs the states forwards and backwards, squashed to every second one,
// and doubled. What the kernel ends up with depends on the last state alone.
func TestApply(t *testing.T) {
	t.Parallel()
	forwards := states()
	backwards := slices.Clone(forwards)
	slices.Reverse(backwards)
	var squashed, doubled []*policy.Snapshot
	for i, s := range forwards {
		if i%2 == 0 {
			squashed = append(squashed, s)
		}
		doubled = append(doubled, s, s)
	}
	for name, list := range map[string][]*policy.Snapshot{"forwards": forwards, "backwards": backwards, "squashed": squashed, "doubled": doubled} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &filter.Engine{}
			k := &kernel{T: t, engine: e}
			a := New(e, k.protect, compile.Options{})
			for _, s := range list {
				rs, problems, err := a.Apply(s)
				if err != nil || len(problems) > 0 {
					t.Fatalf("generation %d: %v %v", s.Generation, err, problems)
				}
				if e.Ruleset() != rs || rs.Generation() != s.Generation {
					t.Errorf("generation %d is not in force", s.Generation)
				}
				k.equals(s, rs)
			}
		})
	}
}

func (k *kernel) equals(s *policy.Snapshot, rs *filter.Ruleset) {
	k.Helper()
	want := Addresses{Ingress: rs.Protected(flow.Ingress), Egress: rs.Protected(flow.Egress)}
	for _, ep := range s.Endpoints {
		want.Pods = append(want.Pods, ep.Addrs...)
	}
	slices.SortFunc(want.Pods, netip.Addr.Compare)
	if !k.holds.equal(want) {
		k.Errorf("the kernel was told %v, want %v", k.holds, want)
	}
}

// closed checks what holds after the kernel refused a change: what it asks about and
// the engine does not know is denied.
func (k *kernel) closed() {
	k.Helper()
	rs := k.engine.Ruleset()
	for _, a := range append(slices.Clone(k.holds.Ingress), k.holds.Egress...) {
		if _, known := rs.Endpoint(a); !known {
			other := netip.IPv6Unspecified().Next()
			if a.Is4() {
				other = netip.MustParseAddr("192.0.2.1")
			}
			for _, t := range []flow.Tuple{{Src: a, Dst: other, Proto: flow.TCP}, {Src: other, Dst: a, Proto: flow.TCP}} {
				if d := rs.Decide(t); d.Verdict != filter.Drop {
					k.Errorf("%v: %v, and the engine does not know one end", t, d.Verdict)
				}
			}
		}
	}
}

// TestApplyFails: whichever change the kernel refuses, it stays closed, the error is
// told, and applying again puts everything right.
func TestApplyFails(t *testing.T) {
	t.Parallel()
	failures := 0
	for failAt := 1; ; failAt++ {
		e := &filter.Engine{}
		k := &kernel{T: t, engine: e, failAt: failAt}
		a := New(e, k.protect, compile.Options{})
		for _, s := range states() {
			rs, _, err := a.Apply(s)
			if err != nil {
				failures++
				if !errors.Is(err, errKernel) || rs != nil {
					t.Fatalf("change %d: %v, %v", failAt, rs, err)
				}
				k.closed()
				if rs, _, err = a.Apply(s); err != nil {
					t.Fatalf("change %d, again: %v", failAt, err)
				}
			}
			k.equals(s, rs)
		}
		if k.changes < failAt {
			break
		}
	}
	if failures < 5 {
		t.Errorf("only %d changes were made to fail", failures)
	}
}

// TestNothingPassesInBetween: one change takes a flow's denial from its sender to
// its receiver. At no moment may the kernel ask about neither.
func TestNothingPassesInBetween(t *testing.T) {
	t.Parallel()
	e := &filter.Engine{}
	var holds Addresses
	src, dst := netip.AddrFrom4([4]byte{10, 0, 0, 'a'}), netip.AddrFrom4([4]byte{10, 0, 0, 'b'})
	denied := func() bool {
		asked := slices.Contains(holds.Egress, src) || slices.Contains(holds.Ingress, dst)
		return asked && e.Ruleset().Decide(flow.Tuple{Src: src, Dst: dst, Proto: flow.TCP}).Verdict == filter.Drop
	}
	a := New(e, func(next Addresses) error {
		if e.Ruleset().Generation() > 1 && !denied() {
			t.Error("the flow passes before the kernel is told")
		}
		holds = next
		if !denied() {
			t.Errorf("the flow passes when the kernel was told %v", next)
		}
		return nil
	}, compile.Options{})
	for _, s := range []*policy.Snapshot{state(1, "ab", "", "a"), state(2, "ab", "b", ""), state(3, "ab", "", "a")} {
		if _, _, err := a.Apply(s); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPodsOfThisNode: pods that name another node are not this one's.
func TestPodsOfThisNode(t *testing.T) {
	t.Parallel()
	s := state(1, "abc", "abc", "")
	s.Endpoints[0].Node, s.Endpoints[1].Node = "here", "there"
	k := &kernel{T: t, engine: &filter.Engine{}}
	if _, _, err := New(k.engine, k.protect, compile.Options{Node: "here"}).Apply(s); err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(s.Endpoints[0].Addrs, s.Endpoints[2].Addrs)
	slices.SortFunc(want, netip.Addr.Compare)
	if !slices.Equal(k.holds.Pods, want) || !slices.Equal(k.holds.Ingress, want) {
		t.Errorf("told %v, want the pods %v", k.holds, want)
	}
}

// TestApplyIsQuiet: a snapshot that protects the same addresses costs the kernel
// nothing.
func TestApplyIsQuiet(t *testing.T) {
	t.Parallel()
	e := &filter.Engine{}
	k := &kernel{T: t, engine: e}
	a := New(e, k.protect, compile.Options{})
	for g := range uint64(3) {
		if _, _, err := a.Apply(state(g+1, "ab", "a", "")); err != nil {
			t.Fatal(err)
		}
	}
	if k.changes != 1 {
		t.Errorf("%d changes, want the first only", k.changes)
	}
}
