package latency

import (
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	for _, tc := range []struct {
		took time.Duration
		want int
	}{
		{-time.Second, 0}, {0, 0}, {1, 0}, {time.Microsecond, 0}, {time.Microsecond + 1, 1}, {2 * time.Microsecond, 1},
		{2*time.Microsecond + 1, 2}, {Bound(Bounds - 1), Bounds - 1}, {Bound(Bounds-1) + 1, Bounds}, {time.Hour, Bounds},
	} {
		var h Histogram
		h.Add(3, tc.took)
		buckets, sum := h.Read()
		if buckets[tc.want] != 3 || sum != 3*max(tc.took, 0) {
			t.Errorf("%v: %v, sum %v, want 3 at %d", tc.took, buckets, sum, tc.want)
		}
		if tc.want < Bounds && Bound(tc.want) < tc.took || tc.want > 0 && Bound(tc.want-1) >= max(tc.took, 1) {
			t.Errorf("%v does not belong to bucket %d", tc.took, tc.want)
		}
	}
	var h Histogram
	if n := testing.AllocsPerRun(100, func() { h.Add(1, time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
