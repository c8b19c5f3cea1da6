package explain

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// matchCase is a flow and the first criterion of the rule that it fails; empty
// if the rule matches.
type matchCase struct {
	tuple flow.Tuple
	field string
}

// TestMatch checks every criterion of section 6 on both its answers.
func TestMatch(t *testing.T) {
	t.Parallel()
	entity := func(e policy.EntityRule) policy.Rule { return policy.Rule{Source: e} }
	tests := []struct {
		name  string
		rule  policy.Rule
		cases []matchCase
	}{
		{"nothing stated", policy.Rule{}, []matchCase{
			{tcp("ext", "db", 1), ""}, {icmp("api.6", "db.6", 1, 0), ""}, {bare(47, "web", "db"), ""},
		}},
		{"ipVersion", policy.Rule{IPVersion: 6}, []matchCase{
			{tcp("api.6", "db.6", 1), ""}, {tcp("api", "db", 1), "ipVersion"},
		}},
		{"protocol ICMP by name is IPv4", policy.Rule{Protocol: byName(flow.ICMP)}, []matchCase{
			{icmp("api", "db", 8, 0), ""}, {bare(flow.ICMP, "api.6", "db.6"), "ipVersion"}, {tcp("api", "db", 1), "protocol"},
		}},
		{"protocol ICMPv6 by name is IPv6", policy.Rule{Protocol: byName(flow.ICMPv6)}, []matchCase{
			{icmp("api.6", "db.6", 128, 0), ""}, {bare(flow.ICMPv6, "api", "db"), "ipVersion"},
		}},
		{"protocol numbers 1 and 58 narrow no family", policy.Rule{Protocol: byNumber(flow.ICMPv6)}, []matchCase{
			{icmp("api.6", "db.6", 128, 0), ""}, {bare(flow.ICMPv6, "api", "db"), ""}, {icmp("api", "db", 8, 0), "protocol"},
		}},
		{"notProtocol", policy.Rule{NotProtocol: byName(flow.UDP)}, []matchCase{
			{tcp("api", "db", 1), ""}, {bare(47, "api", "db"), ""}, {ported(flow.UDP, "api", "db", 1), "notProtocol"},
		}},
		{"icmp type", policy.Rule{ICMP: &policy.ICMPMatch{Type: 8}}, []matchCase{
			{icmp("api", "db", 8, 7), ""}, {icmp("api", "db", 0, 0), "icmp"}, {tcp("api", "db", 8), "icmp"},
			{icmp("api.6", "db.6", 8, 0), ""}, {foreignICMP(flow.ICMPv6, "api", "db", 8), "icmp"}, {foreignICMP(flow.ICMP, "api.6", "db.6", 8), "icmp"},
		}},
		{"icmp type and code", policy.Rule{ICMP: &policy.ICMPMatch{Type: 3, Code: ptr[uint8](4)}}, []matchCase{
			{icmp("api", "db", 3, 4), ""}, {icmp("api", "db", 3, 1), "icmp"},
		}},
		{"notICMP negates the pair and needs ICMP", policy.Rule{NotICMP: &policy.ICMPMatch{Type: 3, Code: ptr[uint8](4)}}, []matchCase{
			{icmp("api", "db", 3, 1), ""}, {icmp("api", "db", 11, 4), ""}, {icmp("api", "db", 3, 4), "notICMP"},
			{tcp("api", "db", 1), "notICMP"}, {bare(flow.ICMP, "api.6", "db.6"), "notICMP"},
		}},
		{"nets", entity(policy.EntityRule{Nets: prefixes("10.0.1.2/32", "192.0.2.0/24")}), []matchCase{
			{tcp("api", "db", 1), ""}, {tcp("ext", "db", 1), ""}, {tcp("web", "db", 1), "source.nets"}, {tcp("api.6", "db.6", 1), "source.nets"},
		}},
		{"notNets of one family take the rule from the other", entity(policy.EntityRule{NotNets: prefixes("10.0.2.0/24")}), []matchCase{
			{tcp("api", "db", 1), ""}, {tcp("s-api", "db", 1), "source.notNets"}, {tcp("api.6", "db.6", 1), "source.notNets"},
		}},
		{"nets and notNets", entity(policy.EntityRule{Nets: prefixes("10.0.0.0/16"), NotNets: prefixes("10.0.1.0/24")}), []matchCase{
			{tcp("s-api", "db", 1), ""}, {tcp("api", "db", 1), "source.notNets"}, {tcp("ext", "db", 1), "source.nets"},
		}},
		{"port numbers and ranges", policy.Rule{Destination: policy.EntityRule{Ports: []policy.Port{ports(80, 80), ports(1000, 1010)}}}, []matchCase{
			{tcp("api", "db", 80), ""}, {ported(flow.SCTP, "api", "db", 1010), ""}, {tcp("api", "db", 1011), "destination.ports"},
			{bare(flow.TCP, "api", "db"), "destination.ports"}, {ported(flow.UDPLite, "api", "db", 80), "destination.ports"},
		}},
		{"source ports", policy.Rule{Source: policy.EntityRule{Ports: []policy.Port{ports(40000, 40000)}}}, []matchCase{
			{tcp("api", "db", 1), ""}, {bare(flow.UDP, "api", "db"), "source.ports"},
		}},
		{"named port without protocol", policy.Rule{Destination: policy.EntityRule{Ports: []policy.Port{{Name: "pg"}, {Name: "dns"}}}}, []matchCase{
			{tcp("api", "db", 5432), ""}, {ported(flow.UDP, "api", "db", 53), ""}, {tcp("api", "db", 53), "destination.ports"},
			{ported(flow.UDP, "api", "db", 5432), "destination.ports"}, {tcp("api.6", "db.6", 5432), ""},
		}},
		{"named port of what the same side admits",
			policy.Rule{Destination: policy.EntityRule{NotSelector: sel(`app == "x"`), Selector: sel("has(app)"), Ports: []policy.Port{{Name: "pg"}}}},
			[]matchCase{{tcp("api", "db", 5432), ""}}},
		{"notPorts", policy.Rule{Destination: policy.EntityRule{NotPorts: []policy.Port{ports(22, 22), {Name: "pg"}}}}, []matchCase{
			{tcp("api", "db", 80), ""}, {bare(flow.TCP, "api", "db"), ""}, {tcp("api", "db", 22), "destination.notPorts"}, {tcp("api", "db", 5432), "destination.notPorts"},
		}},
		{"service as source is an address", policy.Rule{Source: policy.EntityRule{Service: &policy.ServiceRef{Namespace: "prod", Name: "s"}}}, []matchCase{
			{tcp("api", "db", 1), ""}, {bare(47, "api", "db"), ""}, {tcp("web", "db", 1), "source.services"},
		}},
		{"service as destination is address, protocol and port", policy.Rule{Destination: policy.EntityRule{Service: &policy.ServiceRef{Namespace: "prod", Name: "s"}}}, []matchCase{
			{tcp("api", "db", 5432), ""}, {ported(flow.UDP, "api", "db", 5432), "destination.services"}, {tcp("api", "db", 80), "destination.services"},
			{bare(flow.TCP, "api", "db"), "destination.services"},
		}},
		{"service of another namespace", policy.Rule{Source: policy.EntityRule{Service: &policy.ServiceRef{Namespace: "staging", Name: "s"}}}, []matchCase{
			{tcp("api", "db", 1), "source.services"},
		}},
		{"destination identity on ingress is the pod itself", policy.Rule{Destination: policy.EntityRule{Selector: sel("has(shard)")}}, []matchCase{
			{tcp("api", "db", 1), "destination.selector"},
		}},
		{"http says nothing at layers 3 and 4", policy.Rule{HTTP: &policy.HTTPMatch{Methods: []string{"GET"}}}, []matchCase{{tcp("api", "db", 1), ""}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.rule.Action = policy.Allow
			s := worldWith(np("p", 1, tt.rule))
			s.EndpointSlices = []*policy.EndpointSlice{{
				Namespace: "prod", Name: "s-1", Service: "s", Addrs: parseAddrs("10.0.1.1", "10.0.1.2"),
				Ports: []policy.ServicePort{{Proto: flow.TCP, Port: 5432}},
			}}
			e := New(s, Options{})
			for _, c := range tt.cases {
				checkRule(t, e, c)
			}
		})
	}
}

