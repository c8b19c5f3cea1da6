package selector

import (
	"strconv"
	"strings"
)

// String prints the canonical text: one space around operators, no parenthesis
// that precedence makes needless, set members sorted, double quotes unless the
// literal contains one. Equal selectors print equally, different ones
// differently, and Parse reads the text back as an equal selector.
//
// The language has no escapes, so it cannot write a value that contains both
// kinds of quote. Only constructors can make one. It prints in double quotes
// with Go's backslash escapes, which Parse refuses: a backslash is left standing
// outside every literal, or the last quote stays open. Text that does not parse
// either: labels outside the grammar, which only constructors and WithPrefix
// make, and trees nested deeper than Parse allows.
func (s *Selector) String() string {
	if s == nil {
		return ""
	}
	var b strings.Builder
	s.print(&b, opInvalid)
	return b.String()
}

// print writes s as an operand of the given operator, opInvalid for none.
func (s *Selector) print(b *strings.Builder, parent op) {
	// Parse bounds nesting, so no parenthesis may be written that a parsed text
	// can do without: !a == "x", as Calico prints it, not !(a == "x").
	group := s.op == opOr && (parent == opAnd || parent == opNot) ||
		s.op == opAnd && parent == opNot
	if group {
		b.WriteByte('(')
		defer b.WriteByte(')')
	}
	switch s.op {
	case opAll:
		b.WriteString("all()")
	case opGlobal:
		b.WriteString("global()")
	case opHas:
		b.WriteString("has(" + s.label + ")")
	case opNot:
		b.WriteByte('!')
		s.operands[0].print(b, opNot)
	case opAnd:
		s.printOperands(b, " && ")
	case opOr:
		s.printOperands(b, " || ")
	case opIn:
		b.WriteString(s.label + " in ")
		s.printSet(b)
	case opNotIn:
		b.WriteString(s.label + " not in ")
		s.printSet(b)
	case opEqual:
		b.WriteString(s.label + " == " + quote(s.value))
	case opNotEqual:
		b.WriteString(s.label + " != " + quote(s.value))
	case opContains:
		b.WriteString(s.label + " contains " + quote(s.value))
	case opStartsWith:
		b.WriteString(s.label + " starts with " + quote(s.value))
	case opEndsWith:
		b.WriteString(s.label + " ends with " + quote(s.value))
	default:
		b.WriteString("<invalid>")
	}
}

func (s *Selector) printOperands(b *strings.Builder, separator string) {
	for i, o := range s.operands {
		if i > 0 {
			b.WriteString(separator)
		}
		o.print(b, s.op)
	}
}

func (s *Selector) printSet(b *strings.Builder) {
	b.WriteByte('{')
	for i, v := range s.values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(v))
	}
	b.WriteByte('}')
}

func quote(value string) string {
	if !strings.Contains(value, `"`) {
		return `"` + value + `"`
	}
	if !strings.Contains(value, `'`) {
		return `'` + value + `'`
	}
	return strconv.Quote(value)
}
