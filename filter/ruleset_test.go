package filter

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/flow"
)

// Classes of testSpec.
const (
	outside ClassID = iota
	client
	server
	lan
	stolen
	closed
	testClasses
)

// Rules of testSpec.
const (
	clientOut RuleID = 1 + iota
	logAll
	passLAN
	denyUDP
	allowWeb
	endIngress
	lastAllow
)

func classSet(members ...ClassID) *ClassSet {
	var bitmap [1]uint64
	for _, c := range members {
		bitmap[0] |= 1 << c
	}
	return NewClassSet(bitmap[:], int(testClasses))
}

func ptr[T any](v T) *T { return &v }

// testSpec is a client and a server of this node, each with an address of both
// families, and a pod in a namespace nobody knows.
func testSpec() *Spec {
	both := func(r Rule) Rule { r.IPv4, r.IPv6 = true, true; return r }
	info := func(dir flow.Direction, index int, a Action) RuleInfo {
		i := RuleInfo{Tier: "t1", Direction: dir, Index: index, Action: a}
		if index >= 0 {
			i.Kind, i.Name = "GlobalNetworkPolicy", "p"
		}
		return i
	}
	spec := &Spec{
		Generation: 42,
		Classes:    make([]Class, testClasses),
		Rules: []Rule{
			clientOut - 1: both(Rule{Info: info(flow.Egress, 0, Deny), Proto: ptr(flow.SCTP)}),
			logAll - 1:    both(Rule{Info: info(flow.Ingress, 0, Log)}),
			passLAN - 1:   both(Rule{Info: info(flow.Ingress, 1, Pass), Source: Side{Classes: classSet(lan)}}),
			denyUDP - 1:   both(Rule{Info: info(flow.Ingress, 2, Deny), Proto: ptr(flow.UDP)}),
			allowWeb - 1: both(Rule{Info: info(flow.Ingress, 3, Allow), Source: Side{Classes: classSet(client)}, Destination: Side{Ports: &PortMatch{
				Ranges: []flow.PortRange{{Min: 80, Max: 81}}, Named: NewClassPorts([]ClassPort{{server, flow.TCP, 9000}}),
			}}}),
			endIngress - 1: both(Rule{Info: info(flow.Ingress, -1, Deny)}),
			lastAllow - 1:  both(Rule{Info: info(flow.Ingress, 4, Allow)}),
		},
		Programs: []Program{
			{Final: FinalAllow},
			{Segments: []*Segment{{Rules: []RuleID{clientOut}}}, Final: FinalAllow},
			{Segments: []*Segment{{Rules: []RuleID{logAll, passLAN, denyUDP, allowWeb}, End: endIngress}, {Rules: []RuleID{lastAllow}}}},
			{},
		},
		Endpoints: []Endpoint{
			{EndpointInfo{"ns", "client", "web", true}, addrs("10.0.0.1", "fd00::1")},
			{EndpointInfo{"ns", "server", "", true}, addrs("10.0.0.2", "fd00::2")},
			{EndpointInfo{"ns", "thief", "", false}, addrs("10.0.0.3")},
			{EndpointInfo{"ns", "victim", "", true}, addrs("10.0.0.3")},
			{EndpointInfo{"gone", "closed", "", true}, addrs("10.0.0.4", "fd00::4")},
		},
		Hosts: []Host{{Name: "h", Programs: [HostChains][2]int{HostNormal: {2, 1}}}},
	}
	spec.Classes[client] = Class{Hosted: true, Programs: [2]int{flow.Ingress: 0, flow.Egress: 1}}
	spec.Classes[server] = Class{Hosted: true, Programs: [2]int{flow.Ingress: 2, flow.Egress: 0}}
	spec.Classes[stolen] = Class{Hosted: true, Conflict: true}
	spec.Classes[closed] = Class{Hosted: true, Programs: [2]int{3, 3}}
	for prefix, class := range map[string]ClassID{
		"10.0.0.1/32": client, "fd00::1/128": client, "10.0.0.2/32": server, "fd00::2/128": server, "10.0.0.3/32": stolen,
		"10.0.0.4/32": closed, "fd00::4/128": closed, "192.168.0.0/16": lan, "fd01::/16": lan,
	} {
		spec.Prefixes = append(spec.Prefixes, ClassPrefix{netip.MustParsePrefix(prefix), class})
	}
	return spec
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func testRuleset(t testing.TB) *Ruleset {
	t.Helper()
	rs, err := New(testSpec())
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func tuple(src, dst string, p flow.Proto, dport uint16) flow.Tuple {
	return flow.Tuple{
		Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Proto: p,
		Ported: p.HasPorts() && dport != 0, SrcPort: 4711, DstPort: dport,
	}
}

// names gives one world's addresses in either family.
var names = [2]map[string]string{
	{"client": "10.0.0.1", "server": "10.0.0.2", "closed": "10.0.0.4", "lan": "192.168.1.1", "world": "203.0.113.1"},
	{"client": "fd00::1", "server": "fd00::2", "closed": "fd00::4", "lan": "fd01::1", "world": "2001:db8::1"},
}

var open = Outcome{Verdict: Accept, Reason: ByProfile}
var notHosted = Outcome{Verdict: Accept, Reason: NotHosted}

// decisions is also the benchmark's table.
var decisions = []struct {
	name     string
	src, dst string
	proto    flow.Proto
	dport    uint16
	want     Decision
}{
	{"rule allows", "client", "server", flow.TCP, 80,
		Decision{Accept, ByRule, flow.Ingress, open, Outcome{Accept, ByRule, true, false, allowWeb}}},
	{"end of the port range", "client", "server", flow.TCP, 81,
		Decision{Accept, ByRule, flow.Ingress, open, Outcome{Accept, ByRule, true, false, allowWeb}}},
	{"beyond the port range", "client", "server", flow.TCP, 82,
		Decision{Drop, EndOfTier, flow.Ingress, open, Outcome{Drop, EndOfTier, true, false, endIngress}}},
	{"named port", "client", "server", flow.TCP, 9000,
		Decision{Accept, ByRule, flow.Ingress, open, Outcome{Accept, ByRule, true, false, allowWeb}}},
	{"named port of another protocol", "client", "server", flow.SCTP, 9000,
		Decision{Drop, ByRule, flow.Egress, Outcome{Drop, ByRule, false, false, clientOut}, Outcome{}}},
	{"no ports in the packet", "client", "server", flow.TCP, 0,
		Decision{Drop, EndOfTier, flow.Ingress, open, Outcome{Drop, EndOfTier, true, false, endIngress}}},
	{"rule denies", "client", "server", flow.UDP, 80,
		Decision{Drop, ByRule, flow.Ingress, open, Outcome{Drop, ByRule, true, false, denyUDP}}},
	{"egress denies first", "client", "server", flow.SCTP, 80,
		Decision{Drop, ByRule, flow.Egress, Outcome{Drop, ByRule, false, false, clientOut}, Outcome{}}},
	{"pass to the next segment", "lan", "server", flow.UDP, 80,
		Decision{Accept, ByRule, flow.Ingress, notHosted, Outcome{Accept, ByRule, true, false, lastAllow}}},
	{"no rule for strangers", "world", "server", flow.TCP, 80,
		Decision{Drop, EndOfTier, flow.Ingress, notHosted, Outcome{Drop, EndOfTier, true, false, endIngress}}},
	{"sender has the last word", "client", "world", flow.TCP, 80,
		Decision{Accept, ByProfile, flow.Egress, open, notHosted}},
	{"profile both ways", "server", "client", flow.TCP, 80,
		Decision{Accept, ByProfile, flow.Ingress, open, open}},
	{"to itself", "server", "server", flow.TCP, 80,
		Decision{Drop, EndOfTier, flow.Ingress, open, Outcome{Drop, EndOfTier, true, false, endIngress}}},
	{"no profile", "world", "closed", flow.TCP, 80,
		Decision{Drop, NoProfile, flow.Ingress, notHosted, Outcome{Drop, NoProfile, false, false, 0}}},
	{"no profile for egress", "closed", "world", flow.TCP, 80,
		Decision{Drop, NoProfile, flow.Egress, Outcome{Drop, NoProfile, false, false, 0}, Outcome{}}},
	{"nobody's", "lan", "world", flow.TCP, 80, Decision{Reason: NoLocalEndpoint}},
}

func TestDecide(t *testing.T) {
	t.Parallel()
	rs := testRuleset(t)
	for _, tt := range decisions {
		for family, names := range names {
			tu := tuple(names[tt.src], names[tt.dst], tt.proto, tt.dport)
			got := rs.Decide(tu)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s, family %d (-want +got):\n%s", tt.name, family, diff)
			}
			if got.Outcome() != got.Ingress && got.Side == flow.Ingress {
				t.Errorf("%s: Outcome is not that of the deciding side", tt.name)
			}
			var want []RuleID
			if got.Ingress.Logged {
				want = []RuleID{logAll}
			}
			if diff := cmp.Diff(want, rs.LogRules(tu, nil)); diff != "" {
				t.Errorf("%s: LogRules (-want +got):\n%s", tt.name, diff)
			}
		}
	}
}

func TestDecideRefuses(t *testing.T) {
	t.Parallel()
	rs := testRuleset(t)
	conflict := Outcome{Reason: AddressConflict}
	for _, tt := range []struct {
		name string
		in   flow.Tuple
		want Decision
	}{
		{"zero tuple", flow.Tuple{}, Decision{Reason: InvalidTuple}},
		{"two families", tuple("10.0.0.1", "fd00::2", flow.TCP, 80), Decision{Reason: InvalidTuple}},
		{"IPv4-mapped source", tuple("::ffff:10.0.0.1", "fd00::2", flow.TCP, 80), Decision{Reason: InvalidTuple}},
		{"IPv4-mapped destination", tuple("fd00::1", "::ffff:10.0.0.2", flow.TCP, 80), Decision{Reason: InvalidTuple}},
		{"conflict at the source", tuple("10.0.0.3", "10.0.0.2", flow.TCP, 80), Decision{Reason: AddressConflict, Side: flow.Egress, Egress: conflict}},
		{"conflict at the destination", tuple("10.0.0.1", "10.0.0.3", flow.TCP, 80), Decision{Reason: AddressConflict, Side: flow.Ingress, Ingress: conflict}},
		{"conflict and nobody here", tuple("203.0.113.1", "10.0.0.3", flow.TCP, 80), Decision{Reason: AddressConflict, Side: flow.Ingress, Ingress: conflict}},
	} {
		if diff := cmp.Diff(tt.want, rs.Decide(tt.in)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if o := rs.DecideSide(tt.in, flow.Ingress); o.Verdict != Drop || o.Reason != tt.want.Reason {
			t.Errorf("%s: DecideSide gives %+v", tt.name, o)
		}
		if o, ok := rs.DecideHost("h", HostNormal, flow.Ingress, tt.in); !ok || o.Verdict != Drop || o.Reason != tt.want.Reason {
			t.Errorf("%s: DecideHost gives %+v", tt.name, o)
		}
	}
}

func TestEngine(t *testing.T) {
	t.Parallel()
	var e Engine
	tu := tuple("10.0.0.1", "203.0.113.1", flow.TCP, 80)
	if got, want := e.Decide(tu), (Decision{Reason: NotReady}); got != want {
		t.Errorf("before the first ruleset: %+v, want %+v", got, want)
	}
	rs := testRuleset(t)
	if old := e.Swap(rs); old != nil || e.Ruleset() != rs {
		t.Errorf("Swap gave %p, holds %p", old, e.Ruleset())
	}
	if got := e.Decide(tu); got != rs.Decide(tu) || got.Verdict != Accept {
		t.Errorf("after: %+v", got)
	}
}

func TestDecideSide(t *testing.T) {
	t.Parallel()
	rs := testRuleset(t)
	sctp := tuple("10.0.0.1", "10.0.0.2", flow.SCTP, 80)
	if o := rs.DecideSide(sctp, flow.Ingress); o.Rule != allowWeb {
		t.Errorf("ingress alone: %+v, want rule %d although egress denies", o, allowWeb)
	}
	if o := rs.DecideSide(sctp, flow.Egress); o.Rule != clientOut {
		t.Errorf("egress alone: %+v, want rule %d", o, clientOut)
	}
}

// TestDecideDoesNotAllocate holds the promise the packet loop is built on.
func TestDecideDoesNotAllocate(t *testing.T) {
	rs := testRuleset(t)
	for _, tt := range decisions {
		for _, names := range names {
			tu := tuple(names[tt.src], names[tt.dst], tt.proto, tt.dport)
			if n := testing.AllocsPerRun(100, func() { rs.Decide(tu) }); n != 0 {
				t.Errorf("%s: Decide allocates %v times", tt.name, n)
			}
			if n := testing.AllocsPerRun(100, func() { rs.DecideHost("h", HostNormal, flow.Ingress, tu) }); n != 0 {
				t.Errorf("%s: DecideHost allocates %v times", tt.name, n)
			}
		}
	}
	bad := flow.Tuple{}
	if n := testing.AllocsPerRun(100, func() { rs.Decide(bad) }); n != 0 {
		t.Errorf("invalid tuple: Decide allocates %v times", n)
	}
}

func TestInfo(t *testing.T) {
	t.Parallel()
	rs := testRuleset(t)
	if got := rs.Generation(); got != 42 {
		t.Errorf("Generation %d", got)
	}
	if diff := cmp.Diff(Sizes{Prefixes: 9, Classes: 6, Programs: 4, Rules: 7, Endpoints: 5}, rs.Sizes()); diff != "" {
		t.Errorf("Sizes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(addrs("10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00::2", "fd00::4"), rs.Protected(flow.Ingress), cmpAddr); diff != "" {
		t.Errorf("Protected ingress (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(addrs("10.0.0.1", "10.0.0.3", "10.0.0.4", "fd00::1", "fd00::4"), rs.Protected(flow.Egress), cmpAddr); diff != "" {
		t.Errorf("Protected egress (-want +got):\n%s", diff)
	}
	if got, ok := rs.Endpoint(netip.MustParseAddr("fd00::1")); !ok || got != (EndpointInfo{"ns", "client", "web", true}) {
		t.Errorf("Endpoint: %+v, %v", got, ok)
	}
	if got, ok := rs.Endpoint(netip.MustParseAddr("10.0.0.3")); !ok || got.Name != "victim" {
		t.Errorf("Endpoint of an address in conflict: %+v, want the hosted one", got)
	}
	if _, ok := rs.Endpoint(netip.MustParseAddr("192.168.0.1")); ok {
		t.Error("Endpoint of a network")
	}
	if i := rs.RuleInfo(endIngress); !i.EndOfTier() || i.Tier != "t1" || i.Kind != "" {
		t.Errorf("end of tier: %+v", i)
	}
	for _, id := range []RuleID{0, lastAllow + 1, 1 << 31} {
		if i := rs.RuleInfo(id); i != (RuleInfo{}) {
			t.Errorf("RuleInfo(%d): %+v", id, i)
		}
	}
}

var cmpAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestDecideHost(t *testing.T) {
	t.Parallel()
	spec := testSpec()
	spec.Programs = append(spec.Programs, Program{Final: FinalOpen}, Program{Final: FinalUndecided})
	spec.Hosts[0].Programs[HostForward] = [2]int{4, 5}
	rs, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	tu := tuple("203.0.113.1", "10.0.0.9", flow.UDP, 80)
	for _, tt := range []struct {
		chain HostChain
		dir   flow.Direction
		want  HostOutcome
	}{
		{HostNormal, flow.Ingress, HostOutcome{Outcome: Outcome{Drop, ByRule, true, false, denyUDP}}},
		{HostNormal, flow.Egress, HostOutcome{Outcome: open}},
		{HostForward, flow.Ingress, HostOutcome{Outcome: notHosted}},
		{HostForward, flow.Egress, HostOutcome{Undecided: true}},
	} {
		if got, ok := rs.DecideHost("h", tt.chain, tt.dir, tu); !ok || got != tt.want {
			t.Errorf("%s %s: %+v, want %+v", tt.chain, tt.dir, got, tt.want)
		}
	}
	if got, ok := rs.DecideHost("other", HostNormal, flow.Ingress, tu); ok || got.Verdict != Drop || got.Undecided {
		t.Errorf("unknown host endpoint: %+v, %v", got, ok)
	}
	if got, ok := rs.DecideHost("h", HostChains, flow.Ingress, tu); ok || got.Verdict != Drop {
		t.Errorf("unknown chain: %+v, %v", got, ok)
	}
}

func BenchmarkDecide(b *testing.B) {
	rs := testRuleset(b)
	for _, tt := range decisions {
		b.Run(tt.name, func(b *testing.B) {
			tu := tuple(names[0][tt.src], names[0][tt.dst], tt.proto, tt.dport)
			b.ReportAllocs()
			for b.Loop() {
				rs.Decide(tu)
			}
		})
	}
}
