package trie

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync/atomic"
)

// MaxValue is the greatest value a Table holds; the three bits above it tell
// kinds of words apart.
const MaxValue = 1<<29 - 1

// Table maps IPv4 and IPv6 prefixes to values from 1 to MaxValue and finds the
// longest prefix that contains an address. The zero Table is empty and usable.
// A Table must not be copied after first use.
//
// Insert, Delete and All belong to one goroutine at a time. Lookup, Lookup4,
// Lookup6 and Len may be called from any goroutine at any moment and never
// block: for each address they give the value of before or after a concurrent
// change. A change of a prefix reaches its addresses one after the other.
//
// A family with at least one prefix takes 256 KiB for its root. While the table
// grows, each single address adds 11 to 16 bytes (IPv4; 4 to 32 where they are
// dense) or 32 to 48 (IPv6); Delete keeps that under 64 and 192 and gives the rest
// back.
type Table struct {
	v4     prefixes
	v6     prefixes
	crowds crowds // IPv4 addresses that are not in hosts4
	hosts4 hosts
	hosts6 hosts
	length atomic.Int64

	viewed bool  // a View was taken since the last freeze
	last   *undo // nil before the first View since then
	undone int   // entries since then
}

// Lookup gives the value of the longest prefix that contains a, or 0. An
// invalid address, one with a zone and an IPv4-mapped IPv6 address match
// nothing, not even a default route.
func (t *Table) Lookup(a netip.Addr) uint32 {
	switch {
	case a.Is4():
		return t.Lookup4(Bits4(&a))
	case a.Is6() && a.Zone() == "":
		return t.Lookup6(Bits6(&a))
	}
	return 0
}

// Lookup4 is Lookup for an IPv4 address as a number: 10.0.0.1 is 0x0a000001.
func (t *Table) Lookup4(addr uint32) uint32 {
	for {
		changes := t.v4.changes.Load() // before the root: see doc.go
		img := t.v4.image.Load()
		if img == nil {
			return 0
		}
		w := atomic.LoadUint32(&img.root[addr>>16])
		if w&hostsHere != 0 {
			v, here := uint32(0), false
			if c := t.crowds.table.Load(); c != nil {
				v, here = c.get(addr)
			}
			if h := t.hosts4.table.Load(); !here && h != nil {
				v = h.get4(addr)
			}
			if v != 0 {
				return v
			}
			if t.v4.changes.Load() != changes {
				continue
			}
		}
		if w>>kindShift == leaf {
			return w & payload
		}
		return img.walk(w, uint64(addr)<<48, 0)
	}
}

// Lookup6 is Lookup for an IPv6 address as its upper and lower 64 bits.
func (t *Table) Lookup6(hi, lo uint64) uint32 {
	if hi == 0 && lo>>32 == 0xffff { // ::ffff:0:0/96, IPv4-mapped
		return 0
	}
	for {
		changes := t.v6.changes.Load()
		img := t.v6.image.Load()
		if img == nil {
			return 0
		}
		w := atomic.LoadUint32(&img.root[hi>>48])
		if w&hostsHere != 0 {
			if h := t.hosts6.table.Load(); h != nil {
				if v := h.get6(hi, lo); v != 0 {
					return v
				}
			}
			if t.v6.changes.Load() != changes {
				continue
			}
		}
		if w>>kindShift == leaf {
			return w & payload
		}
		return img.walk(w, hi<<16|lo>>48, lo<<16)
	}
}

// Insert gives p the value v, in place of any it had. It refuses, and changes
// nothing for, a prefix that is invalid, has bits beyond its length or is
// IPv4-mapped IPv6, and a value outside 1 to MaxValue.
func (t *Table) Insert(p netip.Prefix, v uint32) error {
	if v == 0 || v > MaxValue {
		return fmt.Errorf("insert %s: value %d is not from 1 to %d", p, v, MaxValue)
	}
	if err := check(p); err != nil {
		return fmt.Errorf("insert %s: %w", p, err)
	}
	fresh := false
	if p.IsSingleIP() {
		fresh = t.insertHost(p.Addr(), v)
	} else {
		t.freeze()
		hi, lo := bitsOf(p.Addr())
		if p.Addr().Is4() {
			fresh = t.v4.insert(hi, lo, p.Bits(), v)
		} else {
			fresh = t.v6.insert(hi, lo, p.Bits(), v)
		}
	}
	if fresh {
		t.length.Add(1)
	}
	return nil
}

