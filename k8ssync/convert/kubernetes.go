package convert

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// kubernetesOrder is the order of every Kubernetes NetworkPolicy in the default
// tier.
const kubernetesOrder = 1000

// kubernetesPolicy converts a networking/v1 NetworkPolicy (spec 8.1). All its
// rules allow, so whatever cannot be read is left out.
func (r *report) kubernetesPolicy(s *networking.NetworkPolicySpec, staged policy.StagedAction) *policy.Policy {
	p := &policy.Policy{
		Kind: r.key.Kind, Namespace: r.key.Namespace, Name: r.key.Name, Staged: staged,
		Tier: policy.DefaultTier, Order: kubernetesOrder,
	}
	before := r.count
	p.Selector = r.podTerms("spec.podSelector", &s.PodSelector)
	if r.count > before || r.unknownSpec && emptySelector(s.PodSelector) {
		r.noEndpoints = true
	}
	r.policyTypes(p, s)
	for i := range s.Ingress {
		at := "spec.ingress[" + strconv.Itoa(i) + "]"
		p.Ingress = append(p.Ingress, r.kubernetesRules(at, i, flow.Ingress, at+".from", s.Ingress[i].From, s.Ingress[i].Ports)...)
	}
	for i := range s.Egress {
		at := "spec.egress[" + strconv.Itoa(i) + "]"
		p.Egress = append(p.Egress, r.kubernetesRules(at, i, flow.Egress, at+".to", s.Egress[i].To, s.Egress[i].Ports)...)
	}
	if r.noEndpoints {
		return nil
	}
	return p
}

// policyTypes fills in what the API server does: Ingress always, and Egress
// where there is an egress section with rules.
func (r *report) policyTypes(p *policy.Policy, s *networking.NetworkPolicySpec) {
	before := r.count
	for i, t := range s.PolicyTypes {
		switch t {
		case networking.PolicyTypeIngress:
			p.AppliesIngress = true
		case networking.PolicyTypeEgress:
			p.AppliesEgress = true
		default:
			r.add("spec.policyTypes["+strconv.Itoa(i)+"]", "%q is no policy type; write Ingress or Egress, with this case", shorten(string(t)))
		}
	}
	if len(s.PolicyTypes) > 2 {
		r.add("spec.policyTypes", "%d entries; write Ingress, Egress or both", len(s.PolicyTypes))
	}
	switch {
	case r.count > before || r.noTypes || r.faultyRules["spec.ingress"] || r.faultyRules["spec.egress"] || r.unknownSpec:
		p.AppliesIngress, p.AppliesEgress = true, true
	case len(s.PolicyTypes) == 0:
		p.AppliesIngress, p.AppliesEgress = true, len(s.Egress) > 0
	}
}

// protocolPorts is one protocol of a rule; no ports means all of them, and a nil
// protocol means every protocol.
type protocolPorts struct {
	protocol *policy.Protocol
	ports    []policy.Port
}

// kubernetesRules gives one Allow for every protocol and peer of a rule.
func (r *report) kubernetesRules(at string, index int, dir flow.Direction, peersAt string, peers []networking.NetworkPolicyPeer, ports []networking.NetworkPolicyPort) []policy.Rule {
	before := r.count
	protocols := r.kubernetesPorts(at+".ports", ports)
	bad := r.ruleFaulty(at, before)

	entities := []policy.EntityRule{{}}
	if len(peers) > 0 {
		entities = entities[:0]
	}
	for i := range peers {
		if e, ok := r.kubernetesPeer(peersAt+"["+strconv.Itoa(i)+"]", &peers[i]); ok {
			entities = append(entities, e)
		}
	}
	if bad {
		return nil
	}
	var out []policy.Rule
	for _, pp := range protocols {
		for _, e := range entities {
			rule := policy.Rule{Index: index, Action: policy.Allow, Protocol: pp.protocol}
			if dir == flow.Ingress {
				rule.Source, rule.Destination.Ports = e, pp.ports
			} else {
				rule.Destination = e
				rule.Destination.Ports = pp.ports
			}
			out = append(out, rule)
		}
	}
	return out
}

// kubernetesPorts groups ports by protocol. A protocol without port swallows the
// ports stated beside it, and adjacent numbers become one range.
func (r *report) kubernetesPorts(field string, ports []networking.NetworkPolicyPort) []protocolPorts {
	if len(ports) == 0 {
		return []protocolPorts{{}}
	}
	byProto := map[flow.Proto][]policy.Port{}
	whole := map[flow.Proto]bool{}
	var order []flow.Proto
	for i := range ports {
		at := field + "[" + strconv.Itoa(i) + "]"
		proto := flow.TCP
		if name := ports[i].Protocol; name != nil {
			p, known := transport(*name)
			if !known {
				r.add(at+".protocol", "%q is no protocol of a NetworkPolicy; write TCP, UDP or SCTP", shorten(string(*name)))
				continue
			}
			proto = p
		}
		if !slices.Contains(order, proto) {
			order = append(order, proto)
		}
		if ports[i].Port == nil {
			if ports[i].EndPort != nil {
				r.add(at+".endPort", "needs a port beside it")
			}
			whole[proto] = true
			continue
		}
		byProto[proto] = append(byProto[proto], r.kubernetesPort(at, *ports[i].Port, ports[i].EndPort))
	}
	slices.Sort(order)
	var out []protocolPorts
	for _, proto := range order {
		pp := protocolPorts{protocol: &policy.Protocol{Number: proto, ByName: true}}
		if !whole[proto] {
			pp.ports = coalesce(byProto[proto])
		}
		out = append(out, pp)
	}
	return out
}

