package compile

import (
	stdcmp "cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// town is the snapshot that the tests below change: two namespaces, a web and a
// db pod with addresses of both families, and a pod that no service account has.
func town(policies ...*policy.Policy) *policy.Snapshot {
	pod := func(ns, name, account, app, v4, v6 string, ports ...policy.NamedPort) *policy.Endpoint {
		return &policy.Endpoint{Namespace: ns, Name: name, ServiceAccount: account, Labels: map[string]string{"app": app}, Addrs: addresses(v4, v6), Ports: ports}
	}
	return &policy.Snapshot{
		Generation: 1,
		Tiers:      []policy.Tier{{Name: "first", Order: 1}, {Name: policy.DefaultTier, Order: policy.DefaultTierOrder}},
		Namespaces: []*policy.Namespace{
			{Name: "prod", Labels: map[string]string{"env": "prod"}},
			{Name: "test", Labels: map[string]string{"env": "test", nameLabel: "prod"}},
		},
		ServiceAccounts: []*policy.ServiceAccount{{Namespace: "prod", Name: "web", Labels: map[string]string{"role": "front"}}},
		Endpoints: []*policy.Endpoint{
			pod("prod", "db", "db", "db", "10.0.0.2", "fd00::2", policy.NamedPort{Name: "sql", Proto: flow.TCP, Port: 5432}),
			pod("prod", "web", "web", "web", "10.0.0.1", "fd00::1"),
			pod("test", "web", "", "web", "10.0.0.3", "fd00::3"),
		},
		Policies: policies,
	}
}

// global gives an enforced ingress policy for every pod labelled app=db.
func global(name string, order float64, rules ...policy.Rule) *policy.Policy {
	return &policy.Policy{
		Kind: policy.GlobalNetworkPolicy, Name: name, Tier: policy.DefaultTier, Order: order,
		Selector: selector.Equals("app", "db"), AppliesIngress: true, Ingress: rules,
	}
}

// packets to the db pod, by sender and family.
func toDB(sender string, six bool, p flow.Proto, dport uint16) flow.Tuple {
	v4 := map[string]string{"web": "10.0.0.1", "test": "10.0.0.3", "world": "203.0.113.9"}
	v6 := map[string]string{"web": "fd00::1", "test": "fd00::3", "world": "2001:db8::9"}
	src, dst := v4[sender], "10.0.0.2"
	if six {
		src, dst = v6[sender], "fd00::2"
	}
	return flow.Tuple{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Proto: p, Ported: p.HasPorts(), SrcPort: 4711, DstPort: dport}
}

// tester is what testing.T and rapid.T have in common here.
type tester interface {
	Helper()
	Fatal(...any)
}

func mustCompile(t tester, s *policy.Snapshot, o Options) *filter.Ruleset {
	t.Helper()
	rs, problems := Compile(s, o)
	if rs == nil {
		t.Fatal(problems)
	}
	return rs
}

// TestActions tries every action in either direction and family: alone, and
// before a rule that does the opposite.
func TestActions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		action policy.Action
		then   policy.Action
		want   filter.Verdict
		reason filter.Reason
		index  int
	}{
		{policy.Allow, policy.Deny, filter.Accept, filter.ByRule, 0},
		{policy.Deny, policy.Allow, filter.Drop, filter.ByRule, 0},
		{policy.Pass, policy.Deny, filter.Accept, filter.ByProfile, 0},
		{policy.Log, policy.Allow, filter.Accept, filter.ByRule, 1},
		{policy.Log, policy.Deny, filter.Drop, filter.ByRule, 1},
		{policy.Log, policy.Log, filter.Drop, filter.EndOfTier, -1},
	} {
		for _, dir := range directions {
			for _, six := range []bool{false, true} {
				rules := []policy.Rule{{Action: tt.action}, {Index: 1, Action: tt.then}}
				p := &policy.Policy{Kind: policy.NetworkPolicy, Namespace: "prod", Name: "p", Tier: "first", Order: 1}
				if dir == flow.Egress {
					p.AppliesEgress, p.Egress, p.Selector = true, rules, selector.Equals("app", "web")
				} else {
					p.AppliesIngress, p.Ingress, p.Selector = true, rules, selector.Equals("app", "db")
				}
				rs := mustCompile(t, town(p), Options{})
				d := rs.Decide(toDB("web", six, flow.TCP, 80))
				o := d.Ingress
				if dir == flow.Egress {
					o = d.Egress
				}
				if d.Verdict != tt.want || o.Verdict != tt.want || o.Reason != tt.reason || o.Logged != (tt.action == policy.Log) {
					t.Errorf("%s then %s, %s, IPv6 %v: %+v", tt.action, tt.then, dir, six, d)
				}
				if o.Reason != filter.ByProfile {
					info := rs.RuleInfo(o.Rule)
					if info.Index != tt.index || info.Direction != dir || info.Tier != "first" {
						t.Errorf("%s then %s, %s: rule %+v", tt.action, tt.then, dir, info)
					}
				}
			}
		}
	}
}

