package lint

import (
	"fmt"
	"math/bits"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// The random world is small, and the criteria of its rules are taken from short
// lists, so that one rule often implies another, and nearly does so more often.
var (
	someSelectors = selectors("", "", "all()", `app == "x"`, `app != "x"`, `has(app)`, "has("+namespaceLabel+")")
	someNSs       = selectors("", "", "", "all()", "global()", `env == "x"`, `env != "x"`)
	someSAs       = selectors("", "all()", `role == "x"`, `role != "x"`)
	someNets      = [][]netip.Prefix{nil, nil, nets("10.0.0.0/24"), nets("10.0.0.0/30", "192.0.2.0/24"), nets("0.0.0.0/0"), nets("fd00::/64"), nets("10.0.0.2/32", "fd00::/16")}
	somePorts     = [][]policy.Port{nil, nil, {port(80, 80)}, {port(1, 100)}, {{Name: "http"}}, {port(80, 80), {Name: "http"}}, {port(53, 53)}}
	someProtocols = []*policy.Protocol{nil, nil, {Number: flow.TCP, ByName: true}, {Number: flow.TCP}, {Number: flow.UDP}, {Number: flow.ICMP, ByName: true}, {Number: flow.ICMP}}
	someNames     = [][]string{nil, nil, {"api"}, {"api", "web"}, {"web"}, {"none"}}
	someICMP      = []*policy.ICMPMatch{nil, nil, nil, {Type: 8}, {Type: 8, Code: new(uint8)}, {Type: 3}}
	someServices  = []*policy.ServiceRef{nil, nil, nil, nil, {Namespace: "a", Name: "svc"}, {Namespace: "a", Name: "none"}}
	someHTTP      = []*policy.HTTPMatch{nil, nil, nil, {Methods: []string{"GET"}}}
	someActions   = []policy.Action{policy.Allow, policy.Deny, policy.Pass, policy.Log}
)

func selectors(texts ...string) (out []*selector.Selector) {
	for _, text := range texts {
		if text == "" {
			out = append(out, nil)
			continue
		}
		out = append(out, selector.MustParse(text))
	}
	return out
}

func nets(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func port(min, max uint16) policy.Port {
	return policy.Port{PortRange: flow.PortRange{Min: min, Max: max}}
}

// draw takes the choices of a random world.
type draw struct{ *rapid.T }

func pick[E any](d draw, from []E) E { return from[d.below(len(from))] }

func (d draw) chance(in int) bool { return d.below(in) == 0 }

// below gives 0 to n-1. It draws bits, which are even: of integers rapid prefers
// the small ones, and what comes late in a list would hardly be tried.
func (d draw) below(n int) int {
	v := 0
	for range bits.Len(uint(n)) + 2 {
		v *= 2
		if coin.Draw(d.T, "bit") {
			v++
		}
	}
	return v % n
}

var coin = rapid.Bool()

func (d draw) entity() (n policy.EntityRule) {
	if d.chance(2) {
		return n
	}
	if n.Service = pick(d, someServices); n.Service != nil {
		return n
	}
	n.Nets, n.Ports, n.Selector, n.NamespaceSelector = pick(d, someNets), pick(d, somePorts), pick(d, someSelectors), pick(d, someNSs)
	if d.chance(3) {
		n.NotNets = pick(d, someNets)
	}
	if d.chance(3) {
		n.NotPorts = pick(d, somePorts)
	}
	if d.chance(3) {
		n.NotSelector = pick(d, someSelectors)
	}
	if d.chance(3) {
		n.ServiceAccounts = &policy.ServiceAccountMatch{Names: pick(d, someNames), Selector: pick(d, someSAs)}
	}
	return n
}

func (d draw) rule(before []policy.Rule) (r policy.Rule) {
	if len(before) > 0 && !d.chance(3) {
		r = pick(d, before) // and then change a little of it
		r.ICMP, r.NotICMP, r.HTTP = nil, nil, nil
		switch d.below(6) {
		case 0:
			r.Source = d.entity()
		case 1:
			r.Destination = d.entity()
		case 2:
			r.Protocol = pick(d, someProtocols)
		case 3:
			r.Source.Ports, r.Destination.Nets = pick(d, somePorts), pick(d, someNets)
		case 4:
			r.Source.Selector, r.Destination.NotPorts = pick(d, someSelectors), pick(d, somePorts)
		}
	} else {
		r = policy.Rule{Source: d.entity(), Destination: d.entity(), Protocol: pick(d, someProtocols)}
	}
	r.Action = pick(d, someActions)
	if d.chance(4) {
		r.NotProtocol = pick(d, someProtocols)
	}
	if d.chance(4) {
		r.IPVersion = pick(d, []uint8{0, 4, 6})
	}
	if d.chance(3) {
		r.ICMP, r.NotICMP, r.HTTP = pick(d, someICMP), pick(d, someICMP), pick(d, someHTTP)
	}
	r.Index = len(before)
	return r
}

func (d draw) rules() (rules []policy.Rule) {
	for range d.below(5) {
		rules = append(rules, d.rule(rules))
	}
	return rules
}

func (d draw) policy(i int) *policy.Policy {
	p := &policy.Policy{
		Kind: policy.NetworkPolicy, Namespace: pick(d, []string{"a", "a", "b"}), Name: fmt.Sprint("p", i),
		Tier: pick(d, []string{policy.DefaultTier, policy.DefaultTier, "t1", "unlisted"}), Order: pick(d, []float64{1, 2, policy.Unordered}),
		Selector: pick(d, someSelectors), ServiceAccountSelector: pick(d, someSAs),
		AppliesIngress: !d.chance(4), Ingress: d.rules(),
	}
	if p.AppliesEgress = !p.AppliesIngress || d.chance(2); p.AppliesEgress {
		p.Egress = d.rules()
	}
	if d.chance(3) { // wide: it decides everything
		p.Selector, p.ServiceAccountSelector, p.Order = nil, nil, 1
		p.Ingress = append(p.Ingress, policy.Rule{Index: len(p.Ingress), Action: pick(d, someActions)})
	}
	if d.chance(2) {
		p.Kind, p.Namespace, p.NamespaceSelector = policy.GlobalNetworkPolicy, "", pick(d, selectors("", "", "all()", `env == "x"`, `env != "x"`))
		p.ApplyOnForward = d.chance(5)
		p.DoNotTrack = p.ApplyOnForward && d.chance(2)
	}
	return p
}

func (d draw) world() *policy.Snapshot {
	pod := func(namespace, name, account, label, v4, v6 string) *policy.Endpoint {
		ep := &policy.Endpoint{Namespace: namespace, Name: name, ServiceAccount: account, Addrs: []netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)},
			Ports: []policy.NamedPort{{Name: "http", Proto: flow.TCP, Port: 80}}}
		if label != "" {
			ep.Labels = map[string]string{"app": label}
		}
		return ep
	}
	s := &policy.Snapshot{
		Tiers: []policy.Tier{
			{Name: policy.AdminTier, Order: 1000, DefaultAction: policy.Pass}, {Name: policy.DefaultTier, Order: policy.DefaultTierOrder},
			{Name: policy.BaselineTier, Order: 1e7, DefaultAction: policy.Pass}, {Name: "t1", Order: 5, DefaultAction: policy.Pass},
		},
		Namespaces: []*policy.Namespace{{Name: "a", Labels: map[string]string{"env": "x"}}, {Name: "b"}},
		ServiceAccounts: []*policy.ServiceAccount{
			{Namespace: "a", Name: "api", Labels: map[string]string{"role": "x"}}, {Namespace: "b", Name: "web", Labels: map[string]string{"role": "y"}},
		},
		Endpoints: []*policy.Endpoint{
			pod("a", "one", "api", "x", "10.0.0.1", "fd00::1"), pod("a", "two", "web", "y", "10.0.0.2", "fd00::2"),
			pod("b", "three", "web", "", "10.0.0.3", "fd00::3"), pod("b", "four", "", "x", "10.0.0.4", "fd00::4"),
			pod("c", "five", "api", "y", "10.0.0.5", "fd00::5"), // its namespace has no object
		},
		HostEndpoints: []*policy.HostEndpoint{{Name: "h", Node: "n", InterfaceName: "*", Labels: map[string]string{"app": "x"}, ExpectedIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}},
		NetworkSets: []*policy.NetworkSet{
			{Kind: policy.GlobalNetworkSet, Name: "g", Labels: map[string]string{"app": "x", "pcsa.role": "x"}, Nets: nets("192.0.2.0/24", "fd00::2/128")},
			{Kind: policy.NetworkSetKind, Namespace: "a", Name: "s", Labels: map[string]string{"app": "y"}, Nets: nets("198.51.100.0/24")},
		},
		EndpointSlices: []*policy.EndpointSlice{{Namespace: "a", Name: "svc-1", Service: "svc", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Ports: []policy.ServicePort{{Proto: flow.TCP, Port: 80}}}},
	}
	for i := range 1 + d.below(5) {
		s.Policies = append(s.Policies, d.policy(i))
	}
	return s
}

