package selector

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestNeeds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text, label string
		values      []string
	}{
		{`a == "x"`, "a", []string{"x"}},
		{`a in {"x", "y"}`, "a", []string{"x", "y"}},
		{`a in {"x", "y"} && has(c) && b == "z"`, "b", []string{"z"}},
		{`has(c) && (a == "x" && !has(b))`, "a", []string{"x"}},
		{`a == "x" || b == "z"`, "", nil},
		{`!(a == "x")`, "", nil},
		{`a != "x"`, "", nil},
		{`all()`, "", nil},
		{`has(a)`, "", nil},
	} {
		label, values, ok := MustParse(tt.text).Needs()
		if label != tt.label || !slices.Equal(values, tt.values) || ok != (tt.label != "") {
			t.Errorf("%s needs %q %v, %v, want %q %v", tt.text, label, values, ok, tt.label, tt.values)
		}
	}
	if _, _, ok := (*Selector)(nil).Needs(); ok {
		t.Error("the selector that is not stated needs something")
	}
}

// TestNeedsHolds: whatever matches has what the selector says it needs.
func TestNeedsHolds(t *testing.T) {
	t.Parallel()
	values := []string{"x", "y", "z"}
	rapid.Check(t, func(rt *rapid.T) {
		leaf := func() *Selector {
			l := rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "label")
			v := rapid.SampledFrom(values).Draw(rt, "value")
			switch rapid.IntRange(0, 4).Draw(rt, "op") {
			case 0:
				return Equals(l, v)
			case 1:
				return In(l, v, "x")
			case 2:
				return Has(l)
			case 3:
				return Not(Equals(l, v))
			}
			return All()
		}
		s := leaf()
		for range rapid.IntRange(0, 4).Draw(rt, "size") {
			if rapid.Bool().Draw(rt, "and") {
				s = And(s, leaf())
			} else {
				s = Or(s, leaf())
			}
		}
		label, needs, ok := s.Needs()
		for _, a := range append(values, "") {
			for _, b := range append(values, "") {
				m := Map{"a": a, "b": b}
				if a == "" {
					delete(m, "a")
				}
				if b == "" {
					delete(m, "b")
				}
				if v, has := m[label]; ok && s.Matches(m) && !(has && slices.Contains(needs, v)) {
					rt.Fatalf("%s matches %v but needs %s in %v", s, m, label, needs)
				}
			}
		}
	})
}
