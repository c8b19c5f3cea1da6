package compile

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
	"github.com/postern-project/postern/test/worlds"
)

// mix gives a later state of old: some of its objects are gone, some are replaced
// by, and some are added from, those of another random world. Objects that stay
// are the same pointers, as a Store keeps them.
func mix[T any](d draw, old, other []*T, key func(*T) policy.Key) []*T {
	if d.chance(40) {
		return old
	}
	byKey := make(map[policy.Key]*T)
	for _, o := range old {
		if d.chance(85) {
			byKey[key(o)] = o
		}
	}
	for _, o := range other {
		if d.chance(25) {
			byKey[key(o)] = o
		}
	}
	return slices.SortedFunc(maps.Values(byKey), func(a, b *T) int { return compareKeys(key(a), key(b)) })
}

func (d draw) next(old *policy.Snapshot) *policy.Snapshot {
	other := d.snapshot()
	s := *old
	s.Generation++
	s.Policies = mix(d, old.Policies, other.Policies, (*policy.Policy).Key)
	s.Namespaces = mix(d, old.Namespaces, other.Namespaces, namespaceKey)
	s.ServiceAccounts = mix(d, old.ServiceAccounts, other.ServiceAccounts, accountObjectKey)
	s.Endpoints = relabelSome(d, mix(d, old.Endpoints, other.Endpoints, (*policy.Endpoint).Key), other.Endpoints)
	s.NetworkSets = mix(d, old.NetworkSets, other.NetworkSets, setKey)
	s.EndpointSlices = mix(d, old.EndpointSlices, other.EndpointSlices, sliceKey)
	if d.chance(10) {
		s.Tiers = other.Tiers
	}
	if d.chance(10) {
		s.Profiles = other.Profiles
	}
	if d.chance(10) {
		s.HostEndpoints = other.HostEndpoints
	}
	if len(s.Endpoints) == 0 {
		s.Endpoints = other.Endpoints
	}
	return &s
}

// relabelSome gives some pods the labels and ports of others, sometimes of one that is
// among them.
func relabelSome(d draw, pods, others []*policy.Endpoint) []*policy.Endpoint {
	if d.chance(40) {
		return pods
	}
	out := slices.Clone(pods)
	for i := range out {
		if d.chance(30) {
			like := one(d, slices.Concat(out, others))
			pod := *out[i]
			pod.Labels, pod.Ports = like.Labels, like.Ports
			out[i] = &pod
		}
	}
	return out
}

// podsByKey gives the pods that a Compiler has.
func (c *Compiler) podsByKey() map[policy.Key]*pod {
	out := make(map[policy.Key]*pod)
	for _, pods := range c.podsIn {
		for _, p := range pods {
			out[p.endpoint.Key()] = p
		}
	}
	return out
}

// TestIncrementalEqualsFresh follows random worlds through random changes. Each
// ruleset must answer as the one compiled from the same snapshot alone, and go on
// answering so when later ones are made.
func TestIncrementalEqualsFresh(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{"every endpoint hosted": {}, "one node": {Node: "n1"}, "pending": {Pending: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			followed := 0 // pods relabelled where they were
			defer func() {
				if followed == 0 && o.Node != "" { // those of this node are planned again
					t.Error("no pod was relabelled where it was")
				}
			}()
			rapid.Check(t, func(rt *rapid.T) {
				d := draw{rt}
				c, told := New(o), New(toldOf(o)) // told what changed
				s := d.snapshot()
				type past struct {
					s       *policy.Snapshot
					rs      *filter.Ruleset
					tuples  []flow.Tuple
					answers []answer
				}
				var history []past
				for step := range 3 {
					pods := make(map[policy.Key]*pod)
					if step > 0 {
						pods = c.podsByKey()
					}
					rs, problems := c.Apply(s)
					for key, p := range c.podsByKey() {
						if was := pods[key]; was == p && !slices.Contains(history[step-1].s.Endpoints, p.endpoint) {
							followed++
						}
					}
					fresh, wantProblems := Compile(s, o)
					if rs == nil || fresh == nil {
						rt.Fatal("no ruleset", problems, wantProblems)
					}
					if diff := cmp.Diff(wantProblems, problems); diff != "" {
						rt.Fatalf("step %d: problems (-fresh +incremental):\n%s", step, diff)
					}
					ruleset, _ := told.Apply(s)
					if diff := cmp.Diff(c.Effect(), told.Effect(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
						rt.Fatalf("step %d: effect (-incremental +updated):\n%s", step, diff)
					}
					p := past{s: s, rs: rs}
					for range 12 {
						tuple := d.tuple(s)
						want, got := engineAnswer(fresh, tuple), engineAnswer(rs, tuple)
						if !reflect.DeepEqual(want, got) {
							rt.Fatalf("step %d: %s (-fresh +incremental):\n%s", step, tuple, cmp.Diff(want, got))
						}
						if got := engineAnswer(ruleset, tuple); !reflect.DeepEqual(want, got) {
							rt.Fatalf("step %d: %s (-fresh +updated):\n%s", step, tuple, cmp.Diff(want, got))
						}
						p.tuples, p.answers = append(p.tuples, tuple), append(p.answers, got)
					}
					compareRest(rt, d, s, fresh, rs)
					compareRest(rt, d, s, fresh, ruleset)
					history = append(history, p)
					s = d.next(s)
				}
				for step, p := range history {
					for i, tuple := range p.tuples {
						if now := engineAnswer(p.rs, tuple); !reflect.DeepEqual(p.answers[i], now) {
							rt.Fatalf("ruleset of step %d changed: %s (-then +now):\n%s", step, tuple, cmp.Diff(p.answers[i], now))
						}
					}
				}
			})
		})
	}
}

