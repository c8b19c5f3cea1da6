package diff

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
)

// why tells how a verdict changed: what the end that denies says, before and after.
type why struct {
	denied bool // after; it was allowed before
	dir    flow.Direction
	reason [2]filter.Reason
	info   [2]filter.RuleInfo // zero where no rule decided
}

// found is one way in which verdicts from one identity to another change.
type found struct {
	from, to int
	why
	cells [2][]int // indexes of comparison.cells, by family
}

// run decides every planned pair. The result is in the order of pairs.
func (c *comparison) run(ctx context.Context) ([]found, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	rows := make([][]found, len(c.ids))
	var (
		workers sync.WaitGroup
		next    atomic.Int64
		mu      sync.Mutex // guards c.progress and the callback
	)
	for range min(runtime.GOMAXPROCS(0), len(c.ids)) {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(c.ids) {
					return
				}
				row, done, err := c.row(ctx, i)
				if err != nil {
					cancel(err)
					return
				}
				rows[i] = row
				mu.Lock()
				c.progress += done
				if c.options.Progress != nil && done > 0 {
					c.options.Progress(c.progress, c.total)
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return slices.Concat(rows...), nil
}

// row decides the planned pairs of one sender.
func (c *comparison) row(ctx context.Context, i int) (out []found, done int64, err error) {
	for j := range c.ids {
		if !c.exists(i, j) || !c.differs(i, j) {
			continue
		}
		if ctx.Err() != nil {
			return nil, 0, context.Cause(ctx)
		}
		pair := c.pair(i, j)
		for k := range pair {
			if err := c.check(&pair[k]); err != nil {
				return nil, 0, err
			}
		}
		out = append(out, pair...)
		done += c.cost(i, j)
	}
	return out, done, nil
}

// pair decides every cell from i to j.
func (c *comparison) pair(i, j int) (out []found) {
	for fam, cells := range c.cells {
		if !c.meet(i, j, fam) {
			continue
		}
		for n := range cells {
			t := c.tuples(i, j, fam, n)
			d := [2]filter.Decision{c.engines[0].Decide(t[0]), c.engines[1].Decide(t[1])}
			if d[0].Verdict == d[1].Verdict {
				continue
			}
			w := c.why(d)
			k := slices.IndexFunc(out, func(f found) bool { return f.why == w })
			if k < 0 {
				k = len(out)
				out = append(out, found{from: i, to: j, why: w})
			}
			out[k].cells[fam] = append(out[k].cells[fam], n)
		}
	}
	return out
}

// tuples gives the flow that stands for a cell from i to j, on either side.
func (c *comparison) tuples(i, j, fam, cell int) (out [2]flow.Tuple) {
	for side := range out {
		out[side] = c.cells[fam][cell].tuple(flow.Tuple{Src: c.ids[i].addrs[fam][side], Dst: c.ids[j].addrs[fam][side]})
	}
	return out
}

func (c *comparison) why(d [2]filter.Decision) why {
	w := why{denied: d[1].Verdict == filter.Drop}
	w.dir = d[0].Side
	if w.denied {
		w.dir = d[1].Side
	}
	for side := range d {
		o := d[side].Ingress
		if w.dir == flow.Egress {
			o = d[side].Egress
		}
		w.reason[side], w.info[side] = o.Reason, c.engines[side].RuleInfo(o.Rule)
	}
	return w
}

// first gives a flow of what was found.
func (c *comparison) first(f *found) [2]flow.Tuple {
	for fam := range f.cells {
		if len(f.cells[fam]) > 0 {
			return c.tuples(f.from, f.to, fam, f.cells[fam][0])
		}
	}
	return [2]flow.Tuple{}
}

// check asks the explainer about one flow of what was found.
func (c *comparison) check(f *found) error {
	for side, t := range c.first(f) {
		engine, oracle := c.engines[side].Decide(t), c.oracles[side].Decide(t)
		if (engine.Verdict == filter.Accept) != (oracle.Verdict == explain.Allow) || engine.Reason.String() != string(oracle.Reason) {
			return fmt.Errorf("the engine says %s (%s) of %s where the explanation says %s (%s)", engine.Verdict, engine.Reason, t, oracle.Verdict, oracle.Reason)
		}
	}
	return nil
}
