package compile

import (
	"cmp"
	"slices"

	"github.com/postern-project/postern/filter/policy"
)

// tier is a tier that exists or that a policy names.
type tier struct {
	name    string
	order   float64
	endPass bool
	ghost   bool // there is no Tier object
}

// rankedPolicy is a policy in evaluation order.
type rankedPolicy struct {
	*policy.Policy
	tier int // index into tiers
}

// sortPolicies puts the policies that count in evaluation order (spec section
// 5.1).
func (c *compiler) sortPolicies() {
	counted := enforcedView(c.Snapshot.Policies)
	if c.options.Pending {
		counted = pendingView(c.Snapshot.Policies)
	}
	byName := make(map[string]int)
	for _, t := range c.Tiers {
		byName[t.Name] = 0
		c.tiers = append(c.tiers, tier{name: t.Name, order: t.Order, endPass: t.DefaultAction == policy.Pass})
	}
	for _, p := range counted {
		if _, known := byName[tierOf(p)]; !known {
			byName[tierOf(p)] = 0
			c.tiers = append(c.tiers, tier{name: tierOf(p), ghost: true})
			c.problem(p.Key(), "spec.tier", "there is no tier %q: its policies come after those of every other tier and it ends in Deny", p.Tier)
		}
	}
	slices.SortFunc(c.tiers, func(a, b tier) int {
		if a.ghost != b.ghost {
			if b.ghost {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.name, b.name))
	})
	for i, t := range c.tiers {
		byName[t.name] = i
	}
	for _, p := range counted {
		c.policies = append(c.policies, rankedPolicy{p, byName[tierOf(p)]})
	}
	slices.SortStableFunc(c.policies, func(a, b rankedPolicy) int {
		return cmp.Or(cmp.Compare(a.tier, b.tier), cmp.Compare(a.Order, b.Order), cmp.Compare(tieKey(a.Policy), tieKey(b.Policy)))
	})
}

func tierOf(p *policy.Policy) string { return cmp.Or(p.Tier, policy.DefaultTier) }

// tieKey orders policies of equal order, bytewise. A staged policy that counts
// sorts as what it would become.
func tieKey(p *policy.Policy) string {
	return p.Name + "/" + p.Namespace + "/" + string(cmp.Or(enforcedKind[p.Kind], p.Kind))
}

// enforcedKind gives the kind that a staged kind stages.
var enforcedKind = map[policy.Kind]policy.Kind{
	policy.StagedNetworkPolicy:           policy.NetworkPolicy,
	policy.StagedGlobalNetworkPolicy:     policy.GlobalNetworkPolicy,
	policy.StagedKubernetesNetworkPolicy: policy.KubernetesNetworkPolicy,
}

// staged gives the policy's staged action. A staged kind is never enforced,
// whatever its action says.
func staged(p *policy.Policy) policy.StagedAction {
	if p.Staged == policy.Enforced && enforcedKind[p.Kind] != "" {
		return policy.StagedSet
	}
	return p.Staged
}

// enforcedView gives the policies that are enforced.
func enforcedView(policies []*policy.Policy) []*policy.Policy {
	var out []*policy.Policy
	for _, p := range policies {
		if staged(p) == policy.Enforced {
			out = append(out, p)
		}
	}
	return out
}

// pendingView gives the policies that would count if the staged ones were
// enforced: each takes the place of the policy it stages, or only its place away
// (spec section 10, D8). The other actions are alike; whether an ignored policy
// is worth a pending verdict is for the source to say, by leaving it out.
func pendingView(policies []*policy.Policy) []*policy.Policy {
	replaced := make(map[policy.Key]bool)
	for _, p := range policies {
		if staged(p) != policy.Enforced {
			replaced[policy.Key{Kind: enforcedKind[p.Kind], Namespace: p.Namespace, Name: p.Name}] = true
		}
	}
	var out []*policy.Policy
	for _, p := range policies {
		switch staged(p) {
		case policy.Enforced:
			if !replaced[p.Key()] {
				out = append(out, p)
			}
		case policy.StagedDelete:
		default:
			out = append(out, p)
		}
	}
	return out
}
