package worlds

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// What worlds are made of.
var (
	someNamespaces = []string{"a", "b", "c"}
	someAccounts   = []string{"sa", "web", "web.v2"}
	someLabels     = []string{"app", "env", "role"}
	someValues     = []string{"x", "xy", "z"}
	reservedLabels = []string{"projectcalico.org/namespace", "projectcalico.org/serviceaccount", "projectcalico.org/orchestrator", "pcns.env", "pcsa.role"}
	someTiers      = []string{"t1", "t2", policy.DefaultTier, policy.BaselineTier}
	somePortNames  = []string{"http", "dns", "pg"}
	somePorts      = []uint16{53, 80, 81, 8080}
	somePrefixes   = prefixes("10.0.0.0/8", "10.0.0.0/24", "10.0.0.0/29", "10.0.0.4/30", "10.0.0.5/32", "10.0.1.0/24", "10.0.1.1/32", "192.0.2.0/24", "0.0.0.0/0",
		"fd00::/16", "fd00::/64", "fd00::/125", "fd00::5/128", "fd00:1::/64", "2001:db8::/32", "::/0")
	someAddresses = addresses("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.1.1", "10.0.1.2",
		"fd00::1", "fd00::2", "fd00::3", "fd00::4", "fd00::5", "fd00::6", "fd00::7", "fd00:1::1", "fd00:1::2")
	strangers = addresses("192.0.2.9", "203.0.113.9", "10.0.0.9", "2001:db8::9", "fd00::9", "fd02::9")
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addresses(texts ...string) (out []netip.Addr) {
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// Addresses lists every address that a flow of Tuple can have.
func Addresses() []netip.Addr { return slices.Concat(someAddresses, strangers) }

// Draw has the generators; each takes its choices from the rapid test.
type Draw struct{ *rapid.T }

// One draws one of the elements.
func One[E any](d Draw, from []E) E { return from[d.Below(len(from))] }

// Below gives 0 to n-1. It draws bits because rapid prefers small integers and
// bounds, which would make most worlds empty; bits are even, and shrink as well.
func (d Draw) Below(n int) int {
	v := 0
	for range bits.Len(uint(n-1)) + 3 {
		v *= 2
		if coin.Draw(d.T, "bit") {
			v++
		}
	}
	return v % n
}

var coin = rapid.Bool()

// Chance is true in percent of the cases, about.
func (d Draw) Chance(percent int) bool { return d.Below(100) < percent }

// some gives up to n elements, without repeats.
func some[E comparable](d Draw, n int, from []E) (out []E) {
	for range d.Below(n + 1) {
		if e := One(d, from); !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out
}

func (d Draw) labels() map[string]string {
	out := make(map[string]string)
	for _, k := range some(d, 3, someLabels) {
		out[k] = One(d, someValues)
	}
	return out
}

// forged are labels of which some are reserved.
func (d Draw) forged() map[string]string {
	out := d.labels()
	if d.Chance(25) {
		out[One(d, reservedLabels)] = One(d, slices.Concat(someValues, someNamespaces, someAccounts))
	}
	return out
}

func (d Draw) selector() *selector.Selector {
	switch d.Below(12) {
	case 0:
		return selector.Not(d.selector())
	case 1:
		return selector.And(d.selector(), d.selector())
	case 2:
		return selector.Or(d.selector(), d.selector())
	case 3:
		return selector.All()
	}
	label, value := One(d, someLabels), One(d, someValues)
	if d.Chance(15) {
		label, value = One(d, reservedLabels), One(d, slices.Concat(someValues, someNamespaces, someAccounts))
	}
	return selector.MustParse(fmt.Sprintf(One(d, []string{
		`%s == "%s"`, `%s != "%s"`, `%s in {"%s", "z"}`, `%s not in {"%s"}`, `%s starts with "%s"`, `%s ends with "%s"`, `%s contains "%s"`,
		`has(%s) && !has(no%s)`,
	}), label, value))
}

// maybe gives a selector or nil.
func (d Draw) maybe(percent int) *selector.Selector {
	if d.Chance(percent) {
		return d.selector()
	}
	return nil
}

// Snapshot draws a world with its policies.
func (d Draw) Snapshot() *policy.Snapshot {
	s := &policy.Snapshot{Generation: 7}
	s.Tiers = []policy.Tier{
		{Name: policy.DefaultTier, Order: policy.DefaultTierOrder},
		{Name: policy.AdminTier, Order: 1000, DefaultAction: policy.Pass},
		{Name: policy.BaselineTier, Order: 1e7, DefaultAction: policy.Pass},
	}
	for _, name := range some(d, 2, someTiers[:2]) {
		s.Tiers = append(s.Tiers, policy.Tier{
			Name: name, Order: float64(d.Below(3)-1) * 1e6, DefaultAction: One(d, []policy.Action{policy.Deny, policy.Pass}),
		})
	}
	for _, name := range someNamespaces {
		if d.Chance(90) {
			s.Namespaces = append(s.Namespaces, &policy.Namespace{Name: name, Labels: d.labels()})
		}
		for _, account := range someAccounts {
			if d.Chance(75) {
				s.ServiceAccounts = append(s.ServiceAccounts, &policy.ServiceAccount{Namespace: name, Name: account, Labels: d.labels()})
			}
		}
	}
	d.addPods(s)
	for i := range d.Below(4) {
		set := &policy.NetworkSet{Kind: policy.GlobalNetworkSet, Name: fmt.Sprint("set", i), Labels: d.forged(), Nets: some(d, 3, somePrefixes)}
		if d.Chance(60) {
			set.Kind, set.Namespace = policy.NetworkSetKind, One(d, someNamespaces)
		}
		s.NetworkSets = append(s.NetworkSets, set)
	}
	for i := range d.Below(3) {
		s.EndpointSlices = append(s.EndpointSlices, &policy.EndpointSlice{
			Namespace: One(d, someNamespaces[:2]), Name: fmt.Sprint("slice", i), Service: One(d, []string{"svc", "svc2"}),
			Addrs: some(d, 4, slices.Concat(someAddresses, strangers)), Ports: d.servicePorts(),
		})
	}
	d.addHosts(s)
	for i := range 2 + d.Below(8) {
		s.Policies = append(s.Policies, d.Policy(i))
	}
	slices.SortFunc(s.Policies, func(a, b *policy.Policy) int { return strings.Compare(a.Key().String(), b.Key().String()) })
	s.Policies = slices.CompactFunc(s.Policies, func(a, b *policy.Policy) bool { return a.Key() == b.Key() })
	return s
}

func (d Draw) addPods(s *policy.Snapshot) {
	free := rapid.Permutation(someAddresses).Draw(d.T, "addresses")
	for i := range 4 + d.Below(6) {
		ep := &policy.Endpoint{
			Namespace: One(d, someNamespaces), Name: fmt.Sprint("pod", i), ServiceAccount: One(d, append([]string{""}, someAccounts...)),
			Node: One(d, []string{"", "n1", "n1", "n2"}), Labels: d.forged(), Ports: d.namedPorts(),
		}
		ep.Addrs, free = free[:1+i%2], free[1+i%2:]
		if d.Chance(4) {
			ep.Addrs = append(slices.Clone(ep.Addrs), someAddresses[0])
		}
		s.Endpoints = append(s.Endpoints, ep)
	}
	slices.SortFunc(s.Endpoints, func(a, b *policy.Endpoint) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
}

func (d Draw) addHosts(s *policy.Snapshot) {
	for i := range d.Below(3) {
		s.HostEndpoints = append(s.HostEndpoints, &policy.HostEndpoint{
			Name: fmt.Sprint("host", i), Node: One(d, []string{"n1", "n2"}), InterfaceName: One(d, []string{"*", "eth0"}), Labels: d.forged(),
			ExpectedIPs: some(d, 2, slices.Concat(someAddresses, strangers)), Ports: d.namedPorts(),
			Profiles: some(d, 2, []string{policy.DefaultAllowProfile, "prof", "missing", "kns.a", "ksa.a.default"}),
		})
	}
	if d.Chance(60) {
		s.Profiles = append(s.Profiles, &policy.Profile{Name: "prof", LabelsToApply: d.forged(), Ingress: d.Rules(), Egress: d.Rules()})
	}
}

func (d Draw) namedPorts() (out []policy.NamedPort) {
	for range d.Below(3) {
		out = append(out, policy.NamedPort{Name: One(d, somePortNames), Proto: One(d, []flow.Proto{flow.TCP, flow.UDP}), Port: One(d, somePorts)})
	}
	return out
}

func (d Draw) servicePorts() (out []policy.ServicePort) {
	for range d.Below(3) {
		out = append(out, policy.ServicePort{Proto: One(d, []flow.Proto{flow.TCP, flow.UDP}), Port: One(d, somePorts)})
	}
	return out
}

// Policy draws a policy; i makes some of the names unique.
func (d Draw) Policy(i int) *policy.Policy {
	p := &policy.Policy{
		Kind: One(d, []policy.Kind{policy.NetworkPolicy, policy.NetworkPolicy, policy.GlobalNetworkPolicy, policy.GlobalNetworkPolicy, policy.KubernetesNetworkPolicy,
			policy.StagedNetworkPolicy, policy.StagedGlobalNetworkPolicy, policy.StagedKubernetesNetworkPolicy}),
		Name: One(d, []string{"p", "p", "p-x", "p1", "p10", fmt.Sprint("p", i)}), Tier: One(d, someTiers), Order: One(d, []float64{-1, 10, 10, 1000, policy.Unordered}),
		Selector: d.maybe(40), ServiceAccountSelector: d.maybe(15),
	}
	switch p.Kind {
	case policy.StagedNetworkPolicy, policy.StagedGlobalNetworkPolicy, policy.StagedKubernetesNetworkPolicy:
		p.Staged = One(d, []policy.StagedAction{policy.StagedSet, policy.StagedLearn, policy.StagedIgnore, policy.StagedDelete})
	}
	if p.Kind == policy.GlobalNetworkPolicy || p.Kind == policy.StagedGlobalNetworkPolicy {
		p.NamespaceSelector = d.maybe(30)
		p.ApplyOnForward = d.Chance(20)
		p.DoNotTrack = p.ApplyOnForward && d.Chance(30)
		p.PreDNAT = p.ApplyOnForward && !p.DoNotTrack && d.Chance(30)
	} else {
		p.Namespace = One(d, someNamespaces)
	}
	p.AppliesEgress = d.Chance(60) && !p.PreDNAT
	p.AppliesIngress = !p.AppliesEgress || d.Chance(60)
	p.Ingress, p.Egress = d.Rules(), d.Rules()
	d.addHTTP(p.Ingress)
	for i := range p.Ingress {
		p.Ingress[i].Destination.Service = nil
	}
	for i := range p.Egress {
		p.Egress[i].Source.Service = nil
	}
	return p
}

// Rules draws up to four rules.
func (d Draw) Rules() (out []policy.Rule) {
	for i := range d.Below(5) {
		out = append(out, d.Rule(i))
	}
	return out
}

// Rule draws the rule with an index.
func (d Draw) Rule(i int) policy.Rule {
	r := policy.Rule{Index: i, Action: One(d, []policy.Action{policy.Allow, policy.Allow, policy.Deny, policy.Pass, policy.Log})}
	six := d.Chance(40)
	if d.Chance(15) {
		r.IPVersion = 4
		if six {
			r.IPVersion = 6
		}
	}
	if d.Chance(40) {
		r.Protocol = &policy.Protocol{Number: One(d, []flow.Proto{flow.TCP, flow.TCP, flow.UDP, flow.ICMP, flow.ICMPv6, 47}), ByName: d.Chance(70)}
	}
	if d.Chance(10) {
		r.NotProtocol = &policy.Protocol{Number: One(d, []flow.Proto{flow.TCP, flow.UDP, flow.ICMP}), ByName: d.Chance(50)}
	}
	if r.Protocol != nil && (r.Protocol.Number == flow.ICMP || r.Protocol.Number == flow.ICMPv6) {
		r.ICMP, r.NotICMP = d.icmp(), d.icmp()
	}
	r.Source, r.Destination = d.entity(six), d.entity(six)
	return r
}

func (d Draw) icmp() *policy.ICMPMatch {
	if d.Chance(60) {
		return nil
	}
	m := &policy.ICMPMatch{Type: uint8(d.Below(2))}
	if d.Chance(50) {
		code := uint8(d.Below(2))
		m.Code = &code
	}
	return m
}

func (d Draw) entity(six bool) (e policy.EntityRule) {
	if d.Chance(45) {
		return e
	}
	if d.Chance(10) {
		e.Service = &policy.ServiceRef{Namespace: One(d, someNamespaces[:2]), Name: One(d, []string{"svc", "svc2"})}
		return e
	}
	family := someFamily(six)
	if d.Chance(25) {
		e.Nets = some(d, 3, family)
	}
	if d.Chance(12) {
		e.NotNets = some(d, 2, family)
	}
	e.Selector, e.NotSelector, e.NamespaceSelector = d.maybe(20), d.maybe(15), d.maybe(15)
	if d.Chance(4) {
		e.NamespaceSelector = selector.MustParse("global()")
	}
	if d.Chance(20) {
		e.ServiceAccounts = &policy.ServiceAccountMatch{Names: some(d, 2, someAccounts), Selector: d.maybe(40)}
	}
	if d.Chance(25) {
		e.Ports = d.ports()
	}
	if d.Chance(10) {
		e.NotPorts = d.ports()
	}
	return e
}

func someFamily(six bool) (out []netip.Prefix) {
	for _, p := range somePrefixes {
		if p.Addr().Is6() == six {
			out = append(out, p)
		}
	}
	return out
}

func (d Draw) ports() (out []policy.Port) {
	for range d.Below(4) {
		if d.Chance(50) {
			out = append(out, policy.Port{Name: One(d, somePortNames)})
		} else {
			low := One(d, somePorts)
			out = append(out, policy.Port{PortRange: flow.PortRange{Min: low, Max: max(low, One(d, somePorts))}})
		}
	}
	return out
}

// Tuple draws a flow, mostly between pods of the world.
func (d Draw) Tuple(s *policy.Snapshot) flow.Tuple {
	t := flow.Tuple{Src: d.address(s), Dst: d.address(s)}
	for t.Src.Is4() != t.Dst.Is4() {
		t.Dst = d.address(s)
	}
	t.Proto = One(d, []flow.Proto{flow.TCP, flow.TCP, flow.TCP, flow.UDP, flow.UDP, flow.ICMP, flow.ICMPv6, 47})
	t.SrcPort, t.DstPort = One(d, somePorts), One(d, somePorts) // without meaning unless Ported
	switch {
	case t.Proto.HasPorts():
		t.Ported = d.Chance(85)
	case t.Proto == flow.ICMP || t.Proto == flow.ICMPv6:
		t.ICMPType, t.ICMPCode = uint8(d.Below(2)), uint8(d.Below(2))
	}
	return t
}

func (d Draw) address(s *policy.Snapshot) netip.Addr {
	switch n := d.Below(20); {
	case n < 16:
		return One(d, One(d, s.Endpoints).Addrs)
	case n < 18:
		return One(d, someAddresses)
	}
	return One(d, strangers)
}