// TestScope is the table of section 4.2, for a NetworkPolicy of prod and for a
// GlobalNetworkPolicy: who matches as a source.
func TestScope(t *testing.T) {
	t.Parallel()
	sources := []string{"api", "web", "intern", "s-api", "s-web", "bare", "vpn", "lan", "s-lan", "ext"}
	tests := []struct {
		name           string
		entity         policy.EntityRule
		inNP, inGlobal string // of sources
	}{
		{"nothing", policy.EntityRule{}, "api web intern s-api s-web bare vpn lan s-lan ext", "="},
		{"names", policy.EntityRule{ServiceAccounts: names("api-service")}, "api", "api s-api"},
		{"names and selector", policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Names: []string{"api-service", "web-sa"}, Selector: sel(`app == "web"`)}}, "web", "="},
		{"account selector", policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Selector: sel(`app == "api"`)}}, "api", "api s-api"},
		{"names and pod selector", policy.EntityRule{ServiceAccounts: names("api-service", "web-sa"), Selector: sel(`app == "web"`)}, "web", "web s-web"},
		{"names and namespaceSelector", policy.EntityRule{ServiceAccounts: names("api-service"), NamespaceSelector: sel(`env == "staging"`)}, "s-api", "="},
		{"empty serviceAccounts", policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{}}, "api web intern s-api s-web bare vpn lan s-lan ext", "="},
		{"account selector all()", policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Selector: sel("all()")}}, "api web intern lan", "api web intern s-api s-web bare vpn lan s-lan"},
		{"negative account selector", policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Selector: sel(`role != "intern"`)}}, "api web lan", "api web s-api s-web bare vpn lan s-lan"},
		{"selector", policy.EntityRule{Selector: sel("has(net)")}, "lan", "vpn lan s-lan"},
		{"selector all()", policy.EntityRule{Selector: sel("all()")}, "api web intern lan", "api web intern s-api s-web bare vpn lan s-lan"},
		{"namespaceSelector all()", policy.EntityRule{NamespaceSelector: sel("all()")}, "api web intern s-api s-web bare lan s-lan", "="},
		{"namespaceSelector all() nested", policy.EntityRule{NamespaceSelector: sel(`!(!all() || env == "prod")`)}, "s-api s-web bare s-lan", "="},
		{"namespaceSelector global()", policy.EntityRule{NamespaceSelector: sel("global()")}, "vpn", "="},
		{"namespaceSelector global() and selector", policy.EntityRule{NamespaceSelector: sel("global()"), Selector: sel("has(app)")}, "", "="},
		{"negative namespaceSelector", policy.EntityRule{NamespaceSelector: sel(`env != "prod"`)}, "s-api s-web bare vpn s-lan", "="},
		{"namespace by name", policy.EntityRule{NamespaceSelector: sel(`projectcalico.org/name == "other"`)}, "bare", "="},
		{"namespace label is not the endpoint's", policy.EntityRule{NamespaceSelector: sel(`has(projectcalico.org/namespace)`)}, "", "="},
		{"notSelector alone", policy.EntityRule{NotSelector: sel(`app == "web"`)}, "api intern lan", "api intern s-api bare vpn lan s-lan ext"},
		{"selector and notSelector", policy.EntityRule{Selector: sel("has(app)"), NotSelector: sel(`app == "web"`)}, "api", "api s-api"},
		{"notSelector with namespaceSelector", policy.EntityRule{NamespaceSelector: sel(`env == "staging"`), NotSelector: sel(`app == "web"`)}, "s-api s-lan", "="},
		{"notSelector with empty serviceAccounts", policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{}, NotSelector: sel("has(app)")}, "intern lan", "intern bare vpn lan s-lan ext"},
		{"SA name through the endpoint label", policy.EntityRule{Selector: sel(`projectcalico.org/serviceaccount == "web-sa"`)}, "web", "web s-web"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.inGlobal == "=" {
				tt.inGlobal = tt.inNP
			}
			for want, p := range map[string]*policy.Policy{
				"NP " + tt.inNP:      np("p", 1, from(policy.Allow, tt.entity)),
				"GNP " + tt.inGlobal: gnp("p", 1, from(policy.Allow, tt.entity)),
			} {
				e := New(worldWith(p), Options{})
				kind, _, _ := strings.Cut(want, " ")
				var got []string
				for _, src := range sources {
					if e.Decide(tcp(src, "db", 1)).Ingress.Verdict == Allow {
						got = append(got, src)
					}
				}
				if have := strings.TrimSpace(kind + " " + strings.Join(got, " ")); have != strings.TrimSpace(want) {
					t.Errorf("matches %q, want %q", have, want)
				}
			}
		})
	}
}

