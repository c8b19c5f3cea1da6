package lint

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

const criteria = 14

// criterion sets one criterion of a rule at random: which may be any, and is focus
// in every other case.
func (d draw) criterion(r *policy.Rule, focus int) {
	n := &r.Source
	if d.chance(3) {
		n = &r.Destination
	}
	if d.chance(2) {
		focus = d.below(criteria)
	}
	switch focus {
	case 0:
		n.Nets = pick(d, someNets)
	case 1:
		n.NotNets = pick(d, someNets)
	case 2:
		n.Ports = pick(d, somePorts)
	case 3:
		n.NotPorts = pick(d, somePorts)
	case 4:
		n.Selector = pick(d, someSelectors)
	case 5:
		n.NotSelector = pick(d, someSelectors)
	case 6:
		n.NamespaceSelector = pick(d, someNSs)
	case 7:
		n.ServiceAccounts = &policy.ServiceAccountMatch{Names: pick(d, someNames), Selector: pick(d, someSAs)}
	case 8:
		r.Protocol = pick(d, someProtocols)
	case 9:
		r.NotProtocol = pick(d, someProtocols)
	case 10:
		r.ICMP = pick(d, someICMP)
	case 11:
		r.NotICMP = pick(d, someICMP)
	case 12:
		r.HTTP = pick(d, someHTTP)
	case 13:
		n.Service = pick(d, someServices)
	}
}

// TestCoversRule: what the inner of two similar rules allows, the outer allows.
func TestCoversRule(t *testing.T) {
	covered, not := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		d := draw{rt}
		s := d.world()
		for range 4 {
			inner := policy.Rule{Action: policy.Allow, IPVersion: pick(d, []uint8{0, 0, 0, 4, 6})}
			focus := d.below(criteria)
			for range d.below(4) {
				d.criterion(&inner, focus)
			}
			outer := inner
			d.criterion(&outer, focus)
			namespace := pick(d, []string{"", "a"})
			if !coversRule(&outer, &inner, namespace) {
				not++
				continue
			}
			covered++
			a, b := verdicts(allowing(s, namespace, inner)), verdicts(allowing(s, namespace, outer))
			for i := range a {
				if a[i].Verdict == string(explain.Allow) && b[i].Verdict != string(explain.Allow) ||
					a[i].Status == explain.StatusOK && b[i].Status != explain.StatusOK {
					rt.Fatalf("%v matches the inner rule only\ninner %+v\nouter %+v", a[i], inner, outer)
				}
			}
		}
	})
	if n := covered + not; covered < n/5 || not < n/5 {
		t.Errorf("%d pairs covered and %d not: the random rules do not test it", covered, not)
	}
}

// allowing gives the world with one policy, of one rule.
func allowing(s *policy.Snapshot, namespace string, r policy.Rule) *policy.Snapshot {
	p := &policy.Policy{Kind: policy.NetworkPolicy, Namespace: namespace, Name: "p", Tier: policy.DefaultTier, AppliesIngress: true, Ingress: []policy.Rule{r}}
	if namespace == "" {
		p.Kind = policy.GlobalNetworkPolicy
	}
	only := *s
	only.Policies = []*policy.Policy{p}
	return &only
}

