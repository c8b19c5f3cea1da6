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
	table atomic.Pointer[table4]
	live  int // addresses
	taken int // slots that are not zero
	seed  func() (uint64, uint64)
}

type table4 struct {
	slots        []uint64
	seed1, seed2 uint64
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
	return int(t.hash(addr) * uint64(len(t.slots)) >> 32)
}

func (t *table4) next(i int) int {
	if i++; i == len(t.slots) {
		return 0
	}
	return i
}

// get gives the value of an address, or 0.
func (t *table4) get(addr uint32) uint32 {
	i := t.home(addr)
	for range maxProbe4 {
		s := atomic.LoadUint64(&t.slots[i])
		if uint32(s>>32) == addr || s == 0 {
			return uint32(s) & payload
		}
		i = t.next(i)
	}
	return 0
}

// locate gives the slot of addr, or a slot where it may be put, or nil where it
// would be too far from its place. A deleted slot may be taken for any address:
// key and value change together.
func (t *table4) locate(addr uint32) (slot *uint64, found bool) {
	i := t.home(addr)
	for range maxProbe4 {
		s := &t.slots[i]
		switch {
		case *s == 0:
			if slot == nil {
				slot = s
			}
			return slot, false
		case uint32(*s>>32) == addr:
			return s, true
		case *s&payload == 0 && slot == nil:
			slot = s
		}
		i = t.next(i)
	}
	return slot, false
}

// put gives an address its value and tells whether the address is new.
func (h *hosts4) put(addr, v uint32) bool {
	t := h.table.Load()
	if t == nil || (h.taken+1)*3 > len(t.slots)*2 {
		t = h.rebuild(minSlots4)
	}
	slot, _ := t.locate(addr)
	for slot == nil {
		t = h.rebuild(2 * len(t.slots))
		slot, _ = t.locate(addr)
	}
	fresh := *slot&payload == 0
	if *slot == 0 {
		h.taken++
	}
	if fresh {
		h.live++
	}
	atomic.StoreUint64(slot, uint64(addr)<<32|taken4|uint64(v))
	return fresh
}

// remove takes an address out and tells whether it was there.
func (h *hosts4) remove(addr uint32) bool {
	t := h.table.Load()
	if t == nil {
		return false
	}
	slot, found := t.locate(addr)
	if !found || *slot&payload == 0 {
		return false
	}
	atomic.StoreUint64(slot, uint64(addr)<<32|taken4)
	h.live--
	if h.live == 0 {
		h.taken = 0
		h.table.Store(nil)
	} else if len(t.slots) > minSlots4 && h.live*8 < len(t.slots) {
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
		t := &table4{slots: make([]uint64, size)}
		t.seed1, t.seed2 = h.newSeed()
		if !t.fill(old) {
			continue
		}
		h.taken = h.live
		h.table.Store(t)
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
	for _, s := range old.slots {
		if s&payload == 0 {
			continue
		}
		slot, _ := t.locate(uint32(s >> 32))
		if slot == nil {
			return false
		}
		*slot = s
	}
	return true
}

func (h *hosts4) each(f func(hi, lo uint64, length int, v uint32)) {
	t := h.table.Load()
	if t == nil {
		return
	}
	for _, s := range t.slots {
		if s&payload != 0 {
			f(s>>32<<32, 0, 32, uint32(s)&payload)
		}
	}
}
