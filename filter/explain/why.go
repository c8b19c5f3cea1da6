package explain

import (
	"fmt"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// whyNotCovered names the identity criteria that fail. With several objects at
// the address it speaks of the one that fails the fewest.
func (e *Evaluator) whyNotCovered(n entity, at place, m *misses) {
	if len(at.objects) == 0 {
		m.add(n.side+"."+n.firstIdentityField(), func() string {
			return fmt.Sprintf("%s %s is no pod, network set or host endpoint", n.side, at.addr)
		})
		return
	}
	var best []Criterion
	for _, o := range at.objects {
		one := misses{all: true, text: m.text}
		e.objectMisses(n, o, &one)
		// Without POS an object fails only by satisfying NEG, and those that do
		// not are no reason.
		if len(one.list) > 0 && (best == nil || len(one.list) < len(best)) {
			best = one.list
		}
	}
	if !m.all {
		best = best[:1]
	}
	m.list = append(m.list, best...)
}

func (n entity) firstIdentityField() string {
	switch {
	case n.hasAccounts() && len(n.ServiceAccounts.Names) > 0:
		return "serviceAccounts.names"
	case n.hasAccounts():
		return "serviceAccounts.selector"
	case n.Selector != nil:
		return "selector"
	case n.NamespaceSelector != nil:
		return "namespaceSelector"
	default:
		return "namespace"
	}
}

// objectMisses lists what keeps one object from satisfying POS and not NEG.
func (e *Evaluator) objectMisses(n entity, o *object, m *misses) {
	field := func(f string) string { return n.side + "." + f }
	if !e.inNamespace(n, o) {
		switch {
		case n.NamespaceSelector == nil:
			m.add(field("namespace"), func() string {
				return fmt.Sprintf("%s %s is not in the policy's namespace %s", n.side, describe(o), n.namespace)
			})
		case o.namespaced():
			m.add(field("namespaceSelector"), func() string {
				return fmt.Sprintf("%s namespace %s does not match %s", n.side, o.namespace, n.NamespaceSelector)
			})
		default:
			m.add(field("namespaceSelector"), func() string {
				return fmt.Sprintf("%s %s has no namespace to match %s", n.side, describe(o), n.NamespaceSelector)
			})
		}
	}
	if !n.hasAccountName(o) {
		m.add(field("serviceAccounts.names"), func() string {
			return fmt.Sprintf("%s %s is not in %s", n.side, accountText(o), listText(n.ServiceAccounts.Names))
		})
	}
	if !n.hasAccountLabels(o) {
		m.add(field("serviceAccounts.selector"), func() string {
			return fmt.Sprintf("labels of %s %s do not match %s", n.side, accountText(o), n.ServiceAccounts.Selector)
		})
	}
	if n.Selector != nil && !n.Selector.Matches(selector.Map(o.labels)) {
		m.add(field("selector"), func() string {
			return fmt.Sprintf("labels of %s %s do not match %s", n.side, describe(o), n.Selector)
		})
	}
	if n.negative(o) {
		m.add(field("notSelector"), func() string {
			return fmt.Sprintf("labels of %s %s match the excluded %s", n.side, describe(o), n.NotSelector)
		})
	}
}

// describe names an object in a sentence.
func describe(o *object) string {
	switch o.kind {
	case policy.PodKind:
		return "pod " + o.String()
	case policy.HostEndpointKind:
		return "host endpoint " + o.String()
	default:
		return "network set " + o.String()
	}
}

// accountText names an object's service account in a sentence.
func accountText(o *object) string {
	if o.serviceAccount == "" {
		return describe(o) + " (no service account)"
	}
	return "service account " + o.serviceAccount
}
