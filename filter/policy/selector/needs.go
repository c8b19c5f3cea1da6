package selector

// Needs gives a label that everything the selector matches has with one of some
// values, if it is one of those selectors from which that can be read off: an
// equality, a set, or a conjunction of which an operand is such. It lets a caller
// with many selectors find those worth evaluating. A nil or other selector needs
// nothing: ok is false. The values are read-only.
func (s *Selector) Needs() (label string, values []string, ok bool) {
	if s == nil {
		return "", nil, false
	}
	switch s.op {
	case opEqual:
		return s.label, []string{s.value}, true
	case opIn:
		return s.label, s.values, true
	case opAnd:
		for _, o := range s.operands {
			l, v, has := o.Needs()
			if has && (!ok || len(v) < len(values)) {
				label, values, ok = l, v, true
			}
		}
	}
	return label, values, ok
}
