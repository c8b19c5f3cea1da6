// Package latency counts durations by their size.
package latency

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Bounds is how many bounds a Histogram has: 1 us, 2 us, 4 us and so on, to 131 ms.
const Bounds = 18

// Histogram counts durations. The zero value is ready. Any goroutine may add and read;
// what is read meanwhile may be torn between buckets and sum by what is being added.
// Nothing is allocated by adding.
type Histogram struct {
	buckets [Bounds + 1]atomic.Uint64
	sum     atomic.Uint64 // nanoseconds
}

// Add counts n things that took so long each. A negative duration counts as none.
func (h *Histogram) Add(n int, took time.Duration) {
	us := uint64(max(took, 1)-1) / uint64(time.Microsecond) // so that a bound counts itself in
	h.buckets[min(bits.Len64(us), Bounds)].Add(uint64(n))
	h.sum.Add(uint64(n) * uint64(max(took, 0)))
}

// Read gives the number of durations of each bucket, those no longer than its Bound and
// longer than that of the bucket before, and their sum. The last bucket has no bound.
func (h *Histogram) Read() (buckets [Bounds + 1]uint64, sum time.Duration) {
	for i := range h.buckets {
		buckets[i] = h.buckets[i].Load()
	}
	return buckets, time.Duration(h.sum.Load())
}

// Bound is the upper bound of a bucket, 0 to Bounds-1, inclusive.
func Bound(bucket int) time.Duration { return time.Microsecond << bucket }
