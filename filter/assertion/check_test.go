package assertion

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

func pod(namespace, name, account string, labels map[string]string, addrs ...string) *policy.Endpoint {
	ep := &policy.Endpoint{Namespace: namespace, Name: name, ServiceAccount: account, Labels: labels}
	for _, a := range addrs {
		ep.Addrs = append(ep.Addrs, netip.MustParseAddr(a))
	}
	return ep
}

// world has db, which api, the interns and 192.0.2.0/25 without 192.0.2.64/26 may
// reach. bare runs without a service account, mono has IPv6 only, and the twins
// claim one address.
func world() *policy.Snapshot {
	return &policy.Snapshot{
		Generation: 1,
		Tiers:      []policy.Tier{{Name: policy.DefaultTier, Order: policy.DefaultTierOrder}},
		Namespaces: []*policy.Namespace{{Name: "prod", Labels: map[string]string{"env": "prod"}}, {Name: "test", Labels: map[string]string{"env": "test"}}},
		ServiceAccounts: []*policy.ServiceAccount{
			{Namespace: "prod", Name: "api-sa"}, {Namespace: "prod", Name: "intern-sa", Labels: map[string]string{"role": "intern"}},
		},
		Endpoints: []*policy.Endpoint{
			pod("prod", "api", "api-sa", map[string]string{"app": "api", "pcsa.role": "intern"}, "10.0.0.1", "fd00::1"),
			pod("prod", "db", "db-sa", map[string]string{"app": "db"}, "10.0.0.2", "fd00::2"),
			pod("prod", "intern-1", "intern-sa", nil, "10.0.0.3"),
			pod("prod", "intern-2", "intern-sa", nil, "10.0.0.4", "fd00::4"),
			pod("test", "api", "api-sa", map[string]string{"app": "api"}, "10.0.1.1", "fd00::1:1"),
			pod("test", "bare", "", nil, "10.0.1.2"),
			pod("test", "mono", "x", nil, "fd00::1:3"),
			pod("test", "twin-1", "x", nil, "10.0.1.9"),
			pod("test", "twin-2", "x", nil, "10.0.1.9"),
		},
		Policies: []*policy.Policy{{
			Kind: policy.NetworkPolicy, Namespace: "prod", Name: "db", Tier: policy.DefaultTier, Order: policy.Unordered,
			Selector: selector.Equals("app", "db"), AppliesIngress: true,
			Ingress: []policy.Rule{
				{Action: policy.Allow, Source: policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Names: []string{"api-sa"}}}},
				{Index: 1, Action: policy.Allow, Source: policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Selector: selector.Equals("role", "intern")}}},
				{
					Index: 2, Action: policy.Allow,
					Source: policy.EntityRule{
						Nets:    []netip.Prefix{netip.MustParsePrefix("192.0.2.0/25")},
						NotNets: []netip.Prefix{netip.MustParsePrefix("192.0.2.64/26")},
					},
				},
			},
		}},
	}
}