// TestSelects checks which endpoints a policy applies to (section 4.4).
func TestSelects(t *testing.T) {
	t.Parallel()
	s := worldWith()
	s.HostEndpoints = []*policy.HostEndpoint{{Name: "h", InterfaceName: "*", Labels: map[string]string{"app": "db"}}}
	e := New(s, Options{})
	endpoints := map[string]*object{"host": e.hosts["h"]}
	for _, name := range []string{"db", "intern", "s-api", "bare"} {
		endpoints[name] = e.hosted(e.place(tcp(name, name, 1).Src))
	}
	tests := []struct {
		name string
		p    policy.Policy
		want string
	}{
		{"NP without selector", policy.Policy{Namespace: "prod"}, "db intern"},
		{"NP never selects a host", policy.Policy{Namespace: "prod", Selector: sel(`app == "db"`)}, "db"},
		{"NP account selector", policy.Policy{Namespace: "prod", ServiceAccountSelector: sel(`role == "intern"`)}, "intern"},
		{"NP account selector all()", policy.Policy{Namespace: "other", ServiceAccountSelector: sel("all()")}, "bare"},
		{"GNP without selectors", policy.Policy{}, "bare db host intern s-api"},
		{"GNP selector all()", policy.Policy{Selector: sel("all()")}, "bare db host intern s-api"},
		{"GNP negative namespaceSelector", policy.Policy{NamespaceSelector: sel(`env != "prod"`)}, "bare host s-api"},
		{"GNP with selector all() beside it", policy.Policy{Selector: sel("all()"), NamespaceSelector: sel(`env != "prod"`)}, "bare s-api"},
		{"GNP namespaceSelector all()", policy.Policy{NamespaceSelector: sel("all()")}, "bare db intern s-api"},
		{"GNP account selector all()", policy.Policy{ServiceAccountSelector: sel("all()")}, "db intern s-api"},
		{"GNP selector all() with negative account selector", policy.Policy{Selector: sel("all()"), ServiceAccountSelector: sel(`role != "intern"`)}, "db s-api"},
		{"GNP negative account selector", policy.Policy{ServiceAccountSelector: sel(`role != "intern"`)}, "bare db host s-api"},
		{"GNP all three", policy.Policy{Selector: sel("all()"), NamespaceSelector: sel("all()"), ServiceAccountSelector: sel(`role != "intern"`)}, "bare db s-api"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, name := range []string{"bare", "db", "host", "intern", "s-api"} {
				if selects(&tt.p, endpoints[name]) {
					got = append(got, name)
				}
			}
			if have := strings.Join(got, " "); have != tt.want {
				t.Errorf("selects %q, want %q", have, tt.want)
			}
		})
	}
}

