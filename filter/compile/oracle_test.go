package compile

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
)

// rapid checks 100 times: 200 worlds for each set of options.
const worldsPerCheck, flowsPerWorld = 2, 60

// answer is what engine and oracle have to agree on.
type answer struct {
	Verdict         string
	Reason          string
	Side            string
	Rule            string
	Egress, Ingress sideAnswer
}

type sideAnswer struct {
	Verdict, Reason, Tier, Rule string
	Logs                        []string
}

func engineAnswer(rs *filter.Ruleset, t flow.Tuple) answer {
	d := rs.Decide(t)
	a := answer{Verdict: d.Verdict.String(), Reason: d.Reason.String()}
	switch d.Reason {
	case filter.AddressConflict, filter.InvalidTuple, filter.NoLocalEndpoint:
		return a
	}
	a.Side, a.Rule = d.Side.String(), ruleText(rs.RuleInfo(d.Outcome().Rule))
	a.Egress = engineSide(rs, d.Egress)
	if d.Egress.Verdict == filter.Accept {
		a.Ingress = engineSide(rs, d.Ingress)
	}
	for _, id := range rs.LogRules(t, nil) {
		info := rs.RuleInfo(id)
		side := &a.Ingress
		if info.Direction == flow.Egress {
			side = &a.Egress
		}
		side.Logs = append(side.Logs, ruleText(info))
	}
	return a
}

func engineSide(rs *filter.Ruleset, o filter.Outcome) sideAnswer {
	info := rs.RuleInfo(o.Rule)
	return sideAnswer{Verdict: o.Verdict.String(), Reason: o.Reason.String(), Tier: info.Tier, Rule: ruleText(info)}
}

func ruleText(i filter.RuleInfo) string {
	if i.Kind == "" {
		return ""
	}
	return fmt.Sprintf("%s %s/%s %s %s rule %d", i.Kind, i.Namespace, i.Name, i.Tier, i.Direction, i.Index)
}

func oracleAnswer(ev explain.Evaluation) answer {
	a := answer{Verdict: ev.Verdict.String(), Reason: string(ev.Reason)}
	switch ev.Reason {
	case explain.AddressConflict, explain.InvalidTuple, explain.NoLocalEndpoint:
		return a
	}
	a.Side, a.Rule = ev.Side, refText(ev.Rule)
	a.Egress = oracleSide(ev.Egress)
	if ev.Egress.Verdict == explain.Allow {
		a.Ingress = oracleSide(ev.Ingress)
	}
	return a
}

func oracleSide(s explain.Side) sideAnswer {
	out := sideAnswer{Verdict: s.Verdict.String(), Reason: string(s.Reason), Tier: s.Tier, Rule: refText(s.Rule)}
	for i := range s.Logs {
		out.Logs = append(out.Logs, refText(&s.Logs[i]))
	}
	return out
}

func refText(r *explain.RuleRef) string {
	if r == nil {
		return ""
	}
	return fmt.Sprintf("%s %s/%s %s %s rule %d", r.Kind, r.Namespace, r.Name, r.Tier, r.Direction, r.Index)
}

// TestAgreesWithOracle compares the compiled form with the literal evaluation of
// the same snapshot, on random worlds.
func TestAgreesWithOracle(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"every endpoint hosted": {},
		"one node":              {Node: "n1"},
		"pending":               {Pending: true},
		"pending on one node":   {Node: "n2", Pending: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(rt *rapid.T) {
				for range worldsPerCheck {
					compareWorld(rt, o)
				}
			})
		})
	}
}

func compareWorld(rt *rapid.T, o Options) {
	d := draw{rt}
	s := d.snapshot()
	rs := mustCompile(rt, s, o)
	oracle := explain.New(s, explain.Options{Node: o.Node})
	for range flowsPerWorld {
		tuple := d.tuple(s)
		want := oracle.Decide(tuple)
		if o.Pending {
			want = oracle.DecidePending(tuple)
		}
		if diff := cmp.Diff(oracleAnswer(want), engineAnswer(rs, tuple)); diff != "" {
			rt.Fatalf("%s (-oracle +engine):\n%s", tuple, diff)
		}
	}
}

// TestHostsAgreeWithOracle does the same for the chains of host endpoints.
func TestHostsAgreeWithOracle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		d := draw{rt}
		s := d.snapshot()
		rs, _ := Compile(s, Options{})
		oracle := explain.New(s, explain.Options{})
		for _, h := range s.HostEndpoints {
			for range flowsPerWorld {
				tuple, chain, dir := d.tuple(s), d.below(int(filter.HostChains)), one(d, directions[:])
				want, err := oracle.EvaluateHost(h.Name, explain.HostChain(chain), dir, tuple)
				got, ok := rs.DecideHost(h.Name, filter.HostChain(chain), dir, tuple)
				if err != nil || !ok {
					rt.Fatalf("host endpoint %s: oracle %v, engine %v", h.Name, err, ok)
				}
				verdict := got.Verdict.String()
				if got.Undecided {
					verdict = explain.None.String()
				}
				info := rs.RuleInfo(got.Rule)
				if got.Reason == filter.ByProfile {
					want.Rule = nil // the engine knows no rules of built-in profiles
				}
				if verdict != want.Verdict.String() || ruleText(info) != refText(want.Rule) || info.Tier != want.Tier || got.Logged != (len(want.Logs) > 0) {
					rt.Fatalf("%s %s %s of %s: engine %s by %q, oracle %s by %q", tuple, filter.HostChain(chain), dir, h.Name,
						verdict, ruleText(info), want.Verdict, refText(want.Rule))
				}
			}
		}
	})
}

// TestWorldsAreWorthIt keeps the generator honest: every reason has to come up,
// both verdicts often, or the comparison above says little.
func TestWorldsAreWorthIt(t *testing.T) {
	t.Parallel()
	reasons := make(map[filter.Reason]int)
	total, logged := 0, 0
	gen := rapid.Custom(func(rt *rapid.T) []filter.Decision {
		d := draw{rt}
		s := d.snapshot()
		rs, _ := Compile(s, Options{Node: "n1"})
		var out []filter.Decision
		for range flowsPerWorld {
			out = append(out, rs.Decide(d.tuple(s)))
		}
		return out
	})
	for seed := range 60 {
		for _, d := range gen.Example(seed) {
			reasons[d.Reason]++
			total++
			if d.Egress.Logged || d.Ingress.Logged {
				logged++
			}
		}
	}
	for _, r := range []filter.Reason{filter.NoLocalEndpoint, filter.AddressConflict, filter.ByRule, filter.EndOfTier, filter.ByProfile, filter.NoProfile} {
		if reasons[r]*200 < total {
			t.Errorf("reason %s: %d of %d decisions, want at least one in 200", r, reasons[r], total)
		}
	}
	if logged*200 < total {
		t.Errorf("logged: %d of %d", logged, total)
	}
	t.Log(reasons, total, logged)
}
