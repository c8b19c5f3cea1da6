package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/nft"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// kernel stands in for the kernel. At every change it checks the promises of the package.
type kernel struct {
	*testing.T
	engine  *filter.Engine
	holds   nft.State
	in      bool // an epoch
	changes int
	failAt  int  // fails this change, counted from 1
	made    bool // although it was made
	// distrusted is how often it was said that somebody else had changed it.
	distrusted int

	mu     sync.Mutex      // of what the sweeper, beside the Applier, changes too
	marks  map[uint32]bool // epochs of which flows may carry marks
	judged []judgement
}

type judgement struct {
	epoch       uint32
	dirty, gone []netip.Addr
	all         bool
}

var errKernel = errors.New("no")

const epochs = 8

func (k *kernel) Epoch() (uint32, bool, error) { return k.holds.Epoch, k.in, nil }

func (k *kernel) Distrust() { k.distrusted++ }

func (k *kernel) Apply(s nft.State) error {
	k.changes++
	if k.changes == k.failAt {
		if k.made {
			k.put(s)
		}
		return errKernel
	}
	k.put(s)
	return nil
}

func (k *kernel) put(s nft.State) {
	k.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.marks[s.Epoch] {
		k.Errorf("epoch %d begins, and flows carry its mark from the turn before", s.Epoch)
	}
	if f := k.engine.InForce(); f != nil && k.in && f.Epoch == s.Epoch {
		k.Errorf("the kernel enters epoch %d, in which the engine answers by an old ruleset", s.Epoch)
	}
	for _, addrs := range [][]netip.Addr{s.Ingress, s.Egress, s.Pods, s.Dirty} {
		if !slices.IsSortedFunc(addrs, netip.Addr.Compare) {
			k.Errorf("addresses out of order: %v", addrs)
		}
	}
	k.holds, k.in = s, true
	k.marks[s.Epoch] = true
}

func (k *kernel) Forget(half int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for e := range k.marks {
		if int(e/(epochs/2)) == half {
			delete(k.marks, e)
		}
	}
	return nil
}

func (k *kernel) Judge(rs *filter.Ruleset, epoch uint32, dirty []netip.Addr, all bool, gone []netip.Addr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.judged = append(k.judged, judgement{epoch, dirty, gone, all})
	return nil
}

func newKernel(t *testing.T) *kernel {
	return &kernel{T: t, engine: &filter.Engine{}, marks: map[uint32]bool{}}
}

func (k *kernel) applier(options compile.Options) *Applier {
	return New(k.engine, k, k, nil, Options{Compile: options, Epochs: epochs, Failed: func(err error) { k.Error(err) }})
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
			k := newKernel(t)
			a := k.applier(compile.Options{})
			e := k.engine
			defer a.Close()
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
	want := nft.State{Ingress: rs.Protected(flow.Ingress), Egress: rs.Protected(flow.Egress)}
	for _, ep := range s.Endpoints {
		want.Pods = append(want.Pods, ep.Addrs...)
	}
	slices.SortFunc(want.Pods, netip.Addr.Compare)
	if !slices.Equal(k.holds.Ingress, want.Ingress) || !slices.Equal(k.holds.Egress, want.Egress) || !slices.Equal(k.holds.Pods, want.Pods) {
		k.Errorf("the kernel was told %v, want %v", k.holds, want)
	}
	if f := k.engine.InForce(); f == nil || f.Epoch != k.holds.Epoch {
		k.Errorf("the kernel is in epoch %d, the engine answers by %v", k.holds.Epoch, f)
	}
}

