package trie

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
)

// maxProbe6 bounds the buckets, which are cache lines, that a look-up reads. At
// the greatest load the longest probe among a million random addresses is about
// 45; a table that goes beyond the bound is hashed again under another seed.
const maxProbe6 = 64

// hosts6 maps IPv6 addresses to values: buckets of three, and the next bucket
// when one is full. An address does not fit in one atomic word with its value,
// so a place belongs to its address until the table is built anew: the value is
// stored last, and 0 means deleted or not there yet.
type hosts6 struct {
	table atomic.Pointer[table6]
	live  int // addresses
	taken int // places in use, deleted ones included
	seed  func() (uint64, uint64)
}

// bucket is one cache line: three upper halves, three lower halves, then
//
//	word 6   value 1 << 32 | value 0
//	word 7   full << 63 | places taken << 32 | value 2
//
// full says that some address had to go to a later bucket.
type bucket [8]uint64

type table6 struct {
	buckets      []bucket // a power of two
	seed1, seed2 uint64
}

const (
	places      = 3
	full        = 1 << 63
	onePlace    = 1 << 32
	placesMask  = 3
	minBuckets6 = 16
)

func (t *table6) hash(hi, lo uint64) uint64 {
	a, b := bits.Mul64(hi^t.seed1, lo^t.seed2)
	return a ^ b
}

// get gives the value of an address, or 0.
func (t *table6) get(hi, lo uint64) uint32 {
	mask := uint64(len(t.buckets) - 1)
	first := t.hash(hi, lo) & mask
	for i := first; i < first+maxProbe6; i++ {
		// Which of three places an address has is a coin the processor cannot
		// predict: select without branches. Values come before keys: the key of a
		// value that is there is complete, while places that are empty or half
		// written may seem to match, with value 0.
		b := &t.buckets[i&mask]
		values, last := atomic.LoadUint64(&b[6]), atomic.LoadUint64(&b[7])
		v, v1, v2 := values, values>>32, last
		if (atomic.LoadUint64(&b[0])^hi)|(atomic.LoadUint64(&b[3])^lo) != 0 {
			v = 0
		}
		if (atomic.LoadUint64(&b[1])^hi)|(atomic.LoadUint64(&b[4])^lo) != 0 {
			v1 = 0
		}
		if (atomic.LoadUint64(&b[2])^hi)|(atomic.LoadUint64(&b[5])^lo) != 0 {
			v2 = 0
		}
		v |= v1 | v2
		if v &= payload; v != 0 {
			return uint32(v)
		}
		if last&full == 0 {
			break
		}
	}
	return 0
}

func (b *bucket) value(place int) uint32 {
	return uint32(b[6+place/2]>>(32*(place%2))) & payload
}

func (b *bucket) setValue(place int, v uint32) {
	word, shift := &b[6+place/2], 32*(place%2)
	atomic.StoreUint64(word, *word&^(payload<<shift)|uint64(v)<<shift)
}

func (b *bucket) taken() int { return int(b[7] >> 32 & placesMask) }

// locate gives the place of an address, or the first free one (found is then
// false), or nil where that would be too far.
func (t *table6) locate(hi, lo uint64) (b *bucket, place int, found bool) {
	mask := uint64(len(t.buckets) - 1)
	first := t.hash(hi, lo) & mask
	for i := first; i < first+maxProbe6; i++ {
		b := &t.buckets[i&mask]
		n := b.taken()
		for p := range n {
			if b[p] == hi && b[3+p] == lo {
				return b, p, true
			}
		}
		if n < places {
			return b, n, false
		}
	}
	return nil, 0, false
}

// add puts a new address into the table and tells whether it found a place.
func (t *table6) add(hi, lo uint64, v uint32) bool {
	b, place, _ := t.locate(hi, lo)
	if b == nil {
		return false
	}
	atomic.StoreUint64(&b[place], hi)
	atomic.StoreUint64(&b[3+place], lo)
	atomic.StoreUint64(&b[7], b[7]+onePlace)
	b.setValue(place, v)

	// Only now, so that the address is there before readers are sent past the
	// full buckets; until then they find nothing, as before.
	mask := uint64(len(t.buckets) - 1)
	for i := t.hash(hi, lo) & mask; &t.buckets[i&mask] != b; i++ {
		w := &t.buckets[i&mask][7]
		if *w&full == 0 {
			atomic.StoreUint64(w, *w|full)
		}
	}
	return true
}

// put gives an address its value and tells whether the address is new.
func (h *hosts6) put(hi, lo uint64, v uint32) bool {
	t := h.table.Load()
	if t != nil {
		if b, place, found := t.locate(hi, lo); found {
			fresh := b.value(place) == 0
			if fresh {
				h.live++
			}
			b.setValue(place, v)
			return fresh
		}
	}
	if t == nil || (h.taken+1)*8 > len(t.buckets)*places*5 {
		t = h.rebuild(minBuckets6)
	}
	for !t.add(hi, lo, v) {
		t = h.rebuild(2 * len(t.buckets))
	}
	h.taken++
	h.live++
	return true
}

// remove takes an address out and tells whether it was there.
func (h *hosts6) remove(hi, lo uint64) bool {
	t := h.table.Load()
	if t == nil {
		return false
	}
	b, place, found := t.locate(hi, lo)
	if !found || b.value(place) == 0 {
		return false
	}
	b.setValue(place, 0)
	h.live--
	if h.live == 0 {
		h.taken = 0
		h.table.Store(nil)
	} else if len(t.buckets) > minBuckets6 && h.live*3 < len(t.buckets) {
		h.rebuild(minBuckets6)
	}
	return true
}

// rebuild copies the table without deleted addresses, under a new seed, to at
// least size buckets and a load of a quarter to a half, and publishes it.
func (h *hosts6) rebuild(size int) *table6 {
	old := h.table.Load()
	for size*places < 2*(h.live+1) {
		size *= 2
	}
	for ; ; size *= 2 {
		t := &table6{buckets: make([]bucket, size)}
		t.seed1, t.seed2 = h.newSeed()
		if !t.fill(old) {
			continue
		}
		h.taken = h.live
		h.table.Store(t)
		return t
	}
}

func (h *hosts6) newSeed() (uint64, uint64) {
	if h.seed != nil {
		return h.seed()
	}
	return rand.Uint64(), rand.Uint64()
}

func (t *table6) fill(old *table6) bool {
	ok := true
	old.each(func(hi, lo uint64, v uint32) { ok = ok && t.add(hi, lo, v) })
	return ok
}

func (t *table6) each(f func(hi, lo uint64, v uint32)) {
	if t == nil {
		return
	}
	for i := range t.buckets {
		b := &t.buckets[i]
		for p := range b.taken() {
			if v := b.value(p); v != 0 {
				f(b[p], b[3+p], v)
			}
		}
	}
}

func (h *hosts6) each(f func(hi, lo uint64, length int, v uint32)) {
	h.table.Load().each(func(hi, lo uint64, v uint32) { f(hi, lo, 128, v) })
}
