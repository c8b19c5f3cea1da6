package lint

import (
	"slices"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// nothing matches nothing.
var nothing = selector.Not(nil)

// conjunction is a list of selectors on derived labels that must all match.
type conjunction []*selector.Selector

func (c conjunction) matches(o *object) bool {
	for _, s := range c {
		if !s.Matches(selector.Map(o.labels)) {
			return false
		}
	}
	return true
}

// without leaves out what is not stated.
func without(list ...*selector.Selector) conjunction {
	return slices.DeleteFunc(list, func(s *selector.Selector) bool { return s == nil })
}

// subjects says which endpoints a policy applies to (section 4.4).
func subjects(p *policy.Policy) conjunction {
	sel, ns, sa := p.Selector, p.NamespaceSelector.WithPrefix(namespacePrefix), p.ServiceAccountSelector.WithPrefix(accountPrefix)
	if p.Namespace != "" {
		return without(selector.Equals(namespaceLabel, p.Namespace), sel, sa)
	}
	if ns != nil {
		hasNamespace := selector.Has(namespaceLabel)
		sel, ns = sel.Replace(hasNamespace, nil), ns.Replace(hasNamespace, nil)
	}
	if sa != nil {
		hasAccount := selector.Has(serviceAccountLabel)
		sel, sa = sel.Replace(hasAccount, nil), sa.Replace(hasAccount, nil)
	}
	return without(sel, ns, sa)
}

// covers tells whether everything that inner selects is provably selected by c.
func (c conjunction) covers(inner conjunction) bool {
	for _, s := range c {
		if !s.Equal(selector.All()) && !slices.ContainsFunc(inner, s.Equal) {
			return false
		}
	}
	return true
}

// entity is one half of a rule, in the context of its policy.
type entity struct {
	*policy.EntityRule
	namespace string // of the policy, empty for a global one
}

func (n entity) hasNames() bool {
	return n.ServiceAccounts != nil && len(n.ServiceAccounts.Names) > 0
}

// accountSelector is nil if not stated.
func (n entity) accountSelector() *selector.Selector {
	if n.ServiceAccounts == nil {
		return nil
	}
	return n.ServiceAccounts.Selector
}

func (n entity) hasAccounts() bool { return n.hasNames() || n.accountSelector() != nil }

// statesIdentity tells whether any criterion is about who, not where (section 4.1).
func (n entity) statesIdentity() bool {
	return n.NamespaceSelector != nil || n.Selector != nil || n.NotSelector != nil || n.hasAccounts()
}

// hasPositive tells whether POS holds anything.
func (n entity) hasPositive() bool {
	return n.statesIdentity() &&
		(n.NamespaceSelector != nil || n.namespace != "" || n.hasAccounts() || n.Selector != nil)
}

// inNamespaces is NS.
func (n entity) inNamespaces() *selector.Selector {
	switch {
	case n.NamespaceSelector != nil:
		has := selector.Has(namespaceLabel)
		return n.NamespaceSelector.WithPrefix(namespacePrefix).Replace(has, selector.Not(has))
	case n.namespace != "":
		return selector.Equals(namespaceLabel, n.namespace)
	}
	return nil
}

// named is the names half of SA.
func (n entity) named() *selector.Selector {
	if !n.hasNames() {
		return nil
	}
	return selector.In(serviceAccountLabel, n.ServiceAccounts.Names...)
}

// positive is POS.
func (n entity) positive() conjunction {
	return without(n.inNamespaces(), n.accountSelector().WithPrefix(accountPrefix), n.named(), n.Selector)
}

// matchesAny tells whether any object satisfies POS and not NEG.
func (w *world) matchesAny(n entity) bool {
	pos := n.positive()
	return slices.ContainsFunc(w.objects, func(o object) bool {
		return pos.matches(&o) && (n.NotSelector == nil || !n.NotSelector.Matches(selector.Map(o.labels)))
	})
}

// matchesNamespace evaluates a namespaceSelector on a namespace's own labels.
func (w *world) matchesNamespace(s *selector.Selector, name string) bool {
	return s.Replace(nil, nothing).Matches(w.namespaceLabels(name))
}

// matchesBare tells whether a selector that objects without namespace and
// account are asked by is true of them: none of its labels is there, and all()
// means one that has what they lack.
func matchesBare(s *selector.Selector) bool {
	return s.Replace(nothing, nothing).Matches(selector.Map(nil))
}

// inScope tells whether an entity's account criteria speak of accounts of a
// namespace.
func (w *world) inScope(n entity, namespace string) bool {
	if n.NamespaceSelector != nil {
		return w.matchesNamespace(n.NamespaceSelector, namespace)
	}
	return n.namespace == "" || n.namespace == namespace
}