// TestApplyFails: whichever change the kernel refuses, or makes and says nothing of, the
// error is told, applying again puts everything right, and nothing of the past holds.
func TestApplyFails(t *testing.T) {
	t.Parallel()
	failures := 0
	for failAt := 1; ; failAt++ {
		changes := 0
		for _, made := range []bool{false, true} {
			k := newKernel(t)
			k.failAt, k.made = failAt, made
			a := k.applier(compile.Options{})
			for _, s := range states() {
				rs, _, err := a.Apply(s)
				if err != nil {
					failures++
					if !errors.Is(err, errKernel) || rs != nil {
						t.Fatalf("change %d: %v, %v", failAt, rs, err)
					}
					if f := k.engine.InForce(); f != nil && f.Generation() == s.Generation {
						t.Errorf("change %d: the engine answers by a ruleset that the kernel may not ask by", failAt)
					}
					if rs, _, err = a.Apply(s); err != nil {
						t.Fatalf("change %d, again: %v", failAt, err)
					}
					if len(k.holds.Past) > 0 {
						t.Errorf("change %d, again: epochs %v still hold", failAt, k.holds.Past)
					}
				}
				k.equals(s, rs)
			}
			a.Close()
			changes = k.changes
		}
		if changes < failAt {
			break
		}
	}
	if failures < 10 {
		t.Errorf("only %d changes were made to fail", failures)
	}
}

// TestRefusedForAWholeTurn: the engine does not answer by an epoch that comes round
// again while the kernel refuses everything.
func TestRefusedForAWholeTurn(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	a := k.applier(compile.Options{})
	defer a.Close()
	if _, _, err := a.Apply(state(1, "ab", "a", "")); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * epochs {
		k.failAt = k.changes + 1
		if _, _, err := a.Apply(state(2, "ab", "b", "")); err == nil {
			t.Fatal("the kernel refused, and no error")
		}
		if f := k.engine.InForce(); i > epochs && f != nil {
			t.Fatalf("the engine still answers by epoch %d", f.Epoch)
		}
	}
	if _, _, err := a.Apply(state(3, "ab", "ab", "")); err != nil {
		t.Fatal(err)
	}
	if f := k.engine.InForce(); f == nil || f.Generation() != 3 {
		t.Error("the engine does not answer again")
	}
}

// TestWheel turns the wheel twice. put checks that no epoch is entered before the marks
// of the last turn are gone.
func TestWheel(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	a := k.applier(compile.Options{})
	for g := range uint64(2*epochs + 3) {
		ingress := "a"
		if g%2 == 1 {
			ingress = "ab"
		}
		if _, _, err := a.Apply(state(g+1, "abc", ingress, "")); err != nil {
			t.Fatal(err)
		}
		if int(g) > 2 && len(k.holds.Past) == 0 {
			t.Errorf("generation %d: nothing of the past holds", g+1)
		}
	}
	a.Close()
	if k.changes != 2*epochs+3 {
		t.Errorf("%d changes", k.changes)
	}
}

// TestTakesOver: whichever epoch the kernel is in at the start, flows may carry marks of any.
// Somebody may have put the table of another day back in while no postern ran.
func TestTakesOver(t *testing.T) {
	t.Parallel()
	for was := range uint32(epochs) {
		k := newKernel(t)
		k.in, k.holds.Epoch = true, was
		for e := range uint32(epochs) {
			k.marks[e] = true
		}
		a := k.applier(compile.Options{})
		for g := range uint64(epochs) {
			if _, _, err := a.Apply(state(g+1, "abc", "ab"[g%2:], "")); err != nil {
				t.Fatal(err)
			}
		}
		a.Close()
	}
}

// TestGone: an address that leaves, or goes to another pod, is dirty, and its flows are
// swept.
func TestGone(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	a := k.applier(compile.Options{})
	s := state(1, "abc", "", "")
	other := state(2, "bc", "", "")
	other.Endpoints[0].Name = "another"
	for _, s := range []*policy.Snapshot{s, other} {
		if _, _, err := a.Apply(s); err != nil {
			t.Fatal(err)
		}
	}
	a.Close()
	want := append(slices.Clone(s.Endpoints[0].Addrs), s.Endpoints[1].Addrs...)
	slices.SortFunc(want, netip.Addr.Compare)
	if len(k.judged) != 1 {
		t.Fatalf("%d sweeps, want one: %v", len(k.judged), k.judged)
	}
	if got := k.judged[0].gone; !slices.Equal(got, want) {
		t.Errorf("swept flows of %v, want of %v", got, want)
	}
	for _, gone := range want {
		if _, dirty := slices.BinarySearchFunc(k.holds.Dirty, gone, netip.Addr.Compare); !dirty {
			t.Errorf("%v is not dirty", gone)
		}
	}
}

