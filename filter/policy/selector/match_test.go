package selector

import (
	"testing"

	"pgregory.net/rapid"
)

// The table of spec section 2, operator by operator.
func TestMatches(t *testing.T) {
	t.Parallel()
	absent := Map{"b": "v"}
	k := func(v string) Map { return Map{"k": v} }
	tests := []struct {
		text   string
		labels Map
		want   bool
	}{
		{"all()", nil, true}, {"all()", k("v"), true},
		{"global()", nil, true}, {"global()", k("v"), true},
		{"has(k)", absent, false}, {"has(k)", k(""), true},
		{`k == "v"`, absent, false}, {`k == "v"`, k("v"), true}, {`k == "v"`, k("V"), false}, {`k == ""`, absent, false}, {`k == ""`, k(""), true},
		{`k != "v"`, absent, true}, {`k != "v"`, k("v"), false}, {`k != "v"`, k("w"), true}, {`k != ""`, absent, true}, {`k != ""`, k(""), false},
		{`k in {"v", "u", "w"}`, absent, false}, {`k in {"v", "u", "w"}`, k("v"), true}, {`k in {"v", "u", "w"}`, k("u"), true}, {`k in {"v"}`, k("x"), false}, {"k in {}", k(""), false}, {"k in {}", absent, false},
		{`k not in {"v"}`, absent, true}, {`k not in {"v"}`, k("v"), false}, {`k not in {"v"}`, k("x"), true}, {"k not in {}", k(""), true}, {"k not in {}", absent, true},
		{`k contains "b"`, absent, false}, {`k contains "b"`, k("abc"), true}, {`k contains "b"`, k("ac"), false}, {`k contains ""`, k(""), true}, {`k contains ""`, absent, false},
		{`k starts with "a"`, absent, false}, {`k starts with "a"`, k("ab"), true}, {`k starts with "b"`, k("ab"), false}, {`k starts with ""`, k(""), true}, {`k starts with ""`, absent, false},
		{`k ends with "b"`, absent, false}, {`k ends with "b"`, k("ab"), true}, {`k ends with "a"`, k("ab"), false}, {`k ends with ""`, k(""), true}, {`k ends with ""`, absent, false},
	}
	for _, tt := range tests {
		s := MustParse(tt.text)
		if got := s.Matches(tt.labels); got != tt.want {
			t.Errorf("%s on %v is %v", tt.text, tt.labels, got)
		}
		if got := Not(s).Matches(tt.labels); got == tt.want {
			t.Errorf("!(%s) on %v is %v", tt.text, tt.labels, got)
		}
	}
}

func TestConstructors(t *testing.T) {
	t.Parallel()
	both := `a"b'c`
	var none *Selector
	tests := []struct {
		name   string
		s      *Selector
		labels Map
		want   bool
	}{
		{"nil is not stated", nil, nil, true},
		{"zero Selector", &Selector{}, Map{"a": "x"}, false},
		{"All", All(), nil, true},
		{"Has", Has("a"), Map{"a": ""}, true},
		{"Equals, both quotes", Equals("a", both), Map{"a": both}, true},
		{"Equals, both quotes, not the printed form", Equals("a", both), Map{"a": `a\"b'c`}, false},
		{"In, both quotes", In("a", "x", both), Map{"a": both}, true},
		{"In, text of an expression", In("a", `x", "y`), Map{"a": "y"}, false},
		{"In, empty", In("a"), Map{"a": ""}, false},
		{"Not(nil)", Not(nil), nil, false},
		{"And()", And(), nil, true},
		{"And(nil, nil)", And(nil, none), nil, true},
		{"And with nil", And(nil, Has("a"), nil), nil, false},
		{"Or()", Or(), Map{"a": "x", "nothing": ""}, false},
		{"Or(nil)", Or(nil), nil, false},
		{"Or with nil does not widen", Or(nil, Has("a")), nil, false},
		{"Or with nil", Or(nil, Has("a")), Map{"a": ""}, true},
		{"Or() cannot be widened by Replace", Or().Replace(Not(All()), Not(All())), nil, false},
	}
	for _, tt := range tests {
		if got := tt.s.Matches(tt.labels); got != tt.want {
			t.Errorf("%s: %v on %v is %v", tt.name, tt.s, tt.labels, got)
		}
	}
}

// A selector keeps no hold on what it was made from.
func TestConstructorsCopy(t *testing.T) {
	t.Parallel()
	values := []string{"y", "x"}
	operands := []*Selector{Has("a"), Has("b")}
	in, and, or := In("a", values...), And(operands...), Or(operands...)
	if values[0] != "y" {
		t.Error("In sorts its argument")
	}
	values[0], operands[0] = "z", nil
	if got := in.String(); got != `a in {"x", "y"}` {
		t.Errorf("In: %s", got)
	}
	if got := and.String() + ", " + or.String(); got != "has(a) && has(b), has(a) || has(b)" {
		t.Errorf("And, Or: %s", got)
	}
	// Neither do selectors disturb each other's operands by growing.
	And(and, Has("c"))
	if got := And(and, Has("d")).String(); got != "has(a) && has(b) && has(d)" {
		t.Errorf("And of And: %s", got)
	}
}

func TestMatchesDoesNotAllocate(t *testing.T) {
	s := MustParse(`(a == "x" || b != "y") && c in {"p", "q", "r"} && d not in {"p"} && !has(e) && ` +
		`(e contains "x" || f starts with "ab" && f ends with "yz" && f contains "m" && all() && global())`)
	labels := Map{"b": "z", "c": "q", "d": "x", "f": "ab m yz"}
	if !s.Matches(labels) {
		t.Fatal("the selector was made to match, so that all of it is evaluated")
	}
	if n := testing.AllocsPerRun(100, func() { s.Matches(labels) }); n != 0 {
		t.Errorf("%v allocations per evaluation", n)
	}
}

func TestBooleanLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		x, y, l := drawTree(t, 3), drawTree(t, 3), drawLabels(t)
		laws := []struct {
			name        string
			left, right *Selector
		}{
			{"double negation", Not(Not(x)), x},
			{"De Morgan, &&", Not(And(x, y)), Or(Not(x), Not(y))},
			{"De Morgan, ||", Not(Or(x, y)), And(Not(x), Not(y))},
			{"order, &&", And(x, y), And(y, x)},
			{"order, ||", Or(x, y), Or(y, x)},
			{"absorption", Or(x, And(x, y)), x},
			{"excluded middle", Or(x, Not(x)), All()},
		}
		for _, law := range laws {
			if law.left.Matches(l) != law.right.Matches(l) {
				t.Fatalf("%s: %v differs from %v on %v", law.name, law.left, law.right, l)
			}
		}
		if And(x, y).Matches(l) != (x.Matches(l) && y.Matches(l)) || Or(x, y).Matches(l) != (x.Matches(l) || y.Matches(l)) {
			t.Fatalf("&& or || of %v, %v on %v", x, y, l)
		}
	})
}

func BenchmarkMatches(b *testing.B) {
	labels := Map{"app": "web", "tier": "front", "pcns.env": "prod"}
	for _, bb := range []struct{ name, text string }{
		{"equal", `app == "web"`},
		{"in", `app in {"api", "db", "queue", "web"}`},
		{"and", `app == "web" && tier != "back" && pcns.env == "prod"`},
		{"miss", `app == "db" && has(tier)`},
	} {
		s := MustParse(bb.text)
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Matches(labels)
			}
		})
	}
}
