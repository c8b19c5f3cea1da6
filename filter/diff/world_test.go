package diff

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// The random world is small, so that rules match and changes matter.
var (
	someNamespaces = []string{"a", "b"}
	someAccounts   = []string{"", "sa", "web"}
	someValues     = []string{"x", "y"}
	somePorts      = []uint16{1, 53, 80, 81, 65535}
	somePortNames  = []string{"http", "dns"}
	somePrefixes   = []string{"10.0.0.0/8", "10.0.0.0/29", "10.0.0.4/30", "10.0.0.5/32", "192.0.2.0/24", "192.0.2.128/25", "0.0.0.0/0",
		"fd00::/16", "fd00::/126", "fd00::5/128", "2001:db8::/32", "::/0"}
	strangers = []string{"192.0.2.9", "192.0.2.200", "203.0.113.9", "10.0.0.6", "10.9.9.9", "255.255.255.255",
		"2001:db8::9", "fd00::6", "fd00:9::9", "fe80::1", "::"}
)

// draw has the generators.
type draw struct{ *rapid.T }

func (d draw) below(n int) int { return rapid.IntRange(0, n-1).Draw(d.T, "n") }

// chance is true in percent of the cases, about.
func (d draw) chance(percent int) bool {
	v := 0
	for range 7 { // bits are even, where rapid's integers prefer small ones
		v *= 2
		if rapid.Bool().Draw(d.T, "bit") {
			v++
		}
	}
	return v*100 < percent*128
}

func one[E any](d draw, from []E) E { return rapid.SampledFrom(from).Draw(d.T, "one") }

func (d draw) labels() map[string]string {
	out := make(map[string]string)
	for _, k := range []string{"app", "env"} {
		if d.chance(50) {
			out[k] = one(d, someValues)
		}
	}
	if d.chance(30) {
		out["unread"] = one(d, someValues)
	}
	return out
}

func (d draw) maybe(percent int) *selector.Selector {
	if !d.chance(percent) {
		return nil
	}
	s := selector.MustParse(fmt.Sprintf(one(d, []string{`%s == "%s"`, `%s != "%s"`, `has(%s) || env == "%s"`}), one(d, []string{"app", "env"}), one(d, someValues)))
	if d.chance(10) {
		return selector.All()
	}
	return s
}

