package explain

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/policy"
)

// TestSortTiers checks both orders of section 5.1 and their ties.
func TestSortTiers(t *testing.T) {
	t.Parallel()
	p := func(tier string, kind policy.Kind, namespace, name string, order float64) *policy.Policy {
		return &policy.Policy{Tier: tier, Kind: kind, Namespace: namespace, Name: name, Order: order}
	}
	g, n, k := policy.GlobalNetworkPolicy, policy.NetworkPolicy, policy.KubernetesNetworkPolicy
	c := policy.KubernetesClusterNetworkPolicy
	tiers := sortTiers(
		[]policy.Tier{{Name: "zzz", Order: 1e6}, {Name: "default", Order: 1e6}, {Name: "early", Order: -0.5}, {Name: "aaa", Order: 1e6}},
		[]*policy.Policy{
			p("ghost-b", g, "", "x", 1), p("ghost-a", g, "", "x", 1),
			p("default", n, "ns", "late", math.Inf(1)),
			p("default", n, "ns", "p", 10), p("default", k, "ns", "p", 10), p("default", c, "", "p", 10), p("default", g, "", "p", 10),
			p("default", g, "", "p2", 10), p("default", g, "", "p10", 10),
			p("default", g, "", "a", 10), p("default", g, "", "a-x", 10), p("default", g, "", "a.x", 10),
			p("default", g, "", "neg", -1.5),
			p("default", n, "nsa", "p", 10), p("default", policy.StagedKubernetesNetworkPolicy, "nsa", "p", 10),
			p("default", policy.StagedNetworkPolicy, "nsb", "p", 10),
		})
	var got []string
	for _, t := range tiers {
		got = append(got, "tier "+t.Name)
		for _, p := range t.policies {
			got = append(got, p.Key().String())
		}
	}
	want := []string{
		"tier early", "tier aaa", "tier default",
		"GlobalNetworkPolicy neg",
		"GlobalNetworkPolicy a-x", "GlobalNetworkPolicy a.x", "GlobalNetworkPolicy a",
		"GlobalNetworkPolicy p", "KubernetesClusterNetworkPolicy p",
		"KubernetesNetworkPolicy ns/p", "NetworkPolicy ns/p",
		"StagedKubernetesNetworkPolicy nsa/p", "NetworkPolicy nsa/p", // as KubernetesNetworkPolicy
		"StagedNetworkPolicy nsb/p",
		"GlobalNetworkPolicy p10", "GlobalNetworkPolicy p2",
		"NetworkPolicy ns/late",
		"tier zzz", "tier ghost-a", "GlobalNetworkPolicy x", "tier ghost-b", "GlobalNetworkPolicy x",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

// TestStaged: staged policies never change the verdict, and the pending one is
// over enforced and staged with twins replaced and deletions carried out [D8].
func TestStaged(t *testing.T) {
	t.Parallel()
	deny, allow := only(policy.Deny), only(policy.Allow)
	tests := []struct {
		name              string
		policies          []*policy.Policy
		enforced, pending Verdict
	}{
		{"only staged", []*policy.Policy{staged(policy.StagedSet, np("p", 1, deny))}, Allow, Deny},
		{"staged end of tier", []*policy.Policy{staged(policy.StagedSet, np("p", 1))}, Allow, Deny},
		{"learn and ignore take part", []*policy.Policy{staged(policy.StagedLearn, np("p", 1, deny)), staged(policy.StagedIgnore, np("q", 0, allow))}, Allow, Allow},
		{"twin replaced", []*policy.Policy{np("p", 1, deny), staged(policy.StagedSet, np("p", 1, allow))}, Deny, Allow},
		{"twin moved to another tier", []*policy.Policy{np("p", 1, allow), staged(policy.StagedSet, in(policy.AdminTier, np("p", 1, deny)))}, Allow, Deny},
		{"deletion", []*policy.Policy{np("p", 1, deny), staged(policy.StagedDelete, np("p", 0))}, Deny, Allow},
		{"deletion of a policy that is not there", []*policy.Policy{np("p", 1, deny), staged(policy.StagedDelete, np("q", 0))}, Deny, Deny},
		{"another family is no twin", []*policy.Policy{np("p", 1, deny), staged(policy.StagedDelete, gnp("p", 1))}, Deny, Deny},
		{"another namespace is no twin", []*policy.Policy{np("p", 1, deny), staged(policy.StagedDelete, &policy.Policy{Kind: policy.NetworkPolicy, Namespace: "other", Name: "p", Tier: "default"})}, Deny, Deny},
		{"staged kind without action is never enforced", []*policy.Policy{staged(policy.Enforced, np("p", 1, deny))}, Allow, Deny},
		{"tier of an enforced policy ends, staged rules or not", []*policy.Policy{staged(policy.StagedSet, np("s", 1, allow)), np("e", 2, from(policy.Pass, policy.EntityRule{Selector: sel("has(x)")}))}, Deny, Allow},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := New(worldWith(tt.policies...), Options{})
			tr := e.Explain(tcp("web", "db", 80))
			if tr.Verdict != tt.enforced {
				t.Errorf("enforced: %s, want %s", tr.Verdict, tt.enforced)
			}
			if tr.Pending == nil {
				t.Fatal("no pending evaluation")
			}
			if tr.Pending.Verdict != tt.pending {
				t.Errorf("pending: %s, want %s", tr.Pending.Verdict, tt.pending)
			}
			if got := e.DecidePending(tcp("web", "db", 80)).Verdict; got != tt.pending {
				t.Errorf("DecidePending: %s, want %s", got, tt.pending)
			}
		})
	}
	if tr := New(worldWith(np("p", 1)), Options{}).Explain(tcp("web", "db", 80)); tr.Pending != nil {
		t.Error("pending evaluation although nothing is staged")
	}
}