// TestOrder looks at which of two policies with opposite rules comes first.
func TestOrder(t *testing.T) {
	t.Parallel()
	allow, deny := policy.Rule{Action: policy.Allow}, policy.Rule{Action: policy.Deny}
	first := func(name string, order float64, kind policy.Kind, namespace, tier string) *policy.Policy {
		p := global(name, order, allow)
		p.Kind, p.Namespace, p.Tier = kind, namespace, tier
		return p
	}
	second := func(name string, order float64, kind policy.Kind, namespace, tier string) *policy.Policy {
		p := first(name, order, kind, namespace, tier)
		p.Ingress = []policy.Rule{deny}
		return p
	}
	const gnp, np, knp = policy.GlobalNetworkPolicy, policy.NetworkPolicy, policy.KubernetesNetworkPolicy
	const tier = policy.DefaultTier
	for name, pair := range map[string][2]*policy.Policy{
		"tier before order":         {first("z", 9, gnp, "", "first"), second("a", 1, gnp, "", tier)},
		"ghost tier last":           {first("z", 9, gnp, "", tier), second("a", 1, gnp, "", "aaa")},
		"ghost tiers by name":       {first("z", 9, gnp, "", "ghost1"), second("a", 1, gnp, "", "ghost2")},
		"order":                     {first("z", -1.5, gnp, "", tier), second("a", 0.5, gnp, "", tier)},
		"no order is last":          {first("z", 1e12, gnp, "", tier), second("a", policy.Unordered, gnp, "", tier)},
		"numbers in names are text": {first("p10", 1, gnp, "", tier), second("p2", 1, gnp, "", tier)},
		"hyphen before the slash":   {first("a-x", 1, gnp, "", tier), second("a", 1, gnp, "", tier)},
		"empty namespace first":     {first("a", 1, gnp, "", tier), second("a", 1, np, "prod", tier)},
		"kinds by name":             {first("a", 1, knp, "prod", tier), second("a", 1, np, "prod", tier)},
		"name before namespace":     {first("a", 1, np, "prod", tier), second("b", 1, gnp, "", tier)},
	} {
		for _, policies := range [][]*policy.Policy{{pair[0], pair[1]}, {pair[1], pair[0]}} {
			rs := mustCompile(t, town(policies...), Options{})
			d := rs.Decide(toDB("web", false, flow.TCP, 80))
			if info := rs.RuleInfo(d.Ingress.Rule); d.Verdict != filter.Accept || info.Name != pair[0].Name || info.Kind != string(pair[0].Kind) {
				t.Errorf("%s: %+v by %+v", name, d, info)
			}
		}
	}
}

