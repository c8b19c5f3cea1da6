package trie

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
)

// hosts maps the single addresses of one family to values. It is a hash table of
// cache lines with eight slots each; what a full line has no room for is in the
// next one with room. A look-up reads all slots of a line and takes the one that
// fits without a branch: which of them it is, is a coin the processor cannot
// predict, and a wrong guess costs more than eight comparisons.
//
// A slot is one word, so that readers always see a key with its own value:
//
//	IPv4   63 ... 32 address            31 taken   28 ... 0 value, 0 if deleted
//	IPv6   63 ... 35 tag, 34 ... 32 n   31 taken   28 ... 0
//
// An IPv6 address does not fit. Its slot has a tag, some bits of the hash, and n,
// which slot of the line it is; the address itself is beside, in keys. Comparing
// with it can be predicted, so that nothing waits for keys, which are too many for
// the cache. A slot belongs to its address until the table is built anew: keys
// never change once a value is visible.
type hosts struct {
	table  atomic.Pointer[hostTable]
	six    bool
	frozen bool // a View has table
	live   int  // addresses
	taken  int  // slots that are not zero
	seed   func() (uint64, uint64)
}

// hostTable has its lines in chunks, so that what Views keep of a table shares
// most of it with the table that goes on changing.
type hostTable struct {
	lines        int
	slots        chunks[slotChunk]
	keys         chunks[keyChunk] // empty for IPv4
	seed1, seed2 uint64
}

type (
	line [lineSlots]uint64
	// slotChunk is a page of memory: copying one costs about as much as missing
	// the cache a few times.
	slotChunk [1 << chunkBits]line
	keyChunk  [1 << chunkBits][lineSlots]key
	key       struct{ hi, lo uint64 }
)

const (
	lineSlots = 8
	chunkBits = 6
	chunkMask = 1<<chunkBits - 1

	taken  = 1 << 31
	number = 1 << 32 // of a slot, IPv6
	tag6   = 1 << 35
	// someTag is set in every tag, so that an empty slot fits none.
	someTag = 1 << 63

	// maxLines bounds the lines a look-up reads. At the greatest load, three
	// quarters, the most among a million random keys is about 22; a table that goes beyond the bound
	// is hashed again under another seed.
	maxLines = 64
	minLines = 8
)

// chunks are pieces of a table, some of which a View has as well.
type chunks[T any] struct {
	list   []atomic.Pointer[T]
	shared []bool // nil if none is
}

func newChunks[T any](n int) chunks[T] {
	c := chunks[T]{list: make([]atomic.Pointer[T], n)}
	for i := range c.list {
		c.list[i].Store(new(T))
	}
	return c
}

// fork gives chunks that are all shared with c until they are written to.
func (c *chunks[T]) fork() chunks[T] {
	f := chunks[T]{list: make([]atomic.Pointer[T], len(c.list)), shared: make([]bool, len(c.list))}
	copy(f.list, c.list) // f is nobody else's yet, and only the writer stores to c
	for i := range f.shared {
		f.shared[i] = true
	}
	return f
}

// own gives a chunk for writing, which no View has.
func (c *chunks[T]) own(i int) *T {
	p := &c.list[i]
	if c.shared != nil && c.shared[i] {
		own := *p.Load()
		p.Store(&own)
		c.shared[i] = false
	}
	return p.Load()
}

func newHostTable(lines int, six bool, seed1, seed2 uint64) *hostTable {
	n := (lines + chunkMask) >> chunkBits
	t := &hostTable{lines: lines, slots: newChunks[slotChunk](n), seed1: seed1, seed2: seed2}
	if six {
		t.keys = newChunks[keyChunk](n)
	}
	return t
}

// place is where an address belongs, and the word of its slot without number and
// value. The hash spreads addresses so that nobody who does not know the seeds can
// choose colliding ones. Its upper half is a fraction of the lines, so that their
// number need be no power of two and the table stays dense enough to be cached.
func (t *hostTable) place4(addr uint32) (home uint, word uint64) {
	hi, lo := bits.Mul64(uint64(addr)^t.seed1, t.seed2)
	h := hi ^ lo
	return t.home(h), uint64(addr)<<32 | taken
}

func (t *hostTable) place6(k key) (home uint, word uint64) {
	hi, lo := bits.Mul64(k.hi^t.seed1, k.lo^t.seed2)
	h := hi ^ lo
	return t.home(h), h<<35 | someTag | taken
}

