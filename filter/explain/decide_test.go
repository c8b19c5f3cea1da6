package explain

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// TestTiers walks rules, policies, tiers and profiles (section 5.2) at db's
// ingress from web.
func TestTiers(t *testing.T) {
	t.Parallel()
	fromAPI := policy.EntityRule{Selector: sel(`app == "api"`)}
	tests := []struct {
		name     string
		policies []*policy.Policy
		verdict  Verdict
		reason   Reason
		tier     string
		rule     string // of the deciding rule
	}{
		{"no policy", nil, Allow, ByProfile, "", ""},
		{"no rule", []*policy.Policy{np("p", 1)}, Deny, EndOfTier, "default", ""},
		{"first match wins", []*policy.Policy{np("p", 1, from(policy.Deny, fromAPI), only(policy.Allow), only(policy.Deny))},
			Allow, ByRule, "default", "rule ingress[1] (Allow) of NetworkPolicy prod/p in tier default"},
		{"lower order first", []*policy.Policy{np("a", 2, only(policy.Allow)), np("b", 1, only(policy.Deny))},
			Deny, ByRule, "default", "rule ingress[0] (Deny) of NetworkPolicy prod/b in tier default"},
		{"the next policy of a tier", []*policy.Policy{np("a", 1, from(policy.Deny, fromAPI)), np("b", 2, only(policy.Allow))},
			Allow, ByRule, "default", "rule ingress[0] (Allow) of NetworkPolicy prod/b in tier default"},
		{"log goes on", []*policy.Policy{np("p", 1, only(policy.Log), only(policy.Allow))},
			Allow, ByRule, "default", "rule ingress[1] (Allow) of NetworkPolicy prod/p in tier default"},
		{"log alone isolates", []*policy.Policy{np("p", 1, only(policy.Log))}, Deny, EndOfTier, "default", ""},
		{"pass skips the tier", []*policy.Policy{np("a", 1, only(policy.Pass)), np("b", 2, only(policy.Deny))}, Allow, ByProfile, "", ""},
		{"pass reaches the next tier", []*policy.Policy{in(policy.AdminTier, gnp("a", 1, only(policy.Pass))), np("b", 2, only(policy.Deny))},
			Deny, ByRule, "default", "rule ingress[0] (Deny) of NetworkPolicy prod/b in tier default"},
		{"default action Pass", []*policy.Policy{in(policy.AdminTier, gnp("a", 1, from(policy.Deny, fromAPI)))}, Allow, ByProfile, "", ""},
		{"tier without object is last and denies", []*policy.Policy{in("ghost", gnp("g", -1)), np("p", 1, only(policy.Pass))}, Deny, EndOfTier, "ghost", ""},
		{"other direction", []*policy.Policy{{Kind: policy.NetworkPolicy, Namespace: "prod", Name: "e", Tier: "default", AppliesEgress: true, Ingress: []policy.Rule{only(policy.Deny)}, Egress: []policy.Rule{only(policy.Allow)}}},
			Allow, ByProfile, "", ""},
		{"host policies do not affect pods", []*policy.Policy{
			{Kind: policy.GlobalNetworkPolicy, Name: "u", Tier: "default", AppliesIngress: true, DoNotTrack: true, ApplyOnForward: true},
			{Kind: policy.GlobalNetworkPolicy, Name: "d", Tier: "default", AppliesIngress: true, PreDNAT: true, ApplyOnForward: true}}, Allow, ByProfile, "", ""},
		{"applyOnForward is ordinary for pods", []*policy.Policy{{Kind: policy.GlobalNetworkPolicy, Name: "f", Tier: "default", AppliesIngress: true, ApplyOnForward: true}}, Deny, EndOfTier, "default", ""},
		{"unknown action denies", []*policy.Policy{np("p", 1, only(policy.Action(9)), only(policy.Allow))},
			Deny, ByRule, "default", "rule ingress[0] (Deny) of NetworkPolicy prod/p in tier default"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := New(worldWith(tt.policies...), Options{}).EvaluateSide(tcp("web", "db", 80), flow.Ingress)
			rule := ""
			if s.Rule != nil {
				rule = s.Rule.String()
			}
			if s.Verdict != tt.verdict || s.Reason != tt.reason || s.Tier != tt.tier || rule != tt.rule {
				t.Errorf("got %s, %s, tier %q, %q", s.Verdict, s.Reason, s.Tier, rule)
			}
		})
	}
}