func (r *report) kubernetesPort(at string, port intstr.IntOrString, end *int32) policy.Port {
	if port.Type == intstr.String {
		for _, why := range validation.IsValidPortName(port.StrVal) {
			r.add(at+".port", "%q is no port name: %s", shorten(port.StrVal), why)
		}
		if end != nil {
			r.add(at+".endPort", "cannot follow a port that is a name; write numbers")
		}
		return policy.Port{Name: port.StrVal}
	}
	last := port.IntVal
	if port.IntVal < 1 || port.IntVal > 65535 {
		r.add(at+".port", "%d is no port; write a number from 1 to 65535", port.IntVal)
	}
	if end != nil {
		last = *end
		if last < port.IntVal || last > 65535 {
			r.add(at+".endPort", "%d is no end of a range from %d; write a number from there to 65535", last, port.IntVal)
		}
	}
	return policy.Port{PortRange: flow.PortRange{Min: uint16(port.IntVal), Max: uint16(last)}}
}

// coalesce sorts number ranges and joins those that touch. Names come last, as
// they were written.
func coalesce(ports []policy.Port) []policy.Port {
	var numbers, names []policy.Port
	for _, p := range ports {
		if p.Name != "" {
			names = append(names, p)
		} else {
			numbers = append(numbers, p)
		}
	}
	slices.SortFunc(numbers, func(a, b policy.Port) int {
		return cmp.Or(cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max))
	})
	var out []policy.Port
	for _, p := range numbers {
		if n := len(out); n > 0 && int(p.Min) <= int(out[n-1].Max)+1 {
			out[n-1].Max = max(out[n-1].Max, p.Max)
		} else {
			out = append(out, p)
		}
	}
	return append(out, names...)
}

// kubernetesPeer tells false for a peer that must never match.
func (r *report) kubernetesPeer(at string, p *networking.NetworkPolicyPeer) (e policy.EntityRule, ok bool) {
	before := r.count
	switch {
	case p.IPBlock != nil:
		if p.PodSelector != nil || p.NamespaceSelector != nil {
			r.add(at, "ipBlock excludes podSelector and namespaceSelector; write two peers")
		}
		e.Nets, e.NotNets = r.ipBlock(at+".ipBlock", p.IPBlock)
	case p.PodSelector == nil && p.NamespaceSelector == nil:
		r.add(at, "states nothing; write podSelector, namespaceSelector or ipBlock, or remove the list of peers to mean any")
	default:
		e.Selector = r.podTerms(at+".podSelector", p.PodSelector)
		if p.NamespaceSelector != nil {
			e.NamespaceSelector = r.terms(at+".namespaceSelector", p.NamespaceSelector)
		}
	}
	return e, r.count == before
}

// ipBlock reads prefixes as the API server does, which tolerates host bits.
func (r *report) ipBlock(at string, b *networking.IPBlock) (nets, except []netip.Prefix) {
	block, why := anyCIDR(b.CIDR)
	if why != "" {
		r.add(at+".cidr", "%s", why)
		return nil, nil
	}
	for i, text := range b.Except {
		field := at + ".except[" + strconv.Itoa(i) + "]"
		p, why := anyCIDR(text)
		switch {
		case why != "":
			r.add(field, "%s", why)
		case !block.Contains(p.Addr()) || p.Bits() <= block.Bits():
			r.add(field, "%s is not a part of %s; write a smaller prefix inside it", p, block)
		}
		except = append(except, p)
	}
	return []netip.Prefix{block}, except
}

// anyCIDR reads a prefix, with its mask, and masks host bits away.
func anyCIDR(text string) (p netip.Prefix, why string) {
	if _, err := netip.ParsePrefix(text); err != nil {
		return canonicalPrefix(text) // which says what is wrong
	}
	return anyPrefix(text)
}

func (r *report) stagedKubernetesPolicy(o *calico.StagedKubernetesNetworkPolicy) *policy.Policy {
	staged := r.stagedAction(o.Spec.StagedAction)
	s := networking.NetworkPolicySpec{PodSelector: o.Spec.PodSelector, Ingress: o.Spec.Ingress, Egress: o.Spec.Egress, PolicyTypes: o.Spec.PolicyTypes}
	if staged == policy.StagedDelete {
		if len(s.Ingress) > 0 || len(s.Egress) > 0 || len(s.PolicyTypes) > 0 || !emptySelector(s.PodSelector) {
			r.add("spec", "a staged policy whose stagedAction is Delete states nothing else; remove the other fields")
		}
		s = networking.NetworkPolicySpec{}
	}
	return r.kubernetesPolicy(&s, staged)
}
