package explain

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/postern-project/postern/filter/policy"
)

// tier is a tier and its policies in evaluation order.
type tier struct {
	policy.Tier
	listed   bool // there is a Tier object
	policies []*policy.Policy
}

// view is one set of policies in evaluation order: the enforced or the pending.
type view struct {
	tiers []tier
	// selected caches what selecting gave: *object to []tier.
	selected sync.Map
}

// selecting gives the tiers with the policies that select an endpoint, in
// either direction. Tiers without any are left out.
func (v *view) selecting(o *object) []tier {
	if cached, ok := v.selected.Load(o); ok {
		return cached.([]tier)
	}
	var out []tier
	for _, t := range v.tiers {
		var list []*policy.Policy
		for _, p := range t.policies {
			if selects(p, o) {
				list = append(list, p)
			}
		}
		if len(list) > 0 {
			t.policies = list
			out = append(out, t)
		}
	}
	cached, _ := v.selected.LoadOrStore(o, out)
	return cached.([]tier)
}

// enforcedKind gives the kind that a staged kind becomes when it is enforced;
// staged and enforced objects of one such kind, namespace and name are twins.
func enforcedKind(k policy.Kind) policy.Kind {
	switch k {
	case policy.StagedNetworkPolicy:
		return policy.NetworkPolicy
	case policy.StagedGlobalNetworkPolicy:
		return policy.GlobalNetworkPolicy
	case policy.StagedKubernetesNetworkPolicy:
		return policy.KubernetesNetworkPolicy
	default:
		return k
	}
}

func isStaged(p *policy.Policy) bool {
	return p.Staged != policy.Enforced || enforcedKind(p.Kind) != p.Kind
}

// twinKey names a policy as it is, or will be, when enforced.
func twinKey(p *policy.Policy) policy.Key {
	return policy.Key{Kind: enforcedKind(p.Kind), Namespace: p.Namespace, Name: p.Name}
}

// views splits policies into the enforced ones and the pending ones: enforced
// and staged, with twins replaced and deletions carried out (section 10 [D8]).
// staged tells whether any policy is staged.
func views(all []*policy.Policy) (enforced, pending []*policy.Policy, staged bool) {
	replaced := map[policy.Key]bool{}
	for _, p := range all {
		if !isStaged(p) {
			enforced = append(enforced, p)
			continue
		}
		staged = true
		replaced[twinKey(p)] = true
		if p.Staged != policy.StagedDelete {
			pending = append(pending, p)
		}
	}
	for _, p := range enforced {
		if !replaced[p.Key()] {
			pending = append(pending, p)
		}
	}
	return enforced, pending, staged
}

// sortTiers puts policies into tiers and both into the order of section 5.1.
func sortTiers(objects []policy.Tier, policies []*policy.Policy) []tier {
	byName := map[string][]*policy.Policy{}
	for _, p := range policies {
		byName[p.Tier] = append(byName[p.Tier], p)
	}
	var tiers []tier
	for _, t := range objects {
		tiers = append(tiers, tier{Tier: t, listed: true, policies: byName[t.Name]})
		delete(byName, t.Name)
	}
	for name, list := range byName { // named by policies only: last, and they end in Deny
		tiers = append(tiers, tier{Tier: policy.Tier{Name: name}, policies: list})
	}
	slices.SortFunc(tiers, func(a, b tier) int {
		if a.listed != b.listed {
			if a.listed {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Order, b.Order), strings.Compare(a.Name, b.Name))
	})
	for _, t := range tiers {
		slices.SortFunc(t.policies, comparePolicies)
	}
	return tiers
}

// comparePolicies orders the policies of one tier. A staged policy sorts by the
// kind it will have, so that a pending evaluation shows what enforcing it does.
func comparePolicies(a, b *policy.Policy) int {
	return cmp.Or(cmp.Compare(a.Order, b.Order), strings.Compare(tieKey(a), tieKey(b)))
}

// tieKey is compared bytewise: '-' < '.' < '/' < digits < letters, so "a-x"
// comes before "a".
func tieKey(p *policy.Policy) string {
	return p.Name + "/" + p.Namespace + "/" + string(enforcedKind(p.Kind))
}
