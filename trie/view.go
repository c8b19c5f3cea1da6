package trie

import (
	"encoding/binary"
	"net/netip"
)

// View is a Table as it was at one moment. It never changes, any number of
// goroutines may use it, and it costs nothing to copy. The zero View is empty.
type View struct {
	v4, v6 *image
	crowds *crowdTable
	hosts4 *hostTable
	hosts6 *hostTable
}

// View gives the table as it is now. It belongs to the goroutine that writes and
// copies nothing: the next changes do, as far as they reach. The first change of
// a single address after it copies the list of chunks (8 bytes for each 4 KiB of
// the family's hash), the first in each chunk 4 KiB, and the first change of a
// shorter prefix, or of which 16-bit blocks have single addresses, 256 KiB.
func (t *Table) View() View {
	v := View{v4: t.v4.work, v6: t.v6.work, crowds: t.crowds.table.Load(), hosts4: t.hosts4.table.Load(), hosts6: t.hosts6.table.Load()}
	t.v4.frozen, t.v6.frozen = v.v4 != nil, v.v6 != nil
	t.crowds.frozen, t.hosts4.frozen, t.hosts6.frozen = v.crowds != nil, true, true
	return v
}

// Lookup is Table.Lookup.
func (v *View) Lookup(a netip.Addr) uint32 {
	switch b := a.AsSlice(); len(b) {
	case 4:
		return v.Lookup4(binary.BigEndian.Uint32(b))
	case 16:
		if a.Zone() == "" {
			return v.Lookup6(binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]))
		}
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
			return h
		}
	}
	if w>>kindShift == leaf {
		return w & payload
	}
	return v.v6.walk(w, hi<<16|lo>>48, lo<<16)
}
