package explain

import (
	"slices"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// prefixed is a view of labels for a namespaceSelector or an account selector:
// label k of the selector is looked up as prefix + k.
type prefixed struct {
	labels map[string]string
	prefix string
}

// Get implements selector.Labels.
func (p prefixed) Get(label string) (string, bool) { v, ok := p.labels[p.prefix+label]; return v, ok }

// nothing matches nothing.
var nothing = selector.In(nameLabel)

// narrowAll gives the selector with all() meaning has(label) as evaluated on an
// object that has, or has not, that label. The one thing about the object that
// the tree must know is a constant for the object, so no label is put into it.
func narrowAll(s *selector.Selector, has bool) *selector.Selector {
	if s == nil || has {
		return s
	}
	return s.Replace(nothing, nil)
}

// namespaceVariants are a rule's namespaceSelector for objects that have a
// namespace and for those that have none.
type namespaceVariants struct{ namespaced, global *selector.Selector }

// matchesNamespace evaluates a rule's namespaceSelector: all() is
// has(projectcalico.org/namespace) and global() is !has(…) (section 4.1).
func (e *Evaluator) matchesNamespace(s *selector.Selector, labels selector.Labels, namespaced bool) bool {
	cached, ok := e.namespaceSelectors.Load(s)
	if !ok {
		cached, _ = e.namespaceSelectors.LoadOrStore(s, namespaceVariants{
			namespaced: s.Replace(nil, nothing),
			global:     s.Replace(nothing, nil),
		})
	}
	v := cached.(namespaceVariants)
	if namespaced {
		return v.namespaced.Matches(labels)
	}
	return v.global.Matches(labels)
}

// selects tells whether a policy applies to an endpoint, whatever the direction
// (section 4.4).
func selects(p *policy.Policy, o *object) bool {
	own := selector.Map(o.labels)
	ofNamespace := prefixed{o.labels, namespacePrefix}
	ofAccount := prefixed{o.labels, accountPrefix}
	matches := func(s *selector.Selector, l selector.Labels) bool { return s == nil || s.Matches(l) }

	if p.Namespace != "" { // which a host endpoint never has
		return o.namespace == p.Namespace &&
			matches(p.Selector, own) && matches(p.ServiceAccountSelector, ofAccount)
	}

	// Upstream rewrites text: a namespaceSelector narrows every all() there is so
	// far, then a serviceAccountSelector narrows every all() that is left.
	_, hasAccount := o.labels[serviceAccountLabel]
	sel, nsSel, saSel := p.Selector, p.NamespaceSelector, p.ServiceAccountSelector
	switch {
	case nsSel != nil:
		sel = narrowAll(sel, o.namespaced())
		nsSel = narrowAll(nsSel, o.namespaced())
	case saSel != nil:
		sel = narrowAll(sel, hasAccount)
	}
	saSel = narrowAll(saSel, hasAccount)
	return matches(sel, own) && matches(nsSel, ofNamespace) && matches(saSel, ofAccount)
}

// entity is one half of a rule, in the context of its policy.
type entity struct {
	*policy.EntityRule
	side      string // "source" or "destination"
	namespace string // of the policy, empty for a global one
}

// hasAccounts tells whether serviceAccounts constrains anything.
func (n entity) hasAccounts() bool {
	sa := n.ServiceAccounts
	return sa != nil && (len(sa.Names) > 0 || sa.Selector != nil)
}

// statesIdentity tells whether any criterion is about who, not where. Without
// one even a NetworkPolicy's entity matches any address (section 4.1).
func (n entity) statesIdentity() bool {
	return n.NamespaceSelector != nil || n.Selector != nil || n.NotSelector != nil || n.hasAccounts()
}

// hasPositive tells whether the positive predicate, POS, holds anything. It is
// only to be asked where statesIdentity.
func (n entity) hasPositive() bool {
	return n.NamespaceSelector != nil || n.namespace != "" || n.hasAccounts() || n.Selector != nil
}

// inNamespace evaluates NS on an object.
func (e *Evaluator) inNamespace(n entity, o *object) bool {
	switch {
	case n.NamespaceSelector != nil:
		return e.matchesNamespace(n.NamespaceSelector, prefixed{o.labels, namespacePrefix}, o.namespaced())
	case n.namespace != "":
		return o.labels[namespaceLabel] == n.namespace
	default:
		return true
	}
}

// hasAccountLabels evaluates the selector half of SA on an object.
func (n entity) hasAccountLabels(o *object) bool {
	return n.ServiceAccounts == nil || n.ServiceAccounts.Selector == nil ||
		n.ServiceAccounts.Selector.Matches(prefixed{o.labels, accountPrefix})
}

// hasAccountName evaluates the names half of SA on an object.
func (n entity) hasAccountName(o *object) bool {
	if n.ServiceAccounts == nil || len(n.ServiceAccounts.Names) == 0 {
		return true
	}
	name, ok := o.labels[serviceAccountLabel]
	return ok && slices.Contains(n.ServiceAccounts.Names, name)
}

// positive evaluates POS on an object, which is true where it is empty.
func (e *Evaluator) positive(n entity, o *object) bool {
	if !n.statesIdentity() {
		return true
	}
	return e.inNamespace(n, o) && n.hasAccountLabels(o) && n.hasAccountName(o) &&
		(n.Selector == nil || n.Selector.Matches(selector.Map(o.labels)))
}

// negative evaluates NEG on an object: verbatim, in no namespace.
func (n entity) negative(o *object) bool {
	return n.NotSelector != nil && n.NotSelector.Matches(selector.Map(o.labels))
}

// admits tells whether an object satisfies POS and not NEG.
func (e *Evaluator) admits(n entity, o *object) bool {
	return e.positive(n, o) && !n.negative(o)
}

// covers tells whether an address matches the entity's identity (section 4.3).
func (e *Evaluator) covers(n entity, p place) bool {
	switch {
	case !n.statesIdentity():
		return true
	case n.hasPositive():
		return slices.ContainsFunc(p.objects, func(o *object) bool { return e.admits(n, o) })
	default:
		return !slices.ContainsFunc(p.objects, n.negative)
	}
}
