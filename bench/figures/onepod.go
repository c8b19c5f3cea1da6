package main

import (
	"fmt"

	"github.com/postern-project/postern/bench/gen"
	"github.com/postern-project/postern/bench/measure"
	"github.com/postern-project/postern/bench/report"
)

// onePod measures worlds in which all rules apply to one pod. The targets are 1.2
// times the ratios that the prototype of the engine reached. It was given
// identities and was compared with a walk over full sets, so these ratios are
// taken without the tuple and the two look-ups, which both sides share.
func onePod(r *report.Report) error {
	for _, size := range []struct {
		rules, walks int // walks is how many decisions the linear walk makes a turn
		prototype    float64
	}{
		{10, gen.StreamLen, 11.6 / 34.6},
		{100, gen.StreamLen, 0},
		{1_000, 8192, 19.0 / 2_635},
		{10_000, 1024, 55.2 / 61_480},
		{100_000, 128, 522.0 / 527_993},
	} {
		w := gen.OnePod(size.rules)
		c, err := newContest(w, gen.Uniform(w.Flows))
		if err != nil {
			return fmt.Errorf("%d rules: %w", size.rules, err)
		}
		times := measure.Turns(decideRounds, []measure.Contestant{c.decide(), walk(c, c.linear, size.walks), walk(c, c.full, size.walks), c.lookUp(), c.walkPeersFirst(size.walks), c.decideUncached()})
		engine, linear, full, lookups, peers := times[0], times[1], times[2], times[3], times[4]
		limit := report.None
		if size.prototype > 0 {
			limit = report.AtMost(1.2 * size.prototype)
		}
		prefix := fmt.Sprintf("onepod/%d", size.rules)
		r.Add(prefix+"/engine-ns", engine, report.None)
		r.Add(prefix+"/engine-uncached-ns", times[5], report.None)
		r.Add(prefix+"/cache-hits-x", c.hits(), report.None)
		r.Add(prefix+"/linear-ns", linear, report.None)
		r.Add(prefix+"/linear-full-sets-ns", full, report.None)
		r.Add(prefix+"/linear-peers-first-ns", peers, report.None)
		r.Add(prefix+"/lookups-ns", lookups, report.None)
		r.Add(prefix+"/x-linear", engine/linear, report.None)
		r.Add(prefix+"/rules-only-x-linear", (engine-lookups)/(linear-lookups), report.None)
		r.Add(prefix+"/rules-only-x-linear-full-sets", (engine-lookups)/(full-lookups), limit)
		r.Add(prefix+"/rules-only-x-linear-peers-first", (engine-lookups)/(peers-lookups), report.None)
	}
	return nil
}