// TestPodsOfThisNode: pods that name another node are not this one's.
func TestPodsOfThisNode(t *testing.T) {
	t.Parallel()
	s := state(1, "abc", "abc", "")
	s.Endpoints[0].Node, s.Endpoints[1].Node = "here", "there"
	k := newKernel(t)
	if _, _, err := k.applier(compile.Options{Node: "here"}).Apply(s); err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(s.Endpoints[0].Addrs, s.Endpoints[2].Addrs)
	slices.SortFunc(want, netip.Addr.Compare)
	if !slices.Equal(k.holds.Pods, want) || !slices.Equal(k.holds.Ingress, want) {
		t.Errorf("told %v, want the pods %v", k.holds, want)
	}
}

// TestApplyIsQuiet: a snapshot that changes no decision costs the kernel nothing.
func TestApplyIsQuiet(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	a := k.applier(compile.Options{})
	s := state(1, "ab", "a", "")
	for g := range uint64(3) {
		same := *s
		same.Generation = g + 1
		if _, _, err := a.Apply(&same); err != nil {
			t.Fatal(err)
		}
	}
	if k.changes != 1 {
		t.Errorf("%d changes, want the first only", k.changes)
	}
}

// TestRepair: after a repair nothing of the past holds, all flows are judged, and marks of
// every epoch are taken off before it comes again: whoever changed the table may have put
// an old one in.
func TestRepair(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	a := k.applier(compile.Options{})
	defer a.Close()
	if err := a.Repair(); err != nil || k.changes != 0 {
		t.Errorf("before a first state: %v, %d changes", err, k.changes)
	}
	for g := range uint64(4 * epochs) {
		rs, _, err := a.Apply(state(g+1, "abc", "ab"[g%2:], ""))
		if err != nil {
			t.Fatal(err)
		}
		if g%3 == 0 {
			continue
		}
		a.join()
		k.mu.Lock()
		for e := range uint32(epochs) { // by the rules of an old table
			if f := k.engine.InForce(); f.Epoch != e {
				k.marks[e] = true
			}
		}
		k.mu.Unlock()
		before := len(k.judged)
		if g%3 == 1 {
			k.failAt = k.changes + 1
			if err := a.Repair(); !errors.Is(err, errKernel) {
				t.Fatal(err)
			}
		}
		if err := a.Repair(); err != nil {
			t.Fatal(err)
		}
		k.equals(state(g+1, "abc", "ab"[g%2:], ""), rs)
		if len(k.holds.Past) > 0 {
			t.Errorf("epochs %v still hold", k.holds.Past)
		}
		a.join()
		if got := k.judged[before:]; len(got) != 1 || !got[0].all {
			t.Errorf("judged %v, want all flows once", got)
		}
	}
	if k.distrusted == 0 {
		t.Error("the kernel was not told")
	}
}

// TestRetire: the last epoch lets live flows go on and forgets the ways.
func TestRetire(t *testing.T) {
	t.Parallel()
	for changes := range uint64(2 * epochs) { // wherever the wheel stands
		k := newKernel(t)
		a := k.applier(compile.Options{})
		for g := range changes {
			if _, _, err := a.Apply(state(g+1, "abc", "ab"[g%2:], "")); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Retire(); err != nil {
			t.Fatal(err)
		}
		a.Close()
		switch {
		case changes == 0 && k.in:
			t.Error("nothing was in force, and the kernel was touched")
		case changes > 0 && (!k.holds.ForgetWays || len(k.holds.Past) == 0 || len(k.holds.Ingress) == 0):
			t.Errorf("after %d changes the kernel was told %+v", changes, k.holds)
		}
	}
}
