package selector

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestWithPrefix(t *testing.T) {
	t.Parallel()
	tests := []struct{ text, prefix, want string }{
		{"all()", "pcns.", "all()"},
		{"global()", "pcns.", "global()"},
		{"has(a)", "pcns.", "has(pcns.a)"},
		{`a == "a"`, "pcsa.", `pcsa.a == "a"`},
		{`a != "a"`, "pcsa.", `pcsa.a != "a"`},
		{`a in {"a", "has(a)"}`, "pcns.", `pcns.a in {"a", "has(a)"}`},
		{`a not in {}`, "pcns.", `pcns.a not in {}`},
		{`in contains "in"`, "pcns.", `pcns.in contains "in"`},
		{`a starts with "a" && !b ends with "b"`, "pcns.", `pcns.a starts with "a" && !pcns.b ends with "b"`},
		{`!(a == "x" || all() && has(b/c))`, "pcns.", `!(pcns.a == "x" || all() && has(pcns.b/c))`},
		{`a == "all()"`, "", `a == "all()"`},
	}
	for _, tt := range tests {
		s := MustParse(tt.text)
		if got := s.WithPrefix(tt.prefix).String(); got != tt.want {
			t.Errorf("%s with prefix %q: got %s, want %s", tt.text, tt.prefix, got, tt.want)
		}
		if !s.Equal(MustParse(tt.text)) {
			t.Errorf("%s was changed in place to %s", tt.text, s)
		}
	}
	var none *Selector
	if none.WithPrefix("pcns.") != nil {
		t.Error("nil with a prefix is not nil")
	}
}

// Sections 4.1 and 4.4 of the spec.
func TestReplace(t *testing.T) {
	t.Parallel()
	inNamespace := Has("projectcalico.org/namespace")
	tests := []struct {
		text        string
		all, global *Selector
		want        string
	}{
		{"all()", inNamespace, Not(inNamespace), "has(projectcalico.org/namespace)"},
		{"", inNamespace, nil, "has(projectcalico.org/namespace)"},
		{"global()", inNamespace, Not(inNamespace), "!has(projectcalico.org/namespace)"},
		{"all()", nil, Not(inNamespace), "all()"},
		{"global()", inNamespace, nil, "global()"},
		{"!all()", inNamespace, nil, "!has(projectcalico.org/namespace)"},
		{"!global()", nil, Not(inNamespace), "has(projectcalico.org/namespace)"},
		{`a == "all()" && b in {"global()"}`, inNamespace, inNamespace, `a == "all()" && b in {"global()"}`},
		{`has(all) || all() && has(a)`, inNamespace, nil, "has(all) || has(projectcalico.org/namespace) && has(a)"},
		{"all() && has(a)", Or(Has("x"), Has("y")), nil, "(has(x) || has(y)) && has(a)"},
		{"all() && has(a)", And(Has("x"), Has("y")), nil, "has(x) && has(y) && has(a)"},
		{"!all()", And(Has("x"), Has("y")), nil, "!(has(x) && has(y))"},
		{"all() || global()", matchGlobal, All(), "global() || all()"}, // what is put in stays
		{`a != "x"`, inNamespace, inNamespace, `a != "x"`},
	}
	for _, tt := range tests {
		s := MustParse(tt.text)
		got := s.Replace(tt.all, tt.global)
		if got.String() != tt.want {
			t.Errorf("%s with %v and %v: got %s, want %s", tt.text, tt.all, tt.global, got, tt.want)
		}
		if again, err := Parse(got.String()); err != nil || !again.Equal(got) {
			t.Errorf("%s: the result %s does not survive print and parse: %v", tt.text, got, err)
		}
		if !s.Equal(MustParse(tt.text)) {
			t.Errorf("%s was changed in place to %s", tt.text, s)
		}
	}
	var none *Selector
	if none.Replace(All(), All()) != nil {
		t.Error("nil with replacements is not nil")
	}
}

// Prefixed selectors see prefixed labels as the plain ones see plain labels.
func TestWithPrefixMovesTheLabels(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, plain := drawTree(t, 3), drawLabels(t)
		prefixed := make(Map, len(plain))
		for k, v := range plain {
			prefixed["pcns."+k] = v
		}
		p := s.WithPrefix("pcns.")
		if p.Matches(prefixed) != s.Matches(plain) {
			t.Fatalf("%v on %v, %v on %v", s, plain, p, prefixed)
		}
		if got := p.Matches(plain); got != p.Matches(Map(nil)) {
			t.Fatalf("%v reads labels without prefix", p)
		}
	})
}

// Replacing is the same as all() and global() having that value.
func TestReplaceMeansTheValue(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, l := drawTree(t, 3), drawLabels(t)
		never := s.Replace(Or(), Or())
		by := Has("present")
		got := s.Replace(by, by)
		if got.Matches(l) != never.Matches(l) {
			t.Fatalf("%v with all() false: %v", s, got)
		}
		l["present"] = ""
		if got.Matches(l) != s.Matches(l) {
			t.Fatalf("%v with all() true: %v", s, got)
		}
		if s.Replace(nil, nil) != s || s.Replace(All(), nil).Replace(nil, by).ContainsGlobal() {
			t.Fatalf("%v keeps or loses nodes", s)
		}
	})
}

func TestQueries(t *testing.T) {
	t.Parallel()
	tests := []struct {
		s                  *Selector
		contains, isGlobal bool
		labels             []string
	}{
		{nil, false, false, nil},
		{All(), false, false, nil},
		{MustParse("global()"), true, true, nil},
		{MustParse("( global( ) )"), true, true, nil},
		{MustParse("!global()"), true, false, nil},
		{MustParse("has(a) || !(has(b) && global())"), true, false, []string{"a", "b"}},
		{MustParse(`b == "global()" && has(global) && b in {} && a != "x" && has(b)`), false, false, []string{"a", "b", "global"}},
	}
	for _, tt := range tests {
		if got := tt.s.ContainsGlobal(); got != tt.contains {
			t.Errorf("%v: ContainsGlobal is %v", tt.s, got)
		}
		if got := tt.s.IsGlobal(); got != tt.isGlobal {
			t.Errorf("%v: IsGlobal is %v", tt.s, got)
		}
		if diff := cmp.Diff(tt.labels, tt.s.Labels()); diff != "" {
			t.Errorf("%v: Labels (-want +got)\n%s", tt.s, diff)
		}
	}
}
