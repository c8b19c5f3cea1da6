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
	table  atomic.Pointer[table6]
	frozen bool // a View has table
	live   int  // addresses
	taken  int  // places in use, deleted ones included
	seed   func() (uint64, uint64)
}

// bucket is one cache line: three upper halves, three lower halves, then
//
//	word 6   value 1 << 32 | value 0
//	word 7   full << 63 | places taken << 32 | value 2
//
// full says that some address had to go to a later bucket.
type bucket [8]uint64

// table6 has its buckets in chunks, as table4 has its slots.
type table6 struct {
	size         int // buckets, a power of two
	chunks       []atomic.Pointer[chunk6]
	shared       []bool // chunks that a View has as well; nil for none
	seed1, seed2 uint64
}

type chunk6 [1 << chunkBits6]bucket

const (
	chunkBits6 = 6
	chunkMask6 = 1<<chunkBits6 - 1
)

func newTable6(size int) *table6 {
	t := &table6{size: size, chunks: make([]atomic.Pointer[chunk6], (size+chunkMask6)>>chunkBits6)}
	for i := range t.chunks {
		t.chunks[i].Store(new(chunk6))
	}
	return t
}

// fork gives a table that shares every chunk with t until it writes to it.
func (t *table6) fork() *table6 {
	f := &table6{size: t.size, chunks: make([]atomic.Pointer[chunk6], len(t.chunks)), shared: make([]bool, len(t.chunks)), seed1: t.seed1, seed2: t.seed2}
	copy(f.chunks, t.chunks) // f is nobody else's yet, and only the writer stores to t
	for i := range f.shared {
		f.shared[i] = true
	}
	return f
}

// bucket gives a bucket for reading.
func (t *table6) bucket(i uint64) *bucket {
	return &t.chunks[i>>chunkBits6].Load()[i&chunkMask6]
}

// own gives a bucket for writing, in a chunk that no View has.
func (t *table6) own(i uint64) *bucket {
	c := &t.chunks[i>>chunkBits6]
	if t.shared != nil && t.shared[i>>chunkBits6] {
		own := *c.Load()
		c.Store(&own)
		t.shared[i>>chunkBits6] = false
	}
	return &c.Load()[i&chunkMask6]
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
	mask := uint64(t.size - 1)
	first := t.hash(hi, lo) & mask
	for i := first; i < first+maxProbe6; i++ {
		// Which of three places an address has is a coin the processor cannot
		// predict: select without branches. Values come before keys: the key of a
		// value that is there is complete, while places that are empty or half
		// written may seem to match, with value 0.
		b := t.bucket(i & mask)
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

// locate gives the bucket and place of an address, or the first free one (found
// is then false), or place -1 where that would be too far.
func (t *table6) locate(hi, lo uint64) (at uint64, place int, found bool) {
	mask := uint64(t.size - 1)
	first := t.hash(hi, lo) & mask
	for i := first; i < first+maxProbe6; i++ {
		b := t.bucket(i & mask)
		n := b.taken()
		for p := range n {
			if b[p] == hi && b[3+p] == lo {
				return i & mask, p, true
			}
		}
		if n < places {
			return i & mask, n, false
		}
	}
	return 0, -1, false
}

// add puts a new address into the table and tells whether it found a place.
func (t *table6) add(hi, lo uint64, v uint32) bool {
	at, place, _ := t.locate(hi, lo)
	if place < 0 {
		return false
	}
	b := t.own(at)
	atomic.StoreUint64(&b[place], hi)
	atomic.StoreUint64(&b[3+place], lo)
	atomic.StoreUint64(&b[7], b[7]+onePlace)
	b.setValue(place, v)

	// Only now, so that the address is there before readers are sent past the
	// full buckets; until then they find nothing, as before.
	mask := uint64(t.size - 1)
	for i := t.hash(hi, lo) & mask; i != at; i = (i + 1) & mask {
		if t.bucket(i)[7]&full == 0 {
			w := &t.own(i)[7]
			atomic.StoreUint64(w, *w|full)
		}
	}
	return true
}

// writable gives the table for a change.
func (h *hosts6) writable() *table6 {
	t := h.table.Load()
	if h.frozen && t != nil {
		t = t.fork()
		h.table.Store(t)
	}
	h.frozen = false
	return t
}

// put gives an address its value and tells whether the address is new.
func (h *hosts6) put(hi, lo uint64, v uint32) bool {
	t := h.writable()
	if t != nil {
		if at, place, found := t.locate(hi, lo); found {
			b := t.own(at)
			fresh := b.value(place) == 0
			if fresh {
				h.live++
			}
			b.setValue(place, v)
			return fresh
		}
	}
	if t == nil || (h.taken+1)*8 > t.size*places*5 {
		t = h.rebuild(minBuckets6)
	}
	for !t.add(hi, lo, v) {
		t = h.rebuild(2 * t.size)
	}
	h.taken++
	h.live++
	return true
}

// remove takes an address out and tells whether it was there.
func (h *hosts6) remove(hi, lo uint64) bool {
	t := h.writable()
	if t == nil {
		return false
	}
	at, place, found := t.locate(hi, lo)
	if !found || t.bucket(at).value(place) == 0 {
		return false
	}
	t.own(at).setValue(place, 0)
	h.live--
	if h.live == 0 {
		h.taken = 0
		h.table.Store(nil)
	} else if t.size > minBuckets6 && h.live*3 < t.size {
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
		t := newTable6(size)
		t.seed1, t.seed2 = h.newSeed()
		if !t.fill(old) {
			continue
		}
		h.taken = h.live
		h.table.Store(t)
		h.frozen = false
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
	for i := range t.size {
		b := t.bucket(uint64(i))
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