// checkText judges the flows below "allow" and "deny" on a snapshot and prints a
// line for each result.
func checkText(t *testing.T, s *policy.Snapshot, assertion string) []string {
	t.Helper()
	set, err := Parse("f.yaml", []byte(file(assertion)))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range Check(s, set) {
		lines = append(lines, fmt.Sprintf("%s %s: %s", r.Status, r.Flow(), r.Outcome()))
	}
	return lines
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, flow string // one flow that is to be allowed
		want       []string
	}{
		{"both families", "{from: prod/api, to: prod/db, port: tcp/5432}", []string{
			"holds prod/api -> prod/db tcp/5432 (IPv4): want allow, got allow",
			"holds prod/api -> prod/db tcp/5432 (IPv6): want allow, got allow",
		}},
		{"one family asked for", "{from: prod/api, to: prod/db, port: tcp/5432, family: 6}", []string{"holds prod/api -> prod/db tcp/5432 (IPv6): want allow, got allow"}},
		{"one family there", "{from: prod/intern-1, to: prod/db, port: tcp/5432}", []string{"holds prod/intern-1 -> prod/db tcp/5432 (IPv4): want allow, got allow"}},
		{"no family in common", "{from: prod/intern-1, to: test/mono, port: tcp/5432}", []string{"unchecked prod/intern-1 -> test/mono tcp/5432: want allow, cannot tell: no address family that both ends have"}},
		{"family not there", "{from: prod/intern-1, to: prod/db, port: tcp/5432, family: 6}", []string{"unchecked prod/intern-1 -> prod/db tcp/5432: want allow, cannot tell: not both ends have an IPv6 address"}},
		{"ICMP chooses", "{from: prod/api, to: prod/db, ports: [icmp:8, icmpv6:128]}", []string{
			"holds prod/api -> prod/db icmp:8/0 (IPv4): want allow, got allow",
			"holds prod/api -> prod/db icmpv6:128/0 (IPv6): want allow, got allow",
		}},
		{"ICMP over a family not there", "{from: prod/intern-1, to: prod/db, port: icmpv6:128}", []string{"unchecked prod/intern-1 -> prod/db icmpv6:128/0: want allow, cannot tell: not both ends have an IPv6 address"}},
		{"address of a pod", "{from: 10.0.0.1, to: fd00::2, port: tcp/1}", []string{"unchecked 10.0.0.1 -> fd00::2 tcp/1: want allow, cannot tell: no address family that both ends have"}},
		{"addresses of pods", "{from: 10.0.0.1, to: 10.0.0.2, port: tcp/1}", []string{"holds 10.0.0.1 -> 10.0.0.2 tcp/1 (IPv4): want allow, got allow"}},
		{"broken", "{from: test/api, to: prod/db, port: tcp/5432, family: 4}", []string{"broken test/api -> prod/db tcp/5432 (IPv4): want allow, got deny"}},
		{"no such pod", "{from: prod/nobody, to: [prod/db, prod/api], port: tcp/1}", []string{
			"unchecked prod/nobody -> prod/db tcp/1: want allow, cannot tell: there is no pod prod/nobody, or it is not an endpoint (finished, on the host network, or without an address)",
			"unchecked prod/nobody -> prod/api tcp/1: want allow, cannot tell: there is no pod prod/nobody, or it is not an endpoint (finished, on the host network, or without an address)",
		}},
		{"nobody's flow", "{from: 203.0.113.7, to: 203.0.113.8, port: tcp/1}", []string{"unchecked 203.0.113.7 -> 203.0.113.8 tcp/1 (IPv4): want allow, cannot tell: neither 203.0.113.7 nor 203.0.113.8 is a pod, so nobody decides the flow"}},
		{"contested address", "{from: test/twin-1, to: prod/db, port: tcp/1}", []string{"broken test/twin-1 -> prod/db tcp/1 (IPv4): want allow, got deny"}},
		// The pod label that poses as the account's does not count.
		{"account selector", "{from: {serviceAccountSelector: 'role == \"intern\"'}, to: prod/db, port: tcp/1}", []string{
			"holds prod/intern-1 -> prod/db tcp/1 (IPv4): want allow, got allow",
			"holds prod/intern-2 -> prod/db tcp/1 (IPv4): want allow, got allow",
			"holds prod/intern-2 -> prod/db tcp/1 (IPv6): want allow, got allow",
		}},
		{"account", "{from: {serviceAccount: prod/api-sa}, to: prod/db, port: tcp/1, family: 4}", []string{"holds prod/api -> prod/db tcp/1 (IPv4): want allow, got allow"}},
		{"namespace and selector", "{from: {namespace: test, selector: 'app == \"api\"'}, to: prod/db, port: tcp/1, family: 4}", []string{"broken test/api -> prod/db tcp/1 (IPv4): want allow, got deny"}},
		{"derived labels", "{from: {selector: 'projectcalico.org/serviceaccount == \"api-sa\"', namespaceSelector: 'env == \"prod\"'}, to: prod/db, port: tcp/1, family: 4}", []string{"holds prod/api -> prod/db tcp/1 (IPv4): want allow, got allow"}},
		{"every account", "{from: prod/api, to: {namespace: test, serviceAccountSelector: all(), selector: '!has(app)'}, port: tcp/1, family: 6}", []string{
			"holds prod/api -> test/mono tcp/1 (IPv6): want allow, got allow",
			"unchecked prod/api -> test/twin-1 tcp/1: want allow, cannot tell: not both ends have an IPv6 address",
			"unchecked prod/api -> test/twin-2 tcp/1: want allow, cannot tell: not both ends have an IPv6 address",
		}},
		{"selection of nobody", "{from: {selector: has(nothing)}, to: prod/db, port: tcp/1}", []string{"unchecked {selector: has(nothing)} -> prod/db tcp/1: want allow, cannot tell: {selector: has(nothing)} matches no pod"}},
		{"selection of nobody, to", "{from: prod/db, to: {selector: has(nothing)}, port: tcp/1}", []string{"unchecked prod/db -> {selector: has(nothing)} tcp/1: want allow, cannot tell: {selector: has(nothing)} matches no pod"}},
		{"selection of nobody is fine", "{from: {selector: has(nothing), orNone: true}, to: prod/db, ports: [tcp/1, udp/2]}", []string{"holds {selector: has(nothing)} -> prod/db tcp/1, udp/2: {selector: has(nothing)} matches no pod, as orNone allows"}},
		{"selection of nobody, and nobody to reach", "{from: {selector: has(nothing), orNone: true}, to: prod/nobody, port: tcp/1}", []string{"unchecked {selector: has(nothing)} -> prod/nobody tcp/1: want allow, cannot tell: there is no pod prod/nobody, or it is not an endpoint (finished, on the host network, or without an address)"}},
		{"orNone of the other end", "{from: {selector: has(nothing)}, to: {namespace: prod, orNone: true}, port: tcp/1}", []string{"unchecked {selector: has(nothing)} -> {namespace: prod} tcp/1: want allow, cannot tell: {selector: has(nothing)} matches no pod"}},
		{"not to themselves", "{from: {serviceAccountSelector: 'role == \"intern\"'}, to: {serviceAccountSelector: 'role == \"intern\"'}, port: tcp/1}", []string{
			"holds prod/intern-1 -> prod/intern-2 tcp/1 (IPv4): want allow, got allow",
			"holds prod/intern-2 -> prod/intern-1 tcp/1 (IPv4): want allow, got allow",
		}},
		{"only itself", "{from: prod/db, to: {selector: 'app == \"db\"'}, port: tcp/1}", []string{"unchecked prod/db -> {selector: app == \"db\"} tcp/1: want allow, cannot tell: both ends match the pod prod/db and no other"}},
		{"itself by name", "{from: prod/api, to: prod/api, port: tcp/1, family: 4}", []string{"holds prod/api -> prod/api tcp/1 (IPv4): want allow, got allow"}},
		{"prefix", "{from: 192.0.2.0/26, to: prod/db, port: tcp/1}", []string{"holds 192.0.2.0/26 -> prod/db tcp/1 (IPv4): want allow, got allow"}},
		{"prefix with a hole", "{from: 192.0.2.0/25, to: prod/db, port: tcp/1}", []string{"broken 192.0.2.0/25 -> prod/db tcp/1 (IPv4): want allow, got deny"}},
		{"prefix that holds the other end", "{from: 10.0.0.0/30, to: prod/api, port: tcp/1}", []string{"holds 10.0.0.0/30 -> prod/api tcp/1 (IPv4): want allow, got allow"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(tc.want, checkText(t, world(), "    allow:\n    - "+tc.flow+"\n")); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// TestDenied: the same world with the promise turned round.
func TestDenied(t *testing.T) {
	t.Parallel()
	got := checkText(t, world(), "    deny:\n    - {from: [prod/api, test/bare, 192.0.2.64/26, 192.0.2.0/25, test/twin-2, test/nobody], to: prod/db, port: udp/5432, family: 4}\n")
	want := []string{
		"broken prod/api -> prod/db udp/5432 (IPv4): want deny, got allow",
		"holds test/bare -> prod/db udp/5432 (IPv4): want deny, got deny",
		"holds 192.0.2.64/26 -> prod/db udp/5432 (IPv4): want deny, got deny",
		"broken 192.0.2.0/25 -> prod/db udp/5432 (IPv4): want deny, got allow",
		"holds test/twin-2 -> prod/db udp/5432 (IPv4): want deny, got deny",
		"unchecked test/nobody -> prod/db udp/5432: want deny, cannot tell: there is no pod test/nobody, or it is not an endpoint (finished, on the host network, or without an address)",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if got := checkText(t, nil, "    deny:\n    - {from: {selector: all()}, to: 10.0.0.1, port: tcp/1}\n"); len(got) != 1 || !strings.HasPrefix(got[0], "unchecked ") {
		t.Errorf("on no snapshot: %q", got)
	}
}

// TestWhy: a failure says what decided and what came closest.
func TestWhy(t *testing.T) {
	t.Parallel()
	set, err := Parse("f.yaml", []byte(file("    allow:\n    - {from: [test/bare, 192.0.2.0/24], to: prod/db, port: tcp/1}\n    deny:\n    - {from: prod/api, to: prod/db, port: tcp/1, family: 4}\n")))
	if err != nil {
		t.Fatal(err)
	}
	results := Check(world(), set)
	if len(results) != 3 {
		t.Fatalf("%d results", len(results))
	}
	bare, hole, api := results[0], results[1], results[2]
	if want := "ingress of prod/db: policies of tier default select it and no rule matched (end of tier)"; bare.Why != want {
		t.Errorf("why %q, want %q", bare.Why, want)
	}
	if n := bare.NearestMiss; n == nil || n.Rule.Name != "db" || len(n.Failed) == 0 {
		t.Errorf("nearest miss %+v", n)
	}
	if want := "tcp 192.0.2.64:40000 -> 10.0.0.2:1"; hole.Tuple.String() != want {
		t.Errorf("the address that breaks it is %v, want %s", hole.Tuple, want)
	}
	if want := "ingress of prod/db: rule ingress[0] (Allow) of NetworkPolicy prod/db in tier default"; api.Why != want || api.NearestMiss != nil {
		t.Errorf("why %q, nearest %v; want %q and none", api.Why, api.NearestMiss, want)
	}
	if bare.Path != "f.yaml" || bare.Set != "s" || bare.Assertion != "a" || bare.Line != 8 {
		t.Errorf("it is said to stand at %s %s %s %d", bare.Path, bare.Set, bare.Assertion, bare.Line)
	}
}

// TestTooManyFlows: a selection of everything by everything does not eat the host.
func TestTooManyFlows(t *testing.T) {
	t.Parallel()
	s := &policy.Snapshot{}
	for i := range 600 {
		s.Endpoints = append(s.Endpoints, pod("x", fmt.Sprint("p", i), "", nil, fmt.Sprintf("10.1.%d.%d", i/250, i%250)))
	}
	got := checkText(t, s, "    allow:\n    - {from: {selector: all()}, to: {selector: all()}, port: tcp/1}\n")
	want := []string{"unchecked {selector: all()} -> {selector: all()} tcp/1: want allow, cannot tell: stands for 360000 pairs of pods and 1 ports; select fewer at a time"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// TestDisagreement gives the two evaluators different policies.
func TestDisagreement(t *testing.T) {
	t.Parallel()
	other := world()
	other.Policies = nil
	j := newJudge(world())
	j.ruleset, _ = compile.Compile(other, compile.Options{})
	c := &checker{judge: j, space: newSpace(world(), j.evaluator)}
	promise := Flow{From: []End{{Namespace: "test", Name: "bare"}}, To: []End{{Namespace: "prod", Name: "db"}}, Ports: []Port{{Proto: flow.TCP, Number: 1}}}
	c.flow(promise)
	if len(c.results) != 1 || c.results[0].Status != Bug || !strings.Contains(c.results[0].Outcome(), "the engine says allow (profile) where the explanation says deny (end-of-tier): please report this as a bug") {
		t.Errorf("got %+v", c.results)
	}
	tuple := flow.Tuple(*c.results[0].Tuple)
	same := newJudge(world())
	ev, err := same.decide(tuple)
	if err != nil {
		t.Errorf("one policy, and %v", err)
	}
	ev.Reason = explain.ByRule
	if CrossCheck("deny", "end-of-tier", ev) == nil {
		t.Error("one verdict for two reasons passes")
	}
	c.ruleset, c.results = nil, nil
	c.flow(promise)
	if len(c.results) != 1 || c.results[0].Status != Bug {
		t.Errorf("without a ruleset: %+v", c.results)
	}
}

// TestSamples: a prefix holds if and only if each of its addresses does, in worlds
// whose sets, rules and pods lie anywhere in it.
func TestSamples(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		six := rapid.Bool().Draw(t, "six")
		base := netip.MustParseAddr("192.0.2.0")
		if six {
			base = netip.MustParseAddr("2001:db8::")
		}
		addr := func(last uint8) netip.Addr {
			b := base.AsSlice()
			b[len(b)-1] = last
			a, _ := netip.AddrFromSlice(b)
			return a
		}
		prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
			return netip.PrefixFrom(addr(rapid.Byte().Draw(t, "last")), base.BitLen()-rapid.IntRange(0, 8).Draw(t, "host bits")).Masked()
		})
		prefixes := rapid.SliceOfN(prefix, 1, 3)
		s := world()
		for i := range rapid.IntRange(0, 3).Draw(t, "pods") {
			s.Endpoints = append(s.Endpoints, pod("prod", fmt.Sprint("p", i), "api-sa", nil, addr(rapid.Byte().Draw(t, "pod")).String()))
		}
		s.NetworkSets = []*policy.NetworkSet{{Kind: policy.GlobalNetworkSet, Name: "g", Labels: map[string]string{"set": "g"}, Nets: prefixes.Draw(t, "set")}}
		s.Policies[0].Ingress = []policy.Rule{
			{Action: policy.Deny, Source: policy.EntityRule{Nets: prefixes.Draw(t, "denied")}},
			{Index: 1, Action: policy.Allow, Source: policy.EntityRule{Selector: selector.Has("set")}},
			{Index: 2, Action: policy.Allow, Source: policy.EntityRule{NotNets: prefixes.Draw(t, "not allowed")}},
		}
		target := prefix.Draw(t, "target")
		f := Flow{To: []End{{Namespace: "prod", Name: "db"}}, Ports: []Port{{Proto: flow.TCP, Number: 1}}}
		check := func(from ...End) Status {
			f.From = from
			worst := Holds
			results := Check(s, Set{Assertions: []Assertion{{Flows: []Flow{f}}}})
			if len(results) != len(from) {
				t.Fatalf("%d results for %d ends", len(results), len(from))
			}
			for _, r := range results {
				worst = min(worst, r.Status)
			}
			return worst
		}
		var each []End
		for a := target.Addr(); target.Contains(a); a = a.Next() {
			each = append(each, End{Addr: a})
		}
		if got, want := check(End{Prefix: target}), check(each...); got != want {
			t.Errorf("%v: %v, and address by address %v", target, got, want)
		}
	})
}

// TestEdges: whatever states a prefix is sampled.
func TestEdges(t *testing.T) {
	t.Parallel()
	net := func(i int) []netip.Prefix {
		return []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("198.51.100.%d/32", i))}
	}
	address := func(i int) []netip.Addr { return []netip.Addr{net(i)[0].Addr()} }
	rules := func(i int) []policy.Rule {
		return []policy.Rule{{Source: policy.EntityRule{Nets: net(i), NotNets: net(i + 2)}, Destination: policy.EntityRule{Nets: net(i + 4), NotNets: net(i + 6)}}}
	}
	s := &policy.Snapshot{
		Policies:       []*policy.Policy{{Ingress: rules(0), Egress: rules(10)}},
		Profiles:       []*policy.Profile{{Ingress: rules(20), Egress: rules(30)}},
		Endpoints:      []*policy.Endpoint{{Addrs: address(40)}},
		HostEndpoints:  []*policy.HostEndpoint{{ExpectedIPs: address(42)}},
		EndpointSlices: []*policy.EndpointSlice{{Addrs: address(44)}},
		NetworkSets:    []*policy.NetworkSet{{Nets: net(46)}, {Nets: []netip.Prefix{netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("::ffff:0:0/96"), {}}}},
	}
	got := edges(s)
	for i := range 48 {
		if i%10 > 7 {
			continue
		}
		if a := address(i)[0]; !slices.Contains(got, a) { // odd ones are the ends of even ones
			t.Errorf("%v is no edge", a)
		}
	}
	if last := got[len(got)-1]; last != netip.MustParseAddr("::1:0:0:0") {
		t.Errorf("the last edge is %v", last)
	}
	sp := &space{snapshot: s, edges: got}
	for _, a := range sp.samples(netip.MustParsePrefix("::/0")) {
		if a.Is4In6() {
			t.Errorf("%v is sampled, and no packet has it", a)
		}
	}
}