// toldOf adds to options that the Compiler is told what changed.
func toldOf(o Options) Options {
	o.Changes = func(from, to *policy.Snapshot) ([]policy.Change, bool) { return changes(from, to), true }
	return o
}

// changes lists what a Store would tell.
func changes(old, now *policy.Snapshot) (out []policy.Change) {
	if !fewAlike(old, now) {
		out = append(out, policy.Change{New: &policy.Tier{}})
	}
	d := between(old, now)
	return slices.Concat(out, changesOf(d.namespaces), changesOf(d.accounts), changesOf(d.pods), relabelledOf(d.relabelled), changesOf(d.sets), changesOf(d.slices), changesOf(d.policies))
}

func changesOf[T any](p pair[T]) (out []policy.Change) {
	for _, o := range p.old {
		out = append(out, policy.Change{Old: o})
	}
	for _, n := range p.now {
		out = append(out, policy.Change{New: n})
	}
	return out
}

func relabelledOf(list []relabelled) (out []policy.Change) {
	for _, r := range list {
		out = append(out, policy.Change{Old: r.old, New: r.now})
	}
	return out
}

// compareRest compares what is not a decision between pods.
func compareRest(rt *rapid.T, d draw, s *policy.Snapshot, fresh, rs *filter.Ruleset) {
	for _, dir := range directions {
		if want, got := fresh.Protected(dir), rs.Protected(dir); !slices.Equal(want, got) {
			rt.Fatalf("protected %s: %v, want %v", dir, got, want)
		}
	}
	if want, got := fresh.Generation(), rs.Generation(); want != got {
		rt.Fatalf("generation %d, want %d", got, want)
	}
	for _, a := range worlds.Addresses() {
		want, wantOK := fresh.Endpoint(a)
		if got, ok := rs.Endpoint(a); got != want || ok != wantOK {
			rt.Fatalf("endpoint of %s: %+v, %v, want %+v, %v", a, got, ok, want, wantOK)
		}
	}
	want, got := fresh.Sizes(), rs.Sizes()
	if want != got {
		rt.Fatalf("sizes %+v, want %+v", got, want)
	}
	for _, h := range s.HostEndpoints {
		for range 10 {
			tuple, chain, dir := d.tuple(s), filter.HostChain(d.below(int(filter.HostChains))), one(d, directions[:])
			want, wantOK := fresh.DecideHost(h.Name, chain, dir, tuple)
			got, ok := rs.DecideHost(h.Name, chain, dir, tuple)
			want.Rule, got.Rule = 0, 0
			if want != got || ok != wantOK {
				rt.Fatalf("host %s %s %s, %s: %+v, want %+v", h.Name, chain, dir, tuple, got, want)
			}
		}
	}
}

