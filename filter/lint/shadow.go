package lint

import (
	"fmt"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// checkShadowed finds rules that are never reached, because an earlier rule of the
// list matches all that they match and ends the reading.
func (c *checker) checkShadowed(p *policy.Policy, d flow.Direction) {
	rules := p.Rules(d)
	for start := 0; start < len(rules); {
		// What one rule of a Kubernetes kind was converted to has one index.
		end := start + 1
		for end < len(rules) && rules[end].Index == rules[start].Index {
			end++
		}
		if by := shadows(rules[:start], rules[start:end], p.Namespace); by != nil {
			c.add(ShadowedRule, p.Key(), ruleField(d, rules[start].Index),
				fmt.Sprintf("is never reached: %s (%s) matches all that it matches", ruleField(d, by.Index), by.Action),
				"remove the rule, or put it before the other")
		}
		start = end
	}
}

// shadows gives the first of the earlier rules that shadows the first of rules, if
// all of them are shadowed by earlier ones.
func shadows(earlier, rules []policy.Rule, namespace string) *policy.Rule {
	var by *policy.Rule
	for i := range rules {
		found := false
		for j := range earlier {
			if e := &earlier[j]; e.Action != policy.Log && coversRule(e, &rules[i], namespace) {
				if found = true; by == nil {
					by = e
				}
				break
			}
		}
		if !found {
			return nil
		}
	}
	return by
}

// checkUnreachable finds policies that are never read in a direction, because an
// earlier policy of the tier decides every packet of the same endpoints.
func (c *checker) checkUnreachable(t tier) {
	for _, d := range directions {
		for i, later := range t.policies {
			if !later.Applies(d) || hostOnly(later) {
				continue
			}
			for _, first := range t.policies[:i] {
				r := decidesAll(first, d)
				// Forwarded traffic of a host meets applyOnForward policies only.
				if r == nil || hostOnly(first) || later.ApplyOnForward && !first.ApplyOnForward {
					continue
				}
				if subjects(first).covers(subjects(later)) {
					c.add(UnreachablePolicy, later.Key(), "spec."+d.String(),
						fmt.Sprintf("is never read: %s comes first in tier %s, applies to the same endpoints, and its %s (%s) matches everything",
							first.Key(), t.Name, ruleField(d, r.Index), r.Action),
						"give this policy a smaller order, or narrow the other")
					break
				}
			}
		}
	}
}

// decidesAll gives the rule after which nothing of the tier is read, or nil.
func decidesAll(p *policy.Policy, d flow.Direction) *policy.Rule {
	if !p.Applies(d) {
		return nil
	}
	rules := p.Rules(d)
	for i := range rules {
		if rules[i].Action != policy.Log && unconditional(&rules[i]) {
			return &rules[i]
		}
	}
	return nil
}
