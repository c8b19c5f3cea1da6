package explain

import (
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// walk is one evaluation of one end of a packet.
type walk struct {
	*packet
	e         *Evaluator
	direction flow.Direction
	request   *peers // nil at layers 3 and 4
	// verbose records steps and finds the nearest miss.
	verbose bool

	reached map[*policy.Rule]bool // rules that were read, if verbose
}

// outcome is where an evaluation stands.
type outcome uint8

const (
	undecided outcome = iota
	allowed
	denied
	passed
)

// chain is what an endpoint's tiers are read for.
type chain struct {
	keep func(*policy.Policy) bool // policies that count
	// ends: a tier in which nothing matched has its default action.
	ends bool
}

// podChain reads everything but what only host endpoints have (section 5.4).
var podChain = chain{
	keep: func(p *policy.Policy) bool { return !p.DoNotTrack && !p.PreDNAT },
	ends: true,
}

// pod evaluates a pod's policies and then its profiles (section 5.2).
func (w *walk) pod(o *object, tiers []tier) Side {
	s := Side{Direction: w.direction.String(), Endpoint: o.String()}
	if w.tiers(&s, tiers, podChain) == undecided {
		// kns.<namespace> allows everything; an unknown one denies, and then the
		// rest, ksa.…, is not reached.
		p := ProfileStep{Name: "kns." + o.namespace, Outcome: "Allow"}
		s.Verdict, s.Reason = Allow, ByProfile
		if !o.namespaceKnown {
			p.Unknown, p.Outcome = true, "Deny"
			s.Verdict, s.Reason = Deny, NoProfile
		}
		if w.verbose {
			s.Profiles = append(s.Profiles, p)
		}
	}
	w.nearestMiss(&s, tiers, podChain)
	return s
}

// applicable gives the policies of a tier that count in the chain and list the
// direction. A tier without any is skipped, its end included.
func (w *walk) applicable(t tier, c chain) []*policy.Policy {
	var list []*policy.Policy
	for _, p := range t.policies {
		if p.Applies(w.direction) && c.keep(p) {
			list = append(list, p)
		}
	}
	return list
}

// tiers reads the tiers in order until one decides, and puts the decision and
// the steps into s. It returns undecided if none did.
func (w *walk) tiers(s *Side, tiers []tier, c chain) outcome {
	for _, t := range tiers {
		list := w.applicable(t, c)
		if len(list) == 0 {
			continue
		}
		if out := w.tier(s, t, list, c.ends); out == allowed || out == denied {
			return out
		}
	}
	return undecided
}

// tier reads the applicable policies of one tier.
func (w *walk) tier(s *Side, t tier, list []*policy.Policy, ends bool) outcome {
	step := TierStep{Name: t.Name, DefaultAction: t.DefaultAction.String(), Outcome: "none"}
	if t.listed {
		step.Order = orderValue(t.Order)
	}
	out := undecided
	for _, p := range list {
		ps := PolicyStep{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name, Order: orderValue(p.Order), Staged: p.Staged}
		if out != undecided {
			ps.Skipped, ps.Unread = true, len(p.Rules(w.direction))
			step.Policies = append(step.Policies, ps)
			continue
		}
		read := w.rules(s, p.Rules(w.direction), p.Namespace, ruleOf(p, t.Name, w.direction))
		ps.Rules, ps.Unread = read.steps, read.unread
		step.Policies = append(step.Policies, ps)
		out = read.outcome
		switch out {
		case allowed, denied:
			s.decide(out, ByRule, t.Name, &read.rule)
			step.Outcome = read.rule.Action
		case passed:
			step.Outcome = read.rule.Action
		}
	}
	if out == undecided && ends {
		step.Outcome = "end of tier: Pass"
		if t.DefaultAction != policy.Pass { // anything else is Deny
			step.Outcome = "end of tier: Deny"
			out = denied
			s.decide(denied, EndOfTier, t.Name, nil)
		}
	}
	if w.verbose {
		s.Tiers = append(s.Tiers, step)
	}
	return out
}

// decide records what decided.
func (s *Side) decide(out outcome, why Reason, tier string, rule *RuleRef) {
	s.Verdict = Deny
	if out == allowed {
		s.Verdict = Allow
	}
	s.Reason, s.Tier, s.Rule = why, tier, rule
}

// reading is what reading a list of rules gave.
type reading struct {
	outcome
	rule   RuleRef // that decided or passed
	steps  []RuleStep
	unread int // rules after that one
}

// rules reads rules in order. Log rules that match are appended to s. ref names
// the list; its index and action are filled in here.
func (w *walk) rules(s *Side, rules []policy.Rule, namespace string, ref RuleRef) reading {
	var read reading
	for i := range rules {
		r := &rules[i]
		m := misses{text: w.verbose}
		w.match(r, namespace, &m)
		matched := len(m.list) == 0
		if w.verbose {
			rs := RuleStep{Index: r.Index, Action: r.Action.String(), Matched: matched}
			if !matched {
				rs.Failed = &m.list[0]
			}
			read.steps = append(read.steps, rs)
			w.reach(r)
		}
		if !matched {
			continue
		}
		ref.Index, ref.Action = r.Index, r.Action.String()
		switch r.Action {
		case policy.Log:
			s.Logs = append(s.Logs, ref)
			continue
		case policy.Allow:
			read.outcome = allowed
		case policy.Pass:
			read.outcome = passed
		default: // Deny, and anything unknown
			read.outcome = denied
		}
		read.rule, read.unread = ref, len(rules)-i-1
		return read
	}
	return read
}

func (w *walk) reach(r *policy.Rule) {
	if w.reached == nil {
		w.reached = map[*policy.Rule]bool{}
	}
	w.reached[r] = true
}

// nearestMiss finds, for a denied side, the Allow rule with the fewest failed
// criteria in the tiers up to the one that denied. The first of equals wins.
func (w *walk) nearestMiss(s *Side, tiers []tier, c chain) {
	if !w.verbose || s.Verdict != Deny {
		return
	}
	var best *NearestMiss
	for _, t := range tiers {
		for _, p := range w.applicable(t, c) {
			rules := p.Rules(w.direction)
			for i := range rules {
				r := &rules[i]
				if r.Action != policy.Allow {
					continue
				}
				m := misses{all: true, text: true}
				w.match(r, p.Namespace, &m)
				if best != nil && len(m.list) >= len(best.Failed) {
					continue
				}
				ref := ruleOf(p, t.Name, w.direction)
				ref.Index, ref.Action = r.Index, r.Action.String()
				best = &NearestMiss{Rule: ref, Failed: m.list, Shadowed: !w.reached[r]}
			}
		}
		if t.Name == s.Tier {
			break
		}
	}
	s.NearestMiss = best
}

// ruleOf names a rule of a policy; index and action are still to be set.
func ruleOf(p *policy.Policy, tier string, d flow.Direction) RuleRef {
	return RuleRef{Tier: tier, Kind: p.Kind, Namespace: p.Namespace, Name: p.Name, Direction: d.String()}
}