// TestIdentity looks at the labels that pods, sets and host endpoints end up with.
func TestIdentity(t *testing.T) {
	t.Parallel()
	s := town()
	s.Namespaces[0].Labels[nameLabel] = "forged"
	s.ServiceAccounts[0].Labels[nameLabel] = "forged"
	s.ServiceAccounts = append(s.ServiceAccounts, &policy.ServiceAccount{Namespace: "prod", Name: "dotted.name", Labels: map[string]string{"k": "v"}})
	forged := map[string]string{
		"app": "x", namespaceLabel: "test", serviceAccountLabel: "root", orchestratorLabel: "none", "pcns.env": "forged", "pcsa.role": "forged", "pcns.": "1", "pcsa.x": "1",
	}
	s.Endpoints[0].Labels, s.Endpoints[0].ServiceAccount = forged, "gone"
	s.Endpoints[1].Labels = forged
	s.Endpoints[2].Labels, s.Endpoints[2].Namespace = forged, "unknown"
	s.NetworkSets = []*policy.NetworkSet{
		{Kind: policy.GlobalNetworkSet, Name: "g", Labels: forged},
		{Kind: policy.NetworkSetKind, Namespace: "prod", Name: "n", Labels: forged},
	}
	s.HostEndpoints = []*policy.HostEndpoint{{Name: "h", Labels: forged, Profiles: []string{"prof", "kns.prod", "ksa.prod.dotted.name"}}}
	s.Profiles = []*policy.Profile{{Name: "prof", LabelsToApply: map[string]string{"app": "loses", "given": "yes", "pcsa.role": "forged"}}}
	c := New(Options{})
	c.rebuild(s)
	identities := slices.SortedFunc(maps.Values(c.interned), func(a, b *identity) int { return stdcmp.Compare(a.atom, b.atom) })
	want := []selector.Map{
		{"app": "x", namespaceLabel: "prod", orchestratorLabel: "k8s", serviceAccountLabel: "gone", "pcns.env": "prod", "pcns." + nameLabel: "prod"},
		{"app": "x", namespaceLabel: "prod", orchestratorLabel: "k8s", serviceAccountLabel: "web", "pcns.env": "prod", "pcns." + nameLabel: "prod",
			"pcsa.role": "front", "pcsa." + nameLabel: "web"},
		{"app": "x", namespaceLabel: "unknown", orchestratorLabel: "k8s"},
		{"app": "x"},
		{"app": "x", namespaceLabel: "prod", "pcns.env": "prod", "pcns." + nameLabel: "prod"},
		{"app": "x", "given": "yes"}, // kns.* and ksa.* are for pods
	}
	for i := range max(len(want), len(identities)) {
		if i >= len(want) || i >= len(identities) {
			t.Fatalf("%d identities, want %d", len(identities), len(want))
		}
		if diff := cmp.Diff(want[i], identities[i].labelMap()); diff != "" {
			t.Errorf("identity %d (-want +got):\n%s", i, diff)
		}
	}
	if identities[2].open || !identities[0].open {
		t.Error("a pod is open if and only if its namespace is known")
	}
}

// TestEqualPodsShare checks that replicas are one identity and share programs.
func TestEqualPodsShare(t *testing.T) {
	t.Parallel()
	s := town(global("p", 1, policy.Rule{Action: policy.Allow}))
	before := mustCompile(t, s, Options{}).Sizes()
	twin := *s.Endpoints[0]
	twin.Name, twin.Addrs = "db2", addresses("10.0.0.9")
	twin.Labels = map[string]string{"app": "db"}
	s.Endpoints = append(s.Endpoints, &twin)
	after := mustCompile(t, s, Options{}).Sizes()
	before.Prefixes++
	before.Endpoints++
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("one more replica (-want +got):\n%s", diff)
	}
}