// TestEnds checks how the two ends combine (section 5.3) and every verdict that
// comes before policy.
func TestEnds(t *testing.T) {
	t.Parallel()
	denyOut := &policy.Policy{Kind: policy.NetworkPolicy, Namespace: "prod", Name: "out", Tier: "default", Selector: sel(`app == "web"`), AppliesEgress: true}
	s := worldWith(np("in", 1, from(policy.Allow, policy.EntityRule{Selector: sel(`app == "web"`)})), denyOut)
	s.Endpoints = append(s.Endpoints,
		pod("staging", "thief", "default", nil, "10.0.1.4"),
		pod("staging", "far", "default", nil, "10.0.2.9"),
		pod("gone", "orphan", "default", nil, "10.0.9.9"))
	for _, ep := range s.Endpoints {
		ep.Node = "here"
		if ep.Name == "far" {
			ep.Node = "there"
		}
		if ep.Name == "db" {
			ep.Node = "" // the source does not say
		}
	}
	e := New(s, Options{Node: "here"})
	to := func(src, dst string) flow.Tuple {
		return flow.Tuple{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Proto: flow.TCP, Ported: true}
	}
	const db, web, api, far, twice, ext = "10.0.1.1", "10.0.1.3", "10.0.1.2", "10.0.2.9", "10.0.1.4", "192.0.2.1"
	tests := []struct {
		name            string
		tuple           flow.Tuple
		verdict         Verdict
		reason          Reason
		side            string
		egress, ingress Reason
	}{
		{"egress denies first", to(web, db), Deny, EndOfTier, "egress", EndOfTier, ByRule},
		{"ingress denies", to(api, db), Deny, EndOfTier, "ingress", ByProfile, EndOfTier},
		{"both allow, ingress speaks last", to(db, api), Allow, ByProfile, "ingress", ByProfile, ByProfile},
		{"sender elsewhere", to(far, api), Allow, ByProfile, "ingress", NotHosted, ByProfile},
		{"receiver elsewhere", to(api, far), Allow, ByProfile, "egress", ByProfile, NotHosted},
		{"external sender", to(ext, db), Deny, EndOfTier, "ingress", NotHosted, EndOfTier},
		{"nobody here", to(far, ext), Deny, NoLocalEndpoint, "", NotHosted, NotHosted},
		{"unknown namespace", to(ext, "10.0.9.9"), Deny, NoProfile, "ingress", NotHosted, NoProfile},
		{"conflict at the source", to(twice, api), Deny, AddressConflict, "", AddressConflict, AddressConflict},
		{"conflict at the destination", to(ext, twice), Deny, AddressConflict, "", AddressConflict, AddressConflict},
		{"two families", to(api, "fd00:1::1"), Deny, InvalidTuple, "", InvalidTuple, InvalidTuple},
		{"zero tuple", flow.Tuple{}, Deny, InvalidTuple, "", InvalidTuple, InvalidTuple},
		{"a pod to itself is both ends", to(web, web), Deny, EndOfTier, "egress", EndOfTier, ByProfile},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tr := e.Explain(tt.tuple)
			type row struct {
				Verdict         Verdict
				Reason          Reason
				Side            string
				Egress, Ingress Reason
				NotReached      bool
			}
			want := row{tt.verdict, tt.reason, tt.side, tt.egress, tt.ingress, tt.side == "egress" && tt.verdict == Deny}
			got := row{tr.Verdict, tr.Reason, tr.Side, tr.Egress.Reason, tr.Ingress.Reason, tr.Ingress.NotReached}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if d := e.Decide(tt.tuple); d.Verdict != tr.Verdict || d.Reason != tr.Reason || d.Side != tr.Side {
				t.Errorf("Decide says %s, %s, %s", d.Verdict, d.Reason, d.Side)
			}
		})
	}
	if tr := e.Explain(to(twice, api)); !tr.Source.Conflict || tr.Source.Hosted || len(tr.Source.Pods) != 2 {
		t.Errorf("identity of a conflict: %+v", tr.Source)
	}
	if got := e.EvaluateSide(to(twice, api), flow.Ingress); got.Verdict != Deny || got.Reason != AddressConflict {
		t.Errorf("EvaluateSide of a conflict: %s, %s", got.Verdict, got.Reason)
	}
}

// TestLogs: Log rules that match on the way are listed, others are not.
func TestLogs(t *testing.T) {
	t.Parallel()
	logs := np("p", 1,
		from(policy.Log, policy.EntityRule{ServiceAccounts: names("api-service")}), only(policy.Log), only(policy.Allow), only(policy.Log))
	s := New(worldWith(logs), Options{}).EvaluateSide(tcp("web", "db", 80), flow.Ingress)
	want := []RuleRef{{Tier: "default", Kind: policy.NetworkPolicy, Namespace: "prod", Name: "p", Direction: "ingress", Index: 1, Action: "Log"}}
	if diff := cmp.Diff(want, s.Logs); diff != "" {
		t.Errorf("logs (-want +got):\n%s", diff)
	}
	if got := s.Tiers[0].Policies[0]; len(got.Rules) != 3 || got.Unread != 1 {
		t.Errorf("read %d rules and left %d, want 3 and 1", len(got.Rules), got.Unread)
	}
}

