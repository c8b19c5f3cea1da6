package authz

import (
	"testing"
	"time"

	"github.com/postern-project/postern/filter"
)

func TestHistogram(t *testing.T) {
	var h Histogram
	var want time.Duration
	for _, d := range []time.Duration{0, Bounds[0], Bounds[0] + 1, Bounds[3], Bounds[len(Bounds)-1], Bounds[len(Bounds)-1] + 1, time.Hour} {
		h.add(d)
		want += d
	}
	b, sum := h.Read()
	if sum != want || b != [len(Bounds) + 1]uint64{0: 2, 1: 1, 3: 1, len(Bounds) - 1: 1, len(Bounds): 2} {
		t.Errorf("%v, sum %v", b, sum)
	}
	for i := 1; i < len(Bounds); i++ {
		if Bounds[i] <= Bounds[i-1] {
			t.Errorf("bound %d does not rise", i)
		}
	}
}

// TestCounts: every check is counted once by verdict and reason, and timed.
func TestCounts(t *testing.T) {
	s, path := serve(t, engineOf(compiled(t, 5, world+policyAPI)), Config{})
	client := dial(t, path)
	for range 3 {
		for _, method := range []string{"GET", "DELETE"} {
			if _, err := client.Check(t.Context(), ask(method, "/health")); err != nil {
				t.Fatal(err)
			}
		}
	}
	st := s.Stats()
	if a, d := st.Decided[filter.Accept][filter.ByRule].Load(), st.Decided[filter.Drop][filter.EndOfTier].Load(); a != 3 || d != 3 || st.Total(filter.Accept) != 3 || st.Total(filter.Drop) != 3 {
		t.Errorf("%d allowed and %d denied, want 3 and 3", a, d)
	}
	var timed uint64
	buckets, sum := st.Took.Read()
	for _, n := range buckets {
		timed += n
	}
	if timed != 6 || sum <= 0 {
		t.Errorf("%d answers timed, %s together", timed, sum)
	}
}
