package explain

import (
	"fmt"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// HostChain is one of the four places where a host endpoint's policies are read
// (section 5.4). Failsafe ports come before these chains and are not theirs.
type HostChain uint8

const (
	// HostNormal is traffic from and to local processes.
	HostNormal HostChain = iota
	// HostForward is traffic that passes through the host.
	HostForward
	// HostUntracked is doNotTrack policy, before connection tracking.
	HostUntracked
	// HostPreDNAT is preDNAT policy, ingress only.
	HostPreDNAT
)

// chains says which policies count in each chain and whether its tiers end.
var chains = [...]chain{
	HostNormal: {
		keep: func(p *policy.Policy) bool { return !p.DoNotTrack && !p.PreDNAT },
		ends: true,
	},
	HostForward: {
		keep: func(p *policy.Policy) bool { return p.ApplyOnForward && !p.DoNotTrack && !p.PreDNAT },
		ends: true,
	},
	HostUntracked: {keep: func(p *policy.Policy) bool { return p.DoNotTrack }},
	HostPreDNAT:   {keep: func(p *policy.Policy) bool { return p.PreDNAT }},
}

// EvaluateHost evaluates one chain of one host endpoint under the enforced
// policies. Which host endpoint is active on an interface is the caller's to
// know. None means that the next chain goes on. It fails if the snapshot has no
// such host endpoint or there is no such chain.
func (e *Evaluator) EvaluateHost(name string, c HostChain, d flow.Direction, t flow.Tuple) (Side, error) {
	o := e.hosts[name]
	if o == nil {
		return Side{}, fmt.Errorf("evaluate host endpoint %s: not found", name)
	}
	if int(c) >= len(chains) {
		return Side{}, fmt.Errorf("evaluate host endpoint %s: no chain %d", name, c)
	}
	s := Side{Direction: d.String(), Endpoint: name}
	p := e.packet(t)
	if reason, ok := refusal(p); ok {
		s.Reason = reason
		return s, nil
	}
	if c == HostPreDNAT && d == flow.Egress || c == HostUntracked && o.host.InterfaceName == "*" {
		s.Verdict, s.Reason = None, NoPolicy // there is no such chain there
		return s, nil
	}

	tiers := e.enforced.selecting(o)
	w := walk{packet: p, e: e, direction: d, verbose: true}
	if w.tiers(&s, tiers, chains[c]) == undecided {
		w.undecidedHost(&s, o, c, tiers)
	}
	w.nearestMiss(&s, tiers, chains[c])
	return s, nil
}

// undecidedHost decides where a chain's tiers did not.
func (w *walk) undecidedHost(s *Side, o *object, c HostChain, tiers []tier) {
	switch c {
	case HostNormal:
		w.hostProfiles(s, o.host.Profiles)
		return
	case HostForward:
		applies := false
		for _, t := range tiers {
			for _, p := range t.policies {
				applies = applies || chains[c].keep(p)
			}
		}
		if !applies { // in either direction
			s.Verdict, s.Reason = Allow, NoPolicy
			return
		}
	}
	s.Verdict, s.Reason = None, NoMatch
	if len(s.Tiers) == 0 {
		s.Reason = NoPolicy
	}
}

// hostProfiles reads the profiles in order; an unknown one denies, and so does
// Pass [D6] and running out of them.
func (w *walk) hostProfiles(s *Side, names []string) {
	s.Verdict, s.Reason = Deny, NoProfile
	for _, name := range names {
		step := ProfileStep{Name: name, Outcome: "none"}
		p := w.e.profiles[name]
		if p == nil && name == policy.DefaultAllowProfile { // always exists
			p = &policy.Profile{Ingress: []policy.Rule{{Action: policy.Allow}}, Egress: []policy.Rule{{Action: policy.Allow}}}
		}
		if p == nil {
			step.Unknown, step.Outcome = true, "Deny"
			s.Profiles = append(s.Profiles, step)
			return
		}
		rules := p.Ingress
		if w.direction == flow.Egress {
			rules = p.Egress
		}
		// A profile's Pass denies: decide takes all but allowed for Deny [D6].
		read := w.rules(s, rules, "", RuleRef{Kind: policy.ProfileKind, Name: name, Direction: w.direction.String()})
		step.Rules = read.steps
		if read.outcome != undecided {
			s.decide(read.outcome, ByProfile, "", &read.rule)
			step.Outcome = "Deny"
			if s.Verdict == Allow {
				step.Outcome = "Allow"
			}
		}
		s.Profiles = append(s.Profiles, step)
		if read.outcome != undecided {
			return
		}
	}
}
