package selector

import (
	"maps"
	"slices"
	"testing"
)

// TestCould holds what could be against every object that there can be: labels a and
// b are fixed, c and d are tried with all values that matter.
func TestCould(t *testing.T) {
	t.Parallel()
	fixed := map[string]string{"a": "x"} // b is absent
	values := []string{"x", "y", "xyz", ""}
	know := func(label string) (string, Knowledge) {
		switch label {
		case "a":
			return "x", Known
		case "b":
			return "", Absent
		case "d":
			return "", Other
		}
		return "", Free
	}
	both := 0
	for _, text := range []string{
		"", "all()", "!all()", `a == "x"`, `a != "x"`, `a in {"y"}`, `has(b)`, `b != "x"`, `b not in {"x"}`, `b == "x"`,
		`c == "x"`, `c != "x"`, `!has(c)`, `has(c)`, `c in {}`, `c not in {}`, `c contains "y"`, `c starts with "x"`, `c ends with "z"`,
		`a == "x" && c == "x"`, `a == "y" && c == "x"`, `a == "x" || c == "x"`, `a == "y" || c == "x"`, `!(a == "x" && has(c))`,
		`d == "x"`, `d in {"x", "y"}`, `d not in {"x"}`, `d != "y"`, `has(d)`, `d contains "n"`, `d contains ""`, `d starts with "n" && c == "y"`,
	} {
		s := MustParse(text)
		var match, not bool
		for _, c := range append([]string{"-"}, values...) {
			for _, d := range []string{"other", "no"} { // not among the values of any selector
				labels := maps.Clone(fixed)
				labels["d"] = d
				if c != "-" {
					labels["c"] = c
				}
				if s.Matches(Map(labels)) {
					match = true
				} else {
					not = true
				}
			}
		}
		gotMatch, gotNot := s.Could(know)
		if gotMatch != match || gotNot != not {
			t.Errorf("%q could match %v and not %v, want %v and %v", text, gotMatch, gotNot, match, not)
		}
		if match && not {
			both++
		}
	}
	if both < 8 {
		t.Errorf("%d selectors depend on what is free", both)
	}
	// A label that is asked for twice may be told too much of, never too little.
	if match, not := MustParse(`has(c) && !has(c)`).Could(know); !match || !not {
		t.Error("a contradiction: want both")
	}
	var none *Selector
	if match, not := none.Could(know); !match || not {
		t.Error("a selector that is not stated matches")
	}
	if match, not := (&Selector{}).Could(know); match || !not {
		t.Error("the zero Selector matches nothing")
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	s := MustParse(`a == "x" || !(a in {"y", "x"}) && b == "n" && a contains "c" || a != "z" || a not in {"q"}`)
	if got := s.Values("a"); !slices.Equal(got, []string{"q", "x", "y", "z"}) {
		t.Errorf("%v", got)
	}
	var none *Selector
	if got := none.Values("a"); got != nil {
		t.Errorf("%v", got)
	}
}