// TestReadersSeeWholeSnapshots lets readers decide while a writer goes from state
// to state. In every state exactly one pod of a pair may be reached and the label
// that says which moves between them at once, in four ways: by the pods' labels,
// their account's, their namespace's, and by policy. An answer that is right for
// no state would be a mixture of two.
func TestReadersSeeWholeSnapshots(t *testing.T) {
	t.Parallel()
	states := pairStates()
	var engine filter.Engine
	c := New(Options{})
	apply := func(s *policy.Snapshot) {
		rs, problems := c.Apply(s)
		if rs == nil || len(problems) > 0 {
			t.Error(problems)
			return
		}
		engine.Swap(rs)
	}
	apply(states[0])
	client, pair := netip.MustParseAddr("10.0.0.1"), addresses("10.0.1.1", "10.0.1.2")
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			var cache filter.Cache // it must not outlast a snapshot either
			for turn := 0; !stop.Load(); turn++ {
				rs := engine.Ruleset()
				var verdicts [2]filter.Verdict
				for i, dst := range pair {
					var d filter.Decision
					tuple := flow.Tuple{Src: client, Dst: dst, Proto: flow.TCP, Ported: true, SrcPort: 4711, DstPort: 80}
					if turn%3 == 0 {
						d = rs.Decide(tuple)
					} else {
						cache.DecideInto(rs, &tuple, &d)
					}
					verdicts[i] = d.Verdict
				}
				// The generation says which may be reached.
				if open := rs.Generation() % 2; verdicts[open] != filter.Accept || verdicts[1-open] != filter.Drop {
					t.Errorf("generation %d: verdicts %v", rs.Generation(), verdicts)
					return
				}
			}
		})
	}
	for i := range 200 {
		s := *states[i%len(states)]
		s.Generation = uint64(i)
		apply(&s)
	}
	stop.Store(true)
	readers.Wait()
}

// pairStates gives states of which in the first, third and so on the first pod is
// open, and in the others the second.
func pairStates() []*policy.Snapshot {
	rule := func(key string) *policy.Policy {
		p := global("p", 1, policy.Rule{Action: policy.Allow})
		p.Selector = selector.MustParse(fmt.Sprintf("%s == 'yes'", key))
		return p
	}
	deny := global("z", 2)
	deny.Selector = selector.MustParse("app == 'pair'")
	var out []*policy.Snapshot
	for _, by := range []string{"open", "pcsa.open", "pcns.open", "app"} {
		for open := range 2 {
			s := &policy.Snapshot{Tiers: []policy.Tier{{Name: policy.DefaultTier, Order: policy.DefaultTierOrder}}}
			s.Namespaces = append(s.Namespaces, &policy.Namespace{Name: "client"})
			s.Endpoints = append(s.Endpoints, &policy.Endpoint{Namespace: "client", Name: "c", Addrs: addresses("10.0.0.1")})
			for i := range 2 {
				yes := map[string]string{"open": map[bool]string{true: "yes", false: "no"}[i == open]}
				none := map[string]string{}
				labels := func(which string) map[string]string {
					if by == which {
						return yes
					}
					return none
				}
				ns := fmt.Sprint("ns", i)
				s.Namespaces = append(s.Namespaces, &policy.Namespace{Name: ns, Labels: labels("pcns.open")})
				s.ServiceAccounts = append(s.ServiceAccounts, &policy.ServiceAccount{Namespace: ns, Name: "sa", Labels: labels("pcsa.open")})
				own := map[string]string{"app": "pair", "name": ns}
				maps.Copy(own, labels("open"))
				s.Endpoints = append(s.Endpoints, &policy.Endpoint{Namespace: ns, Name: "p", ServiceAccount: "sa", Labels: own, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 1, byte(i + 1)})}})
			}
			if by == "app" {
				p := rule("name")
				p.Selector = selector.MustParse(fmt.Sprintf("name == 'ns%d'", open))
				s.Policies = []*policy.Policy{p, deny}
			} else {
				s.Policies = []*policy.Policy{rule(by), deny}
			}
			out = append(out, s)
		}
	}
	return out
}

