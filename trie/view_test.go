package trie

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// viewPrefixes are few, so that the same are inserted and deleted many times, and
// dense and scattered ones are among them.
func viewPrefixes(rng *rand.Rand) (out []netip.Prefix) {
	for range 600 {
		out = append(out, netip.PrefixFrom(addr4(10<<24|uint32(rng.IntN(700))), 32), netip.PrefixFrom(addr6(0xfd<<56, uint64(rng.IntN(700))), 128),
			netip.PrefixFrom(addr4(rng.Uint32()), 1+rng.IntN(32)).Masked(), netip.PrefixFrom(addr6(0xfd<<56|rng.Uint64()>>8, rng.Uint64()), 1+rng.IntN(128)).Masked())
	}
	return out
}

// TestViewsStay changes a table and holds Views of many moments against the
// oracle's state of the same moment, while the table goes on changing.
func TestViewsStay(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 6))
	all := viewPrefixes(rng)
	var (
		table Table
		slow  slowTable
		views sync.WaitGroup
	)
	watch := func(i int) {
		view, then := table.View(), slices.Clone(slow)
		views.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(i)))
			for range 300 {
				a := all[rng.IntN(len(all))].Addr()
				if rng.IntN(2) == 0 {
					a = a.Next()
				}
				if got, want := view.Lookup(a), then.lookup(a); got != want {
					t.Errorf("view of change %d: lookup %s = %d, want %d", i, a, got, want)
					return
				}
			}
		})
	}
	for i := range 3000 {
		p := all[rng.IntN(len(all))]
		// In waves, so that tables grow, shrink and become empty.
		if rng.IntN(1000) < 500+450*(1-i/500%2*2) {
			mustInsert(t, &table, p, uint32(i+1))
			slow.insert(p, uint32(i+1))
		} else if table.Delete(p) != slow.remove(p) {
			t.Fatalf("delete %s: table and oracle differ", p)
		}
		if i%7 == 0 { // in place, of single addresses
			for n := range slow {
				if e := &slow[n]; e.Prefix.IsSingleIP() && rng.IntN(20) == 0 {
					e.Value = uint32(rng.IntN(1000) + 1)
					mustInsert(t, &table, e.Prefix, e.Value)
					if rng.IntN(50) == 0 {
						watch(i)
					}
				}
			}
		}
		if i%40 == 0 {
			watch(i)
		}
	}
	views.Wait()
}

// TestEmptyView looks nothing up.
func TestEmptyView(t *testing.T) {
	t.Parallel()
	var view View
	var table Table
	for _, v := range []View{view, table.View()} {
		for _, a := range []netip.Addr{{}, addr4(1), addr6(1, 1), netip.MustParseAddr("::ffff:1.2.3.4"), netip.MustParseAddr("fe80::1%eth0")} {
			if got := v.Lookup(a); got != 0 {
				t.Errorf("lookup %s = %d in an empty view", a, got)
			}
		}
	}
}

func BenchmarkViewThenChange(b *testing.B) {
	var table Table
	for i := range uint32(100_000) {
		mustInsert(b, &table, netip.PrefixFrom(addr4(10<<24|i), 32), i+1)
	}
	b.ReportAllocs()
	for i := uint32(0); b.Loop(); i++ {
		mustInsert(b, &table, netip.PrefixFrom(addr4(10<<24|i*7919%100_000), 32), i%997+1)
		table.View()
	}
}
