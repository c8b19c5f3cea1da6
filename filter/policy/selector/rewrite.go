package selector

import (
	"maps"
	"slices"
)

// WithPrefix renames every label to prefix+label, under every operator (spec
// section 4.1). A label may grow past the 512 bytes that Parse allows; the
// result is evaluated all the same.
func (s *Selector) WithPrefix(prefix string) *Selector {
	if prefix == "" {
		return s
	}
	return s.rewrite(func(leaf *Selector) *Selector {
		if !leaf.op.hasLabel() {
			return leaf
		}
		renamed := *leaf
		renamed.label = prefix + leaf.label
		return &renamed
	})
}

// Replace puts all in the place of every all() and global in the place of every
// global(); nil keeps those nodes. What is put in is not searched again, so
// Replace(x, All()) leaves the new all() alone.
func (s *Selector) Replace(all, global *Selector) *Selector {
	return s.rewrite(func(leaf *Selector) *Selector {
		switch {
		case leaf.op == opAll && all != nil:
			return all
		case leaf.op == opGlobal && global != nil:
			return global
		}
		return leaf
	})
}

// rewrite gives the tree with every leaf exchanged for what f makes of it.
// Subtrees in which f changes nothing are shared.
func (s *Selector) rewrite(f func(leaf *Selector) *Selector) *Selector {
	if s == nil {
		return nil
	}
	if len(s.operands) == 0 {
		return f(s)
	}
	changed := false
	operands := make([]*Selector, len(s.operands))
	for i, o := range s.operands {
		operands[i] = o.rewrite(f)
		changed = changed || operands[i] != o
	}
	if !changed {
		return s
	}
	switch s.op {
	case opAnd:
		return And(operands...)
	case opOr:
		return Or(operands...)
	default:
		return Not(operands[0])
	}
}

// ContainsGlobal tells whether global() is anywhere in the expression. Calico
// refuses the text "global(" instead, inside literals too.
func (s *Selector) ContainsGlobal() bool {
	if s == nil {
		return false
	}
	return s.op == opGlobal || slices.ContainsFunc(s.operands, (*Selector).ContainsGlobal)
}

// IsGlobal tells whether the whole expression is global(), parentheses aside.
func (s *Selector) IsGlobal() bool { return s != nil && s.op == opGlobal }

// Labels gives the names of the labels that the expression reads, sorted and
// without repeats. The slice is the caller's.
func (s *Selector) Labels() []string {
	names := make(map[string]struct{})
	s.collectLabels(names)
	return slices.Sorted(maps.Keys(names))
}

func (s *Selector) collectLabels(names map[string]struct{}) {
	if s == nil {
		return
	}
	if s.op.hasLabel() {
		names[s.label] = struct{}{}
	}
	for _, o := range s.operands {
		o.collectLabels(names)
	}
}