// TestScope prints what entity rules are rewritten to.
func TestScope(t *testing.T) {
	t.Parallel()
	sel := selector.MustParse
	accounts := func(s *selector.Selector, names ...string) *policy.ServiceAccountMatch {
		return &policy.ServiceAccountMatch{Names: names, Selector: s}
	}
	const none = "-"
	for _, tt := range []struct {
		name                string
		in                  policy.EntityRule
		namespaced, global_ string // POS in a policy of namespace p, and in a global one
		neg                 string
	}{
		{"nothing", policy.EntityRule{}, none, none, none},
		{"nets", policy.EntityRule{Nets: prefixes("10.0.0.0/8")}, none, none, none},
		{"empty accounts", policy.EntityRule{ServiceAccounts: accounts(nil)}, none, none, none},
		{"selector", policy.EntityRule{Selector: sel(`a == "b"`)}, `projectcalico.org/namespace == "p" && a == "b"`, `a == "b"`, none},
		{"notSelector", policy.EntityRule{NotSelector: sel(`has(a)`)}, `projectcalico.org/namespace == "p"`, none, `has(a)`},
		{"names", policy.EntityRule{ServiceAccounts: accounts(nil, "y", "x")},
			`projectcalico.org/namespace == "p" && projectcalico.org/serviceaccount in {"x", "y"}`, `projectcalico.org/serviceaccount in {"x", "y"}`, none},
		{"names and account selector", policy.EntityRule{ServiceAccounts: accounts(sel(`r != "i"`), "x")},
			`projectcalico.org/namespace == "p" && pcsa.r != "i" && projectcalico.org/serviceaccount in {"x"}`, `pcsa.r != "i" && projectcalico.org/serviceaccount in {"x"}`, none},
		{"account selector all()", policy.EntityRule{ServiceAccounts: accounts(selector.All())}, `projectcalico.org/namespace == "p" && all()`, `all()`, none},
		{"namespace all()", policy.EntityRule{NamespaceSelector: selector.All()}, `has(projectcalico.org/namespace)`, `has(projectcalico.org/namespace)`, none},
		{"namespace global()", policy.EntityRule{NamespaceSelector: sel(`global()`), Selector: sel(`a == "all()"`)},
			`!has(projectcalico.org/namespace) && a == "all()"`, `!has(projectcalico.org/namespace) && a == "all()"`, none},
		{"namespace and notSelector", policy.EntityRule{NamespaceSelector: sel(`e == "x" || all()`), NotSelector: sel(`b == "c"`)},
			`pcns.e == "x" || has(projectcalico.org/namespace)`, `pcns.e == "x" || has(projectcalico.org/namespace)`, `b == "c"`},
	} {
		for namespace, want := range map[string]string{"p": tt.namespaced, "": tt.global_} {
			p := scope(&tt.in, namespace)
			for _, part := range []struct {
				got  *selector.Selector
				want string
			}{{p.pos, want}, {p.neg, tt.neg}} {
				got := none
				if part.got != nil {
					got = part.got.String()
				}
				if got != part.want {
					t.Errorf("%s in %q: %s, want %s", tt.name, namespace, got, part.want)
				}
			}
		}
	}
}

func TestSubject(t *testing.T) {
	t.Parallel()
	sel := selector.MustParse
	for _, tt := range []struct {
		in   policy.Policy
		want string
	}{
		{policy.Policy{}, ""},
		{policy.Policy{Namespace: "p"}, `projectcalico.org/namespace == "p"`},
		{policy.Policy{Namespace: "p", Selector: selector.All(), ServiceAccountSelector: selector.All()}, `projectcalico.org/namespace == "p" && all() && all()`},
		{policy.Policy{Selector: sel(`a == "b"`), NamespaceSelector: sel(`e != "x"`), ServiceAccountSelector: sel(`has(r)`)}, `a == "b" && pcns.e != "x" && has(pcsa.r)`},
		{policy.Policy{Selector: selector.All()}, `all()`},
		{policy.Policy{Selector: selector.All(), NamespaceSelector: sel(`e != "x"`)}, `has(projectcalico.org/namespace) && pcns.e != "x"`},
		{policy.Policy{NamespaceSelector: selector.All(), ServiceAccountSelector: selector.All()}, `has(projectcalico.org/namespace) && has(projectcalico.org/serviceaccount)`},
		{policy.Policy{Selector: selector.All(), ServiceAccountSelector: sel(`has(r)`)}, `has(projectcalico.org/serviceaccount) && has(pcsa.r)`},
	} {
		if got := subject(&tt.in).String(); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.in, got, tt.want)
		}
	}
}

