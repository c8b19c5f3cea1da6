package measure

import "testing"

// TestMedianRatio: a ratio is of values of the same round, also after a median was taken.
func TestMedianRatio(t *testing.T) {
	us, them := []float64{30, 1, 8}, []float64{10, 2, 1}
	if a, b := Median(us), Median(them); a != 8 || b != 2 {
		t.Errorf("medians %v and %v, want 8 and 2", a, b)
	}
	if got := MedianRatio(us, them); got != 3 { // of 3, 0.5 and 8
		t.Errorf("ratio %v, want 3", got)
	}
}
