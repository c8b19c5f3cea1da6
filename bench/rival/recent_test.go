package rival

import (
	"math/rand/v2"
	"testing"

	"github.com/postern-project/postern/bench/gen"
	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
)

// TestRecent: through changes of ruleset, forgotten flows and far more flows than
// there is room for, what is remembered is what the engine says.
func TestRecent(t *testing.T) {
	t.Parallel()
	var rulesets []*filter.Ruleset
	var flows []gen.Flow
	for generation, rules := range []int{103, 1_002} {
		w := gen.Cluster(rules, false)
		w.Snapshot.Generation = uint64(generation + 1)
		rs, problems := compile.Compile(w.Snapshot, compile.Options{Node: gen.LocalNode})
		if rs == nil || len(problems) > 0 {
			t.Fatal(problems)
		}
		rulesets, flows = append(rulesets, rs), w.Flows
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	c := NewRecent(1 << 10)
	rs, differ := rulesets[0], 0
	for n := range 200_000 {
		if n%1_000 == 0 {
			rs = rulesets[rnd.IntN(len(rulesets))]
		}
		f := flows[min(rnd.IntN(len(flows)), rnd.IntN(len(flows)), rnd.IntN(len(flows)))].Tuple()
		switch rnd.IntN(10) {
		case 0:
			c.Forget(&f)
		case 1:
			f.Proto++
		case 2:
			f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
		}
		if got, want := c.Decide(rs, &f), rs.Decide(f); got != want {
			t.Fatalf("%v, generation %d: remembered %+v, engine %+v", f, rs.Generation(), got, want)
		}
		if rulesets[0].Decide(f).Verdict != rulesets[1].Decide(f).Verdict {
			differ++
		}
	}
	if c.Hits == 0 || differ == 0 {
		t.Errorf("%d hits, %d flows that the rulesets decide differently: nothing was tested", c.Hits, differ)
	}
}

func TestRecentAllocatesNothing(t *testing.T) {
	w := gen.Cluster(103, false)
	rs, _ := compile.Compile(w.Snapshot, compile.Options{Node: gen.LocalNode})
	c, i := NewRecent(1<<10), 0
	if n := testing.AllocsPerRun(10_000, func() {
		f := w.Flows[i%len(w.Flows)].Tuple()
		c.Decide(rs, &f)
		c.Forget(&f)
		c.Decide(rs, &f)
		i++
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