// verdict is everything about a decision that removing what is never reached must
// not change.
type verdict struct {
	Tuple           string
	Verdict, Reason string
	Rule            string
	Logs            []string
	Status          explain.Status
}

// verdicts decides flows between all places, at both layers.
func verdicts(s *policy.Snapshot) (out []verdict) {
	places := [][]string{
		{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "192.0.2.1", "198.51.100.1", "203.0.113.1"},
		{"fd00::1", "fd00::2", "fd00::3", "fd00::4", "fd00::5", "2001:db8::1"},
	}
	e := explain.New(s, explain.Options{MismatchToRules: true})
	const pods = 5 // the first of each family; between others nothing is decided
	for _, family := range places {
		for i, src := range family {
			for j, dst := range family {
				if i >= pods && j >= pods {
					continue
				}
				t := flow.Tuple{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst)}
				for _, p := range []flow.Tuple{
					{Proto: flow.TCP, Ported: true, SrcPort: 80, DstPort: 80}, {Proto: flow.TCP, Ported: true, SrcPort: 4000, DstPort: 53},
					{Proto: flow.UDP, Ported: true, SrcPort: 4000, DstPort: 80}, {Proto: 47},
					{Proto: flow.ICMP, ICMPType: 8}, {Proto: flow.ICMP, ICMPType: 8, ICMPCode: 1}, {Proto: flow.ICMPv6, ICMPType: 3},
				} {
					p.Src, p.Dst = t.Src, t.Dst
					ev := e.Decide(p)
					v := verdict{Tuple: p.String(), Verdict: fmt.Sprint(ev.Verdict), Reason: string(ev.Reason)}
					if ev.Rule != nil {
						v.Rule = ev.Rule.String()
					}
					for _, l := range append(slices.Clone(ev.Egress.Logs), ev.Ingress.Logs...) {
						v.Logs = append(v.Logs, l.String())
					}
					out = append(out, v)
				}
				if j >= pods || i%2 == 1 {
					continue // requests are decided at pods only, and take long
				}
				p := flow.Tuple{Src: t.Src, Dst: t.Dst, Proto: flow.TCP, Ported: true, SrcPort: 4000, DstPort: 80}
				for _, method := range []string{"GET", "PUT"} {
					tr := e.ExplainRequest(p, explain.Request{
						Source: explain.Peer{Principal: "spiffe://d/ns/a/sa/api"}, HTTP: &explain.HTTP{Method: method, Path: "/"},
					})
					out = append(out, verdict{Tuple: method + " " + p.String(), Status: tr.Status})
				}
			}
		}
	}
	return out
}

