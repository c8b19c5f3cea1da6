package trie

import (
	"net/netip"
	"sync/atomic"
)

// undo is a list of what single addresses were before they got other values in
// place. A View remembers its end, and the table appends: so what is after a View's
// end was changed since, and the first entry of an address has the value that it had
// for the View. The newest View finds nothing there, and pays one load for looking.
//
// An entry is appended before the value is stored. So a reader that loads a value and
// then finds no entry has the value of its View.
type undo struct {
	next  atomic.Pointer[undo]
	addr  key // of an IPv4 address lo
	six   bool
	value uint32
}

// maxUndone bounds the list: an old View may have to read that much for a look-up.
// Then pages are shared and copied, as for changes that are not made in place. So many
// that, of a change each, the copies of 100,000 addresses (400 pages) are few.
const maxUndone = 4096

// undoBlock is how many entries are allocated at a time: allocating takes longer than
// everything else that a change in place needs.
const undoBlock = 64

// before gives the value that an address had for the View which ended before u, or
// else v, that which it has now.
func (u *undo) before(k key, six bool, v uint32) uint32 {
	for ; u != nil; u = u.next.Load() {
		if u.addr == k && u.six == six {
			return u.value
		}
	}
	return v
}

// remember is called before a single address that has a value gets another one.
func (t *Table) remember(k key, six bool, value uint32) {
	if !t.viewed {
		return
	}
	if t.undone++; t.undone > maxUndone {
		t.freeze()
		return
	}
	if len(t.spare) == 0 {
		t.spare = make([]undo, undoBlock)
	}
	u := &t.spare[0]
	t.spare = t.spare[1:]
	u.addr, u.six, u.value = k, six, value
	t.last.next.Store(u)
	t.last = u
}

// freeze ends the list: nothing that Views have changes in place any more. It is
// called before every other change.
func (t *Table) freeze() {
	if !t.viewed {
		return
	}
	t.viewed, t.undone, t.last = false, 0, new(undo)
	t.v4.frozen, t.v6.frozen = t.v4.work != nil, t.v6.work != nil
	t.crowds.frozen, t.hosts4.frozen, t.hosts6.frozen = t.crowds.table.Load() != nil, true, true
}

// insertHost gives a single address its value and tells whether it is new.
func (t *Table) insertHost(a netip.Addr, v uint32) (fresh bool) {
	hi, lo := bitsOf(a)
	k := key{hi, lo}
	six := a.Is6()
	if !six {
		k = key{0, hi >> 32}
	}
	switch old := t.host(k, six); old {
	case v:
		return false
	case 0:
		t.freeze()
	default:
		t.remember(k, six, old)
	}
	if !six {
		return t.insert4(uint32(k.lo), v)
	}
	t.hosts6.six = true
	if fresh = t.hosts6.put(k, v); fresh {
		t.v6.countHost(uint16(hi >> 48))
	}
	return fresh
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
