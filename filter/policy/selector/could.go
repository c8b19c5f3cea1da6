package selector

import (
	"slices"
)

// Knowledge says how much is known of one label of an object that is not there yet,
// or that somebody may change.
type Knowledge uint8

const (
	// Absent: the object has no such label.
	Absent Knowledge = iota
	// Known: it has the label, with a value that is known.
	Known
	// Other: it has the label, with none of the values that selectors name in full.
	Other
	// Free: it may have the label with any value, or not.
	Free
)

// Could tells whether the selector could match an object, and whether it could not,
// by what is known of its labels. Both may be told of an object where in truth one
// is impossible, as of a && !a, and never the reverse: what could happen is told.
// all() and global() match, as in Matches.
func (s *Selector) Could(know func(label string) (value string, k Knowledge)) (match, not bool) {
	if s == nil {
		return true, false
	}
	switch s.op {
	case opAll, opGlobal:
		return true, false
	case opNot:
		match, not = s.operands[0].Could(know)
		return not, match
	case opAnd:
		match = true
		for _, o := range s.operands {
			m, n := o.Could(know)
			match, not = match && m, not || n
		}
		return match, not
	case opOr:
		not = true
		for _, o := range s.operands {
			m, n := o.Could(know)
			match, not = match || m, not && n
		}
		return match, not
	}
	value, k := know(s.label)
	switch k {
	case Free:
		return s.couldLabel()
	case Other:
		switch s.op {
		case opHas, opNotEqual, opNotIn:
			return true, false
		case opContains, opStartsWith, opEndsWith:
			return true, s.value != ""
		}
		return false, true
	case Known:
		match = s.Matches(Map{s.label: value})
	default:
		match = s.Matches(Map(nil))
	}
	return match, !match
}

// couldLabel is Could of a comparison with a label that is free: of all but the
// empty sets the answer depends on it.
func (s *Selector) couldLabel() (match, not bool) {
	switch {
	case s.op == opIn && len(s.values) == 0:
		return false, true
	case s.op == opNotIn && len(s.values) == 0:
		return true, false
	}
	return s.op != opInvalid, true
}

// Values gives the values that the selector compares a label with in full, by ==, !=,
// in and not in, sorted and without repeats.
func (s *Selector) Values(label string) []string {
	var all []string
	s.collectValues(label, &all)
	slices.Sort(all)
	return slices.Compact(all)
}

func (s *Selector) collectValues(label string, all *[]string) {
	if s == nil {
		return
	}
	if s.op.hasLabel() && s.label == label {
		switch s.op {
		case opEqual, opNotEqual:
			*all = append(*all, s.value)
		case opIn, opNotIn:
			*all = append(*all, s.values...)
		}
	}
	for _, o := range s.operands {
		o.collectValues(label, all)
	}
}
