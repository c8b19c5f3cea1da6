package authz

import (
	"testing"

	"github.com/postern-project/postern/filter"
)

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
