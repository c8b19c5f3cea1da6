package test

import (
	"math"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/test/worlds"
)

const flowsPerWorld = 80

func ruleset(t *rapid.T, s *policy.Snapshot) *filter.Ruleset {
	rs, _ := compile.Compile(s, compile.Options{})
	if rs == nil {
		t.Fatal("the world does not compile")
	}
	return rs
}

// with returns the world with other policies.
func with(s *policy.Snapshot, ps []*policy.Policy) *policy.Snapshot {
	c := *s
	c.Policies = ps
	return &c
}

// narrower checks that every flow that after allows was allowed before.
func narrower(t *rapid.T, d worlds.Draw, s *policy.Snapshot, before, after *filter.Ruleset) {
	for range flowsPerWorld {
		f := d.Tuple(s)
		if b, a := before.Decide(f), after.Decide(f); a.Verdict == filter.Accept && b.Verdict != filter.Accept {
			t.Fatalf("%s: was denied (%s) and is allowed now, by %+v", f, b.Reason, after.RuleInfo(a.Outcome().Rule))
		}
	}
}

// TestDenyOnTopOnlyNarrows: a security team that puts Deny rules before everything
// else, in a tier that passes on, never opens anything.
func TestDenyOnTopOnlyNarrows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		d := worlds.Draw{T: rt}
		s := d.Snapshot()
		before := ruleset(rt, s)
		deny := d.Policy(99)
		deny.Kind, deny.Namespace, deny.Name, deny.Staged = policy.GlobalNetworkPolicy, "", "deny-on-top", policy.Enforced
		deny.Tier, deny.Order, deny.DoNotTrack, deny.PreDNAT = "top", 0, false, false
		for _, rules := range [][]policy.Rule{deny.Ingress, deny.Egress} {
			for i := range rules {
				rules[i].Action = policy.Deny
			}
		}
		top := *s
		top.Tiers = append(slices.Clone(s.Tiers), policy.Tier{Name: "top", Order: -math.MaxFloat64, DefaultAction: policy.Pass})
		narrower(rt, d, s, before, ruleset(rt, with(&top, append(slices.Clone(s.Policies), deny))))
	})
}

// TestFewerAllowsOnlyNarrow: a policy that loses an Allow rule never allows more.
func TestFewerAllowsOnlyNarrow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		d := worlds.Draw{T: rt}
		s := d.Snapshot()
		before := ruleset(rt, s)
		ps := slices.Clone(s.Policies)
		i := d.Below(len(ps))
		p := *ps[i]
		without := func(rules []policy.Rule) (rest []policy.Rule) {
			for _, r := range rules {
				if r.Action != policy.Allow || d.Below(2) == 0 {
					rest = append(rest, r)
				}
			}
			return rest
		}
		p.Ingress, p.Egress = without(p.Ingress), without(p.Egress)
		ps[i] = &p
		narrower(rt, d, s, before, ruleset(rt, with(s, ps)))
	})
}

// nobody are references that resolve to nothing.
var nobody = []policy.EntityRule{
	{ServiceAccounts: &policy.ServiceAccountMatch{Names: []string{"nobody"}}},
	{ServiceAccounts: &policy.ServiceAccountMatch{Names: []string{""}}},
	{ServiceAccounts: &policy.ServiceAccountMatch{Selector: selector.MustParse(`app == "nothing has this"`)}},
	{ServiceAccounts: &policy.ServiceAccountMatch{Names: []string{"sa", "web"}, Selector: selector.MustParse(`app in {}`)}},
	{Selector: selector.MustParse(`has(nothing)`)},
	{NamespaceSelector: selector.MustParse(`projectcalico.org/name == "nowhere"`)},
	{NamespaceSelector: selector.MustParse("global()"), ServiceAccounts: &policy.ServiceAccountMatch{Names: []string{"sa"}}},
	{Service: &policy.ServiceRef{Namespace: "a", Name: "no-such-service"}},
	{Selector: selector.All(), NotSelector: selector.All()},
	{Ports: []policy.Port{{Name: "no-such-port"}}},
}