// TestNamedPort: whose declarations count. The pod at the address declares
// nothing, a host endpoint at the same address does.
func TestNamedPort(t *testing.T) {
	t.Parallel()
	pg := []policy.Port{{Name: "pg"}}
	tests := []struct {
		name   string
		entity policy.EntityRule
		want   Verdict
	}{
		{"nothing stated: anything in any namespace", policy.EntityRule{Ports: pg}, Allow},
		{"the declaring object is admitted", policy.EntityRule{Ports: pg, NamespaceSelector: sel("global()")}, Allow},
		{"only the other object is admitted", policy.EntityRule{Ports: pg, NamespaceSelector: sel("all()")}, Deny},
		{"the declaring object is excluded", policy.EntityRule{Ports: pg, NamespaceSelector: sel(`env != "prod"`), NotSelector: sel("has(host)")}, Deny},
		{"notPorts likewise", policy.EntityRule{NotPorts: pg, NamespaceSelector: sel("all()")}, Allow},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := np("p", 1)
			p.Selector, p.AppliesIngress, p.AppliesEgress = nil, false, true
			p.Egress = []policy.Rule{{Action: policy.Allow, Destination: tt.entity}}
			s := worldWith(p)
			s.HostEndpoints = []*policy.HostEndpoint{{
				Name: "h", Labels: map[string]string{"host": "y"}, ExpectedIPs: parseAddrs(addrs["s-web"]),
				Ports: []policy.NamedPort{{Name: "pg", Proto: flow.TCP, Port: 5432}},
			}}
			if got := New(s, Options{}).Decide(tcp("api", "s-web", 5432)).Egress.Verdict; got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestTexts pins the sentences of failed criteria, one of each.
func TestTexts(t *testing.T) {
	t.Parallel()
	src := func(e policy.EntityRule) policy.Rule { return policy.Rule{Source: e} }
	dst := func(e policy.EntityRule) policy.Rule { return policy.Rule{Destination: e} }
	var many []netip.Prefix
	for i := range 10 {
		many = append(many, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(i), 0}), 24))
	}
	tests := []struct {
		rule  policy.Rule
		tuple flow.Tuple
		want  string
	}{
		{policy.Rule{Protocol: byName(flow.ICMPv6)}, tcp("api", "db", 1), "the packet is IPv4 and the rule is for IPv6 only (protocol ICMPv6)"},
		{policy.Rule{Protocol: byNumber(47)}, tcp("api", "db", 1), "protocol tcp is not 47"},
		{policy.Rule{NotProtocol: byName(flow.TCP)}, tcp("api", "db", 1), "protocol is tcp"},
		{policy.Rule{ICMP: &policy.ICMPMatch{Type: 8, Code: ptr[uint8](0)}}, icmp("api", "db", 3, 1), "ICMP type 3 code 1; the rule wants type 8 code 0"},
		{policy.Rule{NotICMP: &policy.ICMPMatch{Type: 8}}, tcp("api", "db", 1), "tcp over IPv4 is not ICMP of its family; the rule wants ICMP other than type 8"},
		{src(policy.EntityRule{Nets: prefixes("10.0.0.0/8")}), tcp("api.6", "db.6", 1), "source.nets [10.0.0.0/8] has no IPv6 entry, so the rule does not exist for IPv6"},
		{src(policy.EntityRule{Nets: many}), tcp("api", "db", 1), "source address 10.0.1.2 is not in [10.9.0.0/24 10.9.1.0/24 10.9.2.0/24 10.9.3.0/24 10.9.4.0/24 10.9.5.0/24 10.9.6.0/24 10.9.7.0/24 and 2 more]"},
		{src(policy.EntityRule{NotNets: prefixes("10.0.0.0/8")}), tcp("api", "db", 1), "source address 10.0.1.2 is in the excluded [10.0.0.0/8]"},
		{src(policy.EntityRule{Selector: sel("has(x)")}), tcp("ext", "db", 1), "source 192.0.2.1 is no pod, network set or host endpoint"},
		{src(policy.EntityRule{Selector: sel("has(x)")}), tcp("s-lan", "db", 1), "source network set staging/lan is not in the policy's namespace prod"},
		{src(policy.EntityRule{Selector: sel("has(x)")}), tcp("api", "db", 1), "labels of source pod prod/api do not match has(x)"},
		{src(policy.EntityRule{NotSelector: sel("has(app)")}), tcp("api", "db", 1), "labels of source pod prod/api match the excluded has(app)"},
		{src(policy.EntityRule{NamespaceSelector: sel(`env == "x"`)}), tcp("api", "db", 1), `source namespace prod does not match env == "x"`},
		{src(policy.EntityRule{NamespaceSelector: sel("all()")}), tcp("vpn", "db", 1), "source network set vpn has no namespace to match all()"},
		{src(policy.EntityRule{NamespaceSelector: sel("all()"), ServiceAccounts: names("a", "b")}), tcp("bare", "db", 1), "source pod other/bare (no service account) is not in [a b]"},
		{src(policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Selector: sel("has(x)")}}), tcp("api", "db", 1), "labels of source service account api-service do not match has(x)"},
		{dst(policy.EntityRule{Ports: []policy.Port{ports(1, 2), {Name: "http"}}}), tcp("api", "db", 80), "destination port tcp/80 is not in [1:2 http]"},
		{dst(policy.EntityRule{Ports: []policy.Port{ports(80, 80)}}), bare(47, "api", "db"), "destination port (47, none in this packet) is not in [80]"},
		{dst(policy.EntityRule{NotPorts: []policy.Port{ports(80, 80)}}), tcp("api", "db", 80), "destination port tcp/80 is in the excluded [80]"},
		{dst(policy.EntityRule{Service: &policy.ServiceRef{Namespace: "n", Name: "s"}}), tcp("api", "db", 80), "destination 10.0.1.1 port tcp/80 is no endpoint of service n/s"},
		{src(policy.EntityRule{Service: &policy.ServiceRef{Namespace: "n", Name: "s"}}), tcp("api", "db", 80), "source 10.0.1.2 is no endpoint of service n/s"},
	}
	for _, tt := range tests {
		tt.rule.Action = policy.Allow
		failed := New(worldWith(np("p", 1, tt.rule)), Options{}).Explain(tt.tuple).Ingress.Tiers[0].Policies[0].Rules[0].Failed
		if failed == nil {
			t.Errorf("matches, want %q", tt.want)
		} else if failed.Text != tt.want {
			t.Errorf("%q\nwant %q", failed.Text, tt.want)
		}
	}
}

