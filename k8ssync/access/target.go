package access

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// ErrNone is wrapped by the error for what does not exist. Other errors of Ask are
// about words that name nothing, or several things.
var ErrNone = errors.New("there is none")

// target is what words name: Policy and Rules, or Account.
type target struct {
	account *Account
	policy  *policy.Policy
	rules   []Rule
	whole   bool // all rules of the policy
}

// String names a rule as explain does.
func (t *target) String() string {
	switch {
	case t.account != nil:
		return "ServiceAccount " + t.account.Namespace + "/" + t.account.Name
	case t.whole:
		return fmt.Sprintf("%s in tier %s", t.policy.Key(), t.policy.Tier)
	}
	p, r := t.policy, t.rules[0]
	return explain.RuleRef{Tier: p.Tier, Kind: p.Kind, Namespace: p.Namespace, Name: p.Name,
		Direction: r.Direction.String(), Index: r.Index, Action: r.Action.String()}.String()
}

// The forms in which commands print rules, and shorter ones. The names of groups say
// what they catch.
var forms = []*regexp.Regexp{
	// explain, test, diff, replay: rule ingress[0] (Allow) of NetworkPolicy prod/db in tier default
	regexp.MustCompile(`^(?:rule )?(?P<direction>ingress|egress)\[(?P<index>\d+)\](?: \((?P<action>\w+)\))? of (?:(?P<kind>[A-Za-z]+) )?(?P<name>\S+)(?: in tier (?P<tier>\S+))?$`),
	// observe: ingress rule 0 of NetworkPolicy prod/db in tier default
	// get accounts: ingress rule 0 of prod/db (Allow, source, by name)
	// authz probe: rule 0 of prod/db in tier default
	regexp.MustCompile(`^(?:(?P<direction>ingress|egress) )?rule (?P<index>\d+) of (?:(?P<kind>[A-Za-z]+) )?(?P<name>[^\s(]+)(?: \((?P<action>\w+)[^)]*\))?(?: in tier (?P<tier>\S+))?$`),
	// lint: file.yaml: NetworkPolicy prod/db: spec.ingress[0].source: message [id]
	regexp.MustCompile(`^(?:\S+: )?(?P<kind>[A-Za-z]+) (?P<name>[^\s:]+): spec\.(?P<direction>ingress|egress)\[(?P<index>\d+)\](?:[.:].*)?$`),
	// short: prod/db ingress[0]
	regexp.MustCompile(`^(?:(?P<kind>[A-Za-z]+) )?(?P<name>[^\s:]+):? (?:spec\.)?(?P<direction>ingress|egress)\[(?P<index>\d+)\]$`),
	// a whole policy, or an account
	regexp.MustCompile(`^(?:(?P<kind>[A-Za-z]+) )?(?P<name>[^\s:]+)(?: in tier (?P<tier>\S+))?$`),
}

// parsed are the words of a target.
type parsed struct{ kind, namespace, name, direction, index, action, tier string }

func parse(words string) (w parsed, err error) {
	words = strings.Join(strings.Fields(words), " ")
	for _, form := range forms {
		m := form.FindStringSubmatch(words)
		if m == nil {
			continue
		}
		get := func(group string) string {
			if i := form.SubexpIndex(group); i >= 0 {
				return m[i]
			}
			return ""
		}
		w = parsed{get("kind"), "", get("name"), get("direction"), get("index"), get("action"), get("tier")}
		if namespace, name, ok := strings.Cut(w.name, "/"); ok {
			w.namespace, w.name = namespace, name
			if namespace == "" || name == "" || strings.Contains(name, "/") {
				continue
			}
		}
		if w.name != "" {
			return w, nil
		}
	}
	return w, fmt.Errorf("%q: want NAMESPACE/ACCOUNT, a policy such as NetworkPolicy NAMESPACE/NAME, or a rule such as ingress[0] of NetworkPolicy NAMESPACE/NAME", words)
}

