package explain

import (
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// worldWith builds a small cluster with the given policies: prod holds db (both
// families, named ports), api, web and intern, staging holds api and web, other
// holds bare, which runs without a service account.
func worldWith(policies ...*policy.Policy) *policy.Snapshot {
	return &policy.Snapshot{
		Generation: 7,
		Tiers: []policy.Tier{
			{Name: policy.AdminTier, Order: 1000, DefaultAction: policy.Pass},
			{Name: policy.DefaultTier, Order: policy.DefaultTierOrder},
			{Name: policy.BaselineTier, Order: 1e7, DefaultAction: policy.Pass},
		},
		Policies: policies,
		Namespaces: []*policy.Namespace{
			{Name: "other"},
			{Name: "prod", Labels: map[string]string{"env": "prod"}},
			{Name: "staging", Labels: map[string]string{"env": "staging"}},
		},
		ServiceAccounts: []*policy.ServiceAccount{
			{Namespace: "prod", Name: "api-service", Labels: map[string]string{"app": "api"}},
			{Namespace: "prod", Name: "intern-a", Labels: map[string]string{"role": "intern"}},
			{Namespace: "prod", Name: "web-sa", Labels: map[string]string{"app": "web"}},
			{Namespace: "staging", Name: "api-service", Labels: map[string]string{"app": "api"}},
		},
		Endpoints: []*policy.Endpoint{
			pod("other", "bare", "", nil, "10.0.3.1"),
			pod("prod", "api", "api-service", map[string]string{"app": "api"}, "10.0.1.2", "fd00:1::2"),
			withPorts(pod("prod", "db", "db-sa", map[string]string{"app": "db"}, "10.0.1.1", "fd00:1::1"),
				policy.NamedPort{Name: "pg", Proto: flow.TCP, Port: 5432},
				policy.NamedPort{Name: "dns", Proto: flow.UDP, Port: 53}),
			pod("prod", "intern", "intern-a", nil, "10.0.1.4"),
			pod("prod", "web", "web-sa", map[string]string{"app": "web"}, "10.0.1.3"),
			pod("staging", "api", "api-service", map[string]string{"app": "api"}, "10.0.2.2"),
			pod("staging", "web", "web-sa", map[string]string{"app": "web"}, "10.0.2.3"),
		},
		NetworkSets: []*policy.NetworkSet{
			{Kind: policy.GlobalNetworkSet, Name: "vpn", Labels: map[string]string{"net": "vpn"}, Nets: prefixes("203.0.113.0/24")},
			{Kind: policy.NetworkSetKind, Namespace: "prod", Name: "lan", Labels: map[string]string{"net": "lan"}, Nets: prefixes("198.51.100.0/24")},
			{Kind: policy.NetworkSetKind, Namespace: "staging", Name: "lan", Labels: map[string]string{"net": "lan"}, Nets: prefixes("198.18.0.0/15")},
		},
	}
}

// Addresses of worldWith, by what covers them.
var addrs = map[string]string{
	"db": "10.0.1.1", "db.6": "fd00:1::1", "api": "10.0.1.2", "api.6": "fd00:1::2", "web": "10.0.1.3", "intern": "10.0.1.4",
	"s-api": "10.0.2.2", "s-web": "10.0.2.3", "bare": "10.0.3.1",
	"vpn": "203.0.113.7", "lan": "198.51.100.7", "s-lan": "198.18.0.7", "ext": "192.0.2.1", "ext.6": "2001:db8::1",
}

func pod(namespace, name, account string, labels map[string]string, ips ...string) *policy.Endpoint {
	return &policy.Endpoint{
		Namespace: namespace, Name: name, ServiceAccount: account, Labels: labels, Addrs: parseAddrs(ips...),
	}
}

func withPorts(ep *policy.Endpoint, ports ...policy.NamedPort) *policy.Endpoint {
	ep.Ports = ports
	return ep
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// np builds a NetworkPolicy of prod for app == "db" with ingress rules.
func np(name string, order float64, ingress ...policy.Rule) *policy.Policy {
	return numbered(&policy.Policy{
		Kind: policy.NetworkPolicy, Namespace: "prod", Name: name, Tier: policy.DefaultTier, Order: order,
		Selector: sel(`app == "db"`), AppliesIngress: true, Ingress: ingress,
	})
}

// gnp builds a GlobalNetworkPolicy for app == "db" with ingress rules.
func gnp(name string, order float64, ingress ...policy.Rule) *policy.Policy {
	p := np(name, order, ingress...)
	p.Kind, p.Namespace = policy.GlobalNetworkPolicy, ""
	return p
}

// in puts a policy into a tier.
func in(tier string, p *policy.Policy) *policy.Policy { p.Tier = tier; return p }

// staged makes a policy of the matching staged kind.
func staged(a policy.StagedAction, p *policy.Policy) *policy.Policy {
	p.Staged = a
	switch p.Kind {
	case policy.NetworkPolicy:
		p.Kind = policy.StagedNetworkPolicy
	case policy.GlobalNetworkPolicy:
		p.Kind = policy.StagedGlobalNetworkPolicy
	}
	return p
}

// numbered gives a policy rules of its own, with their indexes: tests that run in
// parallel build policies from the same rules.
func numbered(p *policy.Policy) *policy.Policy {
	p.Ingress, p.Egress = slices.Clone(p.Ingress), slices.Clone(p.Egress)
	for i := range p.Ingress {
		p.Ingress[i].Index = i
	}
	for i := range p.Egress {
		p.Egress[i].Index = i
	}
	return p
}

var sel = selector.MustParse

func names(list ...string) *policy.ServiceAccountMatch {
	return &policy.ServiceAccountMatch{Names: list}
}

func from(action policy.Action, e policy.EntityRule) policy.Rule {
	return policy.Rule{Action: action, Source: e}
}

func only(action policy.Action) policy.Rule { return policy.Rule{Action: action} }

func ptr[T any](v T) *T { return &v }

func byName(p flow.Proto) *policy.Protocol   { return &policy.Protocol{Number: p, ByName: true} }
func byNumber(p flow.Proto) *policy.Protocol { return &policy.Protocol{Number: p} }

func ports(min, max uint16) policy.Port {
	return policy.Port{PortRange: flow.PortRange{Min: min, Max: max}}
}

// tcp builds a flow between two of addrs, from port 40000.
func tcp(src, dst string, port uint16) flow.Tuple { return ported(flow.TCP, src, dst, port) }

func ported(p flow.Proto, src, dst string, port uint16) flow.Tuple {
	t := bare(p, src, dst)
	t.Ported, t.SrcPort, t.DstPort = true, 40000, port
	return t
}

// bare builds a flow without ports.
func bare(p flow.Proto, src, dst string) flow.Tuple {
	return flow.Tuple{Proto: p, Src: netip.MustParseAddr(addrs[src]), Dst: netip.MustParseAddr(addrs[dst])}
}

func icmp(src, dst string, typ, code uint8) flow.Tuple {
	t := bare(flow.ICMP, src, dst)
	if t.Is6() {
		t.Proto = flow.ICMPv6
	}
	t.ICMPType, t.ICMPCode = typ, code
	return t
}

func parseAddrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

// foreignICMP builds a packet whose ICMP is not that of its family.
func foreignICMP(p flow.Proto, src, dst string, typ uint8) flow.Tuple {
	t := bare(p, src, dst)
	t.ICMPType = typ
	return t
}

// optional parses a selector; the empty text is one that is not stated.
func optional(text string) *selector.Selector {
	if text == "" {
		return nil
	}
	return sel(text)
}