// first is the slot of its line that an IPv6 address takes if it is free: a look-up
// that guesses it need not wait for the slot before it loads the key.
func first(word uint64) int { return int(word>>35) % lineSlots }

func (t *hostTable) home(hash uint64) uint { return uint(hash >> 32 * uint64(t.lines) >> 32) }

func (t *hostTable) place(k key) (home uint, word uint64) {
	if t.keys.list == nil {
		return t.place4(uint32(k.lo))
	}
	return t.place6(k)
}

func (t *hostTable) next(i uint) uint {
	if i++; i == uint(t.lines) {
		return 0
	}
	return i
}

// best gives the least difference of a slot to a word: no more than payload, and
// for IPv6 the slot's number besides, if the slot fits.
func (l *line) best(word uint64) uint64 {
	a := min(atomic.LoadUint64(&l[0])^word, atomic.LoadUint64(&l[1])^word)
	b := min(atomic.LoadUint64(&l[2])^word, atomic.LoadUint64(&l[3])^word)
	c := min(atomic.LoadUint64(&l[4])^word, atomic.LoadUint64(&l[5])^word)
	d := min(atomic.LoadUint64(&l[6])^word, atomic.LoadUint64(&l[7])^word)
	return min(min(a, b), min(c, d))
}

// full tells whether an address that belongs here may be in the next line.
func (l *line) full() bool {
	for i := range l {
		if atomic.LoadUint64(&l[i]) == 0 {
			return false
		}
	}
	return true
}

// get4 gives the value of an address, or 0.
func (t *hostTable) get4(addr uint32) uint32 {
	i, word := t.place4(addr)
	for range maxLines {
		c := t.slots.list[i>>chunkBits].Load()
		if c == nil { // never: spares the check whether it is
			return 0
		}
		l := &c[i&chunkMask]
		if d := l.best(word); d <= payload {
			return uint32(d)
		}
		if !l.full() {
			return 0
		}
		i = t.next(i)
	}
	return 0
}

// get6 gives the value of an address, or 0.
func (t *hostTable) get6(hi, lo uint64) uint32 {
	i, word := t.place6(key{hi, lo})
	for range maxLines {
		c, keys := t.slots.list[i>>chunkBits].Load(), t.keys.list[i>>chunkBits].Load()
		if c == nil || keys == nil { // never
			return 0
		}
		l := &c[i&chunkMask]
		if d := atomic.LoadUint64(&l[first(word)]) ^ word; d < tag6 {
			if k := &keys[i&chunkMask][first(word)]; k.hi == hi && k.lo == lo {
				return uint32(d) & payload
			}
		}
		if d := l.best(word); d < tag6 {
			// The slot before the key: the key of a slot that is taken is complete.
			k := &keys[i&chunkMask][d/number]
			if k.hi == hi && k.lo == lo {
				return uint32(d) & payload
			}
			if v, found := l.search(word, &keys[i&chunkMask], key{hi, lo}); found {
				return v
			}
		}
		if !l.full() {
			return 0
		}
		i = t.next(i)
	}
	return 0
}

// search looks at every slot that has the tag, of which two in a line are rare.
func (l *line) search(word uint64, keys *[lineSlots]key, k key) (v uint32, found bool) {
	for n := range l {
		if d := atomic.LoadUint64(&l[n]) ^ word; d < tag6 && keys[n] == k {
			return uint32(d) & payload, true
		}
	}
	return 0, false
}

// locate gives the line and slot of an address, or where it may be put (found is
// then false), or slot -1 where that would be too far from its place. A deleted
// IPv4 slot may be taken for any address: key and value change together.
func (t *hostTable) locate(k key) (at uint, slot int, found bool) {
	i, word := t.place(k)
	slot = -1
	from := 0
	if t.keys.list != nil {
		from = first(word)
	}
	for range maxLines {
		l := &t.slots.list[i>>chunkBits].Load()[i&chunkMask]
		for j := range lineSlots {
			n := (from + j) % lineSlots
			s := l[n]
			switch {
			case s == 0:
				if slot < 0 {
					at, slot = i, n
				}
				return at, slot, false
			case t.has(i, n, s, word, k):
				return i, n, true
			case s&payload == 0 && slot < 0 && t.keys.list == nil:
				at, slot = i, n
			}
		}
		i = t.next(i)
	}
	return at, slot, false
}

