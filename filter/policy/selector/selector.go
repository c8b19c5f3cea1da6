package selector

import "slices"

// Selector is a parsed expression. It is immutable: operations give new
// Selectors, which share subtrees with the old ones, and any number of
// goroutines may use one.
//
// A nil *Selector is one that is not stated. It matches everything, prints as
// the empty string and is equal to nil only: policy gives "not stated" and
// all() different meanings. The zero Selector is not valid; it matches nothing,
// prints as "<invalid>" and is there only because Go cannot forbid it.
type Selector struct {
	op op
	// label is set for the operators that hasLabel names.
	label string
	// value is the right side of ==, !=, contains, starts with, ends with.
	value string
	// values is the set of in and not in: sorted, without repeats.
	values []string
	// operands has one element under !, two or more under && and ||. No operand
	// has the operator of its parent: && and || are associative and !! is
	// nothing, so that those shapes would only be other texts for one meaning.
	operands []*Selector
}

type op uint8

const (
	opInvalid op = iota
	opAll
	opGlobal
	opHas
	opEqual
	opNotEqual
	opIn
	opNotIn
	opContains
	opStartsWith
	opEndsWith
	opNot
	opAnd
	opOr
)

// hasLabel tells whether nodes of this kind read a label.
func (o op) hasLabel() bool { return o >= opHas && o <= opEndsWith }

// matchNothing is nothing in {}. It is not !all() because Replace gives all() a
// narrower meaning, and so would give this a wider one.
var matchNothing = &Selector{op: opIn, label: "nothing"}

var (
	matchAll    = &Selector{op: opAll}
	matchGlobal = &Selector{op: opGlobal}
)

// All gives all(), which matches everything.
func All() *Selector { return matchAll }

// Has gives has(label).
//
// The constructors take any label name. One that the grammar does not allow
// (empty, over 512 bytes, other characters) is evaluated as it stands, but its
// text does not parse.
func Has(label string) *Selector { return &Selector{op: opHas, label: label} }

// Equals gives label == "value". The value may be any string; see String for
// those that the language cannot write.
func Equals(label, value string) *Selector {
	return &Selector{op: opEqual, label: label, value: value}
}

// In gives label in {values}. Without values it matches nothing. The slice
// stays the caller's.
func In(label string, values ...string) *Selector {
	return inSet(opIn, label, values)
}

func inSet(o op, label string, values []string) *Selector {
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	return &Selector{op: o, label: label, values: slices.Clip(slices.Compact(sorted))}
}

// Not negates a selector; of a negation it gives the operand. Not(nil) matches
// nothing, since nil matches everything.
func Not(s *Selector) *Selector {
	if s == nil {
		return matchNothing
	}
	if s.op == opNot {
		return s.operands[0]
	}
	return &Selector{op: opNot, operands: []*Selector{s}}
}

// And matches what every operand matches. Nil operands are left out; without
// any operand it is All(), and of one operand it is that operand.
func And(s ...*Selector) *Selector {
	operands := flatten(opAnd, s)
	switch len(operands) {
	case 0:
		return matchAll
	case 1:
		return operands[0]
	}
	return &Selector{op: opAnd, operands: operands}
}

// Or matches what any operand matches. Nil operands are left out although nil
// matches everything: a selector that is not stated must not widen one that is.
// Without any operand it matches nothing, and of one operand it is that operand.
func Or(s ...*Selector) *Selector {
	operands := flatten(opOr, s)
	switch len(operands) {
	case 0:
		return matchNothing
	case 1:
		return operands[0]
	}
	return &Selector{op: opOr, operands: operands}
}

// flatten copies operands, without nils, with those of kind o replaced by
// their own operands.
func flatten(o op, operands []*Selector) []*Selector {
	flat := make([]*Selector, 0, len(operands))
	for _, s := range operands {
		switch {
		case s == nil:
		case s.op == o:
			flat = append(flat, s.operands...)
		default:
			flat = append(flat, s)
		}
	}
	return flat
}

// Equal compares the trees: set members without order and repeats, operands of
// && and || in order, needless parentheses and !! not at all. Nil is equal to
// nil only.
func (s *Selector) Equal(o *Selector) bool {
	if s == o {
		return true
	}
	if s == nil || o == nil {
		return false
	}
	return s.op == o.op && s.label == o.label && s.value == o.value &&
		slices.Equal(s.values, o.values) &&
		slices.EqualFunc(s.operands, o.operands, (*Selector).Equal)
}
