package trie

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
)

// TestCrowds lets two /16 fill up and empty again, past both bounds between the
// hash and the arrays, beside a map. Views taken on the way stay as they were.
func TestCrowds(t *testing.T) {
	t.Parallel()
	var table Table
	rnd := rand.New(rand.NewPCG(7, 8))
	mustInsert(t, &table, netip.MustParsePrefix("10.0.0.0/8"), 1)
	want := make(map[uint32]uint32)
	check := func(lookup func(uint32) uint32, want map[uint32]uint32, n int) {
		t.Helper()
		for a := range want {
			if n--; n < 0 {
				return
			}
			for _, b := range []uint32{a, a ^ 1} { // the neighbour may be there or not
				v, known := want[b]
				if !known {
					v = 1
				}
				if got := lookup(b); got != v {
					t.Fatalf("lookup %s = %d, want %d", addr4(b), got, v)
				}
			}
		}
	}
	type past struct {
		view View
		want map[uint32]uint32
	}
	var views []past
	crowded := 0
	for step := range 60_000 {
		growing := step < 25_000
		a := 0x0a010000 | rnd.Uint32N(1<<14) | rnd.Uint32N(2)<<16
		p := netip.PrefixFrom(addr4(a), 32)
		_, known := want[a]
		if growing || rnd.IntN(20) == 0 {
			v := 2 + rnd.Uint32N(1000)
			mustInsert(t, &table, p, v)
			want[a] = v
		} else if table.Delete(p) != known {
			t.Fatalf("delete %s: was it there? %v", p, known)
		} else {
			delete(want, a)
		}
		if table.Len() != len(want)+1 {
			t.Fatalf("step %d: Len = %d, want %d", step, table.Len(), len(want)+1)
		}
		if step%2500 == 0 {
			copied := make(map[uint32]uint32, len(want))
			for k, v := range want {
				copied[k] = v
			}
			views = append(views, past{table.View(), copied})
			check(table.Lookup4, want, len(want))
			if table.crowds.table.Load() != nil {
				crowded++
			}
		}
	}
	if crowded == 0 || crowded == len(views) {
		t.Errorf("of %d moments, arrays were there at %d", len(views), crowded)
	}
	for _, p := range views {
		check(p.view.Lookup4, p.want, len(p.want))
	}
	n := 0
	for p, v := range table.All() {
		if p.IsSingleIP() && want[bitsOf4(p.Addr())] != v {
			t.Errorf("All gives %s %d", p, v)
		}
		n++
	}
	if n != len(want)+1 {
		t.Errorf("All gives %d prefixes, want %d", n, len(want)+1)
	}
	for a := range want {
		table.Delete(netip.PrefixFrom(addr4(a), 32))
	}
	table.Delete(netip.MustParsePrefix("10.0.0.0/8"))
	if table.crowds.table.Load() != nil {
		t.Error("an empty table keeps its arrays")
	}
	checkEmpty(t, &table)
}

func bitsOf4(a netip.Addr) uint32 { hi, _ := bitsOf(a); return uint32(hi >> 32) }

// TestCrowdsWhileReading moves a /16 between hash and array and back while others
// read: addresses that do not change must never be missed.
func TestCrowdsWhileReading(t *testing.T) {
	t.Parallel()
	var table Table
	const fixed = 64
	for i := range uint32(fixed) {
		mustInsert(t, &table, netip.PrefixFrom(addr4(0x0a010000|i*97), 32), i+1)
	}
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for i := uint32(0); !stop.Load(); i++ {
				if got := table.Lookup4(0x0a010000 | i%fixed*97); got != i%fixed+1 {
					t.Errorf("address %d has %d", i%fixed, got)
					return
				}
			}
		})
	}
	for range 3 {
		for i := range uint32(enterCrowd) {
			mustInsert(t, &table, netip.PrefixFrom(addr4(0x0a018000|i), 32), 7)
		}
		if !table.crowds.has(0x0a01) {
			t.Error("not in an array")
		}
		for i := range uint32(enterCrowd) {
			table.Delete(netip.PrefixFrom(addr4(0x0a018000|i), 32))
		}
		if table.crowds.has(0x0a01) {
			t.Error("still in an array")
		}
	}
	stop.Store(true)
	readers.Wait()
}
