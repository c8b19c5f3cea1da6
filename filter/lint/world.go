package lint

import (
	"maps"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// Labels that identity derives (section 3.2).
const (
	namespaceLabel      = "projectcalico.org/namespace"
	orchestratorLabel   = "projectcalico.org/orchestrator"
	serviceAccountLabel = "projectcalico.org/serviceaccount"
	nameLabel           = "projectcalico.org/name"
	namespacePrefix     = "pcns."
	accountPrefix       = "pcsa."
)

// object is anything that selectors of rules can match, with its derived labels.
type object struct {
	policy.Key
	labels map[string]string
	pod    *policy.Endpoint // nil for the others
}

// isEndpoint tells whether policies apply to the object.
func (o *object) isEndpoint() bool { return o.pod != nil || o.Kind == policy.HostEndpointKind }

// account is a service account that has an object, or that a pod runs as.
type account struct {
	namespace, name string
	labels          map[string]string // of the object, and its name; nil without one
	pods            int
}

// universe is the set of labels of one sort of object.
type universe map[string]bool

// world is a snapshot as selectors see it.
type world struct {
	*policy.Snapshot
	namespaces map[string]*policy.Namespace
	objects    []object // pods, host endpoints, sets
	accounts   []*account

	ofObjects, ofNamespaces, ofAccounts universe
}

func newWorld(s *policy.Snapshot) *world {
	w := &world{
		Snapshot: s, namespaces: map[string]*policy.Namespace{},
		ofObjects: universe{}, ofNamespaces: universe{}, ofAccounts: universe{},
	}
	for _, ns := range s.Namespaces {
		w.namespaces[ns.Name] = ns
		w.ofNamespaces.add(ns.Labels)
		w.ofNamespaces[nameLabel] = true
	}
	byKey := w.collectAccounts()
	for _, ep := range s.Endpoints {
		w.objects = append(w.objects, object{Key: ep.Key(), pod: ep, labels: w.podLabels(ep, byKey)})
	}
	profiles := map[string]*policy.Profile{}
	for _, p := range s.Profiles {
		profiles[p.Name] = p
	}
	for _, h := range s.HostEndpoints {
		key := policy.Key{Kind: policy.HostEndpointKind, Name: h.Name}
		w.objects = append(w.objects, object{Key: key, labels: hostLabels(h, profiles)})
	}
	for _, set := range s.NetworkSets {
		labels := ownLabels(set.Labels)
		if set.Namespace != "" {
			labels[namespaceLabel] = set.Namespace
			w.inherit(labels, set.Namespace)
		}
		w.objects = append(w.objects, object{Key: policy.Key{Kind: set.Kind, Namespace: set.Namespace, Name: set.Name}, labels: labels})
	}
	for _, o := range w.objects {
		w.ofObjects.add(o.labels)
	}
	return w
}

type accountKey struct{ namespace, name string }

func (w *world) collectAccounts() map[accountKey]*account {
	byKey := map[accountKey]*account{}
	get := func(k accountKey) *account {
		a := byKey[k]
		if a == nil {
			a = &account{namespace: k.namespace, name: k.name}
			byKey[k] = a
			w.accounts = append(w.accounts, a)
		}
		return a
	}
	for _, sa := range w.ServiceAccounts {
		a := get(accountKey{sa.Namespace, sa.Name})
		a.labels = map[string]string{}
		maps.Copy(a.labels, sa.Labels)
		a.labels[nameLabel] = sa.Name
		w.ofAccounts.add(a.labels)
	}
	for _, ep := range w.Endpoints {
		if ep.ServiceAccount != "" {
			get(accountKey{ep.Namespace, ep.ServiceAccount}).pods++
		}
	}
	return byKey
}

func (w *world) podLabels(ep *policy.Endpoint, accounts map[accountKey]*account) map[string]string {
	labels := ownLabels(ep.Labels)
	labels[namespaceLabel] = ep.Namespace
	labels[orchestratorLabel] = "k8s"
	w.inherit(labels, ep.Namespace)
	if ep.ServiceAccount == "" {
		return labels
	}
	labels[serviceAccountLabel] = ep.ServiceAccount
	for k, v := range accounts[accountKey{ep.Namespace, ep.ServiceAccount}].labels {
		labels[accountPrefix+k] = v
	}
	return labels
}

func hostLabels(h *policy.HostEndpoint, profiles map[string]*policy.Profile) map[string]string {
	labels := ownLabels(h.Labels)
	for _, name := range h.Profiles {
		p := profiles[name]
		if p == nil {
			continue
		}
		for k, v := range ownLabels(p.LabelsToApply) {
			if _, ok := labels[k]; !ok {
				labels[k] = v
			}
		}
	}
	return labels
}

// inherit adds what a namespace gives to its pods and sets.
func (w *world) inherit(labels map[string]string, namespace string) {
	ns := w.namespaces[namespace]
	if ns == nil {
		return
	}
	for k, v := range ns.Labels {
		labels[namespacePrefix+k] = v
	}
	labels[namespacePrefix+nameLabel] = ns.Name
}

// namespaceLabels gives what a namespaceSelector sees of a namespace.
func (w *world) namespaceLabels(name string) selector.Map {
	ns := w.namespaces[name]
	if ns == nil {
		return nil
	}
	labels := maps.Clone(ns.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[nameLabel] = name
	return labels
}

func (u universe) add(labels map[string]string) {
	for k := range labels {
		u[k] = true
	}
}

// ownLabels copies labels without those that only derivation may set [D2].
func ownLabels(labels map[string]string) map[string]string {
	own := make(map[string]string, len(labels)+4)
	for k, v := range labels {
		if !reserved(k) {
			own[k] = v
		}
	}
	return own
}

func reserved(label string) bool {
	return slices.Contains([]string{namespaceLabel, orchestratorLabel, serviceAccountLabel}, label) ||
		strings.HasPrefix(label, namespacePrefix) || strings.HasPrefix(label, accountPrefix)
}
