package bench

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/postern-project/postern/bench/gen"
	"github.com/postern-project/postern/bench/rival"
)

var sink uint32

func routes() *gen.Routes { return gen.NewRoutes(false, 100_000, 1_000) }

// BenchmarkLookup knows all addresses beforehand, so it shows throughput. The
// look-ups are called through a func value, which costs every rival the same one
// to two nanoseconds.
func BenchmarkLookup(b *testing.B) {
	for _, family := range []struct {
		name string
		six  bool
	}{{"v4", false}, {"v6", true}} {
		r := gen.NewRoutes(family.six, 100_000, 1_000)
		for _, t := range rival.Tables {
			lookup := t.Build(r.Routes).Lookup
			for _, set := range []struct {
				name  string
				addrs gen.Addrs
			}{{"host", r.Hosts}, {"net", r.Nets}} {
				addrs := slices.Collect(set.addrs.All())
				b.Run(family.name+"/"+t.Name+"/"+set.name, func(b *testing.B) {
					b.ReportAllocs()
					for i := 0; b.Loop(); i++ {
						sink += lookup(addrs[i%gen.StreamLen])
					}
				})
			}
		}
	}
}

// BenchmarkChange takes a pod away and puts it back.
func BenchmarkChange(b *testing.B) {
	r := routes()
	pod := func(i int) netip.Prefix { return netip.PrefixFrom(gen.Addr4(r.Hosts.V4[i%gen.StreamLen]), 32) }
	ours, table := rival.Trie(r.Routes), rival.Bart(r.Routes)
	b.Run("trie.Table", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			ours.Delete(pod(i))
			if err := ours.Insert(pod(i), 1); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bart.Table in place", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			table.Delete(pod(i))
			table.Insert(pod(i), 1)
		}
	})
	b.Run("bart.Table persistent", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			table = table.DeletePersist(pod(i))
			table = table.InsertPersist(pod(i), 1)
		}
	})
}

// BenchmarkBuild inserts 101,000 routes into an empty table.
func BenchmarkBuild(b *testing.B) {
	r := routes()
	for _, t := range rival.Tables {
		b.Run(t.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				t.Build(r.Routes)
			}
		})
	}
}
