package convert

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// clusterPolicy converts a ClusterNetworkPolicy (spec 8.2). The API asks of
// implementations that a rule they cannot express fails closed; the object is
// valid all the same, so such rules are warnings.
func (r *report) clusterPolicy(s *cnp.ClusterNetworkPolicySpec) *policy.Policy {
	p := &policy.Policy{Kind: r.key.Kind, Name: r.key.Name, Order: float64(s.Priority)}
	switch s.Tier {
	case cnp.AdminTier:
		p.Tier = policy.AdminTier
	case cnp.BaselineTier:
		p.Tier = policy.BaselineTier
	default:
		r.add("spec.tier", "%q is no tier of a ClusterNetworkPolicy; write Admin or Baseline", shorten(string(s.Tier)))
		r.noEndpoints = true
	}
	if s.Priority < 0 || s.Priority > 1000 {
		r.add("spec.priority", "%d is no priority; write a number from 0 to 1000", s.Priority)
	}
	before := r.count
	p.NamespaceSelector, p.Selector = r.podsOf("spec.subject", s.Subject.Namespaces, s.Subject.Pods)
	if r.count > before {
		r.noEndpoints = true
	}
	for i := range s.Ingress {
		rule := &s.Ingress[i]
		peers := make([]cnp.ClusterNetworkPolicyEgressPeer, len(rule.From))
		for j, f := range rule.From {
			peers[j] = cnp.ClusterNetworkPolicyEgressPeer{Namespaces: f.Namespaces, Pods: f.Pods}
		}
		p.Ingress = append(p.Ingress, r.clusterRule("ingress", "from", i, rule.Action, peers, rule.Protocols)...)
	}
	for i := range s.Egress {
		rule := &s.Egress[i]
		p.Egress = append(p.Egress, r.clusterRule("egress", "to", i, rule.Action, rule.To, rule.Protocols)...)
	}
	p.Ingress = r.unreadable("spec.ingress", p.Ingress)
	p.Egress = r.unreadable("spec.egress", p.Egress)
	p.AppliesIngress, p.AppliesEgress = len(p.Ingress) > 0, len(p.Egress) > 0
	if r.noEndpoints || !p.AppliesIngress && !p.AppliesEgress {
		return nil
	}
	return p
}

// unreadable stands in for a list of rules that could not be decoded at all.
func (r *report) unreadable(field string, rules []policy.Rule) []policy.Rule {
	if r.faultyRules[field] {
		return []policy.Rule{{Action: policy.Deny}}
	}
	return rules
}

// podsOf gives the namespace and pod selectors of a subject or a peer. Exactly
// one of the two must be stated.
func (r *report) podsOf(field string, namespaces *meta.LabelSelector, pods *cnp.NamespacedPod) (ns, pod *selector.Selector) {
	switch {
	case (namespaces == nil) == (pods == nil):
		r.add(field, "states both or neither of namespaces and pods; write one of them")
		return nil, nil
	case namespaces != nil:
		return r.terms(field+".namespaces", namespaces), isPod
	}
	return r.terms(field+".pods.namespaceSelector", &pods.NamespaceSelector), r.podTerms(field+".pods.podSelector", &pods.PodSelector)
}

// clusterRule gives one rule for every protocol and peer. If any part of it
// cannot be expressed, Accept is dropped and Deny and Pass become deny-all.
func (r *report) clusterRule(dir, peersName string, index int, action cnp.ClusterNetworkPolicyRuleAction, peers []cnp.ClusterNetworkPolicyEgressPeer, protocols []cnp.ClusterNetworkPolicyProtocol) []policy.Rule {
	at := "spec." + dir + "[" + strconv.Itoa(index) + "]"
	base := policy.Rule{Index: index}
	before := r.count
	switch action {
	case cnp.ClusterNetworkPolicyRuleActionAccept:
		base.Action = policy.Allow
	case cnp.ClusterNetworkPolicyRuleActionPass:
		base.Action = policy.Pass
	case cnp.ClusterNetworkPolicyRuleActionDeny:
		base.Action = policy.Deny
	default:
		r.add(at+".action", "%q is no action of a ClusterNetworkPolicy; write Accept, Deny or Pass", shorten(string(action)))
	}
	var entities []policy.EntityRule
	unsupported := false
	for i := range peers {
		found, ok := r.clusterPeer(at+"."+peersName+"["+strconv.Itoa(i)+"]", dir, &peers[i])
		unsupported = unsupported || !ok
		entities = append(entities, found...)
	}
	if len(peers) == 0 {
		r.add(at+"."+peersName, "not given; name at least one peer, such as namespaces: {} for every pod")
	}
	matches := []protocolPorts{{}}
	if len(protocols) > 0 {
		matches = matches[:0]
	}
	for i := range protocols {
		matches = append(matches, r.clusterProtocol(at+".protocols["+strconv.Itoa(i)+"]", &protocols[i]))
	}
	if unsupported || r.ruleFaulty(at, before) {
		if accepts(action) {
			return nil
		}
		return []policy.Rule{{Index: index, Action: policy.Deny}}
	}
	var out []policy.Rule
	for _, m := range matches {
		for _, e := range entities {
			rule := base
			rule.Protocol = m.protocol
			if dir == "ingress" {
				rule.Source, rule.Destination.Ports = e, m.ports
			} else {
				rule.Destination = e
				rule.Destination.Ports = m.ports
			}
			out = append(out, rule)
		}
	}
	return out
}

