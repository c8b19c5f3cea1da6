package compile

import (
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// Labels and prefixes that identity gives (spec section 3.2).
const (
	namespaceLabel      = "projectcalico.org/namespace"
	serviceAccountLabel = "projectcalico.org/serviceaccount"
	orchestratorLabel   = "projectcalico.org/orchestrator"
	nameLabel           = "projectcalico.org/name"
	namespacePrefix     = "pcns."
	accountPrefix       = "pcsa."
)

// predicate is what one side of a rule asks of the objects that cover an
// address (spec section 4.3).
type predicate struct {
	pos, neg *selector.Selector // nil if there is none
	// namespace is set if pos can hold for objects of that namespace only. It
	// merely saves looking at the others.
	namespace string
}

// scope gives the predicate of an entity rule in a policy of the namespace, which
// is empty for global policies and profiles (spec section 4.1).
func scope(e *policy.EntityRule, namespace string) predicate {
	p := predicate{neg: e.NotSelector}
	var account *selector.Selector
	if m := e.ServiceAccounts; m != nil {
		account = m.Selector.WithPrefix(accountPrefix)
		if len(m.Names) > 0 {
			account = and(account, selector.In(serviceAccountLabel, m.Names...))
		}
	}
	if e.NamespaceSelector == nil && e.Selector == nil && account == nil && e.NotSelector == nil {
		return p
	}
	var where *selector.Selector
	switch {
	case e.NamespaceSelector != nil:
		inNamespace := selector.Has(namespaceLabel)
		where = e.NamespaceSelector.WithPrefix(namespacePrefix).Replace(inNamespace, selector.Not(inNamespace))
	case namespace != "":
		where = selector.Equals(namespaceLabel, namespace)
		p.namespace = namespace
	}
	p.pos = and(where, account, e.Selector)
	return p
}

// and is selector.And, except that it gives nil for nothing at all: a predicate
// that is not there holds for unknown addresses, and all() does not.
func and(selectors ...*selector.Selector) *selector.Selector {
	for _, s := range selectors {
		if s != nil {
			return selector.And(selectors...)
		}
	}
	return nil
}

// key tells predicates apart.
func (p *predicate) key() string {
	var b []byte
	for _, s := range []*selector.Selector{p.pos, p.neg} {
		if s != nil {
			b = append(append(b, 1), s.String()...)
		}
		b = append(b, 0)
	}
	return string(b)
}

// subject gives the selector of the endpoints a policy applies to (spec section
// 4.4); nil is every endpoint.
func subject(p *policy.Policy) *selector.Selector {
	accounts := p.ServiceAccountSelector.WithPrefix(accountPrefix)
	if p.Namespace != "" {
		return selector.And(selector.Equals(namespaceLabel, p.Namespace), p.Selector, accounts)
	}
	own, where := p.Selector, p.NamespaceSelector.WithPrefix(namespacePrefix)
	if where != nil {
		inNamespace := selector.Has(namespaceLabel)
		own, where = own.Replace(inNamespace, nil), where.Replace(inNamespace, nil)
	}
	if accounts != nil {
		hasAccount := selector.Has(serviceAccountLabel)
		own, accounts = own.Replace(hasAccount, nil), accounts.Replace(hasAccount, nil)
	}
	return and(own, where, accounts)
}
