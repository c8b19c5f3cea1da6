package main

import (
	"fmt"
	"runtime"

	"github.com/postern-project/postern/bench/gen"
	"github.com/postern-project/postern/bench/measure"
	"github.com/postern-project/postern/bench/rival"
)

const lpmRounds = 15

func lookups(r *report) error {
	for _, t := range []struct {
		name       string
		six        bool
		pods, nets int
		times      target // of bart.Table's time
		bytes      target
	}{
		{"v4-100k", false, 100_000, 1_000, atMost(0.28), atMost(40)},
		{"v6-100k", true, 100_000, 1_000, atMost(0.15), none},
		{"v4-1m", false, 800_000, 200_000, atMost(0.35), none},
		{"v6-1m", true, 800_000, 200_000, atMost(0.35), none},
	} {
		routes := gen.NewRoutes(t.six, t.pods, t.nets)
		tables, perEntry, err := buildTables(routes)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		for _, set := range []struct {
			name  string
			addrs gen.Addrs
			times target
		}{{"host", routes.Hosts, t.times}, {"net", routes.Nets, none}} {
			var contestants []measure.Contestant
			var names []string
			for i, l := range tables {
				if l.Chase == nil || rival.Tables[i].Exact && set.name == "net" {
					continue
				}
				names = append(names, rival.Tables[i].Name)
				contestants = append(contestants, measure.Contestant{Run: func(int) { runtime.KeepAlive(l.Chase(set.addrs)) }, Ops: set.addrs.Len()})
			}
			times := measure.Turns(lpmRounds, contestants)
			prefix := "lpm/" + t.name + "/" + set.name
			for i, name := range names {
				r.add(prefix+"/"+name+"-ns", times[i], none)
			}
			r.add(prefix+"/x-bart.Table", times[0]/times[1], set.times)
		}
		r.add("lpm/"+t.name+"/bytes-per-entry", perEntry[0], t.bytes)
		r.add("lpm/"+t.name+"/bart.Table-bytes-per-entry", perEntry[1], none)
	}
	return nil
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
