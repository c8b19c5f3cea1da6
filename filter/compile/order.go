package compile

import (
	"cmp"
	"maps"
	"slices"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// tier is a tier that exists or that a policy names.
type tier struct {
	name    string
	order   float64
	rank    int
	endPass bool
	ghost   bool // there is no Tier object
	// ends are the rules that stand for the end of the tier, by flow.Direction,
	// while segments need them.
	ends [2]struct {
		id    filter.RuleID
		users int
	}
}

// rankedPolicy is a policy that counts, with what orders it.
type rankedPolicy struct {
	*policy.Policy
	tier   *tier
	tie    string
	number uint64             // tells versions of policies apart
	sel    *selector.Selector // its subject; nil is every endpoint
}

// before orders policies as they are evaluated (spec section 5.1).
func (p *rankedPolicy) before(q *rankedPolicy) int {
	return cmp.Or(cmp.Compare(p.tier.rank, q.tier.rank), cmp.Compare(p.Order, q.Order), cmp.Compare(p.tie, q.tie), cmp.Compare(p.number, q.number))
}

// counted gives the policies that count.
func (c *Compiler) counted(policies []*policy.Policy) []*policy.Policy {
	if c.options.Pending {
		return pendingView(policies)
	}
	return enforcedView(policies)
}

// sortTiers ranks the tiers, those that policies name without an object last.
func (c *Compiler) sortTiers(stated []policy.Tier, counted []*policy.Policy) {
	for _, t := range stated {
		c.tiers[t.Name] = &tier{name: t.Name, order: t.Order, endPass: t.DefaultAction == policy.Pass}
	}
	for _, p := range counted {
		if c.tiers[tierOf(p)] == nil {
			c.tiers[tierOf(p)] = &tier{name: tierOf(p), ghost: true}
			c.fixed = append(c.fixed, problem(p.Key(), "spec.tier", "there is no tier %q: its policies come after those of every other tier and it ends in Deny", p.Tier))
		}
	}
	order := slices.Collect(maps.Values(c.tiers))
	slices.SortFunc(order, func(a, b *tier) int {
		if a.ghost != b.ghost {
			if b.ghost {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.name, b.name))
	})
	for i, t := range order {
		t.rank = i
	}
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