// TestManyObjects: one address, several identities (section 3.5).
func TestManyObjects(t *testing.T) {
	t.Parallel()
	s := worldWith(gnp("p", 1,
		from(policy.Deny, policy.EntityRule{Selector: sel("has(quarantine)")}),
		from(policy.Allow, policy.EntityRule{NotSelector: sel(`trust == "no"`)}),
	))
	s.NetworkSets = []*policy.NetworkSet{
		{Kind: policy.GlobalNetworkSet, Name: "q", Labels: map[string]string{"quarantine": "y"}, Nets: prefixes("10.0.1.3/32")},
		{Kind: policy.GlobalNetworkSet, Name: "t", Labels: map[string]string{"trust": "no"}, Nets: prefixes("10.0.2.0/24", "10.0.2.0/25")},
	}
	e := New(s, Options{})
	for src, want := range map[string]Verdict{"api": Allow, "web": Deny, "s-api": Deny, "ext": Allow} {
		if got := e.Decide(tcp(src, "db", 1)).Verdict; got != want {
			t.Errorf("%s: %s, want %s", src, got, want)
		}
	}
	if got := len(e.Explain(tcp("s-api", "db", 1)).Source.NetworkSets); got != 1 {
		t.Errorf("a set that covers an address twice is listed %d times", got)
	}
}

func checkRule(t *testing.T, e *Evaluator, c matchCase) {
	t.Helper()
	tr := e.Explain(c.tuple)
	rule := tr.Ingress.Tiers[0].Policies[0].Rules[0]
	field := ""
	if rule.Failed != nil {
		field = rule.Failed.Field
		if rule.Failed.Text == "" {
			t.Errorf("%s: %s has no text", c.tuple, field)
		}
	}
	if field != c.field || rule.Matched != (c.field == "") {
		t.Errorf("%s: matched %t, failed %q, want %q", c.tuple, rule.Matched, field, c.field)
	}
}
