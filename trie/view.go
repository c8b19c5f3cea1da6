package trie

import "net/netip"

// View is a Table as it was at one moment. It never changes, any number of
// goroutines may use it, and it costs nothing to copy. The zero View is empty.
type View struct {
	v4, v6 *image
	crowds *crowdTable
	hosts4 *hostTable
	hosts6 *hostTable
	undo   *undo  // never nil where there is an image
	at     uint32 // entries of it that were there before, fewer than it has room for
}

// View gives the table as it is now. It belongs to the goroutine that writes and
// copies nothing. Changes after it copy as far as they reach, except that a single
// address which has a value gets another one in place (see undo). The first other change
// after a View copies the list of chunks (8 bytes for each 4 KiB of the family's hash),
// the first change after that in each chunk 4 KiB, and the first change of a
// shorter prefix, or of which 16-bit blocks have single addresses, 256 KiB.
func (t *Table) View() View {
	switch {
	case t.last == nil:
		t.last = new(undo)
	case t.last.length.Load() == undoPiece:
		t.extend()
	}
	t.viewed = true
	return View{t.v4.work, t.v6.work, t.crowds.table.Load(), t.hosts4.table.Load(), t.hosts6.table.Load(), t.last, t.last.length.Load()}
}

// Lookup is Table.Lookup.
func (v *View) Lookup(a netip.Addr) uint32 {
	switch {
	case a.Is4():
		return v.Lookup4(Bits4(&a))
	case a.Is6() && a.Zone() == "":
		return v.Lookup6(Bits6(&a))
	}
	return 0
}

// Lookup4 is Table.Lookup4.
func (v *View) Lookup4(addr uint32) uint32 {
	if v.v4 == nil {
		return 0
	}
	w := v.v4.root[addr>>16]
	if w&hostsHere != 0 {
		h, here := uint32(0), false
		if v.crowds != nil {
			h, here = v.crowds.get(addr)
		}
		if !here && v.hosts4 != nil {
			h = v.hosts4.get4(addr)
		}
		if h != 0 {
			if v.undo.length.Load() != v.at {
				h = v.undo.before(v.at, key{0, uint64(addr)}, false, h)
			}
			return h
		}
	}
	if w>>kindShift == leaf {
		return w & payload
	}
	return v.v4.walk(w, uint64(addr)<<48, 0)
}

// Lookup6 is Table.Lookup6.
func (v *View) Lookup6(hi, lo uint64) uint32 {
	if v.v6 == nil || hi == 0 && lo>>32 == 0xffff { // ::ffff:0:0/96, IPv4-mapped
		return 0
	}
	w := v.v6.root[hi>>48]
	if w&hostsHere != 0 && v.hosts6 != nil {
		if h := v.hosts6.get6(hi, lo); h != 0 {
			if v.undo.length.Load() != v.at {
				h = v.undo.before(v.at, key{hi, lo}, true, h)
			}
			return h
		}
	}
	if w>>kindShift == leaf {
		return w & payload
	}
	return v.v6.walk(w, hi<<16|lo>>48, lo<<16)
}
