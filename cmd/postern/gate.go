package main

import (
	"github.com/rs/zerolog"

	"github.com/postern-project/postern/filter/assertion"
	"github.com/postern-project/postern/filter/policy"
)

// gatekeeper holds back snapshots that break an assertion, and says so once for
// each. Only the loop that applies snapshots uses it.
type gatekeeper struct {
	log    zerolog.Logger
	gate   assertion.Gate
	judged *policy.Snapshot // the last one that was asked about
	broken error            // what it breaks
	opened bool             // a snapshot has passed before
	// unchecked are the flows that could not be judged on it, as said in the log.
	unchecked map[string]bool
}

func newGatekeeper(files []string, log zerolog.Logger) (*gatekeeper, error) {
	sets, err := readAssertions(files)
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	return &gatekeeper{log: log, gate: assertion.Gate{Sets: sets}}, nil
}

// admits tells whether a snapshot may be put in force.
func (g *gatekeeper) admits(s *policy.Snapshot) bool {
	if len(g.gate.Sets) == 0 || s == g.judged {
		return g.broken == nil
	}
	was := g.broken
	said := g.unchecked
	g.unchecked = map[string]bool{}
	g.gate.Unchecked = func(r assertion.Result) {
		text := r.Flow() + ": " + r.Why
		if !said[text] && !g.unchecked[text] {
			g.log.Warn().Str("assertion", r.Assertion).Str("flow", r.Flow()).Str("problem", r.Why).Msg("assertion cannot be checked")
		}
		g.unchecked[text] = true
	}
	g.judged, g.broken = s, g.gate.Check(s.Complete())
	switch {
	case g.broken != nil && g.opened:
		g.log.Error().Err(g.broken).Uint64("generation", s.Generation).Msg("change breaks an assertion and is refused as a whole, the last good state stays in force")
	case g.broken != nil:
		g.log.Error().Err(g.broken).Uint64("generation", s.Generation).Msg("policy breaks an assertion, nothing is applied until it holds")
	case was != nil:
		g.log.Info().Uint64("generation", s.Generation).Msg("assertions hold again")
	}
	g.opened = g.opened || g.broken == nil
	return g.broken == nil
}
