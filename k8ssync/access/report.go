package access

import (
	"fmt"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/policy"
)

// Report tells who could obtain an access.
type Report struct {
	// Of names the account, the rule or the policy.
	Of string `json:"of"`
	// Ends are the ends of the rules.
	Ends []End `json:"ends,omitempty"`
	// Warnings tell what makes more possible than the guards would leave, and what the
	// report cannot know.
	Warnings []string `json:"warnings"`
	Ways     []Found  `json:"ways"`
}

// End is an end of a rule.
type End struct {
	Rule string `json:"rule"`
	Side string `json:"side"`
	// Protected: the policy applies to it; the other end is the peer.
	Protected bool `json:"protected"`
	// Selector is on the labels that identity derives.
	Selector string `json:"selector"`
	// Accounts are those whose pods may be there now, as namespace/name.
	Accounts []string `json:"accounts,omitempty"`
}

// Ask answers who could obtain the access that words name: of a service account, as
// NAMESPACE/NAME, of a rule, in any form in which commands print one, or of all rules of
// a policy.
func Ask(o *Objects, words string) (r Report, err error) {
	t, err := find(o.Snapshot, words)
	if err != nil {
		return r, err
	}
	r = Report{Of: t.String(), Warnings: []string{}, Ways: []Found{}}
	r.Warnings = append(r.Warnings, o.warnings()...)
	if t.account != nil {
		r.Ways = append(r.Ways, Obtain(o, AccountWays(o, *t.account))...)
		return r, nil
	}
	w := newWorld(o.Snapshot)
	if t.policy.Staged != policy.Enforced {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%s is staged: it gives and denies nothing before it is enforced", t.policy.Key()))
	}
	var assumed []string
	e := ends{o: o, w: w}
	for _, rule := range t.rules {
		one := target{policy: t.policy, rules: []Rule{rule}}
		protects, other := rule.sides(t.policy)
		for _, s := range []*side{&other, &protects} {
			end := End{Rule: one.String(), Side: s.name, Protected: s == &protects, Selector: s.String()}
			if s.service != nil {
				end.Selector = fmt.Sprintf("service %s/%s", s.service.Namespace, s.service.Name)
			}
			if s.identity {
				assumed = append(assumed, intersection(w.in(s), w.assumed)...)
				for _, p := range e.matching(s) {
					end.Accounts = append(end.Accounts, p.String())
				}
			}
			r.Ends = append(r.Ends, end)
		}
	}
	if slices.Sort(assumed); len(assumed) > 0 {
		r.Warnings = append(r.Warnings, "no service account is known in "+strings.Join(slices.Compact(assumed), ", ")+
			": the account default, and those that the rule names, are taken to be there")
	}
	r.Ways = append(r.Ways, Obtain(o, RuleWays(o, t.policy, t.rules))...)
	return r, nil
}

func intersection(a, b []string) (both []string) {
	for _, s := range a {
		if slices.Contains(b, s) {
			both = append(both, s)
		}
	}
	return both
}