// TestEmptyReferenceMatchesNothing: a rule whose reference resolves to nothing is
// as good as absent, whatever its action.
func TestEmptyReferenceMatchesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		d := worlds.Draw{T: rt}
		s := d.Snapshot()
		with1, without := slices.Clone(s.Policies), slices.Clone(s.Policies)
		i := d.Below(len(s.Policies))
		p, q := *s.Policies[i], *s.Policies[i]
		r := policy.Rule{Action: worlds.One(d, []policy.Action{policy.Allow, policy.Deny, policy.Pass}), Index: 99}
		if e := worlds.One(d, nobody); d.Below(2) == 0 {
			r.Source = e
		} else {
			r.Destination = e
		}
		insert := func(rules []policy.Rule) []policy.Rule {
			return slices.Insert(slices.Clone(rules), d.Below(len(rules)+1), r)
		}
		p.Ingress, p.Egress = insert(p.Ingress), insert(p.Egress)
		with1[i], without[i] = &p, &q
		a, b := ruleset(rt, with(s, with1)), ruleset(rt, with(s, without))
		for range flowsPerWorld {
			f := d.Tuple(s)
			if x, y := a.Decide(f), b.Decide(f); x.Verdict != y.Verdict || x.Reason != y.Reason {
				rt.Fatalf("%s: %s (%s) with the rule %+v, %s (%s) without", f, x.Verdict, x.Reason, r, y.Verdict, y.Reason)
			}
		}
	})
}

// TestEventOrderDoesNotMatter: a store that got its objects in any order, twice, with
// others in between that went again, gives the snapshot of one that got them once.
func TestEventOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		d := worlds.Draw{T: rt}
		objects, others := asObjects(d.Snapshot()), asObjects(d.Snapshot())
		straight, roundabout := k8ssync.NewStore(), k8ssync.NewStore()
		straight.Replace(objects)

		wanted := map[policy.Key]bool{}
		for _, o := range objects {
			wanted[o.Key] = true
		}
		events := rapid.Permutation(append(slices.Concat(others, objects), objects...)).Draw(rt, "events")
		for _, o := range events {
			roundabout.Upsert(o)
			if d.Below(8) == 0 {
				roundabout.Snapshot() // looking must not matter either
			}
		}
		for _, o := range others {
			if !wanted[o.Key] {
				roundabout.Delete(o.Key)
			}
		}
		for _, o := range rapid.Permutation(objects).Draw(rt, "again") {
			roundabout.Upsert(o)
		}
		ignore := cmpopts.IgnoreFields(policy.Snapshot{}, "Generation")
		if diff := cmp.Diff(straight.Snapshot(), roundabout.Snapshot(), ignore, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
			rt.Fatalf("(-straight +roundabout):\n%s", diff)
		}
	})
}

// asObjects takes a world apart into what a source would bring.
func asObjects(s *policy.Snapshot) (objects []k8ssync.Object) {
	add := func(k policy.Kind, namespace, name string, v any) {
		objects = append(objects, k8ssync.Object{Key: policy.Key{Kind: k, Namespace: namespace, Name: name}, Value: v})
	}
	for _, n := range s.Namespaces {
		add(policy.NamespaceKind, "", n.Name, n)
	}
	for _, a := range s.ServiceAccounts {
		add(policy.ServiceAccountKind, a.Namespace, a.Name, a)
	}
	for _, e := range s.Endpoints {
		add(policy.PodKind, e.Namespace, e.Name, e)
	}
	for _, n := range s.NetworkSets {
		add(n.Kind, n.Namespace, n.Name, n)
	}
	for _, p := range s.Policies {
		add(p.Kind, p.Namespace, p.Name, p)
	}
	return objects
}
