package compile

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
)

// TestCacheIsTheRuleset follows random worlds through random changes, and back to
// rulesets from before, with one filter.Cache, which must always answer as the
// ruleset that is asked. Some flows differ in the source port only.
func TestCacheIsTheRuleset(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{"every endpoint hosted": {}, "one node": {Node: "n1"}, "pending": {Pending: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked, hits, bySource, logged uint64
			rapid.Check(t, func(rt *rapid.T) {
				d := draw{rt}
				c, cache := New(o), new(filter.Cache)
				var rulesets []*filter.Ruleset
				s := d.snapshot()
				var tuples []flow.Tuple
				for range flowsPerWorld {
					tuples = append(tuples, d.tuple(s))
				}
				ask := func(rs *filter.Ruleset) {
					for range 3 {
						for _, tuple := range tuples {
							tuple.SrcPort ^= uint16(d.below(3))
							want := rs.Decide(tuple)
							var got filter.Decision
							if cache.DecideInto(rs, &tuple, &got); got != want {
								rt.Fatalf("%s: with a cache %+v, without %+v", tuple, got, want)
							}
							asked++
							if want.Egress.BySource || want.Ingress.BySource {
								bySource++
							}
							if want.Egress.Logged || want.Ingress.Logged {
								logged++
							}
						}
					}
				}
				for range 3 {
					rs, problems := c.Apply(s)
					if rs == nil {
						rt.Fatal("no ruleset", problems)
					}
					rulesets = append(rulesets, rs)
					ask(rs)
					s = d.next(s)
				}
				ask(rulesets[0])
				hits += cache.Hits()
			})
			if hits < asked/10 || bySource < asked/100 || logged < asked/100 {
				t.Errorf("of %d decisions %d were hits, %d hung on source ports, %d are logged: too few to mean anything", asked, hits, bySource, logged)
			}
		})
	}
}
