package compile

import (
	"slices"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// request gives what a rule of the namespace's policy asks of a request, nil if no
// more than of a packet (spec section 9).
func request(r *policy.Rule, namespace string) *filter.RequestMatch {
	m := filter.RequestMatch{Source: certificate(&r.Source, namespace), Destination: certificate(&r.Destination, namespace)}
	if r.HTTP != nil {
		m.Methods = r.HTTP.Methods
		for _, p := range r.HTTP.Paths {
			if p.Exact != "" {
				m.Paths = append(m.Paths, filter.PathMatch{Path: p.Exact})
			} else {
				m.Paths = append(m.Paths, filter.PathMatch{Path: p.Prefix, Below: true})
			}
		}
	}
	if m.Source == nil && m.Destination == nil && len(m.Methods) == 0 && len(m.Paths) == 0 {
		return nil
	}
	return &m
}

// accountMatch is what one side of a rule says of the service account, its
// namespace included (spec section 9.3).
type accountMatch struct {
	names    []string           // any if empty
	selector *selector.Selector // nil if not stated
	// where is a namespaceSelector, and namespace, if that is nil, the namespace
	// itself or empty.
	where     *selector.Selector
	namespace string
}

// certificate gives what an entity rule asks of a certificate, nil if nothing.
func certificate(e *policy.EntityRule, namespace string) filter.AccountMatch {
	m := accountMatch{}
	accounts := false
	if sa := e.ServiceAccounts; sa != nil {
		m.names, m.selector = sa.Names, sa.Selector
		accounts = len(sa.Names) > 0 || sa.Selector != nil
	}
	switch {
	case e.NamespaceSelector != nil:
		// A certificate's account always has a namespace: all() holds for it and
		// global() does not.
		m.where = e.NamespaceSelector.Replace(nil, selector.In(nameLabel))
	case accounts || e.Selector != nil || e.NotSelector != nil:
		m.namespace = namespace
	}
	if !accounts && m.where == nil && m.namespace == "" {
		return nil
	}
	return &m
}

// Holds implements filter.AccountMatch.
func (m *accountMatch) Holds(a *filter.Account) bool {
	switch {
	case len(m.names) > 0 && !slices.Contains(m.names, a.Name):
	case m.selector != nil && !m.selector.Matches((*accountLabels)(a)):
	case m.where != nil && !m.where.Matches((*namespaceLabels)(a)):
	case m.namespace != "" && m.namespace != a.Namespace:
	default:
		return true
	}
	return false
}

// accountLabels are the labels of an account as its selectors see them: what the
// asker reports counts where the account says nothing itself (spec section 9.2).
type accountLabels filter.Account

// Get implements selector.Labels.
func (a *accountLabels) Get(label string) (value string, has bool) {
	if label == nameLabel {
		return a.Name, true
	}
	if value, has = a.Labels[label]; !has {
		value, has = a.Reported[label]
	}
	return value, has
}

// namespaceLabels are the labels of an account's namespace.
type namespaceLabels filter.Account

// Get implements selector.Labels.
func (a *namespaceLabels) Get(label string) (value string, has bool) {
	if label == nameLabel {
		return a.Namespace, true
	}
	value, has = a.NamespaceLabels[label]
	return value, has
}
