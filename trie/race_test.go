package trie

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
)

// watched is an address, what its value may be at each moment (see below), and
// the prefixes the writer changes around it, which hold no other address watched.
type watched struct {
	addr     netip.Addr
	prefixes []netip.Prefix // each contains addr

	// The writer counts begun before and done after each change of the value, and
	// puts the value that follows change i into history[i]. A reader that saw
	// done = a before and begun = b after its look-up must have an answer from
	// history[a..b].
	begun, done atomic.Int64
	history     []atomic.Uint32
}

const changesPerAddress = 600

func (w *watched) set(v uint32, change func()) {
	i := w.begun.Load() + 1
	w.history[i].Store(v)
	w.begun.Store(i)
	change()
	w.done.Store(i)
}

// verify looks the address up once and tells what is wrong with the answer.
func (w *watched) verify(table *Table) error {
	from := w.done.Load()
	got := table.Lookup(w.addr)
	to := w.begun.Load()
	for i := from; i <= to; i++ {
		if w.history[i].Load() == got {
			return nil
		}
	}
	return fmt.Errorf("lookup %s = %d, which it was not between changes %d and %d", w.addr, got, from, to)
}

// TestReadersSeeOldOrNew lets readers look addresses up while the writer inserts,
// replaces and deletes the prefixes around them, single addresses included, and
// enough others for every table to be rebuilt. Each answer must have been right
// at some moment during the call.
func TestReadersSeeOldOrNew(t *testing.T) {
	t.Parallel()
	var table Table
	newWatched := func(addr string, lengths ...int) *watched {
		w := &watched{addr: netip.MustParseAddr(addr), history: make([]atomic.Uint32, changesPerAddress+1)}
		for _, length := range lengths {
			w.prefixes = append(w.prefixes, netip.PrefixFrom(w.addr, length).Masked())
		}
		return w
	}
	all := []*watched{
		newWatched("10.1.2.3", 32, 31, 24, 17, 16, 8, 1),
		newWatched("192.168.7.9", 32, 30, 13),
		newWatched("172.16.5.4", 32, 20),
		newWatched("2001:db8:1:2::3", 128, 127, 65, 64, 56, 32, 16, 3),
		newWatched("fd00::1", 128, 64),
	}

	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for n := 0; !stop.Load(); n++ {
				if err := all[n%len(all)].verify(&table); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	held := make([]slowTable, len(all))
	noise := 0
	for range 4 * changesPerAddress {
		i := rnd.IntN(len(all))
		w := all[i]
		if w.begun.Load() == changesPerAddress {
			continue
		}
		p := w.prefixes[rnd.IntN(len(w.prefixes))]
		if rnd.IntN(2) == 0 {
			v := 1 + rnd.Uint32N(MaxValue)
			held[i].insert(p, v)
			w.set(held[i].lookup(w.addr), func() { mustInsert(t, &table, p, v) })
		} else {
			held[i].remove(p)
			w.set(held[i].lookup(w.addr), func() { table.Delete(p) })
		}
		// Others come and go in waves of 500, near the watched addresses.
		wave, at := noise/500, uint32(noise%500)
		for _, q := range []netip.Prefix{
			netip.PrefixFrom(addr4(0x0a010000|at<<5|0x10), 32), netip.PrefixFrom(addr4(0xc0a80000|(at<<5+0x20)&0xffff), 28).Masked(),
			netip.PrefixFrom(addr6(0x20010db800010002, 0x1000+uint64(at)), 128), netip.PrefixFrom(addr6(0x20010db800010000|0x1000+uint64(at), 0), 64),
		} {
			if q.Contains(all[0].addr) || q.Contains(all[1].addr) {
				continue
			}
			if wave%2 == 0 {
				mustInsert(t, &table, q, 1)
			} else {
				table.Delete(q)
			}
		}
		noise++
	}
	stop.Store(true)
	readers.Wait()
	for i, w := range all {
		if got, want := table.Lookup(w.addr), held[i].lookup(w.addr); got != want {
			t.Errorf("in the end: lookup %s = %d, want %d", w.addr, got, want)
		}
	}
	checkInside(t, &table)
}
