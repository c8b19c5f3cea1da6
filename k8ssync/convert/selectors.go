package convert

import (
	"strings"

	"github.com/postern-project/postern/filter/policy/selector"
)

const maxSelector = 1024 // characters

// endpointSelector reads one of the selectors that say which endpoints a policy
// is for. Nil means that it is not stated, or that it is not valid.
func (r *report) endpointSelector(field, text string) *selector.Selector {
	if text == "" {
		return nil
	}
	// Calico looks for the text, not for the function, and so must we.
	if strings.Contains(text, "global(") {
		r.add(field, "must not contain global(); only a rule's namespaceSelector may")
		return nil
	}
	return r.parseSelector(field, text)
}

// ruleSelector reads a selector of a rule that global() has no place in.
func (r *report) ruleSelector(field, text string) *selector.Selector {
	s := r.parseSelector(field, text)
	if s != nil && s.ContainsGlobal() {
		r.add(field, "must not contain global(); write namespaceSelector: global() beside it")
		return nil
	}
	return s
}

// namespaceSelector reads a rule's namespaceSelector.
func (r *report) namespaceSelector(field, text string) *selector.Selector {
	s := r.parseSelector(field, text)
	if s != nil && s.ContainsGlobal() && !s.IsGlobal() {
		r.add(field, "global() must be the whole expression; write global() alone, and other namespaces in another rule")
		return nil
	}
	return s
}

func (r *report) parseSelector(field, text string) *selector.Selector {
	if text == "" {
		return nil
	}
	if n := len([]rune(text)); n > maxSelector {
		r.add(field, "has %d characters; at most %d are allowed, so give the endpoints a common label", n, maxSelector)
		return nil
	}
	s, err := selector.Parse(text)
	if err != nil {
		r.add(field, "%v", err)
		return nil
	}
	return s
}