// has tells whether a slot is that of an address.
func (t *hostTable) has(i uint, n int, s, word uint64, k key) bool {
	if t.keys.list == nil {
		return (s^word)>>32 == 0
	}
	return s^word < tag6 && t.keys.list[i>>chunkBits].Load()[i&chunkMask][n] == k
}

func (t *hostTable) value(i uint, n int) uint32 {
	return uint32(t.slots.list[i>>chunkBits].Load()[i&chunkMask][n]) & payload
}

// set stores a slot, and its key first if there is none. It tells whether the slot
// was empty.
func (t *hostTable) set(i uint, n int, k key, v uint32) (empty bool) {
	_, word := t.place(k)
	slot := &t.slots.own(int(i >> chunkBits))[i&chunkMask][n]
	empty = *slot == 0
	if t.keys.list != nil {
		word |= uint64(n) * number
		if empty {
			t.keys.own(int(i >> chunkBits))[i&chunkMask][n] = k
		}
	}
	atomic.StoreUint64(slot, word|uint64(v))
	return empty
}

// writable gives the table for a change.
func (h *hosts) writable() *hostTable {
	t := h.table.Load()
	if h.frozen && t != nil {
		f := &hostTable{lines: t.lines, slots: t.slots.fork(), keys: t.keys, seed1: t.seed1, seed2: t.seed2}
		if h.six {
			f.keys = t.keys.fork()
		}
		t = f
		h.table.Store(t)
	}
	h.frozen = false
	return t
}

// put gives an address its value and tells whether the address is new.
func (h *hosts) put(k key, v uint32) bool {
	t := h.writable()
	if t == nil || (h.taken+1)*4 > t.lines*lineSlots*3 {
		t = h.rebuild(minLines)
	}
	at, slot, _ := t.locate(k)
	for slot < 0 {
		t = h.rebuild(2 * t.lines)
		at, slot, _ = t.locate(k)
	}
	fresh := t.value(at, slot) == 0
	if fresh {
		h.live++
	}
	if t.set(at, slot, k, v) {
		h.taken++
	}
	return fresh
}

// remove takes an address out and tells whether it was there.
func (h *hosts) remove(k key) bool {
	t := h.writable()
	if t == nil {
		return false
	}
	at, slot, found := t.locate(k)
	if !found || t.value(at, slot) == 0 {
		return false
	}
	t.set(at, slot, k, 0)
	h.live--
	if h.live == 0 {
		h.taken = 0
		h.table.Store(nil)
	} else if t.lines > minLines && h.live < t.lines {
		h.rebuild(minLines)
	}
	return true
}

// rebuild copies the table without deleted slots, under a new seed, to a load of
// a half or to at least so many lines, and publishes it.
func (h *hosts) rebuild(lines int) *hostTable {
	old := h.table.Load()
	lines = max(lines, h.live*2/lineSlots)
	for ; ; lines *= 2 {
		seed1, seed2 := h.newSeed()
		t := newHostTable(lines, h.six, seed1, seed2)
		if !t.fill(old) {
			continue
		}
		h.taken = h.live
		h.table.Store(t)
		h.frozen = false
		return t
	}
}

func (h *hosts) newSeed() (uint64, uint64) {
	if h.seed != nil {
		return h.seed()
	}
	return rand.Uint64(), rand.Uint64() | 1
}

// fill copies the live slots of old and tells whether all found a place.
func (t *hostTable) fill(old *hostTable) bool {
	ok := true
	old.each(func(k key, v uint32) {
		at, slot, _ := t.locate(k)
		if ok = ok && slot >= 0; ok {
			t.set(at, slot, k, v)
		}
	})
	return ok
}

// each gives every address and its value; an IPv4 address is the key's lo.
func (t *hostTable) each(f func(key, uint32)) {
	if t == nil {
		return
	}
	for i := range uint(t.lines) {
		for n, s := range t.slots.list[i>>chunkBits].Load()[i&chunkMask] {
			switch {
			case s&payload == 0:
			case t.keys.list == nil:
				f(key{0, s >> 32}, uint32(s)&payload)
			default:
				f(t.keys.list[i>>chunkBits].Load()[i&chunkMask][n], uint32(s)&payload)
			}
		}
	}
}

// each gives the addresses as prefixes, left-aligned in 128 bits.
func (h *hosts) each(f func(hi, lo uint64, length int, v uint32)) {
	h.table.Load().each(func(k key, v uint32) {
		if h.six {
			f(k.hi, k.lo, 128, v)
		} else {
			f(k.lo<<32, 0, 32, v)
		}
	})
}
