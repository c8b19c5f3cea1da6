package selector

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"
)

type vector struct {
	id, text, want string
	labels         Map
}

// vectors reads the vectors of spec section 2: "expression @ labels => result".
func vectors(t testing.TB) []vector {
	t.Helper()
	data, err := os.ReadFile("testdata/selectors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file []struct {
		ID  string   `json:"id"`
		Sel []string `json:"sel"`
	}
	if err := yaml.UnmarshalStrict(data, &file); err != nil {
		t.Fatal(err)
	}
	var all []vector
	for _, group := range file {
		for _, line := range group.Sel {
			at, arrow := strings.LastIndex(line, " @ "), strings.LastIndex(line, " => ")
			if at < 0 || arrow < at {
				t.Fatalf("%s: malformed vector %q", group.ID, line)
			}
			v := vector{id: group.ID, text: line[:at], want: line[arrow+len(" => "):]}
			if err := yaml.UnmarshalStrict([]byte(line[at+len(" @ "):arrow]), &v.labels); err != nil {
				t.Fatalf("%s: labels of %q: %v", group.ID, line, err)
			}
			all = append(all, v)
		}
	}
	if len(all) < 50 {
		t.Fatalf("read %d vectors, want the 50 and more of the file", len(all))
	}
	return all
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t) {
		got := "error"
		s, err := Parse(v.text)
		if err == nil {
			got = map[bool]string{true: "true", false: "false"}[s.Matches(v.labels)]
		}
		if got != v.want {
			t.Errorf("%s: %q on %v is %s (%v), want %s", v.id, v.text, v.labels, got, err, v.want)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	a, b, c := Equals("a", "x"), Has("b"), Has("c")
	longest := strings.Repeat("l", maxLabelLen)
	tests := []struct {
		text string
		want *Selector
	}{
		{"", All()},
		{" \t ", All()},
		{"(all())", All()},
		{"all(\t)", All()},
		{" global( ) ", matchGlobal},
		{"((global()))", matchGlobal},
		{"has(\tb )", b},
		{"has(has)", Has("has")},
		{"has(" + longest + ")", Has(longest)},
		{`a=="x"`, a},
		{"a == 'x'", a},
		{`a!="x"`, &Selector{op: opNotEqual, label: "a", value: "x"}},
		{`!a=="x"`, Not(a)},
		{"! \t!has(b)", b},
		{"!!!has(b)", Not(b)},
		{"!(!(!has(b)))", Not(b)},
		{`a in{"x"}`, In("a", "x")},
		{`a in { 'y' , "x","y" , }`, In("a", "x", "y")},
		{"a in {}", In("a")},
		{`a notin{"x"}`, inSet(opNotIn, "a", []string{"x"})},
		{`a not  in {"x"}`, inSet(opNotIn, "a", []string{"x"})},
		{`a contains"x"`, &Selector{op: opContains, label: "a", value: "x"}},
		{`a startswith"x"`, &Selector{op: opStartsWith, label: "a", value: "x"}},
		{"a starts\t with 'x'", &Selector{op: opStartsWith, label: "a", value: "x"}},
		{`a endswith "x"`, &Selector{op: opEndsWith, label: "a", value: "x"}},
		{`a ends with "x"`, &Selector{op: opEndsWith, label: "a", value: "x"}},
		// Operator and function names are labels where a label stands.
		{`in in {"in"}`, In("in", "in")},
		{`not in {"x"}`, In("not", "x")},
		{`not not in {"x"}`, inSet(opNotIn, "not", []string{"x"})},
		{`notin == "x"`, Equals("notin", "x")},
		{`contains contains "x"`, &Selector{op: opContains, label: "contains", value: "x"}},
		{`starts starts with "x"`, &Selector{op: opStartsWith, label: "starts", value: "x"}},
		{`has == "x"`, Equals("has", "x")},
		{`all=="x"`, Equals("all", "x")},
		{`global in {"x"}`, In("global", "x")},
		{`xhas == "x"`, Equals("xhas", "x")},
		// Literals hold anything but their own quote.
		{`a == "it's"`, Equals("a", "it's")},
		{`a == 'a || "b"'`, Equals("a", `a || "b"`)},
		{`a == "\"`, Equals("a", `\`)},
		{"a == \"x\n\"", Equals("a", "x\n")},
		{`a == "é"`, Equals("a", "é")},
		// Precedence, and one shape for nested chains.
		{`a == "x" || has(b) && has(c)`, &Selector{op: opOr, operands: []*Selector{a, {op: opAnd, operands: []*Selector{b, c}}}}},
		{`(a == "x" || has(b)) && has(c)`, &Selector{op: opAnd, operands: []*Selector{{op: opOr, operands: []*Selector{a, b}}, c}}},
		{`!has(b) && has(c)`, And(Not(b), c)},
		{`!(has(b) && has(c))`, Not(And(b, c))},
		{`a == "x"&&(has(b)&&has(c))`, &Selector{op: opAnd, operands: []*Selector{a, b, c}}},
		{`(a == "x"||has(b))||has(c)`, &Selector{op: opOr, operands: []*Selector{a, b, c}}},
	}
	for _, tt := range tests {
		got, err := Parse(tt.text)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.text, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("Parse(%q): (-want +got)\n%s", tt.text, diff)
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	const (
		condition = `expected a condition such as app == "web", has(app) or all(), found `
		operator  = "expected ==, !=, in, not in, contains, starts with or ends with after the label"
		orHas     = " (has(label) tests that a label is there)"
		value     = "expected a value in quotes, found "
		end       = "expected &&, || or the end of the selector, found "
	)
	tests := []struct {
		text   string
		offset int
		want   string
	}{
		{"a", 1, operator + orHas + ", found the end of the selector"},
		{"(a)", 2, operator + orHas + `, found ")"`},
		{"a && has(b)", 2, operator + orHas + `, found "&&"`},
		{"a b", 2, operator + `, found "b"`},
		{"a in_x {}", 2, operator + `, found "in_x"`},
		{`a starts-with "x"`, 2, operator + `, found "starts-with"`},
		{`a starts "x"`, 2, operator + `, found "starts"`},
		{`a startswithx "x"`, 2, operator + `, found "startswithx"`},
		{`a CONTAINS "x"`, 2, operator + `, found "CONTAINS"`},
		{`a = "x"`, 2, operator + `, found "="; equality is written ==`},
		{`a < "x"`, 2, operator + `, found "<"; there is no such operator`},
		{`a not {"x"}`, 2, operator + `, found "not"; "not" is written !, or "not in" between a label and a set`},
		{`a.b:c == "x"`, 3, operator + `, found ":"`},
		{`a "x"`, 2, operator + ", found a quoted string"},
		{"a == x", 5, value + `"x"`},
		{"a == ", 5, value + "the end of the selector"},
		{"a == “x”", 5, value + `"“"; only " and ' are quotes`},
		{`a == {"x"}`, 5, value + `"{"`},
		{`a == "x`, 5, `the quoted string that starts here has no closing "`},
		{`é`, 0, condition + `"é"`},
		{`a in {'`, 6, `the quoted string that starts here has no closing '`},
		{`a in "x"`, 5, `expected a set such as {"a", "b"}, found a quoted string`},
		{`a in ("x")`, 5, `expected a set such as {"a", "b"}, found "("`},
		{"a in {x}", 6, `expected a value in quotes or }, found "x"`},
		{"a in { , }", 7, `expected a value in quotes or }, found ","`},
		{`a in {"x",,}`, 10, `expected a value in quotes or }, found ","`},
		{`a in {"x" "y"}`, 10, "expected , or }, found a quoted string"},
		{`a in {"x"`, 9, "expected , or }, found the end of the selector"},
		{`"x" == a`, 0, "expected a label, without quotes and left of the operator, found a quoted string"},
		{"has (a)", 4, `expected no space between has and its parenthesis: has(, found "("`},
		{"all ()", 4, `expected no space between all and its parenthesis: all(, found "("`},
		{"has()", 4, `expected a label name after has(, found ")"`},
		{`has("a")`, 4, "expected a label name after has(, found a quoted string"},
		{"has(a b)", 6, `expected ) after the label name, found "b"`},
		{"has(has(a))", 4, `expected a label name after has(, found "has("`},
		{"all(x)", 4, `expected ) after all(, found "x"`},
		{"global(", 7, "expected ) after global(, found the end of the selector"},
		{"xhas(a)", 4, operator + orHas + `, found "("`},
		{"()", 1, condition + `")"`},
		{"!", 1, condition + "the end of the selector"},
		{"!=", 0, condition + `"!="`},
		{"has(a) &&", 9, condition + "the end of the selector"},
		{"|| has(a)", 0, condition + `"||"`},
		{"(has(a)", 7, "expected &&, || or ), found the end of the selector"},
		{"has(a))", 6, end + `")"`},
		{"all() all()", 6, end + `"all("`},
		{"has(a), has(b)", 6, end + `","`},
		{"has(a) and has(b)", 7, end + `"and"; "and" is written &&`},
		{"has(a) & has(b)", 7, end + `"&"; "and" is written &&`},
		{"has(a) OR has(b)", 7, end + `"OR"; "or" is written ||`},
		{"has(a) | has(b)", 7, end + `"|"; "or" is written ||`},
		{`has(a) "`, 7, `the quoted string that starts here has no closing "`},
		{"has(a)\u00a0", 6, end + `"\u00a0"`},
		{"has(a) \xff", 7, end + `"\xff"`},
		{"has(a) " + strings.Repeat("b", 50), 7, end + `"` + strings.Repeat("b", 40) + `"...`},
		{strings.Repeat("b", maxLabelLen+1) + ` == "x"`, 0, "the word that starts here is longer than the 512 characters of a label name"},
		{"has(" + strings.Repeat("b", maxLabelLen+1) + ")", 4, "the word that starts here is longer than the 512 characters of a label name"},
		{"has(a)\n", 6, end + "a line break" + lineBreakHint},
		{"has(a)\r\n", 6, end + "a line break" + lineBreakHint},
		{"has(a)\r", 6, end + "a line break" + lineBreakHint},
		{"\n", 0, condition + "a line break" + lineBreakHint},
		{"has(a) &&\n has(b)", 9, condition + "a line break" + lineBreakHint},
		{"all(\n)", 4, "expected ) after all(, found a line break" + lineBreakHint},
		{"a = 'x'\n", 2, operator + `, found "="; equality is written ==` + lineBreakHint},
	}
	for _, tt := range tests {
		s, err := Parse(tt.text)
		var got *SyntaxError
		if !errors.As(err, &got) {
			t.Errorf("Parse(%q) = %v, %v, want a SyntaxError", tt.text, s, err)
			continue
		}
		if s != nil {
			t.Errorf("Parse(%q) gives a selector beside its error", tt.text)
		}
		if got.Offset != tt.offset || got.Message != tt.want {
			t.Errorf("Parse(%q): offset %d\n got %s\nwant offset %d\n     %s", tt.text, got.Offset, got.Message, tt.offset, tt.want)
		}
	}
}

// The column counts characters where the offset counts bytes.
func TestErrorText(t *testing.T) {
	t.Parallel()
	_, err := Parse(`a == "é" & b`)
	want := `parse selector: column 10 (byte offset 10): expected &&, || or the end of the selector, found "&"; "and" is written &&`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestNestingIsBounded(t *testing.T) {
	t.Parallel()
	repeat := strings.Repeat
	tests := []struct {
		name, text string
		ok         bool
	}{
		{"parentheses", repeat("(", maxDepth) + "all()" + repeat(")", maxDepth), true},
		{"one parenthesis too many", repeat("(", maxDepth+1) + "all()" + repeat(")", maxDepth+1), false},
		{"deepest tree", repeat("!(has(a) || ", maxDepth) + `!a == "x"` + repeat(")", maxDepth), true},
		{"deepest tree and one", repeat("!(has(a) || ", maxDepth) + `(a == "x")` + repeat(")", maxDepth), false},
		{"negations, a million and one", repeat("!", 1e6+1) + `a == "x"`, true},
		{"unclosed, a million", repeat("(", 1e6), false},
		{"side by side is not nested", "(!all())" + repeat(" && (!all())", 2*maxDepth), true},
	}
	for _, tt := range tests {
		s, err := Parse(tt.text)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.Message != "more than 1024 parentheses inside each other" {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if again, err := Parse(s.String()); err != nil || !again.Equal(s) {
			t.Errorf("%s: does not survive print and parse: %v", tt.name, err)
		}
	}
}

func TestMustParse(t *testing.T) {
	t.Parallel()
	if !MustParse("has(a)").Equal(Has("a")) {
		t.Error("MustParse(has(a)) differs from Has")
	}
	defer func() {
		if recover() == nil {
			t.Error("MustParse accepts a =")
		}
	}()
	MustParse("a =")
}

// However a tree is written, it parses to that tree.
func TestParseAnyWriting(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := drawTree(t, 4)
		text := drawText(t, s)
		got, err := Parse(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if !got.Equal(s) {
			t.Fatalf("%q: got %v, want %v", text, got, s)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.text, "x")
	}
	f.Add(strings.Repeat("!(", maxDepth), "")
	f.Add(`a starts with 'x' && !(b endswith "\" || c not in {"y",})`, `a"b'`)
	f.Fuzz(func(t *testing.T, text, value string) {
		s, err := Parse(text)
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || s != nil || syntax.Offset < 0 || syntax.Offset > len(text) || syntax.Column < 1 {
				t.Fatalf("%v, %#v", s, err)
			}
			return
		}
		printed := s.String()
		again, err := Parse(printed)
		if err != nil {
			t.Fatalf("%q prints as %q: %v", text, printed, err)
		}
		if !again.Equal(s) || again.String() != printed {
			t.Fatalf("%q prints as %q, which prints as %q", text, printed, again)
		}
		labels := make(Map)
		for _, l := range s.Labels() {
			labels[l] = value
		}
		if again.Matches(labels) != s.Matches(labels) || Not(s).Matches(labels) == s.Matches(labels) {
			t.Fatalf("%q: evaluation differs after printing", text)
		}
	})
}
