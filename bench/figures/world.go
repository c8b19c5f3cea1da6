package main

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/postern-project/postern/bench/gen"
	"github.com/postern-project/postern/bench/measure"
	"github.com/postern-project/postern/bench/rival"
	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/policy"
)

// contest is a world with everybody who decides in it.
type contest struct {
	engine       *filter.Engine
	linear, full *rival.Linear // with tight sets and with full ones
	naive        *rival.Naive
	stream       []gen.Flow
}

// newContest compiles a world for every rival and compares their answers and the
// rules they name, for every flow; the slow ones answer one flow of a hundred.
func newContest(w *gen.World, stream []gen.Flow) (*contest, error) {
	rs, err := compileWorld(w.Snapshot)
	if err != nil {
		return nil, err
	}
	c := &contest{engine: new(filter.Engine), stream: stream}
	c.engine.Swap(rs)
	if c.linear, err = rival.NewLinear(w.Snapshot, gen.LocalNode, rival.Tight); err != nil {
		return nil, err
	}
	if c.full, err = rival.NewLinear(w.Snapshot, gen.LocalNode, rival.Full); err != nil {
		return nil, err
	}
	if c.naive, err = rival.NewNaive(w.Snapshot, gen.LocalNode); err != nil {
		return nil, err
	}
	names := rival.RuleNames(w.Snapshot)
	for i, f := range w.Flows {
		t := f.Tuple()
		d := c.engine.Decide(t)
		if err := rival.Differ(rs, d, c.linear.Decide(&t), names); err != nil {
			return nil, fmt.Errorf("%s: the linear walk %w", t, err)
		}
		if i%100 != 0 {
			continue
		}
		if err := rival.Differ(rs, d, c.full.Decide(&t), names); err != nil {
			return nil, fmt.Errorf("%s: the linear walk with full sets %w", t, err)
		}
		if err := rival.Differ(rs, d, c.full.DecidePeersFirst(&t), names); err != nil {
			return nil, fmt.Errorf("%s: the linear walk by peers %w", t, err)
		}
		if err := rival.Differ(rs, d, c.naive.Decide(t), names); err != nil {
			return nil, fmt.Errorf("%s: the naive evaluator %w", t, err)
		}
	}
	return c, nil
}

func compileWorld(s *policy.Snapshot) (*filter.Ruleset, error) {
	rs, problems := compile.Compile(s, compile.Options{Node: gen.LocalNode})
	if rs == nil || len(problems) > 0 {
		return nil, fmt.Errorf("compile: %v", problems)
	}
	return rs, nil
}

// The loops below make each decision wait for the rule that the one before gave:
// rule>>31 is always 0, and the processor cannot know it. They fill the tuple in
// place: a copy of one just written costs five nanoseconds, and a decoder makes none.

func (c *contest) decide() measure.Contestant {
	return measure.Contestant{Ops: len(c.stream), Run: func(int) {
		t, d, zero := gen.NewTuple(), filter.Decision{}, uint32(0)
		for i := range c.stream {
			f := &c.stream[i]
			t.Src, t.Dst, t.Proto, t.DstPort = gen.Addr4(f.Src^zero), gen.Addr4(f.Dst^zero), f.Proto, f.Port
			c.engine.DecideInto(&t, &d)
			zero = uint32(d.Egress.Rule|d.Ingress.Rule) >> 31
		}
		runtime.KeepAlive(zero)
	}}
}

// walk takes fewer decisions a turn, other ones in each, where they take long.
func walk(c *contest, linear *rival.Linear, ops int) measure.Contestant {
	return measure.Contestant{Ops: ops, Run: func(round int) {
		t, zero := gen.NewTuple(), uint32(0)
		for i := range ops {
			f := &c.stream[(round*ops+i)%len(c.stream)]
			t.Src, t.Dst, t.Proto, t.DstPort = gen.Addr4(f.Src^zero), gen.Addr4(f.Dst^zero), f.Proto, f.Port
			v := linear.Decide(&t)
			zero = (v.Egress | v.Ingress) >> 31
		}
		runtime.KeepAlive(zero)
	}}
}

// walkPeersFirst is walk over full sets, peers before ports.
func (c *contest) walkPeersFirst(ops int) measure.Contestant {
	return measure.Contestant{Ops: ops, Run: func(round int) {
		t, zero := gen.NewTuple(), uint32(0)
		for i := range ops {
			f := &c.stream[(round*ops+i)%len(c.stream)]
			t.Src, t.Dst, t.Proto, t.DstPort = gen.Addr4(f.Src^zero), gen.Addr4(f.Dst^zero), f.Proto, f.Port
			v := c.full.DecidePeersFirst(&t)
			zero = (v.Egress | v.Ingress) >> 31
		}
		runtime.KeepAlive(zero)
	}}
}

// lookUp does what all deciders do first: it makes the tuple and finds both ends.
func (c *contest) lookUp() measure.Contestant {
	return measure.Contestant{Ops: len(c.stream), Run: func(int) {
		t, zero := gen.NewTuple(), uint32(0)
		for i := range c.stream {
			f := &c.stream[i]
			t.Src, t.Dst, t.Proto, t.DstPort = gen.Addr4(f.Src^zero), gen.Addr4(f.Dst^zero), f.Proto, f.Port
			zero = c.linear.Lookups(&t) >> 30
		}
		runtime.KeepAlive(zero)
	}}
}

func (c *contest) evaluate(ops int) measure.Contestant {
	return measure.Contestant{Ops: ops, Run: func(round int) {
		for i := range ops {
			runtime.KeepAlive(c.naive.Decide(c.stream[(round*ops+i)%len(c.stream)].Tuple()).Accept)
		}
	}}
}

// allocs gives the allocations of a decision.
func (c *contest) allocs() float64 {
	i := 0
	return testing.AllocsPerRun(10_000, func() {
		c.engine.Decide(c.stream[i%len(c.stream)].Tuple())
		i++
	})
}
