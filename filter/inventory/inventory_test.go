package inventory

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
	"github.com/postern-project/postern/test/lab"
	"github.com/postern-project/postern/test/worlds"
)

// TestEndpointsAreWhatIsEnforced holds the listing against the compiled ruleset, and
// against what the evaluator reads for a flow, in random worlds.
func TestEndpointsAreWhatIsEnforced(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		d := worlds.Draw{T: rt}
		s := d.Snapshot()
		rs, _ := compile.Compile(s, compile.Options{})
		if rs == nil {
			rt.Fatal("the world does not compile")
		}
		e := explain.New(s, explain.Options{})
		for _, ep := range New(s, "").Endpoints(Wanted{}) {
			if !ep.Hosted {
				rt.Fatalf("%s is not hosted", ep.Ref)
			}
			for dir, listed := range map[flow.Direction]bool{flow.Ingress: ep.Ingress, flow.Egress: ep.Egress} {
				conflicts := 0
				for _, a := range ep.Addresses {
					if slices.Contains(rs.Protected(dir), a) != listed && !ep.Conflict {
						rt.Fatalf("%s %s %s: listed as protected: %v, and the ruleset says otherwise", ep.Ref, a, dir, listed)
					}
					if ep.Conflict && slices.Contains(rs.Protected(dir), a) {
						conflicts++
					}
				}
				if ep.Conflict && conflicts == 0 {
					rt.Fatalf("%s has a conflict, and no address is closed", ep.Ref)
				}
			}
			if ep.Conflict {
				continue
			}
			// The policies that a flow meets are those listed, in their order.
			f := flow.Tuple{Src: netip.MustParseAddr("203.0.113.9"), Dst: ep.Addresses[0], Proto: flow.TCP, Ported: true, DstPort: 4}
			if f.Dst.Is6() {
				f.Src = netip.MustParseAddr("2001:db8::9")
			}
			var met, want []string
			for _, tier := range e.Explain(f).Ingress.Tiers {
				for _, p := range tier.Policies {
					met = append(met, fmt.Sprint(p.Kind, " ", p.Namespace, "/", p.Name))
				}
			}
			for _, p := range ep.Policies {
				if p.Ingress {
					want = append(want, fmt.Sprint(p.Kind, " ", p.Namespace, "/", p.Name))
				}
			}
			if len(met) > len(want) || cmp.Diff(want[:len(met)], met) != "" { // a tier may decide
				rt.Fatalf("%s: listed are %v, and a flow meets %v", ep.Ref, want, met)
			}
		}
	})
}

// TestSubjects: a policy's subjects are the pods that list the policy.
func TestSubjects(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		v := New(worlds.Draw{T: rt}.Snapshot(), "")
		var byPod, byPolicy []string
		for _, e := range v.Endpoints(Wanted{}) {
			for _, p := range slices.Concat(e.Policies, e.Staged) {
				byPod = append(byPod, fmt.Sprint(p.Ref, e.Ref))
			}
		}
		for _, p := range v.Policies(Wanted{}) {
			for _, s := range p.Subjects {
				byPolicy = append(byPolicy, fmt.Sprint(p.Ref, s))
			}
		}
		slices.Sort(byPod)
		slices.Sort(byPolicy)
		if d := cmp.Diff(byPod, byPolicy); d != "" {
			rt.Fatal(d)
		}
	})
}

func example(t *testing.T) *policy.Snapshot {
	t.Helper()
	s, err := lab.Snapshot("../../docs/examples/service-accounts")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAccounts: who is named where, by name and by label.
func TestAccounts(t *testing.T) {
	t.Parallel()
	got := map[string][]string{}
	for _, a := range New(example(t), "").Accounts(Wanted{Namespace: "prod-engineering"}) {
		uses := []string{}
		for _, u := range a.Uses {
			text := u.As + " by " + u.By + " in " + u.Policy.Name
			if u.Rule != nil {
				text = fmt.Sprintf("%s %s[%d] %s", text, u.Direction, *u.Rule, u.Action)
			}
			uses = append(uses, text)
		}
		got[a.Name] = uses
	}
	intern := []string{
		"subject by label in restrict-intern-access",
		"source by label in restrict-intern-access ingress[0] Allow",
		"destination by label in restrict-intern-access egress[0] Allow",
	}
	if d := cmp.Diff(map[string][]string{
		"api-service":       {"source by name in demo-calico ingress[0] Allow"},
		"user-auth-service": {"source by name in demo-calico ingress[0] Allow"},
		"web-sa":            {"source by label in allow-web-frontend ingress[0] Allow"},
		"db-sa":             {}, "reports-sa": {}, "intern-a": intern, "intern-b": intern,
	}, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// TestWanted: names, namespaces, and the pods of other nodes.
func TestWanted(t *testing.T) {
	t.Parallel()
	s := example(t)
	for _, ep := range s.Endpoints {
		ep.Node = "n1"
		if ep.Namespace == "staging" {
			ep.Node = "n2"
		}
	}
	s.Endpoints[0].ServiceAccount = "unheard-of"
	s.NetworkSets = []*policy.NetworkSet{
		{Kind: policy.NetworkSetKind, Namespace: "staging", Name: "b", Nets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		{Kind: policy.GlobalNetworkSet, Name: "a"},
	}
	v := New(s, "n1")
	names := func(refs ...Ref) string {
		var b strings.Builder
		for _, r := range refs {
			fmt.Fprint(&b, r, " ")
		}
		return b.String()
	}
	pods := func(w Wanted) string {
		var refs []Ref
		for _, e := range v.Endpoints(w) {
			refs = append(refs, e.Ref)
		}
		return names(refs...)
	}
	if got := pods(Wanted{Name: "api"}); got != "prod-engineering/api " {
		t.Errorf("here: %q", got)
	}
	if got := pods(Wanted{Name: "api", Everywhere: true}); got != "prod-engineering/api staging/api " {
		t.Errorf("everywhere: %q", got)
	}
	if got := pods(Wanted{Namespace: "staging"}); got != "" {
		t.Errorf("of a namespace that has none here: %q", got)
	}
	if a := v.Accounts(Wanted{Name: "unheard-of"}); len(a) != 1 || !a[0].Missing || len(a[0].Pods) != 1 {
		t.Errorf("an account without object: %+v", a)
	}
	if a := v.Accounts(Wanted{Namespace: "staging"}); len(a) != 0 {
		t.Errorf("an account of another node: %+v", a)
	}
	if a := v.Accounts(Wanted{Namespace: "staging", Everywhere: true}); len(a) != 1 || len(a[0].Pods) != 1 {
		t.Errorf("accounts everywhere: %+v", a)
	}
	sets := v.Sets(Wanted{})
	if len(sets) != 2 || names(sets[0].Ref, sets[1].Ref) != "a staging/b " || len(sets[1].Prefixes) != 1 {
		t.Errorf("%+v", sets)
	}
}
