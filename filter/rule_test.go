package filter

import (
	"testing"

	"github.com/postern-project/postern/filter/flow"
)

// ruleWorld is a client and a server of this node, both of which have the one
// rule as their only one for either direction, and so has a host endpoint.
func ruleWorld(t *testing.T, r Rule) *Ruleset {
	t.Helper()
	r.Info.Action = Allow
	spec := testSpec()
	spec.Rules = []Rule{r}
	spec.Programs = []Program{{Segments: []*Segment{{Rules: []RuleID{1}}}}}
	for i := range spec.Classes {
		spec.Classes[i].Programs = [2]int{}
	}
	spec.Hosts[0].Programs = [HostChains][2]int{}
	rs, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// checkRule asks for the rule alone, and for what either direction, with the
// endpoint known or not, was compiled to.
func checkRule(t *testing.T, name string, r Rule, in flow.Tuple, want bool) {
	t.Helper()
	rs := ruleWorld(t, r)
	q, _ := rs.query(&in)
	s := rs.subject(&q)
	if got := rs.rules[1].matches(&s); got != want {
		t.Errorf("%s: by itself %v, want %v", name, got, want)
	}
	for _, dir := range []flow.Direction{flow.Ingress, flow.Egress} {
		if got := rs.DecideSide(in, dir).Verdict == Accept; got != want {
			t.Errorf("%s: %s %v, want %v", name, dir, got, want)
		}
		if o, _ := rs.DecideHost("h", HostNormal, dir, in); (o.Verdict == Accept) != want {
			t.Errorf("%s: host %s %v, want %v", name, dir, o.Verdict, want)
		}
	}
}

// TestRuleMatches asks one criterion at a time.
func TestRuleMatches(t *testing.T) {
	t.Parallel()
	tcp := tuple("10.0.0.1", "10.0.0.2", flow.TCP, 80)
	tcp6 := tuple("fd00::1", "fd00::2", flow.TCP, 80)
	fragment := tuple("10.0.0.1", "10.0.0.2", flow.TCP, 0)
	ping := tuple("10.0.0.1", "10.0.0.2", flow.ICMP, 0)
	ping.ICMPType, ping.ICMPCode = 8, 3
	ping6 := tuple("fd00::1", "fd00::2", flow.ICMPv6, 0)
	ping6.ICMPType, ping6.ICMPCode = 8, 3
	strange := tuple("fd00::1", "fd00::2", flow.ICMP, 0) // ICMP over IPv6
	strange.ICMPType, strange.ICMPCode = 8, 3

	web := &PortMatch{Ranges: []flow.PortRange{{Min: 1, Max: 2}, {Min: 80, Max: 80}}}
	source := &PortMatch{Ranges: []flow.PortRange{{Min: 4711, Max: 4711}}}
	named := func(p flow.Proto, class ClassID) *PortMatch {
		return &PortMatch{Named: NewClassPorts([]ClassPort{{class, p, 80}, {lan, flow.UDP, 7}})}
	}
	for _, tt := range []struct {
		name string
		rule Rule
		in   flow.Tuple
		want bool
	}{
		{"nothing stated", Rule{}, tcp, true},
		{"nothing stated, IPv6", Rule{}, tcp6, true},
		{"protocol", Rule{Proto: ptr(flow.TCP)}, tcp, true},
		{"other protocol", Rule{Proto: ptr(flow.UDP)}, tcp, false},
		{"protocol 0", Rule{Proto: ptr(flow.Proto(0))}, tcp, false},
		{"notProtocol", Rule{NotProto: ptr(flow.UDP)}, tcp, true},
		{"notProtocol, same", Rule{NotProto: ptr(flow.TCP)}, tcp, false},
		{"source class", Rule{Source: Side{Classes: classSet(client, lan)}}, tcp, true},
		{"source not in the set", Rule{Source: Side{Classes: classSet(server)}}, tcp, false},
		{"destination class", Rule{Destination: Side{Classes: classSet(server)}}, tcp, true},
		{"destination not in the set", Rule{Destination: Side{Classes: classSet(client)}}, tcp, false},
		{"empty set", Rule{Source: Side{Classes: classSet()}}, tcp, false},
		{"port", Rule{Destination: Side{Ports: web}}, tcp, true},
		{"port on the wrong side", Rule{Source: Side{Ports: web}}, tcp, false},
		{"source port", Rule{Source: Side{Ports: source}}, tcp, true},
		{"port without ports in the packet", Rule{Destination: Side{Ports: web}}, fragment, false},
		{"empty list of ports", Rule{Destination: Side{Ports: new(PortMatch)}}, tcp, false},
		{"notPorts", Rule{Destination: Side{NotPorts: web}}, tcp, false},
		{"notPorts on the wrong side", Rule{Source: Side{NotPorts: web}}, tcp, true},
		{"notPorts without ports in the packet", Rule{Destination: Side{NotPorts: web}}, fragment, true},
		{"named port", Rule{Destination: Side{Ports: named(flow.TCP, server)}}, tcp, true},
		{"named port, other protocol", Rule{Destination: Side{Ports: named(flow.UDP, server)}}, tcp, false},
		{"named port, other class", Rule{Destination: Side{Ports: named(flow.TCP, client)}}, tcp, false},
		{"not named port", Rule{Destination: Side{NotPorts: named(flow.TCP, server)}}, tcp, false},
		{"service", Rule{Destination: Side{Service: named(flow.TCP, server).Named}}, tcp, true},
		{"service elsewhere", Rule{Destination: Side{Service: named(flow.TCP, lan).Named}}, tcp, false},
		{"service without ports in the packet", Rule{Destination: Side{Service: NewClassPorts([]ClassPort{{server, flow.TCP, 0}})}}, fragment, false},
		{"icmp type", Rule{ICMP: &ICMPMatch{Type: 8, AnyCode: true}}, ping, true},
		{"icmp type and code", Rule{ICMP: &ICMPMatch{Type: 8, Code: 3}}, ping, true},
		{"icmp other code", Rule{ICMP: &ICMPMatch{Type: 8}}, ping, false},
		{"icmp other type", Rule{ICMP: &ICMPMatch{Type: 0, Code: 3}}, ping, false},
		{"icmpv6", Rule{ICMP: &ICMPMatch{Type: 8, Code: 3}}, ping6, true},
		{"icmp over IPv6", Rule{ICMP: &ICMPMatch{Type: 8, Code: 3}}, strange, false},
		{"icmp against TCP", Rule{ICMP: &ICMPMatch{AnyCode: true}}, tcp, false},
		{"notICMP", Rule{NotICMP: &ICMPMatch{Type: 8, Code: 3}}, ping, false},
		{"notICMP other code", Rule{NotICMP: &ICMPMatch{Type: 8, Code: 4}}, ping, true},
		{"notICMP against TCP", Rule{NotICMP: &ICMPMatch{Type: 8, AnyCode: true}}, tcp, false},
	} {
		tt.rule.IPv4, tt.rule.IPv6 = true, true
		checkRule(t, tt.name, tt.rule, tt.in, tt.want)
		tt.rule.IPv4, tt.rule.IPv6 = tt.in.Is6(), !tt.in.Is6()
		checkRule(t, tt.name+", other family", tt.rule, tt.in, false)
	}
}
