package trie

import (
	"net/netip"
	"sync/atomic"
)

// undo is a piece of a list of what single addresses were before they got other values
// in place. A View remembers its end, and the table appends: so what is after a View's
// end was changed since, and the first entry of an address has the value that it had
// for the View. The newest View finds nothing there, and pays one load for looking.
//
// An entry is appended before the value is stored. So a reader that loads a value and
// then finds no entry has the value of its View.
type undo struct {
	length  atomic.Uint32 // entries that are complete, which do not change any more
	next    atomic.Pointer[undo]
	entries [undoPiece]undone
	// summary has a bit for each entry, by its address. It is read only of a piece that
	// is full, so that who looks for an address can pass most of them by.
	summary [2]uint64
}

// undone is what an address was; of an IPv4 address addr is lo.
type undone struct {
	addr  key
	six   bool
	value uint32
}

const (
	// maxUndone bounds the list: an old View may have to look through that much, 512
	// pieces, for a look-up. Then pages are shared and copied, as for changes that are
	// not made in place. So many that, of a change each, the copies of 100,000 addresses
	// (400 pages) are few.
	maxUndone = 16384
	undoPiece = 32
)

// before gives the value that an address had for the View which ended at an entry of u,
// or else v, that which it has now.
func (u *undo) before(at uint32, k key, six bool, v uint32) uint32 {
	word, bit := k.summary()
	for ; u != nil; u, at = u.next.Load(), 0 {
		n := u.length.Load()
		if n == undoPiece && u.summary[word]&bit == 0 {
			continue
		}
		for i := at; i < n; i++ {
			if e := &u.entries[i]; e.addr == k && e.six == six {
				return e.value
			}
		}
		if n < undoPiece {
			break // what has come since, also in further pieces, is newer than v
		}
	}
	return v
}

// summary is the bit of an address.
func (k key) summary() (word int, bit uint64) {
	h := (k.hi ^ k.lo) * 0x9e3779b97f4a7c15 >> 57
	return int(h >> 6), 1 << (h & 63)
}

// remember is called before a single address that has a value gets another one. It is
// false if the list ended, and pages may have to be copied.
func (t *Table) remember(k key, six bool, value uint32) bool {
	if !t.viewed {
		return true
	}
	if t.undone++; t.undone > maxUndone {
		t.freeze()
		return false
	}
	u := t.last
	n := u.length.Load()
	if n == undoPiece {
		u = t.extend()
		n = 0
	}
	u.entries[n] = undone{k, six, value}
	word, bit := k.summary()
	u.summary[word] |= bit
	u.length.Store(n + 1)
	return true
}

// extend appends a piece.
func (t *Table) extend() *undo {
	u := new(undo)
	t.last.next.Store(u)
	t.last = u
	return u
}

// freeze ends the list: nothing that Views have changes in place any more. It is
// called before every other change.
func (t *Table) freeze() {
	if !t.viewed {
		return
	}
	t.viewed, t.undone, t.last = false, 0, nil
	t.v4.frozen, t.v6.frozen = t.v4.work != nil, t.v6.work != nil
	t.crowds.frozen, t.hosts4.frozen, t.hosts6.frozen = t.crowds.table.Load() != nil, true, true
}

// insertHost gives a single address its value and tells whether it is new.
func (t *Table) insertHost(a netip.Addr, v uint32) (fresh bool) {
	if a.Is4() {
		return t.insertHost4(Bits4(&a), v)
	}
	hi, lo := Bits6(&a)
	k := key{hi, lo}
	switch old := t.host(k, true); old {
	case v:
		return false
	case 0:
		t.freeze()
	default:
		t.remember(k, true, old)
	}
	t.hosts6.six = true
	if fresh = t.hosts6.put(k, v); fresh {
		t.v6.countHost(uint16(hi >> 48))
	}
	return fresh
}

func (t *Table) insertHost4(addr, v uint32) (fresh bool) {
	k := key{0, uint64(addr)}
	if slot := t.crowds.writable(addr); slot != nil && *slot != 0 {
		if *slot == v {
			return false
		}
		if t.remember(k, false, *slot) {
			atomic.StoreUint32(slot, v)
			return false
		}
	} else if old := t.host(k, false); old == v {
		return false
	} else if old == 0 {
		t.freeze()
	} else {
		t.remember(k, false, old)
	}
	return t.insert4(addr, v)
}

// host gives the value of a single address, or 0. It is the writer's.
func (t *Table) host(k key, six bool) uint32 {
	if six {
		if h := t.hosts6.table.Load(); h != nil {
			return h.get6(k.hi, k.lo)
		}
		return 0
	}
	if c := t.crowds.table.Load(); c != nil {
		if v, here := c.get(uint32(k.lo)); here {
			return v
		}
	}
	if h := t.hosts4.table.Load(); h != nil {
		return h.get4(uint32(k.lo))
	}
	return 0
}
