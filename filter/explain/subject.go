package explain

import (
	"slices"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// Subject is what policy makes of one pod, whoever talks to it.
type Subject struct {
	// Hosted: this node decides for it.
	Hosted bool
	// NamespaceKnown: its Namespace object is there; else all that no tier decides is
	// denied.
	NamespaceKnown bool
	// Conflict: another pod claims one of its addresses.
	Conflict bool
	// Labels are those that selectors see, derived ones included (section 3.2);
	// read-only.
	Labels map[string]string
	// Enforced are the policies that select it, in order of evaluation, and Pending
	// those that would if what is staged were enforced; equal if nothing is staged.
	Enforced, Pending []Selection
}

// Selection is a policy that selects a pod, in its place.
type Selection struct {
	Tier policy.Tier
	// Listed: there is a Tier object; else the tier comes last and has no order.
	Listed bool
	Policy *policy.Policy
}

// Subject tells what policy makes of a pod of the snapshot.
func (e *Evaluator) Subject(ep *policy.Endpoint) (s Subject) {
	o := e.find(ep)
	s = Subject{
		Hosted: e.isHosted(o), NamespaceKnown: o.namespaceKnown, Labels: o.labels,
		Enforced: selection(e.enforced, o), Pending: selection(e.pending, o),
	}
	for _, a := range ep.Addrs {
		s.Conflict = s.Conflict || len(e.place(a).pods()) > 1
	}
	return s
}

// find gives the object of a pod.
func (e *Evaluator) find(ep *policy.Endpoint) *object {
	for _, a := range ep.Addrs {
		for _, o := range e.byAddr[a] {
			if o.kind == policy.PodKind && o.namespace == ep.Namespace && o.name == ep.Name {
				return o
			}
		}
	}
	return e.index.pod(ep)
}

func selection(v *view, o *object) (list []Selection) {
	for _, t := range v.selecting(o) {
		for _, p := range t.policies {
			if podChain.keep(p) {
				list = append(list, Selection{t.Tier, t.listed, p})
			}
		}
	}
	return list
}

// Protected tells whether flows of the pod in a direction are decided by policy; else
// they are open.
func (s *Subject) Protected(d flow.Direction) bool {
	return s.Conflict || !s.NamespaceKnown || slices.ContainsFunc(s.Enforced, func(p Selection) bool { return p.Policy.Applies(d) })
}

// AccountUse is one place where policy names a service account.
type AccountUse struct {
	// Policy is the policy or staged policy.
	Policy *policy.Policy
	// Subject: its serviceAccountSelector takes the account. Otherwise a rule does.
	Subject   bool
	Direction flow.Direction
	Rule      *policy.Rule
	// Side of the rule is "source" or "destination".
	Side string
	// ByName: by its name; else by label.
	ByName bool
}

// AccountUses tells where policies name a service account, by name or by label; rules
// that take it for other reasons, such as the labels of a pod, are not among them. The
// account need not exist.
func (e *Evaluator) AccountUses(namespace, name string, policies []*policy.Policy) (uses []AccountUse) {
	o := e.index.pod(&policy.Endpoint{Namespace: namespace, ServiceAccount: name})
	for _, p := range policies {
		if p.ServiceAccountSelector != nil && (p.Namespace == "" || p.Namespace == namespace) &&
			p.ServiceAccountSelector.Matches(prefixed{o.labels, accountPrefix}) {
			uses = append(uses, AccountUse{Policy: p, Subject: true})
		}
		for _, d := range []flow.Direction{flow.Ingress, flow.Egress} {
			rules := p.Rules(d)
			for i := range rules {
				r := &rules[i]
				for _, n := range []entity{{&r.Source, "source", p.Namespace}, {&r.Destination, "destination", p.Namespace}} {
					if n.hasAccounts() && e.inNamespace(n, o) && n.hasAccountLabels(o) && n.hasAccountName(o) {
						uses = append(uses, AccountUse{Policy: p, Direction: d, Rule: r, Side: n.side, ByName: len(n.ServiceAccounts.Names) > 0})
					}
				}
			}
		}
	}
	return uses
}
