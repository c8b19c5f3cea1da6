package main

import (
	"fmt"
	"runtime"

	"github.com/postern-project/postern/bench/gen"
	"github.com/postern-project/postern/bench/measure"
	"github.com/postern-project/postern/bench/report"
	"github.com/postern-project/postern/bench/rival"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/flow"
)

// remembering measures what a cache of decisions by flow would save or cost beside
// the engine: flows that come again and again, by how many there are, and flows
// that never come again.
func remembering(r *report.Report, o options) error {
	w := gen.Cluster(10_002, false)
	rs, problems := compile.Compile(w.Snapshot, compile.Options{Node: gen.LocalNode})
	if rs == nil || len(problems) > 0 {
		return fmt.Errorf("compile: %v", problems)
	}
	const ops = 1 << 16
	for _, flows := range []int{64, 1_000, 10_000, 100_000, 1_000_000} {
		// A flow is one of the world's and a source port of its own. Each decision
		// waits for the one before: rule>>31 is 0 and the processor cannot know it.
		run := func(again bool, decide func(*flow.Tuple) uint32) func(int) {
			next := uint32(0)
			return func(int) {
				t, zero, n := gen.NewTuple(), uint32(0), uint32(flows)
				for i := range uint32(ops) {
					k := i * 2654435761 % n
					if !again {
						next++
						k = next
					}
					f := &w.Flows[k%uint32(len(w.Flows))]
					t.Src, t.Dst, t.Proto, t.DstPort = gen.Addr4(f.Src^zero), gen.Addr4(f.Dst^zero), f.Proto, f.Port
					t.SrcPort = uint16(k / uint32(len(w.Flows)) * 7919)
					zero = decide(&t) >> 31
				}
				runtime.KeepAlive(zero)
			}
		}
		engine := func(t *flow.Tuple) uint32 {
			d := rs.Decide(*t)
			return uint32(d.Egress.Rule | d.Ingress.Rule)
		}
		remember := func(c *rival.Recent) func(*flow.Tuple) uint32 {
			return func(t *flow.Tuple) uint32 {
				d := c.Decide(rs, t)
				return uint32(d.Egress.Rule | d.Ingress.Rule)
			}
		}
		hit, miss := rival.NewRecent(2*flows), rival.NewRecent(2*flows)
		for range 1 + flows/ops {
			run(true, remember(hit))(0)
		}
		times := measure.Turns(o.rounds, []measure.Contestant{
			{Ops: ops, Run: run(true, engine)},
			{Ops: ops, Run: run(true, remember(hit))},
			{Ops: ops, Run: run(false, engine)},
			{Ops: ops, Run: run(false, remember(miss))},
		})
		prefix := fmt.Sprintf("flow-cache/%d", flows)
		r.Add(prefix+"/engine-ns", times[0], report.None)
		r.Add(prefix+"/again-ns", times[1], report.None)
		r.Add(prefix+"/never-again-x-engine", times[3]/times[2], report.None)
		// How many of a hundred packets must be of a flow that came before.
		gain, loss := times[0]-times[1], times[3]-times[2]
		if gain > 0 {
			r.Add(prefix+"/break-even-hits-x", max(loss, 0)/(gain+max(loss, 0)), report.None)
		}
	}
	return nil
}
