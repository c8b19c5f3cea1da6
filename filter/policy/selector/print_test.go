package selector

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestString(t *testing.T) {
	t.Parallel()
	both := `a"b'c`
	a, b, c := Has("a"), Has("b"), Has("c")
	tests := []struct {
		s    *Selector
		want string
	}{
		{nil, ""},
		{&Selector{}, "<invalid>"},
		{MustParse(" "), "all()"},
		{MustParse("global( )"), "global()"},
		{a, "has(a)"},
		{MustParse("a=='x'"), `a == "x"`},
		{MustParse("a!='x'"), `a != "x"`},
		{Equals("a", "it's"), `a == "it's"`},
		{Equals("a", `say "x"`), `a == 'say "x"'`},
		{Equals("a", both), `a == "a\"b'c"`},
		{In("a", "x", both, `"`, "x"), `a in {'"', "a\"b'c", "x"}`},
		{In("a"), "a in {}"},
		{MustParse(`a notin {'y', "x", "y", }`), `a not in {"x", "y"}`},
		{MustParse(`a contains "x"`), `a contains "x"`},
		{MustParse(`a startswith "x"`), `a starts with "x"`},
		{MustParse(`a endswith "x"`), `a ends with "x"`},
		{MustParse(`! ! ! a == "x"`), `!a == "x"`},
		{Not(And(a, b)), "!(has(a) && has(b))"},
		{Not(Or(a, b)), "!(has(a) || has(b))"},
		{And(a, Or(b, c)), "has(a) && (has(b) || has(c))"},
		{Or(a, And(b, c)), "has(a) || has(b) && has(c)"},
		{And(And(a, b), And(c)), "has(a) && has(b) && has(c)"},
		{Or(a, Or(b, c)), "has(a) || has(b) || has(c)"},
		{Or(), "nothing in {}"},
	}
	for _, tt := range tests {
		if got := tt.s.String(); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
	var none *Selector
	if got := fmt.Sprint(none); got != "" {
		t.Errorf("nil prints as %q under fmt", got)
	}
}

func TestPrintParse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := drawTree(t, 5)
		text := s.String()
		again, err := Parse(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if !again.Equal(s) || again.String() != text {
			t.Fatalf("%q parses to %q", text, again)
		}
	})
}

// Text stands for identity: policies are compared and indexed by it.
func TestEqualMeansEqualText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		x, y := drawTree(t, 1), drawTree(t, 1)
		if x.Equal(y) != (x.String() == y.String()) {
			t.Fatalf("Equal(%q, %q) is %v", x, y, x.Equal(y))
		}
		if x.Equal(y) != y.Equal(x) || !x.Equal(x) || x.Equal(nil) {
			t.Fatalf("Equal is not an equivalence on %q, %q", x, y)
		}
	})
}

// A value that the language cannot write never reads back as something else.
func TestUnwritableValueDoesNotParse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		// The alphabet is what an expression needs to get out of a literal.
		value := rapid.StringOfN(rapid.SampledFrom([]rune(`"'"'\\{}, |&=!ab()`)), 0, 20, -1).Draw(t, "value") +
			rapid.SampledFrom([]string{`"'`, `'"`, `" || a == '`, `' || a == "`, `", "', "`}).Draw(t, "end")
		for _, s := range []*Selector{Equals("a", value), In("a", value, "x"), And(Has("a"), Not(Equals("b", value)))} {
			if got, err := Parse(s.String()); err == nil {
				t.Fatalf("%s parses to %s", s, got)
			}
		}
	})
}

func TestEqual(t *testing.T) {
	t.Parallel()
	tests := []struct {
		a, b *Selector
		want bool
	}{
		{nil, nil, true},
		{nil, All(), false},
		{MustParse(""), All(), true},
		{In("a", "x", "y"), MustParse(`a in {"y", "x", "y"}`), true},
		{In("a", "x"), Equals("a", "x"), false},
		{In("a", "x"), In("b", "x"), false},
		{In("a", "x"), In("a", "x", "y"), false},
		{MustParse(`a not in {"x"}`), In("a", "x"), false},
		{Equals("a", "x"), Equals("a", "y"), false},
		{MustParse(`a != "x"`), Not(Equals("a", "x")), false},
		{And(Has("a"), Has("b")), And(Has("b"), Has("a")), false},
		{And(Has("a"), Has("b")), Or(Has("a"), Has("b")), false},
		{Not(Not(Has("a"))), Has("a"), true},
	}
	for _, tt := range tests {
		if got := tt.a.Equal(tt.b); got != tt.want {
			t.Errorf("Equal(%v, %v) = %v", tt.a, tt.b, got)
		}
		if got := cmp.Equal(tt.a, tt.b); got != tt.want {
			t.Errorf("cmp.Equal(%v, %v) = %v", tt.a, tt.b, got)
		}
	}
}