// TestPorts covers numbers, names and families in one table.
// It is not parallel because it counts allocations.
func TestPorts(t *testing.T) {
	tcp := &policy.Protocol{Number: flow.TCP, ByName: true}
	ports := func(p ...policy.Port) policy.EntityRule { return policy.EntityRule{Ports: p} }
	number := func(min, max uint16) policy.Port { return policy.Port{PortRange: flow.PortRange{Min: min, Max: max}} }
	name := func(n string) policy.Port { return policy.Port{Name: n} }
	with := func(e policy.EntityRule, s *selector.Selector) policy.EntityRule { e.Selector = s; return e }
	for _, tt := range []struct {
		name string
		dst  policy.EntityRule
		port uint16
		want bool
	}{
		{"number", ports(number(80, 80)), 80, true},
		{"range", ports(number(1, 2), number(70, 90)), 90, true},
		{"beyond the range", ports(number(70, 90)), 91, false},
		{"name", ports(name("sql")), 5432, true},
		{"name, other port", ports(name("sql")), 5433, false},
		{"name or number", ports(name("sql"), number(80, 80)), 80, true},
		{"unknown name", ports(name("nope")), 5432, false},
		{"name with the selector of its side", with(ports(name("sql")), selector.Equals("app", "db")), 5432, true},
		{"name against the selector of its side", with(ports(name("sql")), selector.Equals("app", "web")), 5432, false},
		{"notPorts by name", policy.EntityRule{NotPorts: []policy.Port{name("sql")}}, 5432, false},
		{"notPorts by name, other port", policy.EntityRule{NotPorts: []policy.Port{name("sql")}}, 80, true},
	} {
		rs := mustCompile(t, town(global("p", 1, policy.Rule{Action: policy.Allow, Protocol: tcp, Destination: tt.dst})), Options{})
		for _, six := range []bool{false, true} {
			tu := toDB("web", six, flow.TCP, tt.port)
			if got := rs.Decide(tu).Verdict == filter.Accept; got != tt.want {
				t.Errorf("%s, IPv6 %v: %v, want %v", tt.name, six, got, tt.want)
			}
			if n := testing.AllocsPerRun(20, func() { rs.Decide(tu) }); n != 0 {
				t.Errorf("%s: Decide allocates %v times", tt.name, n)
			}
		}
	}
}

func TestFamilies(t *testing.T) {
	t.Parallel()
	named := func(p flow.Proto) *policy.Protocol { return &policy.Protocol{Number: p, ByName: true} }
	v4, v6 := prefixes("10.0.0.0/8"), prefixes("fd00::/8")
	for _, tt := range []struct {
		name   string
		rule   policy.Rule
		v4, v6 bool
	}{
		{"nothing stated", policy.Rule{}, true, true},
		{"ipVersion 4", policy.Rule{IPVersion: 4}, true, false},
		{"ipVersion 6", policy.Rule{IPVersion: 6}, false, true},
		{"unknown ipVersion", policy.Rule{IPVersion: 5}, false, false},
		{"ICMP by name", policy.Rule{Protocol: named(flow.ICMP)}, true, false},
		{"ICMPv6 by name", policy.Rule{Protocol: named(flow.ICMPv6)}, false, true},
		{"ICMP by number", policy.Rule{Protocol: &policy.Protocol{Number: flow.ICMP}}, true, true},
		{"not ICMP", policy.Rule{NotProtocol: named(flow.ICMP)}, true, true},
		{"nets", policy.Rule{Source: policy.EntityRule{Nets: v4}}, true, false},
		{"notNets", policy.Rule{Destination: policy.EntityRule{NotNets: v6}}, false, true},
		{"both families", policy.Rule{Source: policy.EntityRule{Nets: append(slices.Clone(v4), v6...)}}, true, true},
		{"contradiction", policy.Rule{Source: policy.EntityRule{Nets: v4, NotNets: v6}}, false, false},
	} {
		if v4, v6 := families(&tt.rule); v4 != tt.v4 || v6 != tt.v6 {
			t.Errorf("%s: IPv4 %v, IPv6 %v", tt.name, v4, v6)
		}
	}
}

