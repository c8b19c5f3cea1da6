package selector

import (
	"slices"
	"strings"
)

// Labels looks a label up. Implementations must be safe for concurrent use.
type Labels interface {
	Get(label string) (value string, present bool)
}

// Map is Labels held in a map. A nil Map has no labels.
type Map map[string]string

// Get implements Labels.
func (m Map) Get(label string) (string, bool) { v, ok := m[label]; return v, ok }

// Matches evaluates the selector on labels (spec section 2, table). It does not
// allocate, beyond what l does. l must not be nil; Map(nil) is no labels.
//
// all() and global() are true here. The meaning that policy gives them has to
// be put in with Replace first.
func (s *Selector) Matches(l Labels) bool {
	if s == nil {
		return true
	}
	switch s.op {
	case opAll, opGlobal:
		return true
	case opNot:
		return !s.operands[0].Matches(l)
	case opAnd:
		for _, o := range s.operands {
			if !o.Matches(l) {
				return false
			}
		}
		return true
	case opOr:
		for _, o := range s.operands {
			if o.Matches(l) {
				return true
			}
		}
		return false
	}
	value, present := l.Get(s.label)
	switch s.op {
	case opHas:
		return present
	case opEqual:
		return present && value == s.value
	case opNotEqual:
		return !present || value != s.value
	case opIn:
		return present && s.holds(value)
	case opNotIn:
		return !present || !s.holds(value)
	case opContains:
		return present && strings.Contains(value, s.value)
	case opStartsWith:
		return present && strings.HasPrefix(value, s.value)
	case opEndsWith:
		return present && strings.HasSuffix(value, s.value)
	}
	return false
}

// holds tells whether value is a member of the set.
func (s *Selector) holds(value string) bool {
	_, found := slices.BinarySearch(s.values, value)
	return found
}
