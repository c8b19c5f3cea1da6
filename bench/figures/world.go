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
	cached       *rival.Cached // linear
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
	if c.cached, err = rival.NewCached(c.linear); err != nil {
		return nil, err
	}
	if c.full, err = rival.NewLinear(w.Snapshot, gen.LocalNode, rival.Full); err != nil {
		return nil, err
	}
	if c.naive, err = rival.NewNaive(w.Snapshot, gen.LocalNode); err != nil {
		return nil, err
	}
	names := rival.RuleNames(w.Snapshot)
	cache := new(filter.Cache)
	for i, f := range w.Flows {
		t := f.Tuple()
		d := c.engine.Decide(t)
		if err := rival.Differ(rs, d, c.linear.Decide(&t), names); err != nil {
			return nil, fmt.Errorf("%s: the linear walk %w", t, err)
		}
		for range 3 {
			var again filter.Decision
			if cache.DecideInto(rs, &t, &again); again != d {
				return nil, fmt.Errorf("%s: the engine with its cache %+v, without %+v", t, again, d)
			}
			if err := rival.Differ(rs, d, c.cached.Decide(&t), names); err != nil {
				return nil, fmt.Errorf("%s: the linear walk with a cache %w", t, err)
			}
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

// decide is the engine as the verdict loop runs it, with a cache that it owns.
func (c *contest) decide() measure.Contestant {
	cache := new(filter.Cache)
	return measure.Contestant{Ops: len(c.stream), Run: func(int) {
		t, d, zero := gen.NewTuple(), filter.Decision{}, uint32(0)
		for i := range c.stream {
			f := &c.stream[i]
			t.Src, t.Dst, t.Proto, t.DstPort = gen.Addr4(f.Src^zero), gen.Addr4(f.Dst^zero), f.Proto, f.Port
			cache.DecideInto(c.engine.Ruleset(), &t, &d)
			zero = uint32(d.Egress.Rule|d.Ingress.Rule) >> 31
		}
		runtime.KeepAlive(zero)
	}}
}

// decideUncached is the engine that remembers nothing.
func (c *contest) decideUncached() measure.Contestant {
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

// walkCached is the linear walk with the same cache.
func (c *contest) walkCached() measure.Contestant {
	return measure.Contestant{Ops: len(c.stream), Run: func(int) {
		t, zero := gen.NewTuple(), uint32(0)
		for i := range c.stream {
			f := &c.stream[i]
			t.Src, t.Dst, t.Proto, t.DstPort = gen.Addr4(f.Src^zero), gen.Addr4(f.Dst^zero), f.Proto, f.Port
			v := c.cached.Decide(&t)
			zero = (v.Egress | v.Ingress) >> 31
		}
		runtime.KeepAlive(zero)
	}}
}

// hits gives how many of the decisions on the stream, repeated, a cache has.
func (c *contest) hits() float64 {
	cache, d, before := new(filter.Cache), filter.Decision{}, uint64(0)
	for range 3 {
		before = cache.Hits()
		for _, f := range c.stream {
			t := f.Tuple()
			cache.DecideInto(c.engine.Ruleset(), &t, &d)
		}
	}
	return float64(cache.Hits()-before) / float64(len(c.stream))
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

// allocs gives the allocations of a decision, as the verdict loop takes it.
func (c *contest) allocs() float64 {
	i, cache, d := 0, new(filter.Cache), filter.Decision{}
	return testing.AllocsPerRun(10_000, func() {
		t := c.stream[i%len(c.stream)].Tuple()
		cache.DecideInto(c.engine.Ruleset(), &t, &d)
		i++
	})
}