// mend does to a copy of the snapshot what a finding says makes no difference. It
// tells whether the finding says so.
func mend(s *policy.Snapshot, f Finding) (*policy.Snapshot, bool) {
	i := slices.IndexFunc(s.Policies, func(p *policy.Policy) bool { return p.Key() == f.Object })
	if i < 0 {
		return nil, false
	}
	p := *s.Policies[i]
	var index int
	remove := func(rules []policy.Rule) []policy.Rule {
		return slices.DeleteFunc(slices.Clone(rules), func(r policy.Rule) bool { return r.Index == index })
	}
	inRule := strings.Contains(f.Field, "[")
	switch {
	case f.ID == UnreachablePolicy && f.Field == "spec.ingress":
		p.AppliesIngress = false
	case f.ID == UnreachablePolicy:
		p.AppliesEgress = false
	case f.ID == PolicySelectsNothing:
		p.AppliesIngress, p.AppliesEgress = false, false
	case f.ID == InertRules && f.Field == "spec.ingress":
		p.Ingress = nil
	case f.ID == InertRules:
		p.Egress = nil
	case inRule && neverMatches[f.ID]:
		if _, err := fmt.Sscanf(f.Field, "spec.ingress[%d]", &index); err == nil {
			p.Ingress = remove(p.Ingress)
		} else if _, err := fmt.Sscanf(f.Field, "spec.egress[%d]", &index); err == nil {
			p.Egress = remove(p.Egress)
		}
	default:
		return nil, false
	}
	mended := *s
	mended.Policies = slices.Clone(s.Policies)
	mended.Policies[i] = &p
	return &mended, true
}

