package authz

import (
	"sync/atomic"
	"time"
)

// Bounds are the upper bounds, inclusive, of a Histogram's buckets but the last,
// which has none.
var Bounds = [...]time.Duration{
	5 * time.Microsecond, 10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond,
	500 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond,
}

// Histogram counts durations by their size. Any goroutine may read; what is read
// while checks are answered may be torn between buckets and sum by those.
type Histogram struct {
	buckets [len(Bounds) + 1]atomic.Uint64
	sum     atomic.Int64
}

func (h *Histogram) add(d time.Duration) {
	i := 0
	for i < len(Bounds) && d > Bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(int64(d))
}

// Read gives the number of durations in each bucket, not of those below it as well,
// and their sum.
func (h *Histogram) Read() (buckets [len(Bounds) + 1]uint64, sum time.Duration) {
	for i := range h.buckets {
		buckets[i] = h.buckets[i].Load()
	}
	return buckets, time.Duration(h.sum.Load())
}