// find looks up what words name.
func find(s *policy.Snapshot, words string) (*target, error) {
	w, err := parse(words)
	if err != nil {
		return nil, err
	}
	account := w.index == "" && w.tier == "" && w.namespace != "" && (w.kind == "" || w.kind == string(policy.ServiceAccountKind))
	var choices []string
	var of []*policy.Policy
	for _, p := range s.Policies {
		if p.Name == w.name && p.Namespace == w.namespace && (w.kind == "" || w.kind == string(p.Kind)) {
			of = append(of, p)
			choices = append(choices, p.Key().String())
		}
	}
	exists := slices.ContainsFunc(s.ServiceAccounts, func(a *policy.ServiceAccount) bool { return a.Namespace == w.namespace && a.Name == w.name })
	if account && (exists || w.kind != "") {
		choices = append(choices, "ServiceAccount "+w.namespace+"/"+w.name)
	}
	name := strings.TrimPrefix(w.namespace+"/"+w.name, "/")
	switch {
	case len(choices) > 1:
		return nil, fmt.Errorf("%s: there are several; say which: %s", name, strings.Join(choices, ", "))
	case len(choices) == 0:
		return nil, w.none(s, name, account)
	case len(of) == 0:
		return &target{account: &Account{w.namespace, w.name}}, nil
	}
	t := &target{policy: of[0], whole: w.index == ""}
	if w.tier != "" && w.tier != t.policy.Tier {
		return nil, fmt.Errorf("%s is in tier %s, not %s: %w", choices[0], t.policy.Tier, w.tier, ErrNone)
	}
	return t, t.choose(w)
}

// none words that nothing has the name.
func (w *parsed) none(s *policy.Snapshot, name string, account bool) error {
	var others []string
	for _, p := range s.Policies {
		if p.Name == w.name {
			others = append(others, p.Key().String())
		}
	}
	what := "policy " + name
	switch {
	case w.kind == "Profile":
		return fmt.Errorf("%s %s: rules of profiles are not looked at: a profile decides where no policy does", w.kind, name)
	case w.kind != "" && w.kind != "ServiceAccount" && !isPolicy(w.kind):
		return fmt.Errorf("%q is no kind of policy; want one of %s", w.kind, strings.Join(policyKinds(), ", "))
	case w.kind != "":
		what = w.kind + " " + name
	case account:
		what = "service account and no policy " + name
	}
	hint := ""
	switch {
	case len(others) > 0:
		hint = "; there is " + strings.Join(others, ", ")
	case account:
		hint = "; write ServiceAccount " + name + " to ask about one that is yet to be made, or that is not among the manifests"
	}
	return fmt.Errorf("no %s: %w%s", what, ErrNone, hint)
}

func isPolicy(kind string) bool { return plurals[policy.Kind(kind)] != "" }

func policyKinds() (names []string) {
	for k := range plurals {
		names = append(names, string(k))
	}
	slices.Sort(names)
	return names
}

// choose takes the rules that are asked about.
func (t *target) choose(w parsed) error {
	var there []string
	index := -1
	if !t.whole {
		var err error
		if index, err = strconv.Atoi(w.index); err != nil {
			return fmt.Errorf("rule %s: want a number from 0", w.index)
		}
	}
	directions := map[flow.Direction]bool{}
	for _, d := range []flow.Direction{flow.Ingress, flow.Egress} {
		for _, r := range t.policy.Rules(d) {
			there = append(there, fmt.Sprintf("%s[%d] (%s)", d, r.Index, r.Action))
			if t.whole || r.Index == index && (w.direction == "" || w.direction == d.String()) {
				t.rules = append(t.rules, Rule{d, r})
				directions[d] = true
			}
		}
	}
	key := t.policy.Key()
	switch {
	case t.whole && len(t.rules) == 0:
		return fmt.Errorf("%s has no rules: %w", key, ErrNone)
	case len(t.rules) == 0:
		text := strings.TrimLeft(w.direction+" ", " ") + "rule " + w.index
		if len(there) == 0 {
			return fmt.Errorf("%s has no %s, nor any other: %w", key, text, ErrNone)
		}
		return fmt.Errorf("%s has no %s, but %s: %w", key, text, strings.Join(slices.Compact(there), ", "), ErrNone)
	case !t.whole && len(directions) > 1:
		return fmt.Errorf("%s has an ingress and an egress rule %s; say which: ingress[%s] or egress[%s]", key, w.index, w.index, w.index)
	case !t.whole && w.action != "" && w.action != t.rules[0].Action.String():
		return fmt.Errorf("%s[%s] of %s has action %s, not %s: it has changed since", t.rules[0].Direction, w.index, key, t.rules[0].Action, w.action)
	case !slices.ContainsFunc(t.rules, func(r Rule) bool { return r.Action != policy.Log }):
		return fmt.Errorf("%s only logs: it gives and denies nothing", t)
	}
	return nil
}
