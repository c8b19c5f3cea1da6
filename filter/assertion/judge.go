package assertion

import (
	"errors"
	"fmt"
	"strings"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// judge asks both evaluators.
type judge struct {
	evaluator *explain.Evaluator
	ruleset   *filter.Ruleset // nil if compiling failed, which is a bug
}

func newJudge(s *policy.Snapshot) *judge {
	rs, _ := compile.Compile(s, compile.Options{})
	return &judge{explain.New(s, explain.Options{}), rs}
}

// decide gives the literal evaluation; the error tells that the engine differs.
func (j *judge) decide(t flow.Tuple) (explain.Evaluation, error) {
	ev := j.evaluator.Decide(t)
	if j.ruleset == nil {
		return ev, errors.New("the engine could not compile what was explained: please report this as a bug")
	}
	d := j.ruleset.Decide(t)
	return ev, CrossCheck(d.Verdict.String(), d.Reason.String(), ev)
}

// CrossCheck compares what the engine that packets meet said, in filter's words,
// with what was evaluated literally. An error is a bug of one of the two.
func CrossCheck(verdict, reason string, ev explain.Evaluation) error {
	if (verdict == filter.Accept.String()) != (ev.Verdict == explain.Allow) || reason != string(ev.Reason) {
		return fmt.Errorf("the engine says %s (%s) where the explanation says %s (%s): please report this as a bug, with the manifests", verdict, reason, ev.Verdict, ev.Reason)
	}
	return nil
}

// reason gives the sentence that explain has for the flow's verdict, and the rule
// that came closest to allowing it.
func (j *judge) reason(t flow.Tuple) (string, *explain.NearestMiss) {
	trace := j.evaluator.Explain(t)
	var text strings.Builder
	_ = trace.Text(&text) // a Builder takes everything
	// The first line is the verdict, the tuple and, behind them, the sentence.
	why, _, _ := strings.Cut(text.String(), "\n")
	why = strings.TrimPrefix(why, fmt.Sprintf("%s %s: ", strings.ToUpper(trace.Verdict.String()), trace.Tuple))
	switch {
	case trace.Verdict == explain.Allow:
		return why, nil
	case trace.Side == flow.Egress.String():
		return why, trace.Egress.NearestMiss
	default:
		return why, trace.Ingress.NearestMiss
	}
}
