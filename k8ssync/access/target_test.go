package access

import (
	"errors"
	"strings"
	"testing"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// library is a snapshot with names that are easily mistaken.
func library() *policy.Snapshot {
	allow, deny, log := policy.Rule{Action: policy.Allow}, policy.Rule{Index: 1, Action: policy.Deny}, policy.Rule{Index: 2, Action: policy.Log}
	return &policy.Snapshot{
		Tiers: []policy.Tier{{Name: "default", Order: 1e6}},
		Policies: []*policy.Policy{
			{Kind: policy.NetworkPolicy, Namespace: "prod", Name: "db", Tier: "default", Ingress: []policy.Rule{allow, deny, log}, AppliesIngress: true},
			{Kind: policy.GlobalNetworkPolicy, Name: "db", Tier: "default", Ingress: []policy.Rule{allow}, Egress: []policy.Rule{allow, deny}},
			{Kind: policy.NetworkPolicy, Namespace: "prod", Name: "web", Tier: "default", Egress: []policy.Rule{allow}},
			{Kind: policy.KubernetesNetworkPolicy, Namespace: "prod", Name: "two", Tier: "default", Ingress: []policy.Rule{allow, allow}},
			{Kind: policy.NetworkPolicy, Namespace: "prod", Name: "two", Tier: "default", Ingress: []policy.Rule{allow}},
			{Kind: policy.NetworkPolicy, Namespace: "prod", Name: "none", Tier: "default"},
		},
		ServiceAccounts: []*policy.ServiceAccount{{Namespace: "prod", Name: "web"}, {Namespace: "prod", Name: "api"}},
	}
}

// TestTarget: every form in which commands print a rule names it.
func TestTarget(t *testing.T) {
	for words, want := range map[string]string{
		"prod/api":                         "ServiceAccount prod/api",
		"ServiceAccount prod/web":          "ServiceAccount prod/web",
		"ServiceAccount prod/new":          "ServiceAccount prod/new", // is yet to be made
		"prod/db":                          "NetworkPolicy prod/db in tier default",
		"NetworkPolicy prod/web":           "NetworkPolicy prod/web in tier default",
		"db":                               "GlobalNetworkPolicy db in tier default",
		"prod/db ingress[0]":               "rule ingress[0] (Allow) of NetworkPolicy prod/db in tier default",
		"  prod/db   ingress[1] ":          "rule ingress[1] (Deny) of NetworkPolicy prod/db in tier default",
		"NetworkPolicy prod/db ingress[1]": "rule ingress[1] (Deny) of NetworkPolicy prod/db in tier default",
		"ingress[0] of prod/db":            "rule ingress[0] (Allow) of NetworkPolicy prod/db in tier default",
		"rule ingress[1] (Deny) of NetworkPolicy prod/db in tier default":                                          "rule ingress[1] (Deny) of NetworkPolicy prod/db in tier default",
		"rule egress[1] (Deny) of GlobalNetworkPolicy db in tier default":                                          "rule egress[1] (Deny) of GlobalNetworkPolicy db in tier default",
		"ingress rule 1 of NetworkPolicy prod/db in tier default":                                                  "rule ingress[1] (Deny) of NetworkPolicy prod/db in tier default",
		"ingress rule 0 of prod/db (Allow, source, by name)":                                                       "rule ingress[0] (Allow) of NetworkPolicy prod/db in tier default",
		"rule 0 of prod/db in tier default":                                                                        "rule ingress[0] (Allow) of NetworkPolicy prod/db in tier default",
		"rule 1 of GlobalNetworkPolicy db":                                                                         "rule egress[1] (Deny) of GlobalNetworkPolicy db in tier default",
		"a/b.yaml: NetworkPolicy prod/db: spec.ingress[0].source.serviceAccounts: there is no such account [id-x]": "rule ingress[0] (Allow) of NetworkPolicy prod/db in tier default",
		"NetworkPolicy prod/db: spec.ingress[0]":                                                                   "rule ingress[0] (Allow) of NetworkPolicy prod/db in tier default",
		"KubernetesNetworkPolicy prod/two ingress[0]":                                                              "rule ingress[0] (Allow) of KubernetesNetworkPolicy prod/two in tier default",
	} {
		got, err := find(library(), words)
		if err != nil {
			t.Errorf("%q: %v", words, err)
		} else if got.String() != want {
			t.Errorf("%q: %s, want %s", words, got, want)
		}
	}
	whole, err := find(library(), "db")
	if err != nil || len(whole.rules) != 3 || whole.rules[2].Direction != flow.Egress {
		t.Errorf("%+v, %v", whole, err)
	}
	// The rules that one of Kubernetes' became are one.
	if two, err := find(library(), "KubernetesNetworkPolicy prod/two ingress[0]"); err != nil || len(two.rules) != 2 {
		t.Errorf("%+v, %v", two, err)
	}
}

func TestTargetRefuses(t *testing.T) {
	for words, tc := range map[string]struct {
		none bool
		says string
	}{
		"":              {false, "want NAMESPACE/ACCOUNT"},
		"/":             {false, "want NAMESPACE/ACCOUNT"},
		"a/b/c":         {false, "want NAMESPACE/ACCOUNT"},
		"prod/ ingress": {false, "want NAMESPACE/ACCOUNT"},
		"who may do it": {false, "want NAMESPACE/ACCOUNT"},
		"prod/web":      {false, "say which: NetworkPolicy prod/web, ServiceAccount prod/web"},
		"prod/two":      {false, "say which: KubernetesNetworkPolicy prod/two, NetworkPolicy prod/two"},
		"Foo prod/db":   {false, `"Foo" is no kind of policy; want one of GlobalNetworkPolicy`},
		"rule ingress[0] (Allow) of Profile kns.prod":     {false, "rules of profiles are not looked at"},
		"GlobalNetworkPolicy db rule 0":                   {false, "want NAMESPACE/ACCOUNT"},
		"rule 0 of GlobalNetworkPolicy db":                {false, "say which: ingress[0] or egress[0]"},
		"rule ingress[0] (Deny) of NetworkPolicy prod/db": {false, "has action Allow, not Deny"},
		"prod/db ingress[2]":                              {false, "only logs"},
		"prod/db ingress[99999999999999999999]":           {false, "want a number"},
		"prod/nobody":                                     {true, "write ServiceAccount prod/nobody"},
		"NetworkPolicy prod/nobody":                       {true, "no NetworkPolicy prod/nobody"},
		"NetworkPolicy db":                                {true, "there is NetworkPolicy prod/db, GlobalNetworkPolicy db"},
		"prod/db egress[0]":                               {true, "has no egress rule 0, but ingress[0] (Allow), ingress[1] (Deny), ingress[2] (Log)"},
		"prod/none ingress[0]":                            {true, "nor any other"},
		"prod/none":                                       {true, "has no rules"},
		"rule ingress[0] (Allow) of NetworkPolicy prod/db in tier other": {true, "is in tier default, not other"},
	} {
		_, err := find(library(), words)
		if err == nil || errors.Is(err, ErrNone) != tc.none || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%q: %v, want an error that says %q", words, err, tc.says)
		}
	}
}

func FuzzTarget(f *testing.F) {
	f.Add("rule ingress[0] (Allow) of NetworkPolicy prod/db in tier default")
	f.Add("a.yaml: NetworkPolicy prod/db: spec.ingress[0].source: x [y]")
	s := library()
	f.Fuzz(func(t *testing.T, words string) {
		got, err := find(s, words)
		if err != nil {
			return
		}
		again, err := find(s, got.String())
		if err != nil || again.String() != got.String() {
			t.Errorf("%q is %s, which is read as %v, %v", words, got, again, err)
		}
	})
}