// Delete removes p and tells whether the table had it. Addresses in p then
// match the next shorter prefix that contains them.
func (t *Table) Delete(p netip.Prefix) bool {
	if check(p) != nil {
		return false
	}
	t.freeze()
	found := false
	hi, lo := bitsOf(p.Addr())
	switch {
	case p.Addr().Is4() && p.IsSingleIP():
		found = t.remove4(uint32(hi >> 32))
	case p.Addr().Is4():
		found = t.v4.remove(hi, lo, p.Bits())
	case p.IsSingleIP():
		if found = t.hosts6.remove(key{hi, lo}); found {
			t.v6.uncountHost(uint16(hi >> 48))
		}
	default:
		found = t.v6.remove(hi, lo, p.Bits())
	}
	if found {
		t.length.Add(-1)
	}
	return found
}

func (t *Table) insert4(addr, v uint32) (fresh bool) {
	first := uint16(addr >> 16)
	if t.crowds.has(first) {
		fresh = t.crowds.put(addr, v) == 0
	} else {
		fresh = t.hosts4.put(key{0, uint64(addr)}, v)
	}
	if fresh && t.v4.countHost(first) >= enterCrowd && !t.crowds.has(first) {
		t.crowd(first)
	}
	return fresh
}

func (t *Table) remove4(addr uint32) (found bool) {
	first := uint16(addr >> 16)
	if t.crowds.has(first) {
		found = t.crowds.put(addr, 0) != 0
	} else {
		found = t.hosts4.remove(key{0, uint64(addr)})
	}
	if found && t.v4.uncountHost(first) < leaveCrowd && t.crowds.has(first) {
		t.disperse(first)
	}
	return found
}

// crowd moves the addresses of a /16 from the hash to an array. A reader that
// looks in the hash after they left it finds that the count of changes differs.
func (t *Table) crowd(first uint16) {
	to := t.crowds.enter(first)
	moved := crowds{}
	moved.table.Store(to)
	t.hosts4.each(func(hi, _ uint64, _ int, v uint32) {
		if uint16(hi>>48) == first {
			moved.put(uint32(hi>>32), v)
		}
	})
	t.crowds.publish(moved.table.Load())
	t.v4.changes.Add(1)
	to.eachIn(first, func(addr, _ uint32) { t.hosts4.remove(key{0, uint64(addr)}) })
}

// disperse moves them back. Readers of the array that is left see what was true
// when they came.
func (t *Table) disperse(first uint16) {
	t.crowds.table.Load().eachIn(first, func(addr, v uint32) { t.hosts4.put(key{0, uint64(addr)}, v) })
	t.crowds.leave(first)
}

// Len is the number of prefixes of both families, single addresses included.
func (t *Table) Len() int { return int(t.length.Load()) }

// All yields every prefix with its value: IPv4 first, then by address, then
// shorter before longer. It copies and sorts the table when the loop begins,
// so the loop may change the table and does not see those changes.
func (t *Table) All() iter.Seq2[netip.Prefix, uint32] {
	type item struct {
		prefix netip.Prefix
		value  uint32
	}
	return func(yield func(netip.Prefix, uint32) bool) {
		items := make([]item, 0, t.Len())
		add4 := func(hi, _ uint64, bits int, v uint32) {
			items = append(items, item{netip.PrefixFrom(addr4(uint32(hi>>32)), bits), v})
		}
		add6 := func(hi, lo uint64, bits int, v uint32) {
			items = append(items, item{netip.PrefixFrom(addr6(hi, lo), bits), v})
		}
		t.v4.each(add4)
		t.crowds.each(add4)
		t.hosts4.each(add4)
		t.v6.each(add6)
		t.hosts6.each(add6)
		slices.SortFunc(items, func(a, b item) int { return a.prefix.Compare(b.prefix) })
		for _, it := range items {
			if !yield(it.prefix, it.value) {
				return
			}
		}
	}
}

// check says why a Table cannot hold p. A netip.Prefix has no zone: the ways to
// make one refuse it or strip it.
func check(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return fmt.Errorf("prefix is invalid")
	case p.Addr().Is4In6():
		return fmt.Errorf("prefix is IPv4-mapped IPv6, want the IPv4 prefix")
	case p.IsSingleIP():
		return nil
	case p != p.Masked():
		return fmt.Errorf("prefix has bits beyond its length, want %s", p.Masked())
	}
	return nil
}

// bitsOf gives the address left-aligned in 128 bits.
func bitsOf(a netip.Addr) (hi, lo uint64) {
	if a.Is4() {
		b := a.As4()
		return uint64(binary.BigEndian.Uint32(b[:])) << 32, 0
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

func addr4(addr uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], addr)
	return netip.AddrFrom4(b)
}

func addr6(hi, lo uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.AddrFrom16(b)
}
