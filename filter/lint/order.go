package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// tier is a tier with its enforced policies, both in evaluation order (section 5.1).
type tier struct {
	policy.Tier
	listed   bool // there is a Tier object
	policies []*policy.Policy
}

func sortTiers(s *policy.Snapshot) []tier {
	var tiers []tier
	for _, t := range s.Tiers {
		tiers = append(tiers, tier{Tier: t, listed: true})
	}
	for _, p := range s.Policies {
		if p.Staged != policy.Enforced {
			continue
		}
		i := slices.IndexFunc(tiers, func(t tier) bool { return t.Name == p.Tier })
		if i < 0 {
			i = len(tiers)
			tiers = append(tiers, tier{Tier: policy.Tier{Name: p.Tier}})
		}
		tiers[i].policies = append(tiers[i].policies, p)
	}
	slices.SortFunc(tiers, func(a, b tier) int {
		if a.listed != b.listed {
			return map[bool]int{true: -1, false: 1}[a.listed]
		}
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name))
	})
	for _, t := range tiers {
		slices.SortFunc(t.policies, func(a, b *policy.Policy) int {
			return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(tieKey(a), tieKey(b)))
		})
	}
	return tiers
}

func tieKey(p *policy.Policy) string { return p.Name + "/" + p.Namespace + "/" + string(p.Kind) }

// checkTies finds policies of equal order whose names decide which is read first,
// where that matters: they select a common endpoint and do different things.
func (c *checker) checkTies(t tier) {
	for i, later := range t.policies {
		for _, first := range t.policies[:i] {
			if first.Order != later.Order || !orderMatters(first, later) || !c.overlap(first, later) {
				continue
			}
			order := strconv.FormatFloat(later.Order, 'g', -1, 64)
			if later.Order == policy.Unordered {
				order = "no order"
			} else {
				order = "order " + order
			}
			c.add(OrderTie, later.Key(), "spec.order",
				fmt.Sprintf("%s has %s too and selects the same endpoints; it is read first because of its name", first.Key(), order),
				"give the two different orders, so that a new name does not change what is decided")
			break // one is enough to mend it
		}
	}
}

// orderMatters tells whether exchanging the two could change a verdict: not if
// every rule that ends them in a direction does the same.
func orderMatters(a, b *policy.Policy) bool {
	if hostOnly(a) || hostOnly(b) {
		return false
	}
	for _, d := range directions {
		if !a.Applies(d) || !b.Applies(d) {
			continue
		}
		for _, r := range a.Rules(d) {
			for _, q := range b.Rules(d) {
				if r.Action != policy.Log && q.Action != policy.Log && r.Action != q.Action {
					return true
				}
			}
		}
	}
	return false
}

// overlap tells whether two policies select a common endpoint, of those known.
func (c *checker) overlap(a, b *policy.Policy) bool {
	return slices.ContainsFunc(c.selected[a], func(i int) bool {
		_, both := slices.BinarySearch(c.selected[b], i)
		return both
	})
}

// hostOnly tells whether a policy never affects pods.
func hostOnly(p *policy.Policy) bool { return p.DoNotTrack || p.PreDNAT }

// checkLastTier finds Pass rules behind which no tier has a policy: the namespace's
// profile comes next, and allows.
func (c *checker) checkLastTier() {
	for _, d := range directions {
		last := -1
		for i, t := range c.tiers {
			if slices.ContainsFunc(t.policies, func(p *policy.Policy) bool { return p.Applies(d) && !hostOnly(p) }) {
				last = i
			}
		}
		if last < 0 {
			continue
		}
		for _, p := range c.tiers[last].policies {
			if p.Applies(d) && !hostOnly(p) {
				c.passRules(p, d)
			}
		}
	}
}

func (c *checker) passRules(p *policy.Policy, d flow.Direction) {
	for _, r := range p.Rules(d) {
		if r.Action == policy.Pass {
			c.add(PassInLastTier, p.Key(), ruleField(d, r.Index),
				fmt.Sprintf("no policy of a later tier reads %s, so that Pass allows", d),
				"write Allow if that is meant, or put the policy that is to decide into a later tier")
		}
	}
}