// neverMatches are the findings that say of a rule that it has no effect now.
var neverMatches = map[string]bool{
	ShadowedRule: true, AccountClauseNeverMatches: true, AccountSelectorMatchesNothing: true, AccountNamesAndSelector: true,
	NamespaceSelectorNoMatch: true, SelectorMatchesNothing: true, ServiceNotFound: true,
}

// TestNoFalsePositives: what is reported as without effect can be taken away, and
// no flow and no request is decided otherwise.
func TestNoFalsePositives(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := draw{rt}.world()
		var want []verdict
		for _, f := range Check(s) {
			mended, ok := mend(s, f)
			if !ok {
				continue
			}
			if want == nil {
				want = verdicts(s)
			}
			if got := verdicts(mended); !reflect.DeepEqual(want, got) {
				rt.Fatalf("%s\nis not without effect (-with +without):\n%s", f, cmp.Diff(want, got))
			}
		}
	})
}

// TestWorldsAreWorthIt keeps the generator honest: what the properties are about has
// to come up in it. The seeds are fixed, and so is the outcome.
func TestWorldsAreWorthIt(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	gen := rapid.Custom(func(rt *rapid.T) []Finding { return Check(draw{rt}.world()) })
	for seed := range 400 {
		for _, f := range gen.Example(seed) {
			seen[f.ID]++
		}
	}
	for _, id := range []string{ShadowedRule, UnreachablePolicy, SelectorMatchesNothing, PassInLastTier} {
		if seen[id] < 5 {
			t.Errorf("%s came up %d times, want 5 (%v)", id, seen[id], seen)
		}
	}
}

// TestPassAllows: Pass in what is said to be the last tier is Allow.
func TestPassAllows(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := draw{rt}.world()
		s.Endpoints = slices.DeleteFunc(s.Endpoints, func(ep *policy.Endpoint) bool { return ep.Namespace == "c" }) // closed by its profile
		mended := *s
		mended.Policies = slices.Clone(s.Policies)
		for _, f := range Check(s) {
			if f.ID != PassInLastTier {
				continue
			}
			for i, p := range mended.Policies {
				if p.Key() != f.Object {
					continue
				}
				q := *p
				q.Ingress, q.Egress = slices.Clone(p.Ingress), slices.Clone(p.Egress)
				for _, d := range directions {
					for j, r := range q.Rules(d) {
						if ruleField(d, r.Index) == f.Field {
							q.Rules(d)[j].Action = policy.Allow
						}
					}
				}
				mended.Policies[i] = &q
			}
		}
		before, after := verdicts(s), verdicts(&mended)
		for i := range before {
			if before[i].Verdict != after[i].Verdict || before[i].Status != after[i].Status {
				rt.Fatalf("with Pass %v, with Allow %v", before[i], after[i])
			}
		}
	})
}

// TestLabels: labels are derived as package explain derives them.
func TestLabels(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := draw{rt}.world()
		s.Endpoints[0].Labels = map[string]string{"pcns.env": "forged", "app": "x", namespaceLabel: "b"}
		e := explain.New(s, explain.Options{})
		want := map[policy.Key]map[string]string{}
		for _, a := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "192.0.2.1", "198.51.100.1"} {
			id := e.Explain(flow.Tuple{Src: netip.MustParseAddr(a), Dst: netip.MustParseAddr(a)}).Source
			for _, o := range slices.Concat(id.Pods, id.HostEndpoints, id.NetworkSets) {
				want[policy.Key{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}] = o.Labels
			}
		}
		got := map[policy.Key]map[string]string{}
		for _, o := range newWorld(s).objects {
			got[o.Key] = o.labels
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("labels differ (-explain +lint):\n%s", diff)
		}
	})
}
