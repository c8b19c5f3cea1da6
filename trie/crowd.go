package trie

import "sync/atomic"

// crowds has the IPv4 addresses of those /16 that hold very many: an array of
// values by the lower half of the address. Pods come that way, a node's next to
// each other, and an array is half the size of a hash of them and needs neither a
// hash nor a comparison.
type crowds struct {
	table  atomic.Pointer[crowdTable]
	frozen bool // a View has table
}

// crowdTable is replaced when a /16 comes or goes. Pages change in place, or in a
// copy if a View has them.
type crowdTable struct {
	// index has the number of each /16 that is here, from 1.
	index *[1 << 16]uint16
	pages chunks[crowdPage] // crowdPages for each number; nil where nothing is
	free  []uint16          // numbers that are free again
}

// crowdPage is a page of memory.
type crowdPage [1 << crowdBits]uint32

const (
	crowdBits  = 10
	crowdPages = 1 << (16 - crowdBits)

	// A /16 is worth 256 KiB at most from enterCrowd addresses on, which makes it 32
	// bytes for each, and until fewer than leaveCrowd are left.
	enterCrowd = 8192
	leaveCrowd = 4096
)

// get gives the value of an address, or 0. here is false if its /16 is not here.
func (t *crowdTable) get(addr uint32) (v uint32, here bool) {
	n := uint(t.index[addr>>16])
	if n == 0 {
		return 0, false
	}
	p := t.pages.list[n*crowdPages-crowdPages+uint(addr>>crowdBits)%crowdPages].Load()
	if p == nil {
		return 0, true
	}
	return atomic.LoadUint32(&p[addr%(1<<crowdBits)]), true
}

func (c *crowds) has(first uint16) bool {
	t := c.table.Load()
	return t != nil && t.index[first] != 0
}

// writable gives the slot of an address, if its /16 is here and no View has the page.
func (c *crowds) writable(addr uint32) *uint32 {
	t := c.table.Load()
	if t == nil || c.frozen {
		return nil
	}
	n := int(t.index[addr>>16])*crowdPages - crowdPages + int(addr>>crowdBits)%crowdPages
	if n < 0 || t.pages.shared != nil && t.pages.shared[n] {
		return nil
	}
	p := t.pages.list[n].Load()
	if p == nil {
		return nil
	}
	return &p[addr%(1<<crowdBits)]
}

// put gives an address of a /16 that is here its value, 0 to remove it, and gives
// the one it had.
func (c *crowds) put(addr, v uint32) (old uint32) {
	t := c.table.Load()
	if c.frozen {
		t = &crowdTable{index: t.index, pages: t.pages.fork(), free: t.free}
		c.table.Store(t)
		c.frozen = false
	}
	n := int(t.index[addr>>16]-1)*crowdPages + int(addr>>crowdBits)%crowdPages
	if t.pages.list[n].Load() == nil {
		t.pages.list[n].Store(new(crowdPage))
		if t.pages.shared != nil {
			t.pages.shared[n] = false
		}
	}
	slot := &t.pages.own(n)[addr%(1<<crowdBits)]
	old = *slot
	atomic.StoreUint32(slot, v)
	return old
}

// enter takes a /16 in, empty, and does not publish it: the caller fills it and
// calls publish.
func (c *crowds) enter(first uint16) *crowdTable {
	t := &crowdTable{index: new([1 << 16]uint16)}
	if old := c.table.Load(); old != nil {
		*t.index, t.pages, t.free = *old.index, old.pages.fork(), old.free
	}
	if len(t.free) == 0 {
		t.pages.list = append(t.pages.list, make([]atomic.Pointer[crowdPage], crowdPages)...)
		if t.pages.shared != nil {
			t.pages.shared = append(t.pages.shared, make([]bool, crowdPages)...)
		}
		t.index[first] = uint16(len(t.pages.list) / crowdPages)
		return t
	}
	last := len(t.free) - 1
	t.index[first], t.free = t.free[last], t.free[:last:last]
	return t
}

// leave publishes a table without a /16.
func (c *crowds) leave(first uint16) {
	old := c.table.Load()
	t := &crowdTable{index: new([1 << 16]uint16), pages: old.pages.fork()}
	*t.index = *old.index
	n := t.index[first]
	t.free = append(old.free[:len(old.free):len(old.free)], n)
	if t.index[first] = 0; len(t.free)*crowdPages == len(t.pages.list) {
		t = nil // it was the last
	} else {
		for i := range crowdPages {
			t.pages.list[int(n-1)*crowdPages+i].Store(nil)
		}
	}
	c.publish(t)
}

func (c *crowds) publish(t *crowdTable) {
	c.table.Store(t)
	c.frozen = false
}

// eachIn gives the addresses of a /16.
func (t *crowdTable) eachIn(first uint16, f func(addr, v uint32)) {
	n := int(t.index[first]-1) * crowdPages
	for i := range crowdPages {
		p := t.pages.list[n+i].Load()
		if p == nil {
			continue
		}
		for j, v := range p {
			if v != 0 {
				f(uint32(first)<<16|uint32(i)<<crowdBits|uint32(j), v)
			}
		}
	}
}

// each gives every address as a prefix, left-aligned in 128 bits.
func (c *crowds) each(f func(hi, lo uint64, length int, v uint32)) {
	t := c.table.Load()
	if t == nil {
		return
	}
	for first, n := range t.index {
		if n != 0 {
			t.eachIn(uint16(first), func(addr, v uint32) { f(uint64(addr)<<32, 0, 32, v) })
		}
	}
}
