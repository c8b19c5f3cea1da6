package flowlog

import (
	"sync/atomic"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
)

// Record is one decision.
type Record struct {
	UnixNano int64
	Tuple    flow.Tuple
	Decision filter.Decision
	// Ruleset is the one that decided; nil for NotReady. It names the rules and
	// endpoints, and a waiting record keeps it alive.
	Ruleset *filter.Ruleset
	// Epoch is the one in which the kernel asked; 0 for a request.
	Epoch uint32
	// Request is nil for a packet. Otherwise Tuple is its connection, and Decision
	// has what was decided as the ingress side.
	Request *Request
}

// Ring is a bounded queue of records between one producer and one consumer, which
// may be two goroutines. It allocates nothing after NewRing and never blocks.
type Ring struct {
	slots []Record
	mask  uint64

	put  atomic.Uint64 // records ever put; written by the producer
	_    [56]byte      // the two ends write to different cache lines
	took atomic.Uint64 // records ever taken; written by the consumer
	_    [56]byte
	lost atomic.Uint64
}

// NewRing makes a ring for at least size records.
func NewRing(size int) *Ring {
	n := 1
	for n < size {
		n <<= 1
	}
	return &Ring{slots: make([]Record, n), mask: uint64(n - 1)}
}

// Put copies a record in, or counts it as lost if the ring is full. Producer only.
func (r *Ring) Put(rec *Record) {
	n := r.put.Load()
	if n-r.took.Load() == uint64(len(r.slots)) {
		r.lost.Add(1)
		return
	}
	r.slots[n&r.mask] = *rec
	r.put.Store(n + 1)
}

// Take moves up to len(dst) records out, oldest first, and returns how many.
// Consumer only.
func (r *Ring) Take(dst []Record) int {
	first := r.took.Load()
	n := min(r.put.Load()-first, uint64(len(dst)))
	for i := range n {
		slot := &r.slots[(first+i)&r.mask]
		dst[i] = *slot
		slot.Ruleset, slot.Request = nil, nil // or they would live until the slot is used again
	}
	r.took.Store(first + n)
	return int(n)
}

// Lost tells how many records found the ring full.
func (r *Ring) Lost() uint64 { return r.lost.Load() }
