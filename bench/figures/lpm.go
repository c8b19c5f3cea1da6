package main

import (
	"fmt"
	"runtime"

	"github.com/postern-project/postern/bench/gen"
	"github.com/postern-project/postern/bench/measure"
	"github.com/postern-project/postern/bench/report"
	"github.com/postern-project/postern/bench/rival"
)

// Tables are built several times, because where a table comes to lie in memory, and
// the seed of its hash, move its time by a quarter and stay as they are while it
// lives.
const tableRounds = 7

func lookups(r *report.Report) error {
	for _, t := range []struct {
		name       string
		six        bool
		pods, nets int
		builds     int
		times      report.Target // of bart.Table's time
		bytes      report.Target
	}{
		{"v4-100k", false, 100_000, 1_000, 7, report.AtMost(0.28), report.AtMost(40)},
		{"v6-100k", true, 100_000, 1_000, 7, report.AtMost(0.15), report.None},
		{"v4-1m", false, 800_000, 200_000, 2, report.AtMost(0.35), report.None},
		{"v6-1m", true, 800_000, 200_000, 2, report.AtMost(0.35), report.None},
	} {
		routes := gen.NewRoutes(t.six, t.pods, t.nets)
		hosts, nets := newTimings(), newTimings()
		var perEntry []float64
		for range t.builds {
			tables, sizes, err := buildTables(routes)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			hosts.take(tables, routes.Hosts)
			nets.take(tables, routes.Nets)
			perEntry = sizes
		}
		hosts.tell(r, "lpm/"+t.name+"/host", t.times)
		nets.tell(r, "lpm/"+t.name+"/net", report.None)
		r.Add("lpm/"+t.name+"/bytes-per-entry", perEntry[0], t.bytes)
		r.Add("lpm/"+t.name+"/bart.Table-bytes-per-entry", perEntry[1], report.None)
	}
	return nil
}

// timings are the times of each rival, by build.
type timings [][]float64

func newTimings() timings { return make(timings, len(rival.Tables)) }

// take times those that can answer for the addresses.
func (t timings) take(tables []rival.Lookups, addrs gen.Addrs) {
	var contestants []measure.Contestant
	var who []int
	for i, l := range tables {
		if l.Chase == nil || rival.Tables[i].Exact && l.Lookup(addrs.First()) == 0 {
			continue
		}
		who = append(who, i)
		contestants = append(contestants, measure.Contestant{Run: func(int) { runtime.KeepAlive(l.Chase(addrs)) }, Ops: addrs.Len()})
	}
	for k, ns := range measure.Turns(tableRounds, contestants) {
		t[who[k]] = append(t[who[k]], ns)
	}
}

func (t timings) tell(r *report.Report, prefix string, times report.Target) {
	for i := range t {
		if len(t[i]) > 0 {
			r.Add(prefix+"/"+rival.Tables[i].Name+"-ns", measure.Median(t[i]), report.None)
		}
	}
	r.Add(prefix+"/x-bart.Table", measure.Median(t[0])/measure.Median(t[1]), times)
}

// buildTables builds every rival, compares their answers and gives the heap that
// each holds per route. go-radix is left out of large tables: it is a hundred
// times slower in small ones already.
func buildTables(routes *gen.Routes) (tables []rival.Lookups, perEntry []float64, err error) {
	for _, t := range rival.Tables {
		if t.Name == "go-radix" && len(routes.Routes) > 200_000 {
			tables, perEntry = append(tables, rival.Lookups{}), append(perEntry, 0)
			continue
		}
		before := heap()
		l := t.Build(routes.Routes)
		perEntry = append(perEntry, float64(int64(heap()-before))/float64(len(routes.Routes)))
		tables = append(tables, l)
		for _, addrs := range []gen.Addrs{routes.Hosts, routes.Nets} {
			for a := range addrs.All() {
				got, want := l.Lookup(a), tables[0].Lookup(a)
				if want == 0 || got != want && !(t.Exact && got == 0) {
					return nil, nil, fmt.Errorf("%s gives %d for %s, %s %d", t.Name, got, a, rival.Tables[0].Name, want)
				}
			}
		}
	}
	return tables, perEntry, nil
}

// heap gives the bytes that are in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
