package access

import (
	"maps"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// Labels that identity derives (spec section 3.2).
const (
	namespaceLabel      = "projectcalico.org/namespace"
	orchestratorLabel   = "projectcalico.org/orchestrator"
	serviceAccountLabel = "projectcalico.org/serviceaccount"
	nameLabel           = "projectcalico.org/name"
	namespacePrefix     = "pcns."
	accountPrefix       = "pcsa."
	// The API server puts it on every namespace and gives it back to who removes it.
	metadataName = "kubernetes.io/metadata.name"
)

// side is one end of a rule: what its selectors, and for the end that the policy
// protects the policy's, say of who is there.
type side struct {
	name string // source or destination
	all  []*selector.Selector
	// namespace is the only one whose objects may match; empty if any may.
	namespace string
	// identity: anything is said of who is there. Not of the end that a policy
	// protects, which are pods in any case.
	identity bool
	service  *policy.ServiceRef
}

// protected is the end that the policy applies to (section 4.4), as far as the rule's
// own criteria leave it.
func protected(p *policy.Policy, name string, e *policy.EntityRule) side {
	sel, ns, sa := p.Selector, p.NamespaceSelector.WithPrefix(namespacePrefix), p.ServiceAccountSelector.WithPrefix(accountPrefix)
	if p.Namespace == "" {
		if ns != nil {
			has := selector.Has(namespaceLabel)
			sel, ns = sel.Replace(has, nil), ns.Replace(has, nil)
		}
		if sa != nil {
			has := selector.Has(serviceAccountLabel)
			sel, sa = sel.Replace(has, nil), sa.Replace(has, nil)
		}
	}
	s := side{name: name, namespace: p.Namespace, identity: true}
	s.add(sel, ns, sa)
	if e != nil {
		own := peer(p, name, e)
		s.add(own.all...)
	}
	if p.Namespace != "" {
		s.add(selector.Equals(namespaceLabel, p.Namespace))
	}
	return s
}

// peer is the other end (section 4.1).
func peer(p *policy.Policy, name string, e *policy.EntityRule) side {
	s := side{name: name, service: e.Service}
	var names, accounts *selector.Selector
	if e.ServiceAccounts != nil {
		accounts = e.ServiceAccounts.Selector.WithPrefix(accountPrefix)
		if len(e.ServiceAccounts.Names) > 0 {
			names = selector.In(serviceAccountLabel, e.ServiceAccounts.Names...)
		}
	}
	if e.NamespaceSelector == nil && e.Selector == nil && e.NotSelector == nil && accounts == nil && names == nil {
		return s // nothing of who, in a NetworkPolicy either
	}
	s.identity = true
	switch {
	case e.NamespaceSelector != nil:
		has := selector.Has(namespaceLabel)
		s.add(e.NamespaceSelector.WithPrefix(namespacePrefix).Replace(has, selector.Not(has)))
	case p.Namespace != "":
		s.namespace = p.Namespace
		s.add(selector.Equals(namespaceLabel, p.Namespace))
	}
	s.add(accounts, names, e.Selector)
	if e.NotSelector != nil {
		s.add(selector.Not(e.NotSelector))
	}
	return s
}

func (s *side) add(list ...*selector.Selector) {
	for _, one := range list {
		if one != nil && !slices.ContainsFunc(s.all, one.Equal) {
			s.all = append(s.all, one)
		}
	}
}

// String is the selector of the side, on the labels that identity derives.
func (s *side) String() string {
	if !s.identity {
		return "any address"
	}
	return selector.And(s.all...).String()
}

// could tells whether what is seen could match the side, and whether it could not.
func (s *side) could(v view) (match, not bool) { return selector.And(s.all...).Could(v.know) }

// reads tells whether the side depends on labels with a prefix, which somebody sets;
// with names, or on the names that are derived beside them.
func (s *side) reads(prefix string, names ...string) bool {
	return slices.ContainsFunc(selector.And(s.all...).Labels(), func(l string) bool {
		key, ok := strings.CutPrefix(l, prefix)
		return ok && key != nameLabel && key != metadataName || slices.Contains(names, l)
	})
}

// view is an object as selectors see it, with what is known of it and what somebody
// may set. The zero view is an object without namespace, as a GlobalNetworkSet.
type view struct {
	named   selector.Knowledge // of the namespace's name; Absent for no namespace
	name    string
	labels  map[string]string // of the namespace
	setting bool              // somebody sets them

	account       selector.Knowledge // of the account's name; Absent for no account
	accountName   string
	accountLabels map[string]string
	accountSet    bool // somebody sets them
	accountGone   bool // there is no such object
}

// know tells of a derived label. Of an object's own labels nothing is known.
func (v view) know(label string) (string, selector.Knowledge) {
	switch {
	case label == namespaceLabel:
		return v.name, v.named
	case label == serviceAccountLabel:
		return v.accountName, v.account
	case label == orchestratorLabel:
		if v.account == selector.Absent {
			return "", selector.Absent
		}
		return "k8s", selector.Known
	}
	if key, ok := strings.CutPrefix(label, namespacePrefix); ok {
		if v.named == selector.Absent {
			return "", selector.Absent
		}
		if key == nameLabel || key == metadataName {
			return v.name, v.named
		}
		return set(v.labels, key, v.setting)
	}
	if key, ok := strings.CutPrefix(label, accountPrefix); ok {
		if v.account == selector.Absent || v.accountGone {
			return "", selector.Absent
		}
		if key == nameLabel {
			return v.accountName, v.account
		}
		return set(v.accountLabels, key, v.accountSet)
	}
	return "", selector.Free
}

func set(labels map[string]string, key string, setting bool) (string, selector.Knowledge) {
	if setting {
		return "", selector.Free
	}
	if value, ok := labels[key]; ok {
		return value, selector.Known
	}
	return "", selector.Absent
}

// world is a snapshot by namespace.
type world struct {
	namespaces []string
	labels     map[string]map[string]string            // of namespaces
	accounts   map[string]map[string]map[string]string // of accounts, by namespace and name
	// assumed are namespaces without any account, which exist nowhere but in
	// manifests that leave them out.
	assumed []string
}

func newWorld(s *policy.Snapshot) *world {
	w := &world{labels: map[string]map[string]string{}, accounts: map[string]map[string]map[string]string{}}
	account := func(namespace, name string, labels map[string]string) {
		if w.accounts[namespace] == nil {
			w.accounts[namespace] = map[string]map[string]string{}
		}
		if _, ok := w.accounts[namespace][name]; !ok || labels != nil {
			w.accounts[namespace][name] = labels
		}
	}
	for _, ns := range s.Namespaces {
		w.labels[ns.Name] = ns.Labels
	}
	for _, sa := range s.ServiceAccounts {
		account(sa.Namespace, sa.Name, sa.Labels)
	}
	for _, ep := range s.Pods() {
		if ep.ServiceAccount != "" {
			account(ep.Namespace, ep.ServiceAccount, nil)
		}
	}
	for _, p := range s.Policies {
		if _, ok := w.labels[p.Namespace]; !ok && p.Namespace != "" {
			w.labels[p.Namespace] = nil
		}
	}
	for namespace := range w.accounts {
		if _, ok := w.labels[namespace]; !ok {
			w.labels[namespace] = nil
		}
	}
	w.namespaces = slices.Sorted(maps.Keys(w.labels))
	for _, ns := range w.namespaces {
		if w.accounts[ns] == nil {
			w.assumed = append(w.assumed, ns)
		}
		account(ns, "default", nil) // which every namespace of a cluster has
	}
	return w
}

// in lists the namespaces that a side may be in.
func (w *world) in(s *side) []string {
	if s.namespace != "" {
		return []string{s.namespace}
	}
	return w.namespaces
}

// of lists the accounts of a namespace.
func (w *world) of(namespace string) []string { return slices.Sorted(maps.Keys(w.accounts[namespace])) }

// now is a pod of a namespace with an account, as they are.
func (w *world) now(namespace, account string) view {
	return view{
		named: selector.Known, name: namespace, labels: w.labels[namespace],
		account: selector.Known, accountName: account, accountLabels: w.accounts[namespace][account],
	}
}

// newNames are the names that selectors give under the labels, without those that are
// taken, and one more that none gives.
func newNames(s *side, taken func(string) bool, labels ...string) []view {
	var list []view
	for _, one := range s.all {
		for _, label := range labels {
			for _, name := range one.Values(label) {
				if !taken(name) && !slices.ContainsFunc(list, func(v view) bool { return v.name == name }) {
					list = append(list, view{named: selector.Known, name: name})
				}
			}
		}
	}
	return append(list, view{named: selector.Other})
}