func (d draw) prefixes(six bool) (out []netip.Prefix) {
	for range d.below(3) {
		if p := netip.MustParsePrefix(one(d, somePrefixes)); p.Addr().Is6() == six && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

func (d draw) snapshot() *policy.Snapshot {
	s := &policy.Snapshot{Tiers: []policy.Tier{
		{Name: policy.DefaultTier, Order: policy.DefaultTierOrder},
		{Name: "t", Order: 1, DefaultAction: one(d, []policy.Action{policy.Deny, policy.Pass})},
	}}
	for _, name := range someNamespaces {
		if d.chance(90) {
			s.Namespaces = append(s.Namespaces, &policy.Namespace{Name: name, Labels: d.labels()})
		}
		for _, account := range someAccounts[1:] {
			if d.chance(75) {
				s.ServiceAccounts = append(s.ServiceAccounts, &policy.ServiceAccount{Namespace: name, Name: account, Labels: d.labels()})
			}
		}
	}
	for i := range 2 + d.below(4) {
		s.Endpoints = append(s.Endpoints, d.pod(i))
	}
	for i := range d.below(3) {
		set := &policy.NetworkSet{Kind: policy.NetworkSetKind, Namespace: one(d, someNamespaces), Name: fmt.Sprint("set", i), Labels: d.labels(), Nets: append(d.prefixes(false), d.prefixes(true)...)}
		if d.chance(50) {
			set.Kind, set.Namespace = policy.GlobalNetworkSet, ""
		}
		s.NetworkSets = append(s.NetworkSets, set)
	}
	if d.chance(40) {
		s.EndpointSlices = append(s.EndpointSlices, &policy.EndpointSlice{
			Namespace: "a", Name: "slice", Service: "svc", Addrs: []netip.Addr{netip.MustParseAddr(one(d, strangers)), d.podAddress(1, false)},
			Ports: []policy.ServicePort{{Proto: flow.TCP, Port: one(d, somePorts)}},
		})
	}
	if d.chance(30) {
		s.HostEndpoints = append(s.HostEndpoints, &policy.HostEndpoint{
			Name: "host", InterfaceName: "*", Labels: d.labels(), ExpectedIPs: []netip.Addr{netip.MustParseAddr("203.0.113.9")},
			Ports: []policy.NamedPort{{Name: "http", Proto: flow.TCP, Port: one(d, somePorts)}},
		})
	}
	for i := range 1 + d.below(4) {
		s.Policies = append(s.Policies, d.policy(i))
	}
	return s
}

func (d draw) podAddress(i int, six bool) netip.Addr {
	if six {
		return netip.MustParseAddr(fmt.Sprint("fd00::", i+1))
	}
	return netip.MustParseAddr(fmt.Sprint("10.0.0.", i+1))
}

func (d draw) pod(i int) *policy.Endpoint {
	ep := &policy.Endpoint{
		Namespace: one(d, someNamespaces), Name: fmt.Sprint("pod", i), ServiceAccount: one(d, someAccounts), Labels: d.labels(),
		Addrs: []netip.Addr{d.podAddress(i, false)},
	}
	if d.chance(5) {
		ep.Addrs[0] = d.podAddress(i+1, false) // conflicts
	}
	if d.chance(60) {
		ep.Addrs = append(ep.Addrs, d.podAddress(i, true))
	}
	if d.chance(10) {
		ep.Addrs = append(ep.Addrs, netip.MustParseAddr(fmt.Sprint("10.1.0.", i+1)))
	}
	for range d.below(3) {
		ep.Ports = append(ep.Ports, policy.NamedPort{Name: one(d, somePortNames), Proto: one(d, []flow.Proto{flow.TCP, flow.UDP}), Port: one(d, somePorts)})
	}
	return ep
}

func (d draw) policy(i int) *policy.Policy {
	p := &policy.Policy{
		Kind: policy.GlobalNetworkPolicy, Name: fmt.Sprint("p", i), Tier: one(d, []string{"t", policy.DefaultTier, "ghost"}), Order: one(d, []float64{1, 2, policy.Unordered}),
		Selector: d.maybe(40), ServiceAccountSelector: d.maybe(15), AppliesIngress: d.chance(70),
	}
	if d.chance(50) {
		p.Kind, p.Namespace = policy.NetworkPolicy, one(d, someNamespaces)
	} else {
		p.NamespaceSelector = d.maybe(30)
	}
	p.AppliesEgress = !p.AppliesIngress || d.chance(30)
	for i := range d.below(4) {
		r := d.rule(i)
		r.Source.Service, r.Destination.Service = d.service(), nil
		p.Ingress = append(p.Ingress, r)
	}
	for i := range d.below(4) {
		r := d.rule(i)
		r.Destination.Service = d.service()
		p.Egress = append(p.Egress, r)
	}
	return p
}

func (d draw) service() *policy.ServiceRef {
	if d.chance(90) {
		return nil
	}
	return &policy.ServiceRef{Namespace: "a", Name: "svc"}
}

func (d draw) rule(i int) policy.Rule {
	r := policy.Rule{Index: i, Action: one(d, []policy.Action{policy.Allow, policy.Allow, policy.Deny, policy.Pass, policy.Log})}
	six := d.chance(40)
	if d.chance(50) {
		r.Protocol = &policy.Protocol{Number: one(d, []flow.Proto{flow.TCP, flow.TCP, flow.UDP, flow.ICMP, flow.ICMPv6, 47}), ByName: d.chance(70)}
	}
	if d.chance(10) {
		r.NotProtocol = &policy.Protocol{Number: one(d, []flow.Proto{flow.TCP, flow.UDP, flow.ICMP, 50})}
	}
	if r.Protocol != nil && (r.Protocol.Number == flow.ICMP || r.Protocol.Number == flow.ICMPv6) {
		r.ICMP, r.NotICMP = d.icmp(), d.icmp()
	}
	r.Source, r.Destination = d.entity(six), d.entity(six)
	return r
}

func (d draw) icmp() *policy.ICMPMatch {
	if d.chance(50) {
		return nil
	}
	m := &policy.ICMPMatch{Type: uint8(d.below(2))}
	if d.chance(50) {
		code := uint8(d.below(3))
		m.Code = &code
	}
	return m
}

func (d draw) entity(six bool) (e policy.EntityRule) {
	if d.chance(35) {
		return e
	}
	if d.chance(40) {
		e.Nets = d.prefixes(six)
	}
	if d.chance(20) {
		e.NotNets = d.prefixes(six)
	}
	e.Selector, e.NotSelector, e.NamespaceSelector = d.maybe(25), d.maybe(10), d.maybe(15)
	if d.chance(20) {
		e.ServiceAccounts = &policy.ServiceAccountMatch{Names: []string{one(d, someAccounts[1:])}, Selector: d.maybe(30)}
	}
	if d.chance(30) {
		e.Ports = d.ports()
	}
	if d.chance(15) {
		e.NotPorts = d.ports()
	}
	return e
}

func (d draw) ports() (out []policy.Port) {
	for range 1 + d.below(2) {
		if d.chance(40) {
			out = append(out, policy.Port{Name: one(d, somePortNames)})
			continue
		}
		low := one(d, somePorts)
		out = append(out, policy.Port{PortRange: flow.PortRange{Min: low, Max: max(low, one(d, somePorts))}})
	}
	return out
}

// change gives another state of a world: most of it is the same.
func (d draw) change(s *policy.Snapshot) *policy.Snapshot {
	other, out := d.snapshot(), *s
	// Each field of the two snapshots is a slice; objects are exchanged by index.
	from, to := reflect.ValueOf(other).Elem(), reflect.ValueOf(&out).Elem()
	for i := range to.NumField() {
		if to.Field(i).Kind() != reflect.Slice || !d.chance(35) {
			continue
		}
		list := reflect.MakeSlice(to.Field(i).Type(), 0, 0)
		for k := range max(to.Field(i).Len(), from.Field(i).Len()) {
			source := to.Field(i)
			if d.chance(40) {
				source = from.Field(i)
			}
			if k < source.Len() {
				list = reflect.Append(list, source.Index(k))
			}
		}
		to.Field(i).Set(list)
	}
	return unique(&out)
}

// unique leaves one object of each name, as a store does.
func unique(s *policy.Snapshot) *policy.Snapshot {
	first := func() func(string) bool {
		seen := map[string]bool{}
		return func(k string) bool { was := seen[k]; seen[k] = true; return was }
	}
	seen := first()
	s.Endpoints = slices.DeleteFunc(slices.Clone(s.Endpoints), func(e *policy.Endpoint) bool { return seen(e.Key().String()) })
	seen = first()
	s.Policies = slices.DeleteFunc(slices.Clone(s.Policies), func(p *policy.Policy) bool { return seen(p.Key().String()) })
	seen = first()
	s.Namespaces = slices.DeleteFunc(slices.Clone(s.Namespaces), func(n *policy.Namespace) bool { return seen(n.Name) })
	seen = first()
	s.ServiceAccounts = slices.DeleteFunc(slices.Clone(s.ServiceAccounts), func(a *policy.ServiceAccount) bool { return seen(a.Namespace + "/" + a.Name) })
	seen = first()
	s.Tiers = slices.DeleteFunc(slices.Clone(s.Tiers), func(t policy.Tier) bool { return seen(t.Name) })
	slices.SortFunc(s.Endpoints, func(a, b *policy.Endpoint) int { return strings.Compare(podName(a), podName(b)) })
	return s
}

// traffic gives the protocol and ports of a flow of a family.
func (d draw) traffic(t flow.Tuple) flow.Tuple {
	protos := []flow.Proto{flow.TCP, flow.TCP, flow.UDP, flow.SCTP, flow.UDPLite, 47, 50, 99, flow.ICMP}
	if t.Is6() {
		protos[len(protos)-1] = flow.ICMPv6
	}
	t.Proto = one(d, protos)
	switch {
	case t.Proto.HasPorts():
		ports := []uint16{0, 1, 2, 52, 53, 54, 79, 80, 81, 82, 40000, 65534, 65535}
		t.Ported, t.SrcPort, t.DstPort = true, one(d, ports), one(d, ports)
	case t.Proto == flow.ICMP || t.Proto == flow.ICMPv6:
		t.ICMPType, t.ICMPCode = one(d, []uint8{0, 1, 2, 255}), one(d, []uint8{0, 1, 2, 3, 255})
	}
	return t
}
