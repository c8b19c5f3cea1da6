package bench

import (
	"net/netip"
	"runtime"
	"testing"
)

// rival builds a table and gives its look-up, 0 for no match.
type rival struct {
	name  string
	exact bool // matches single addresses only
	build func([]route) func(netip.Addr) uint32
}

// The look-ups are called through a func value, which costs every rival the same
// one to two nanoseconds.
var rivals = []rival{
	{"trie", false, func(r []route) func(netip.Addr) uint32 { return buildTrie(r).Lookup }},
	{"bart.Table", false, func(r []route) func(netip.Addr) uint32 {
		t := buildBart(r)
		return func(a netip.Addr) uint32 { v, _ := t.Lookup(a); return v }
	}},
	{"bart.Fast", false, func(r []route) func(netip.Addr) uint32 {
		t := buildBartFast(r)
		return func(a netip.Addr) uint32 { v, _ := t.Lookup(a); return v }
	}},
	{"map", true, func(r []route) func(netip.Addr) uint32 {
		m := buildMap(r)
		return func(a netip.Addr) uint32 { return m[a] }
	}},
	{"go-radix", false, func(r []route) func(netip.Addr) uint32 {
		t := buildRadix(r)
		return func(a netip.Addr) uint32 { v, _ := t.Lookup(a); return v }
	}},
}

var sink uint32

func dependent(b *testing.B, lookup func(netip.Addr) uint32, addrs []netip.Addr) {
	b.ReportAllocs()
	v := uint32(0)
	for i := uint32(0); b.Loop(); i++ {
		// v>>30 is always 0 and the processor cannot know it.
		v = lookup(addrs[(i+v>>30)&(probeCount-1)])
	}
	sink = v
}

func independent(b *testing.B, lookup func(netip.Addr) uint32, addrs []netip.Addr) {
	b.ReportAllocs()
	v := uint32(0)
	for i := uint32(0); b.Loop(); i++ {
		v += lookup(addrs[i&(probeCount-1)])
	}
	sink = v
}

// BenchmarkLookup reports B/entry beside the time: the heap the table holds, for
// each of its routes.
func BenchmarkLookup(b *testing.B) {
	for _, t := range tables() {
		b.Run(t.name, func(b *testing.B) {
			for _, r := range rivals {
				b.Run(r.name, func(b *testing.B) {
					before := heap()
					lookup := r.build(t.routes)
					perEntry := float64(heap()-before) / float64(len(t.routes))
					run := func(name string, addrs []netip.Addr, f func(*testing.B, func(netip.Addr) uint32, []netip.Addr)) {
						b.Run(name, func(b *testing.B) {
							f(b, lookup, addrs)
							b.ReportMetric(perEntry, "B/entry")
						})
					}
					run("host-dep", t.hits, dependent)
					run("host-indep", t.hits, independent)
					if !r.exact {
						run("net-dep", t.nets, dependent)
					}
				})
			}
		})
	}
}

// BenchmarkChange takes a pod away and puts it back.
func BenchmarkChange(b *testing.B) {
	t := tables()[0]
	ours, table := buildTrie(t.routes), buildBart(t.routes)
	b.Run("trie", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			p := netip.PrefixFrom(t.hits[i&(probeCount-1)], 32)
			ours.Delete(p)
			if err := ours.Insert(p, 1); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bart.Table in place", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			p := netip.PrefixFrom(t.hits[i&(probeCount-1)], 32)
			table.Delete(p)
			table.Insert(p, 1)
		}
	})
	b.Run("bart.Table persistent", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			p := netip.PrefixFrom(t.hits[i&(probeCount-1)], 32)
			table = table.DeletePersist(p)
			table = table.InsertPersist(p, 1)
		}
	})
}

// BenchmarkBuild inserts 101,000 routes into an empty table.
func BenchmarkBuild(b *testing.B) {
	t := tables()[0]
	for _, r := range rivals {
		b.Run(r.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.build(t.routes)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestRivalsAgree compares every answer before anybody is timed.
func TestRivalsAgree(t *testing.T) {
	for _, table := range tables()[:2] {
		var lookups []func(netip.Addr) uint32
		for _, r := range rivals {
			lookups = append(lookups, r.build(table.routes))
		}
		for i := range probeCount {
			for k, r := range rivals {
				if got, want := lookups[k](table.hits[i]), lookups[0](table.hits[i]); got != want || got == 0 {
					t.Fatalf("%s: %s gives %d for %s, trie %d", table.name, r.name, got, table.hits[i], want)
				}
				if got, want := lookups[k](table.nets[i]), lookups[0](table.nets[i]); !r.exact && (got != want || got == 0) {
					t.Fatalf("%s: %s gives %d for %s, trie %d", table.name, r.name, got, table.nets[i], want)
				}
			}
		}
	}
}
