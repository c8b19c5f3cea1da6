package trie

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// TestInPlace changes single addresses in place, more often than the list of what they
// were holds, while readers hold Views of many moments against what was true then.
func TestInPlace(t *testing.T) {
	t.Parallel()
	var addrs []netip.Addr
	for i := range uint32(9000) { // a /16 that is an array
		addrs = append(addrs, addr4(10<<24|i))
	}
	for i := range uint32(500) {
		addrs = append(addrs, addr4(11<<24|i<<12), addr6(0xfd<<56, uint64(i)<<20))
	}
	var table Table
	now := make([]uint32, len(addrs))
	set := func(i int, v uint32) {
		mustInsert(t, &table, netip.PrefixFrom(addrs[i], addrs[i].BitLen()), v)
		now[i] = v
	}
	for i := range addrs {
		set(i, uint32(i)+1)
	}
	rng := rand.New(rand.NewPCG(1, 7))
	done := make(chan struct{})
	var readers sync.WaitGroup
	copies := 0
	for change := range 3*maxUndone + 100 {
		set(rng.IntN(len(addrs)), 1+rng.Uint32N(1000))
		if change%500 == 250 { // which also changes what readers have looked up
			set(rng.IntN(100), 1+rng.Uint32N(1000))
		}
		if change%3100 != 0 {
			continue
		}
		undone := table.undone
		view, then := table.View(), slices.Clone(now)
		if table.undone != undone {
			t.Fatal("a View ends the list")
		}
		copies++
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(2, uint64(change)))
			for n := 0; ; n++ {
				i := rng.IntN(len(addrs))
				if n%2 == 0 {
					i = rng.IntN(100)
				}
				if got := view.Lookup(addrs[i]); got != then[i] {
					t.Errorf("view of change %d: lookup %s = %d, want %d", change, addrs[i], got, then[i])
					return
				}
				if n < 5000 {
					continue
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	close(done)
	readers.Wait()
	if table.undone > maxUndone {
		t.Errorf("%d entries in the list, want at most %d", table.undone, maxUndone)
	}
	if copies < 10 {
		t.Errorf("%d views: nothing was tested", copies)
	}
}

// TestInPlaceEachView takes a View after each change, so that they end at every entry of
// a piece, and at none.
func TestInPlaceEachView(t *testing.T) {
	t.Parallel()
	addrs := []netip.Addr{addr4(10 << 24), addr4(11 << 24), addr6(0xfd<<56, 1), addr6(0xfd<<56, 2)}
	var table Table
	now := make([]uint32, len(addrs))
	type past struct {
		view View
		then []uint32
	}
	var views []past
	for change := range uint32(4 * undoPiece) {
		i := int(change) % len(addrs)
		if change > undoPiece { // what is not changed any more is looked for to the end
			i %= 2
		}
		now[i] = change + 1
		mustInsert(t, &table, netip.PrefixFrom(addrs[i], addrs[i].BitLen()), now[i])
		views = append(views, past{table.View(), slices.Clone(now)})
	}
	for n, p := range views {
		for i, a := range addrs {
			if got := p.view.Lookup(a); got != p.then[i] {
				t.Errorf("view of change %d: lookup %s = %d, want %d", n, a, got, p.then[i])
			}
		}
	}
}

// TestBeforeStopsAtNews: a reader that has a value, and then sees a piece that is not full,
// has the value of then, whatever the writer appends meanwhile, even if it fills that
// piece and begins another one before the reader goes on.
func TestBeforeStopsAtNews(t *testing.T) {
	t.Parallel()
	x := key{0, 10 << 24}
	var u, later undo
	u.length.Store(undoPiece - 1) // as the reader has loaded it
	u.next.Store(&later)          // as it is a moment later
	later.entries[0] = undone{addr: x, value: 2}
	later.length.Store(1)
	if got := u.before(0, x, false, 1); got != 1 {
		t.Errorf("%d, want the value that the reader had, 1", got)
	}
	u.length.Store(undoPiece)
	if got := u.before(0, x, false, 3); got != 2 {
		t.Errorf("behind a full piece: %d, want 2", got)
	}
}