// TestStaged compares what is enforced with what is pending.
func TestStaged(t *testing.T) {
	t.Parallel()
	deny := policy.Rule{Action: policy.Deny}
	staged := func(name string, a policy.StagedAction) *policy.Policy {
		p := global(name, 1, deny)
		p.Kind, p.Staged = policy.StagedGlobalNetworkPolicy, a
		return p
	}
	allowed := global("p", 1, policy.Rule{Action: policy.Allow})
	denied := global("p", 1, deny)
	inProd := func(p *policy.Policy, k policy.Kind) *policy.Policy {
		q := *p
		q.Kind, q.Namespace = k, "prod"
		return &q
	}
	for _, tt := range []struct {
		name              string
		policies          []*policy.Policy
		enforced, pending filter.Verdict
	}{
		{"alone", []*policy.Policy{staged("s", policy.StagedSet)}, filter.Accept, filter.Drop},
		{"learn", []*policy.Policy{staged("s", policy.StagedLearn)}, filter.Accept, filter.Drop},
		{"ignore, which a source leaves out", []*policy.Policy{staged("s", policy.StagedIgnore)}, filter.Accept, filter.Drop},
		{"staged kind without action", []*policy.Policy{staged("s", policy.Enforced)}, filter.Accept, filter.Drop},
		{"replaces its twin", []*policy.Policy{allowed, staged("p", policy.StagedSet)}, filter.Accept, filter.Drop},
		{"deletes its twin", []*policy.Policy{denied, staged("p", policy.StagedDelete)}, filter.Drop, filter.Accept},
		{"deletes nothing else", []*policy.Policy{denied, staged("q", policy.StagedDelete)}, filter.Drop, filter.Drop},
		{"sorts as the kind it stages", []*policy.Policy{inProd(allowed, policy.NetworkPolicy), inProd(staged("p", policy.StagedSet), policy.StagedKubernetesNetworkPolicy)}, filter.Accept, filter.Drop},
	} {
		tu := toDB("web", false, flow.TCP, 80)
		rs := mustCompile(t, town(tt.policies...), Options{})
		if got := rs.Decide(tu).Verdict; got != tt.enforced {
			t.Errorf("%s: enforced %s", tt.name, got)
		}
		if got := mustCompile(t, town(tt.policies...), Options{Pending: true}).Decide(tu).Verdict; got != tt.pending {
			t.Errorf("%s: pending %s", tt.name, got)
		}
		if got := explain.New(town(tt.policies...), explain.Options{}).DecidePending(tu).Verdict; got.String() != tt.pending.String() {
			t.Errorf("%s: pending to the oracle %s", tt.name, got)
		}
		if tt.name == "alone" && len(rs.Protected(flow.Ingress)) != 0 {
			t.Error("a staged policy protects an address")
		}
	}
}

