package selector

import (
	"strings"

	"pgregory.net/rapid"
)

var (
	someLabels = []string{"a", "b", "in", "not", "has", "all", "starts", "projectcalico.org/name", "0.x/-_y"}
	someValues = []string{"", "x", "y", "xy", "it's", `say "hi"`, "all()", "global()", `\`, "{,}", "|| has(a)", "é", "\n", "\x00\xff"}
)

// drawTree draws a tree that has a text: labels of the grammar, one kind of
// quote in a value. Every node kind occurs.
func drawTree(t *rapid.T, depth int) *Selector {
	kinds := []op{opAll, opGlobal, opHas, opEqual, opNotEqual, opIn, opNotIn, opContains, opStartsWith, opEndsWith}
	if depth > 0 {
		kinds = append(kinds, opNot, opAnd, opOr, opNot, opAnd, opOr)
	}
	value := rapid.SampledFrom(someValues)
	label := func() string { return rapid.SampledFrom(someLabels).Draw(t, "label") }
	several := func() []*Selector {
		operands := make([]*Selector, rapid.IntRange(1, 3).Draw(t, "operands"))
		for i := range operands {
			operands[i] = drawTree(t, depth-1)
		}
		return operands
	}
	switch o := rapid.SampledFrom(kinds).Draw(t, "kind"); o {
	case opAll:
		return All()
	case opGlobal:
		return matchGlobal
	case opHas:
		return Has(label())
	case opIn, opNotIn:
		return inSet(o, label(), rapid.SliceOfN(value, 0, 4).Draw(t, "values"))
	case opNot:
		return Not(drawTree(t, depth-1))
	case opAnd:
		return And(several()...)
	case opOr:
		return Or(several()...)
	default:
		return &Selector{op: o, label: label(), value: value.Draw(t, "value")}
	}
}

func drawLabels(t *rapid.T) Map {
	return rapid.MapOf(rapid.SampledFrom(someLabels), rapid.SampledFrom(someValues)).Draw(t, "labels")
}

// drawText writes s in a way drawn from all that the grammar allows: white
// space, needless parentheses, glued words, either quote, repeated members,
// trailing commas.
func drawText(t *rapid.T, s *Selector) string {
	ws := func() string { return rapid.SampledFrom([]string{"", "", " ", "\t ", "   "}).Draw(t, "ws") }
	literal := func(v string) string {
		q := rapid.SampledFrom([]string{`"`, `'`}).Draw(t, "quote")
		switch {
		case strings.Contains(v, `"`):
			q = `'`
		case strings.Contains(v, `'`):
			q = `"`
		}
		return q + v + q
	}
	set := func() string {
		members := make([]string, 0, len(s.values)+1)
		for i := len(s.values) - 1; i >= 0; i-- {
			members = append(members, literal(s.values[i]))
		}
		if len(members) > 0 && rapid.Bool().Draw(t, "repeat") {
			members = append(members, members[0])
		}
		text := "{" + ws() + strings.Join(members, ws()+","+ws()) + ws()
		if len(members) > 0 && rapid.Bool().Draw(t, "comma") {
			text += "," + ws()
		}
		return text + "}"
	}
	join := func(separator string) string {
		var b strings.Builder
		for i, o := range s.operands {
			if i > 0 {
				b.WriteString(ws() + separator + ws())
			}
			text := drawText(t, o)
			if o.op == opOr || rapid.Bool().Draw(t, "parentheses") {
				text = "(" + ws() + text + ws() + ")"
			}
			b.WriteString(text)
		}
		return b.String()
	}
	switch s.op {
	case opAll:
		return "all(" + ws() + ")"
	case opGlobal:
		return "global(" + ws() + ")"
	case opHas:
		return "has(" + ws() + s.label + ws() + ")"
	case opEqual:
		return s.label + ws() + "==" + ws() + literal(s.value)
	case opNotEqual:
		return s.label + ws() + "!=" + ws() + literal(s.value)
	case opIn:
		return s.label + " in" + ws() + set()
	case opNotIn:
		return s.label + " not" + ws() + "in" + ws() + set()
	case opContains:
		return s.label + "\tcontains" + ws() + literal(s.value)
	case opStartsWith:
		return s.label + " starts" + ws() + "with" + ws() + literal(s.value)
	case opEndsWith:
		return s.label + " ends" + ws() + "with" + ws() + literal(s.value)
	case opNot:
		text := drawText(t, s.operands[0])
		if o := s.operands[0].op; o == opAnd || o == opOr {
			text = "(" + text + ")"
		}
		return "!" + ws() + text
	case opAnd:
		return join("&&")
	default:
		return join("||")
	}
}