func TestNearestMiss(t *testing.T) {
	t.Parallel()
	two := policy.Rule{Action: policy.Allow, Protocol: byName(flow.UDP), Source: policy.EntityRule{ServiceAccounts: names("api-service")}}
	one := policy.Rule{Action: policy.Allow, Protocol: byName(flow.TCP), Source: policy.EntityRule{ServiceAccounts: names("api-service")}}
	far := policy.Rule{Action: policy.Allow, Source: policy.EntityRule{NamespaceSelector: sel(`env == "x"`), ServiceAccounts: names("x"), Selector: sel("has(x)")}}
	tests := []struct {
		name     string
		policies []*policy.Policy
		rule     string
		fields   []string
		shadowed bool
	}{
		{"no Allow rule", []*policy.Policy{np("p", 1, only(policy.Deny))}, "", nil, false},
		{"fewest failures", []*policy.Policy{np("p", 1, far, two, one)}, "rule ingress[2] (Allow) of NetworkPolicy prod/p in tier default",
			[]string{"source.serviceAccounts.names"}, false},
		{"first of equals", []*policy.Policy{np("p", 1, one), np("q", 2, one)}, "rule ingress[0] (Allow) of NetworkPolicy prod/p in tier default",
			[]string{"source.serviceAccounts.names"}, false},
		{"all failures are listed", []*policy.Policy{np("p", 1, far)}, "rule ingress[0] (Allow) of NetworkPolicy prod/p in tier default",
			[]string{"source.namespaceSelector", "source.serviceAccounts.names", "source.selector"}, false},
		{"behind the Deny", []*policy.Policy{np("p", 1, one, only(policy.Deny)), np("q", 2, only(policy.Allow))},
			"rule ingress[0] (Allow) of NetworkPolicy prod/q in tier default", nil, true},
		{"behind a Pass", []*policy.Policy{in(policy.AdminTier, gnp("a", 1, only(policy.Pass), only(policy.Allow))), np("p", 1, one)},
			"rule ingress[1] (Allow) of GlobalNetworkPolicy a in tier kube-admin", nil, true},
		{"not in a later tier", []*policy.Policy{np("p", 1, one), in(policy.BaselineTier, gnp("b", 1, only(policy.Allow)))},
			"rule ingress[0] (Allow) of NetworkPolicy prod/p in tier default", []string{"source.serviceAccounts.names"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := New(worldWith(tt.policies...), Options{}).EvaluateSide(tcp("web", "db", 80), flow.Ingress)
			if s.Verdict != Deny {
				t.Fatal("allowed")
			}
			n := s.NearestMiss
			if n == nil {
				n = &NearestMiss{}
			}
			var fields []string
			for _, c := range n.Failed {
				fields = append(fields, c.Field)
			}
			rule := ""
			if s.NearestMiss != nil {
				rule = n.Rule.String()
			}
			if rule != tt.rule || n.Shadowed != tt.shadowed || !cmp.Equal(fields, tt.fields) {
				t.Errorf("got %q, %q, shadowed %t", rule, fields, n.Shadowed)
			}
		})
	}
}

// TestDecideIsExplain: recording steps changes nothing, on random policies; and
// a nearest miss on a denied side never claims to match without being shadowed.
func TestDecideIsExplain(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var policies []*policy.Policy
		for i := range rapid.IntRange(0, 4).Draw(t, "policies") {
			var rules []policy.Rule
			for range rapid.IntRange(0, 4).Draw(t, "rules") {
				r := from(policy.Action(rapid.IntRange(0, 3).Draw(t, "action")), policy.EntityRule{
					Selector:    optional(rapid.SampledFrom([]string{"", `app == "web"`, "!has(app)"}).Draw(t, "selector")),
					NotSelector: optional(rapid.SampledFrom([]string{"", "", `app == "api"`}).Draw(t, "notSelector")),
					NotNets:     rapid.SampledFrom([][]netip.Prefix{nil, nil, prefixes("10.0.1.0/24")}).Draw(t, "notNets"),
				})
				rules = append(rules, r)
			}
			p := np("p", float64(rapid.IntRange(0, 1).Draw(t, "order")), rules...)
			p.Name += string(rune('a' + i))
			p.Tier = rapid.SampledFrom([]string{"default", "kube-admin", "ghost"}).Draw(t, "tier")
			if rapid.Bool().Draw(t, "staged") {
				staged(policy.StagedSet, p)
			}
			policies = append(policies, p)
		}
		e := New(worldWith(policies...), Options{})
		for name, addr := range addrs {
			if netip.MustParseAddr(addr).Is6() {
				continue
			}
			tuple := tcp(name, "db", 80)
			tr, d := e.Explain(tuple), e.Decide(tuple)
			if tr.Verdict != d.Verdict || tr.Reason != d.Reason || tr.Side != d.Side || !cmp.Equal(tr.Rule, d.Rule) {
				t.Fatalf("%s: Explain %s %s %v, Decide %s %s %v", name, tr.Verdict, tr.Reason, tr.Rule, d.Verdict, d.Reason, d.Rule)
			}
			if n := tr.Ingress.NearestMiss; n != nil && len(n.Failed) == 0 && !n.Shadowed {
				t.Fatalf("%s: denied, yet %s was read and matches", name, n.Rule)
			}
		}
	})
}
