package trie

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
)

// maxProbe4 bounds the slots a look-up reads. At the greatest load the longest
// probe among a million random keys is about 200; a table that goes beyond the
// bound is hashed again under another seed.
const maxProbe4 = 256

// hosts4 maps IPv4 addresses to values: open addressing with linear probing. A
// slot is one word, so that readers always see a key with its own value:
//
//	63 ... 32   31      28 ... 0
//	address     taken   value, 0 if deleted
type hosts4 struct {
	table  atomic.Pointer[table4]
	frozen bool // a View has table
	live   int  // addresses
	taken  int  // slots that are not zero
	seed   func() (uint64, uint64)
}

// table4 has its slots in chunks, so that what Views keep of a table shares most
// of it with the table that goes on changing.
type table4 struct {
	size         int // slots
	chunks       []atomic.Pointer[chunk4]
	shared       []bool // chunks that a View has as well; nil for none
	seed1, seed2 uint64
}

// chunk4 is a page of memory: copying one costs about as much as missing the
// cache a few times.
type chunk4 [1 << chunkBits4]uint64

const (
	chunkBits4 = 9
	chunkMask4 = 1<<chunkBits4 - 1
)

func newTable4(size int) *table4 {
	t := &table4{size: size, chunks: make([]atomic.Pointer[chunk4], (size+chunkMask4)>>chunkBits4)}
	for i := range t.chunks {
		t.chunks[i].Store(new(chunk4))
	}
	return t
}

// fork gives a table that shares every chunk with t until it writes to it.
func (t *table4) fork() *table4 {
	f := &table4{size: t.size, chunks: make([]atomic.Pointer[chunk4], len(t.chunks)), shared: make([]bool, len(t.chunks)), seed1: t.seed1, seed2: t.seed2}
	copy(f.chunks, t.chunks) // f is nobody else's yet, and only the writer stores to t
	for i := range f.shared {
		f.shared[i] = true
	}
	return f
}

// slot gives a slot for reading.
func (t *table4) slot(i int) *uint64 {
	return &t.chunks[i>>chunkBits4].Load()[i&chunkMask4]
}

// set stores a slot, in a chunk that no View has.
func (t *table4) set(i int, s uint64) {
	c := &t.chunks[i>>chunkBits4]
	if t.shared != nil && t.shared[i>>chunkBits4] {
		own := *c.Load()
		c.Store(&own)
		t.shared[i>>chunkBits4] = false
	}
	atomic.StoreUint64(&c.Load()[i&chunkMask4], s)
}

const (
	taken4    = 1 << 31
	minSlots4 = 64
)

// hash spreads the addresses so that nobody who does not know the seeds can
// choose colliding ones.
func (t *table4) hash(addr uint32) uint64 {
	hi, lo := bits.Mul64(uint64(addr)^t.seed1, t.seed2)
	return (hi ^ lo) >> 32
}

// home is the slot an address belongs in: its hash as a fraction of 2^32, so
// that the number of slots need be no power of two and the table stays dense
// enough to be cached.
func (t *table4) home(addr uint32) int {
	return int(t.hash(addr) * uint64(t.size) >> 32)
}

func (t *table4) next(i int) int {
	if i++; i == t.size {
		return 0
	}
	return i
}

// get gives the value of an address, or 0.
func (t *table4) get(addr uint32) uint32 {
	i := t.home(addr)
	for range maxProbe4 {
		s := atomic.LoadUint64(t.slot(i))
		if uint32(s>>32) == addr || s == 0 {
			return uint32(s) & payload
		}
		i = t.next(i)
	}
	return 0
}

// locate gives the slot of addr, or a slot where it may be put, or -1 where it
// would be too far from its place. A deleted slot may be taken for any address:
// key and value change together.
func (t *table4) locate(addr uint32) (slot int, found bool) {
	i := t.home(addr)
	slot = -1
	for range maxProbe4 {
		s := *t.slot(i)
		switch {
		case s == 0:
			if slot < 0 {
				slot = i
			}
			return slot, false
		case uint32(s>>32) == addr:
			return i, true
		case s&payload == 0 && slot < 0:
			slot = i
		}
		i = t.next(i)
	}
	return slot, false
}

// writable gives the table for a change.
func (h *hosts4) writable() *table4 {
	t := h.table.Load()
	if h.frozen && t != nil {
		t = t.fork()
		h.table.Store(t)
	}
	h.frozen = false
	return t
}

// put gives an address its value and tells whether the address is new.
func (h *hosts4) put(addr, v uint32) bool {
	t := h.writable()
	if t == nil || (h.taken+1)*3 > t.size*2 {
		t = h.rebuild(minSlots4)
	}
	slot, _ := t.locate(addr)
	for slot < 0 {
		t = h.rebuild(2 * t.size)
		slot, _ = t.locate(addr)
	}
	old := *t.slot(slot)
	fresh := old&payload == 0
	if old == 0 {
		h.taken++
	}
	if fresh {
		h.live++
	}
	t.set(slot, uint64(addr)<<32|taken4|uint64(v))
	return fresh
}

// remove takes an address out and tells whether it was there.
func (h *hosts4) remove(addr uint32) bool {
	t := h.writable()
	if t == nil {
		return false
	}
	slot, found := t.locate(addr)
	if !found || *t.slot(slot)&payload == 0 {
		return false
	}
	t.set(slot, uint64(addr)<<32|taken4)
	h.live--
	if h.live == 0 {
		h.taken = 0
		h.table.Store(nil)
	} else if t.size > minSlots4 && h.live*8 < t.size {
		h.rebuild(minSlots4)
	}
	return true
}

// rebuild copies the table without deleted slots, under a new seed, to a load of
// four ninths or to at least size slots, and publishes it.
func (h *hosts4) rebuild(size int) *table4 {
	old := h.table.Load()
	size = max(size, h.live*9/4)
	for ; ; size *= 2 {
		t := newTable4(size)
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

func (h *hosts4) newSeed() (uint64, uint64) {
	if h.seed != nil {
		return h.seed()
	}
	return rand.Uint64(), rand.Uint64() | 1
}

// fill copies the live slots of old and tells whether all found a place.
func (t *table4) fill(old *table4) bool {
	if old == nil {
		return true
	}
	for i := range old.size {
		s := *old.slot(i)
		if s&payload == 0 {
			continue
		}
		slot, _ := t.locate(uint32(s >> 32))
		if slot < 0 {
			return false
		}
		t.set(slot, s)
	}
	return true
}

func (h *hosts4) each(f func(hi, lo uint64, length int, v uint32)) {
	t := h.table.Load()
	if t == nil {
		return
	}
	for i := range t.size {
		if s := *t.slot(i); s&payload != 0 {
			f(s>>32<<32, 0, 32, uint32(s)&payload)
		}
	}
}