// accepts tells whether a rule was meant to accept, if only misspelt or written
// as Calico writes it. Any other rule is taken for one that denies.
func accepts(a cnp.ClusterNetworkPolicyRuleAction) bool {
	return strings.EqualFold(string(a), "Accept") || strings.EqualFold(string(a), "Allow")
}

// clusterPeer gives the entities of a peer, and false if it is of a kind that is
// not supported.
func (r *report) clusterPeer(at, dir string, p *cnp.ClusterNetworkPolicyEgressPeer) ([]policy.EntityRule, bool) {
	const closed = "; the rule fails closed: Accept is dropped, Deny and Pass deny everything"
	stated := 0
	for _, s := range []bool{p.Namespaces != nil, p.Pods != nil, p.Nodes != nil, len(p.Networks) > 0, len(p.DomainNames) > 0} {
		if s {
			stated++
		}
	}
	switch {
	case stated == 0:
		// The API says that a peer without known fields is of a kind to come.
		r.warn(at, "this peer is of no known kind; write namespaces, pods%s%s", map[bool]string{true: " or networks"}[dir == "egress"], closed)
		return nil, false
	case stated > 1:
		r.add(at, "states several kinds of peer; write one peer for each")
		return nil, false
	case p.Nodes != nil:
		r.warn(at+".nodes", "peers that are nodes are not supported; write networks with their addresses"+closed)
		return nil, false
	case len(p.DomainNames) > 0:
		r.warn(at+".domainNames", "peers that are domain names are not supported; write networks"+closed)
		return nil, false
	case len(p.Networks) > 0:
		return r.networks(at+".networks", p.Networks), true
	}
	ns, pod := r.podsOf(at, p.Namespaces, p.Pods)
	return []policy.EntityRule{{NamespaceSelector: ns, Selector: pod}}, true
}

// networks gives one entity for each family, since a list of prefixes is of one.
func (r *report) networks(field string, list []cnp.CIDR) []policy.EntityRule {
	var v4, v6 []netip.Prefix
	for i, text := range list {
		p, why := anyCIDR(string(text))
		switch {
		case why != "":
			r.add(field+"["+strconv.Itoa(i)+"]", "%s", why)
		case p.Addr().Is4():
			v4 = append(v4, p)
		default:
			v6 = append(v6, p)
		}
	}
	var out []policy.EntityRule
	for _, nets := range [][]netip.Prefix{v4, v6} {
		if len(nets) > 0 {
			out = append(out, policy.EntityRule{Nets: slices.Clip(nets)})
		}
	}
	return out
}

func (r *report) clusterProtocol(at string, p *cnp.ClusterNetworkPolicyProtocol) protocolPorts {
	var out protocolPorts
	var port *cnp.Port
	portAt, stated := at, 0
	set := func(proto flow.Proto, name string, dst *cnp.Port) {
		stated++
		out.protocol = &policy.Protocol{Number: proto, ByName: true}
		portAt, port = at+"."+name+".destinationPort", dst
	}
	if p.TCP != nil {
		set(flow.TCP, "tcp", p.TCP.DestinationPort)
	}
	if p.UDP != nil {
		set(flow.UDP, "udp", p.UDP.DestinationPort)
	}
	if p.SCTP != nil {
		set(flow.SCTP, "sctp", p.SCTP.DestinationPort)
	}
	if p.DestinationNamedPort != "" {
		stated++
		for _, why := range validation.IsValidPortName(p.DestinationNamedPort) {
			r.add(at+".destinationNamedPort", "%q is no port name: %s", shorten(p.DestinationNamedPort), why)
		}
		out.ports = []policy.Port{{Name: p.DestinationNamedPort}}
	}
	if stated != 1 {
		r.add(at, "states %d kinds of protocol; write one of tcp, udp, sctp and destinationNamedPort", stated)
		return out
	}
	if port != nil {
		out.ports = []policy.Port{r.clusterPort(portAt, port)}
	}
	return out
}

func (r *report) clusterPort(at string, p *cnp.Port) policy.Port {
	first, last := p.Number, p.Number
	if p.Range != nil {
		if p.Number != 0 {
			r.add(at, "states both number and range; write one of them")
		}
		first, last = p.Range.Start, p.Range.End
	}
	if first < 1 || last > 65535 || first > last {
		r.add(at, "%d to %d is no range of ports; write numbers from 1 to 65535, the smaller one first", first, last)
	}
	return policy.Port{PortRange: flow.PortRange{Min: uint16(first), Max: uint16(last)}}
}
