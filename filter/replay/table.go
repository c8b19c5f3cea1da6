package replay

import (
	"time"

	"github.com/postern-project/postern/filter/flow"
)

// DefaultMaxFlows is what the kernel allows on a host with 8 GB
// (nf_conntrack_max).
const DefaultMaxFlows = 262_144

// Table follows flows as the kernel's conntrack does: both directions of one flow
// have one entry, which goes when its timeout has passed since its last packet. It
// keeps time by the packets. Steps back in time keep entries longer and do no harm.
//
// It holds at most a fixed number of flows; to take in one more it lets go of one
// whose end is near. A Table is not safe for concurrent use.
type Table struct {
	index index
	flows []Flow
	free  int32 // list of free entries, by next; none if < 0
	lists [states]list
	max   int
	count uint64 // flows ever
	sweep int64  // when lists were looked through last, ns

	// Ended is called with each flow that leaves the table; nil for nobody.
	Ended func(*Flow)
	// Evicted counts those that left for want of room.
	Evicted uint64
}

// list holds the flows of one state, by the time they entered it or were last
// moved to its end.
type list struct{ first, last int32 }

const none = -1

// refresh is how old a flow's place in its list may be, ns. To move it with every
// packet would touch three entries instead of one.
const refresh = int64(time.Second)

// NewTable makes a table for so many flows, DefaultMaxFlows for 0.
func NewTable(max int) *Table {
	if max <= 0 {
		max = DefaultMaxFlows
	}
	t := &Table{index: newIndex(), max: max, free: none}
	for i := range t.lists {
		t.lists[i] = list{none, none}
	}
	return t
}

// Flow is one flow with its decision.
type Flow struct {
	key  key
	down bool // whether it began from key's high end

	state                state
	icmpType, icmpCode   uint8
	picked               bool
	prev, next           int32
	placed               int64
	Number               uint64 // from 1, in the order in which they began
	First, Last          int64  // times of packets, Unix ns; 0 if not captured
	Packets, Bytes       [2]uint64
	outcome, baseOutcome Outcome
}

// Indexes of Flow.Packets and Bytes: in the flow's direction, and against it. Bytes
// count IP packets as they were on the wire.
const (
	Forward  = 0
	Backward = 1
)

// Tuple gives the flow as it was decided: from who began it.
func (f *Flow) Tuple() flow.Tuple { return f.key.tuple(f.down, f.icmpType, f.icmpCode) }

// MidStream tells whether the capture, or the table, holds no beginning of it.
func (f *Flow) MidStream() bool { return f.picked }

// Outcome is what policy says.
func (f *Flow) Outcome() Outcome { return f.outcome }

// find gives the flow of a key unless its time is over, and then it ends.
func (t *Table) find(k *key, now int64) *Flow {
	i := t.index.find(k, t.flows)
	if i == none {
		return nil
	}
	f := &t.flows[i]
	if now-f.Last > int64(timeouts[f.state]) {
		t.remove(i)
		return nil
	}
	return f
}

// add begins a flow.
func (t *Table) add(k *key, down bool, s state, now int64) *Flow {
	if t.index.n >= t.max {
		t.evict()
	}
	i := t.free
	if i == none {
		i = int32(len(t.flows))
		t.flows = append(t.flows, Flow{})
	} else {
		t.free = t.flows[i].next
	}
	t.count++
	t.index.add(k, i)
	t.flows[i] = Flow{key: *k, down: down, state: s, Number: t.count, First: now, Last: now, placed: now}
	t.append(i)
	return &t.flows[i]
}

// touch notes a packet of a flow at a time, and its new state.
func (t *Table) touch(f *Flow, s state, now int64) {
	f.Last = now
	if s == f.state && now-f.placed < refresh {
		return
	}
	i := t.index.find(&f.key, t.flows)
	t.unlink(i)
	f.state, f.placed = s, now
	t.append(i)
}

// expire lets go of what is over; it looks once a second of captured time.
func (t *Table) expire(now int64) {
	if now-t.sweep < int64(time.Second) && now >= t.sweep {
		return
	}
	t.sweep = now
	for s := range t.lists {
		for i := t.lists[s].first; i != none; i = t.lists[s].first {
			f := &t.flows[i]
			if now-f.placed <= int64(timeouts[s]) {
				break
			}
			if now-f.Last > int64(timeouts[s]) {
				t.remove(i)
				continue
			}
			t.unlink(i)
			f.placed = f.Last
			t.append(i)
		}
	}
}

// evictFirst lists states, those first whose flows are missed least.
var evictFirst = [states]state{
	closed, timeWait, sctpDown, synSent, udpOne, icmpQuery, sctpBegun, lastAck, closeWait, finWait, synReceived, other, udpBoth, sctpUp, established,
}

func (t *Table) evict() {
	for _, s := range evictFirst {
		if i := t.lists[s].first; i != none {
			t.Evicted++
			t.remove(i)
			return
		}
	}
}

// end lets go of all flows, in the order in which they began.
func (t *Table) end() {
	order := make([]int32, 0, t.index.n)
	for s := range t.lists {
		for i := t.lists[s].first; i != none; i = t.flows[i].next {
			order = append(order, i)
		}
	}
	sortBy(order, func(i int32) uint64 { return t.flows[i].Number })
	for _, i := range order {
		t.remove(i)
	}
}

func (t *Table) remove(i int32) {
	f := &t.flows[i]
	if t.Ended != nil {
		t.Ended(f)
	}
	t.unlink(i)
	t.index.remove(&f.key, i)
	f.next, t.free = t.free, i
}

func (t *Table) append(i int32) {
	f := &t.flows[i]
	l := &t.lists[f.state]
	f.prev, f.next = l.last, none
	if l.last == none {
		l.first = i
	} else {
		t.flows[l.last].next = i
	}
	l.last = i
}

func (t *Table) unlink(i int32) {
	f := &t.flows[i]
	l := &t.lists[f.state]
	if f.prev == none {
		l.first = f.next
	} else {
		t.flows[f.prev].next = f.next
	}
	if f.next == none {
		l.last = f.prev
	} else {
		t.flows[f.next].prev = f.prev
	}
}