// TestChurnGivesBack changes labels, policies, sets and pods many times and back,
// and looks at what a Compiler and its Rulesets hold: as much as one that never saw
// any of it, give or take what it may waste before it begins anew.
func TestChurnGivesBack(t *testing.T) {
	t.Parallel()
	first := cluster(500, 100)
	first.NetworkSets = []*policy.NetworkSet{{Kind: policy.GlobalNetworkSet, Name: "set", Labels: map[string]string{"feed": "a"}, Nets: prefixes("198.51.100.0/24")}}
	c := New(Options{Node: "node1"})
	rs, _ := c.Apply(first)
	sizes, print, held := rs.Sizes(), rs.Footprint(), c.held()
	s := first
	for i := range 5_000 {
		next := *s
		switch i % 4 {
		case 0, 1:
			at := i * 7 % len(s.Endpoints)
			p := *s.Endpoints[at]
			p.Labels = map[string]string{"app": fmt.Sprint("app", i), "tier": fmt.Sprint(i % 3)}
			if i%8 == 1 {
				p.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)})}
			}
			next.Endpoints = slices.Clone(s.Endpoints)
			next.Endpoints[at] = &p
		case 2:
			at := i % len(s.Policies)
			p := *s.Policies[at]
			p.Ingress = []policy.Rule{{Action: policy.Allow, Source: policy.EntityRule{Selector: selector.Equals("app", fmt.Sprint("app", i)), Nets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 200, byte(i), 0}), 24)}}}}
			next.Policies = slices.Clone(s.Policies)
			next.Policies[at] = &p
		case 3:
			set := *s.NetworkSets[0]
			set.Labels = map[string]string{"feed": fmt.Sprint(i)}
			next.NetworkSets = []*policy.NetworkSet{&set}
		}
		s = &next
		if rs, _ = c.Apply(s); rs == nil {
			t.Fatal("no ruleset")
		}
		if waste := c.out.Garbage(); c.garbage > 8192 && waste > 0.6 {
			t.Fatalf("change %d: %d things thrown away, %.0f %% of numbers wasted", i, c.garbage, waste*100)
		}
	}
	rs, _ = c.Apply(first)
	if diff := cmp.Diff(sizes, rs.Sizes()); diff != "" {
		t.Errorf("sizes (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(held, c.held()); diff != "" {
		t.Errorf("held (-before +after):\n%s", diff)
	}
	c.rebuild(first)
	rs, _ = c.publish(1)
	if diff := cmp.Diff(print, rs.Footprint()); diff != "" {
		t.Errorf("footprint after a rebuild (-before +after):\n%s", diff)
	}
}

// held counts everything that has users.
func (c *Compiler) held() map[string]int {
	return map[string]int{
		"pods": c.pods, "pods by namespace": len(c.podsIn), "sets": len(c.sets), "identities": len(c.interned), "by namespace": len(c.identitiesIn), "by atom": live(c.byAtom), "stale": len(c.interned) - len(slices.Concat(slices.Collect(maps.Values(c.identitiesIn))...)),
		"addresses": c.single.Len(), "wide": len(c.wide), "pages": len(c.pages), "clashes": len(c.clash), "classes": len(c.classes), "nets": len(c.nets),
		"terms": len(c.byKey), "labels": len(c.byLabel), "others": len(c.others), "services": len(c.services), "named": len(c.named), "names": len(c.byName),
		"policies": len(c.policies), "policies by namespace": len(c.policiesIn), "by label": len(c.labelled), "global": len(c.global), "hosted": len(c.hosted),
		"segments": len(c.segments), "lists": len(c.lists), "left": len(c.left) + len(c.freed) + len(c.replan) + len(c.dirty) + len(c.was) + len(c.changed) + len(c.unused),
		"shapes": len(c.shapes), "notes": len(c.notes),
	}
}

// live counts what atoms stand for.
func live(byAtom []any) (n int) {
	for _, of := range byAtom {
		if of != nil {
			n++
		}
	}
	return n
}

// TestDeadLabelSets: numbers of label sets that are gone are given back at last.
func TestDeadLabelSets(t *testing.T) {
	t.Parallel()
	c := New(Options{Node: "n1"})
	version := func(v int) *policy.Snapshot {
		return &policy.Snapshot{Generation: uint64(v), Endpoints: []*policy.Endpoint{{
			Namespace: "a", Name: "p", Labels: map[string]string{"v": fmt.Sprint(v)}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		}}}
	}
	c.Apply(version(0))
	first := c.state
	c.byAtom, c.dead = append(c.byAtom, make([]any, maxDead)...), maxDead // of as many label sets
	for v := range 5000 {
		if c.Apply(version(v + 1)); c.state != first {
			break
		}
	}
	if c.state == first || len(c.byAtom) > 10 || c.dead != 0 {
		t.Errorf("%d numbers, %d of them of nothing", len(c.byAtom), c.dead)
	}
}
