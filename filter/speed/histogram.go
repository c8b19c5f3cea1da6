package speed

import "math/bits"

// Histogram counts durations in buckets whose width is a sixteenth of their
// power of two, so a quantile is off by 6 % at most. The zero Histogram is empty.
type Histogram struct {
	counts [64 * 16]uint64
	n      uint64
}

// Bucket is one bucket that is not empty: how many lay at or above Low and below
// High, in nanoseconds.
type Bucket struct {
	Low   uint64 `json:"low"`
	High  uint64 `json:"high"`
	Count uint64 `json:"count"`
}

func bucketOf(ns uint64) int {
	if ns < 16 {
		return int(ns)
	}
	e := bits.Len64(ns) - 5 // so that ns>>e has five bits
	return e*16 + int(ns>>e)
}

func bucketLow(i int) uint64 {
	if i < 32 {
		return uint64(i)
	}
	e := i/16 - 1
	return uint64(i%16+16) << e
}

// Add counts a duration in nanoseconds; a negative one is 0.
func (h *Histogram) Add(ns int64) {
	h.counts[bucketOf(uint64(max(ns, 0)))]++
	h.n++
}

// Merge adds what another one counted.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.n += o.n
}

// Quantile gives the duration, in ns, that a part q of all do not exceed; the middle
// of its bucket, 0 if nothing was counted.
func (h *Histogram) Quantile(q float64) float64 {
	rank, seen := uint64(q*float64(h.n)), uint64(0)
	for i, n := range h.counts {
		if seen += n; n > 0 && seen > rank || n > 0 && seen == h.n {
			return float64(bucketLow(i)+bucketLow(i+1)) / 2
		}
	}
	return 0
}

// Buckets gives what is not empty, in order.
func (h *Histogram) Buckets() (out []Bucket) {
	for i, n := range h.counts {
		if n > 0 {
			out = append(out, Bucket{bucketLow(i), bucketLow(i + 1), n})
		}
	}
	return out
}

// Fill sets a row's latency.
func (h *Histogram) Fill(r *Row) {
	r.P50, r.P99, r.P999 = h.Quantile(0.5), h.Quantile(0.99), h.Quantile(0.999)
	r.Latency = h.Buckets()
}