// TestCoversRuleNearMisses: pairs that differ in one criterion, most of which a
// hasty comparison would take for an implication.
func TestCoversRuleNearMisses(t *testing.T) {
	t.Parallel()
	type rule = policy.Rule
	src := func(n policy.EntityRule) rule { return rule{Source: n} }
	echo, echo0 := &policy.ICMPMatch{Type: 8}, &policy.ICMPMatch{Type: 8, Code: new(uint8)}
	x, y := selector.MustParse(`app == "x"`), selector.MustParse(`app == "y"`)
	http, web := []policy.Port{{Name: "http"}}, []policy.Port{port(80, 80)}
	for _, tt := range []struct {
		title        string
		outer, inner rule
		namespace    string
		want         bool
	}{
		{"code of a type", rule{ICMP: echo}, rule{ICMP: echo0}, "", true},
		{"any code", rule{ICMP: echo0}, rule{ICMP: echo}, "", false},
		{"all but any code", rule{NotICMP: echo0}, rule{NotICMP: echo}, "", true},
		{"all but one code", rule{NotICMP: echo}, rule{NotICMP: echo0}, "", false},
		{"narrower prefix", src(policy.EntityRule{Nets: nets("10.0.0.0/24")}), src(policy.EntityRule{Nets: nets("10.0.0.0/30")}), "", true},
		{"wider prefix of the same address", src(policy.EntityRule{Nets: nets("10.0.0.0/30")}), src(policy.EntityRule{Nets: nets("10.0.0.0/24")}), "", false},
		{"prefix of the other family", src(policy.EntityRule{Nets: nets("0.0.0.0/0")}), src(policy.EntityRule{Nets: nets("::/0")}), "", false},
		{"excluded prefix grows", src(policy.EntityRule{NotNets: nets("10.0.0.0/30")}), src(policy.EntityRule{NotNets: nets("10.0.0.0/24")}), "", true},
		{"excluded prefix shrinks", src(policy.EntityRule{NotNets: nets("10.0.0.0/24")}), src(policy.EntityRule{NotNets: nets("10.0.0.0/30")}), "", false},
		{"excluded prefix takes a family away", src(policy.EntityRule{NotNets: nets("10.0.0.0/30")}), src(policy.EntityRule{NotNets: nets("10.0.0.0/24", "fd00::/64")}), "", false},
		{"named port", src(policy.EntityRule{Ports: http}), src(policy.EntityRule{Ports: http, Selector: x}), "", true},
		{"named port of other pods", src(policy.EntityRule{Ports: http, Selector: x}), src(policy.EntityRule{Ports: http}), "", false},
		{"named port, excluded on fewer pods", src(policy.EntityRule{NotPorts: http}), src(policy.EntityRule{NotPorts: http, Selector: x}), "", false},
		{"excluded port and more", src(policy.EntityRule{NotPorts: web}), src(policy.EntityRule{NotPorts: append(http, web...)}), "", true},
		{"a name is not a number", src(policy.EntityRule{Ports: web}), src(policy.EntityRule{Ports: http}), "", false},
		{"own namespace", src(policy.EntityRule{NamespaceSelector: selector.All()}), src(policy.EntityRule{Selector: x}), "a", true},
		{"no namespace", src(policy.EntityRule{NamespaceSelector: selector.All()}), src(policy.EntityRule{Selector: x}), "", false},
		{"other namespaces", src(policy.EntityRule{Selector: x}), src(policy.EntityRule{Selector: x, NamespaceSelector: selector.All()}), "a", false},
		{"other namespaces of a global policy", src(policy.EntityRule{Selector: x}), src(policy.EntityRule{Selector: x, NamespaceSelector: selector.All()}), "", true},
		{"not alone is true of strangers", src(policy.EntityRule{Selector: selector.All()}), src(policy.EntityRule{NotSelector: y}), "", false},
		{"one object does not match, or none does", src(policy.EntityRule{NotSelector: y}), src(policy.EntityRule{Selector: x, NotSelector: y}), "", false},
		{"excluded objects", src(policy.EntityRule{Selector: x, NotSelector: y}), src(policy.EntityRule{Selector: x}), "", false},
		{"accounts of one label", src(policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Selector: x}}),
			src(policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Selector: y}}), "a", false},
		{"fewer names", src(policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Names: []string{"api", "web"}}}),
			src(policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Names: []string{"web"}}}), "a", true},
		{"more names", src(policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Names: []string{"web"}}}),
			src(policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Names: []string{"api", "web"}}}), "a", false},
		{"no names are no constraint", src(policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Names: []string{"web"}}}),
			src(policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{}}), "a", false},
		{"name of a protocol narrows the family", rule{Protocol: &policy.Protocol{Number: flow.ICMP, ByName: true}}, rule{Protocol: &policy.Protocol{Number: flow.ICMP}}, "", false},
		{"another protocol", rule{NotProtocol: &policy.Protocol{Number: flow.UDP}}, rule{Protocol: &policy.Protocol{Number: flow.TCP}}, "", true},
		{"requests of one method", rule{HTTP: &policy.HTTPMatch{Methods: []string{"GET"}}}, rule{}, "", false},
		{"port free of protocol", rule{Destination: policy.EntityRule{Ports: web}}, rule{}, "", false},
	} {
		if got := coversRule(&tt.outer, &tt.inner, tt.namespace); got != tt.want {
			t.Errorf("%s: covers is %t", tt.title, got)
		}
	}
}