// TestProtected compiles for one node and looks at whom the kernel has to ask about.
func TestProtected(t *testing.T) {
	t.Parallel()
	s := town(global("p", 1))
	s.Endpoints[0].Node, s.Endpoints[1].Node, s.Endpoints[2].Node = "n1", "n1", "n2"
	equal := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	check := func(name, node string, ingress, egress []netip.Addr) {
		t.Helper()
		rs := mustCompile(t, s, Options{Node: node})
		if diff := cmp.Diff([2][]netip.Addr{ingress, egress}, [2][]netip.Addr{rs.Protected(flow.Ingress), rs.Protected(flow.Egress)}, equal); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	check("selected", "n1", addresses("10.0.0.2", "fd00::2"), nil)
	check("hosted elsewhere", "n2", nil, nil)
	s.Namespaces = s.Namespaces[:1]
	check("namespace not known", "n2", addresses("10.0.0.3", "fd00::3"), addresses("10.0.0.3", "fd00::3"))
	s.Endpoints[2].Addrs = addresses("10.0.0.1")
	check("conflict", "n1", addresses("10.0.0.1", "10.0.0.2", "fd00::2"), addresses("10.0.0.1"))
}

func TestProblems(t *testing.T) {
	t.Parallel()
	s := town(global("p", 1))
	s.Policies[0].Tier = "ghost"
	s.Endpoints[2].Addrs = append(addresses("::ffff:10.0.0.9", "fe80::1%eth0"), netip.Addr{}, s.Endpoints[1].Addrs[0])
	s.HostEndpoints = []*policy.HostEndpoint{{Name: "h", Profiles: []string{"missing"}}}
	negative, narrowed := global("n", 1), global("all", 1)
	negative.Selector, negative.NamespaceSelector = nil, selector.MustParse(`env != "prod"`)
	narrowed.Selector, narrowed.NamespaceSelector = selector.All(), negative.NamespaceSelector
	s.Policies = append(s.Policies, negative, narrowed)
	rs, problems := Compile(s, Options{})
	var got []string
	for _, p := range problems {
		got = append(got, p.Error())
	}
	for _, want := range []string{
		`Pod test/web: status.podIPs: address ::ffff:10.0.0.9`, `Pod test/web: status.podIPs: address fe80::1%eth0`, `Pod test/web: status.podIPs: address invalid`,
		`Pod test/web: status.podIPs: Pod prod/web claims 10.0.0.1 too`, `GlobalNetworkPolicy p: spec.tier: there is no tier "ghost"`, `HostEndpoint h: spec.profiles: profile "missing"`,
		`GlobalNetworkPolicy n: spec.namespaceSelector: `,
	} {
		if n := len(slices.DeleteFunc(slices.Clone(got), func(s string) bool { return !strings.HasPrefix(s, want) })); n != 1 {
			t.Errorf("%d problems begin with %q, want 1, of:\n%s", n, want, strings.Join(got, "\n"))
		}
	}
	if len(got) != 7 {
		t.Errorf("%d problems, want 7:\n%s", len(got), strings.Join(got, "\n"))
	}
	if d := rs.Decide(toDB("web", false, flow.TCP, 80)); d.Reason != filter.AddressConflict {
		t.Errorf("address in conflict: %+v", d)
	}
}

func TestEmptySnapshot(t *testing.T) {
	t.Parallel()
	rs, problems := Compile(nil, Options{})
	if rs == nil || len(problems) != 0 {
		t.Fatal(problems)
	}
	if d := rs.Decide(toDB("web", false, flow.TCP, 80)); d != (filter.Decision{Reason: filter.NoLocalEndpoint}) {
		t.Errorf("%+v", d)
	}
}

// TestTwice compiles a world twice, the second time with its objects in another
// order, and expects the same decisions.
func TestTwice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		d := draw{rt}
		s := d.snapshot()
		a, _ := Compile(s, Options{})
		b, _ := Compile(s, Options{})
		turned := *s
		turned.Policies, turned.Endpoints, turned.NetworkSets = reversed(s.Policies), reversed(s.Endpoints), reversed(s.NetworkSets)
		turned.Tiers, turned.Namespaces, turned.EndpointSlices = reversed(s.Tiers), reversed(s.Namespaces), reversed(s.EndpointSlices)
		c, _ := Compile(&turned, Options{})
		for range flowsPerWorld {
			tu := d.tuple(s)
			if a.Decide(tu) != b.Decide(tu) {
				rt.Fatalf("%s: %+v, then %+v", tu, a.Decide(tu), b.Decide(tu))
			}
			if diff := cmp.Diff(engineAnswer(a, tu), engineAnswer(c, tu)); diff != "" {
				rt.Fatalf("%s, objects reversed (-first +reversed):\n%s", tu, diff)
			}
		}
	})
}

func reversed[E any](s []E) []E {
	s = slices.Clone(s)
	slices.Reverse(s)
	return s
}

// TestAnnotations: a rule's annotations are part of what logs are told of it.
func TestAnnotations(t *testing.T) {
	t.Parallel()
	rs := mustCompile(t, town(global("p", 1, policy.Rule{Action: policy.Allow, Annotations: map[string]string{"b": "2", "a": "1"}})), Options{})
	for id := filter.RuleID(1); rs.RuleInfo(id) != (filter.RuleInfo{}); id++ {
		if i := rs.RuleInfo(id); i.Name == "p" {
			if i.Annotations != "a=1 b=2" {
				t.Errorf("annotations %q", i.Annotations)
			}
			return
		}
	}
	t.Error("the rule is not there")
}

// labelMap gives the labels as the tests state them; nil if one is there twice.
func (id *identity) labelMap() selector.Map {
	m := make(selector.Map)
	for _, l := range id.labels {
		if _, twice := m[l.name]; twice {
			return nil
		}
		m[l.name] = l.value
	}
	return m
}
