package inventory

import (
	"cmp"
	"math"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// Inventory lists the objects of one snapshot, as one node sees them.
type Inventory struct {
	snapshot *policy.Snapshot
	explain  *explain.Evaluator
	node     string
}

// New lists the objects of a snapshot. Node is whose pods are here; all are if it is
// empty. The snapshot must not change.
func New(s *policy.Snapshot, node string) *Inventory {
	return &Inventory{snapshot: s, explain: explain.New(s, explain.Options{Node: node}), node: node}
}

// Wanted chooses objects. The zero value takes those of this node in all namespaces.
type Wanted struct {
	// Namespace and Name are empty for any. Global objects are in no namespace.
	Namespace, Name string
	// Everywhere takes also pods of other nodes, and accounts that no pod here has.
	Everywhere bool
}

// here tells whether a pod is one of this node, or all are wanted.
func (v *Inventory) here(w Wanted, ep *policy.Endpoint) bool {
	return w.Everywhere || v.node == "" || ep.Node == "" || ep.Node == v.node
}

func (w Wanted) takes(namespace, name string) bool {
	return (w.Namespace == "" || w.Namespace == namespace) && (w.Name == "" || w.Name == name)
}

// Ref names an object.
type Ref struct {
	Kind      policy.Kind `json:"kind"`
	Namespace string      `json:"namespace,omitempty"`
	Name      string      `json:"name"`
}

// String prints "namespace/name", or "name".
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Name
	}
	return r.Namespace + "/" + r.Name
}

// Endpoint is a pod.
type Endpoint struct {
	Ref
	Node      string            `json:"node,omitempty"`
	Hosted    bool              `json:"hosted"`
	Addresses []netip.Addr      `json:"addresses"`
	Account   string            `json:"serviceAccount,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"` // its own
	// Ingress and Egress tell whether policy decides that direction; it is open if not.
	Ingress bool `json:"protectedIngress"`
	Egress  bool `json:"protectedEgress"`
	// Conflict: another pod claims one of its addresses. NamespaceMissing: there is no
	// Namespace object of its namespace. Both are closed.
	Conflict         bool `json:"conflict,omitempty"`
	NamespaceMissing bool `json:"namespaceMissing,omitempty"`
	// Policies select it, in order of evaluation. Staged ones are those that would.
	Policies []Applied `json:"policies,omitempty"`
	Staged   []Applied `json:"stagedPolicies,omitempty"`
}

// Applied is a policy in its place.
type Applied struct {
	Ref
	Tier string `json:"tier"`
	// TierOrder is nil for a tier without object, and Order for a policy that states
	// none: both come last.
	TierOrder *float64 `json:"tierOrder,omitempty"`
	Order     *float64 `json:"order,omitempty"`
	Ingress   bool     `json:"ingress"`
	Egress    bool     `json:"egress"`
}

// Policy is a policy.
type Policy struct {
	Ref
	// Staged is Set, Delete, Learn or Ignore for a staged policy.
	Staged    policy.StagedAction `json:"staged,omitempty"`
	Tier      string              `json:"tier"`
	TierOrder *float64            `json:"tierOrder,omitempty"`
	Order     *float64            `json:"order,omitempty"`
	Ingress   bool                `json:"ingress"`
	Egress    bool                `json:"egress"`

	Selector               string `json:"selector,omitempty"`
	NamespaceSelector      string `json:"namespaceSelector,omitempty"`
	ServiceAccountSelector string `json:"serviceAccountSelector,omitempty"`

	IngressRules []policy.Rule `json:"ingressRules,omitempty"`
	EgressRules  []policy.Rule `json:"egressRules,omitempty"`
	// Subjects are the pods that it selects, or would if it were not staged.
	Subjects []Ref `json:"subjects,omitempty"`
}

// Account is a service account, or a name that pods have for one.
type Account struct {
	Ref
	// Missing: pods have it, and there is no such object, so it has no labels.
	Missing bool              `json:"missing,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Pods    []Ref             `json:"pods,omitempty"` // those here
	Uses    []Use             `json:"uses,omitempty"`
}

// Use is where a policy names an account.
type Use struct {
	Policy Ref    `json:"policy"`
	Tier   string `json:"tier"`
	// As is "subject", or the side of a rule: "source" or "destination".
	As string `json:"as"`
	// By is "name" or "label".
	By        string `json:"by"`
	Direction string `json:"direction,omitempty"`
	Rule      *int   `json:"rule,omitempty"`
	Action    string `json:"action,omitempty"`
}

// Set is a network set.
type Set struct {
	Ref
	Labels   map[string]string `json:"labels,omitempty"`
	Prefixes []netip.Prefix    `json:"prefixes"`
}

// Endpoints lists pods by namespace and name.
func (v *Inventory) Endpoints(w Wanted) []Endpoint {
	list := []Endpoint{}
	for _, ep := range v.snapshot.Endpoints {
		if !w.takes(ep.Namespace, ep.Name) || !v.here(w, ep) {
			continue
		}
		s := v.explain.Subject(ep)
		e := Endpoint{
			Ref: podRef(ep), Node: ep.Node, Hosted: s.Hosted, Addresses: ep.Addrs, Account: ep.ServiceAccount, Labels: ep.Labels,
			Ingress: s.Protected(flow.Ingress), Egress: s.Protected(flow.Egress),
			Conflict: s.Conflict, NamespaceMissing: !s.NamespaceKnown,
		}
		for _, p := range s.Enforced {
			e.Policies = append(e.Policies, applied(p))
		}
		for _, p := range s.Pending {
			if p.Policy.Staged != policy.Enforced {
				e.Staged = append(e.Staged, applied(p))
			}
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Endpoint) int { return byName(a.Ref, b.Ref) })
	return list
}

func applied(s explain.Selection) Applied {
	p := s.Policy
	a := Applied{Ref: ref(p.Key()), Tier: p.Tier, Order: order(p.Order), Ingress: p.AppliesIngress, Egress: p.AppliesEgress}
	if s.Listed {
		a.TierOrder = order(s.Tier.Order)
	}
	return a
}

// Policies lists policies, enforced and staged, in order of tier and evaluation.
func (v *Inventory) Policies(w Wanted) []Policy {
	list := []Policy{}
	subjects := map[*policy.Policy][]Ref{}
	for _, ep := range v.snapshot.Endpoints {
		if !v.here(w, ep) {
			continue
		}
		s := v.explain.Subject(ep)
		for _, p := range s.Enforced {
			subjects[p.Policy] = append(subjects[p.Policy], podRef(ep))
		}
		for _, p := range s.Pending {
			if p.Policy.Staged != policy.Enforced { // the others are among the enforced, or were
				subjects[p.Policy] = append(subjects[p.Policy], podRef(ep))
			}
		}
	}
	tiers := map[string]*policy.Tier{}
	for i := range v.snapshot.Tiers {
		tiers[v.snapshot.Tiers[i].Name] = &v.snapshot.Tiers[i]
	}
	for _, p := range v.snapshot.Policies {
		if !w.takes(p.Namespace, p.Name) {
			continue
		}
		row := Policy{
			Ref: ref(p.Key()), Staged: p.Staged, Tier: p.Tier, Order: order(p.Order), Ingress: p.AppliesIngress, Egress: p.AppliesEgress,
			Selector: text(p.Selector), NamespaceSelector: text(p.NamespaceSelector), ServiceAccountSelector: text(p.ServiceAccountSelector),
			IngressRules: p.Ingress, EgressRules: p.Egress, Subjects: subjects[p],
		}
		if t := tiers[p.Tier]; t != nil {
			row.TierOrder = order(t.Order)
		}
		list = append(list, row)
	}
	last := math.Inf(1)
	num := func(o *float64) float64 {
		if o == nil {
			return last
		}
		return *o
	}
	slices.SortStableFunc(list, func(a, b Policy) int {
		return cmp.Or(cmp.Compare(num(a.TierOrder), num(b.TierOrder)), cmp.Compare(a.Tier, b.Tier),
			cmp.Compare(num(a.Order), num(b.Order)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind))
	})
	return list
}

// Accounts lists service accounts by namespace and name: those that pods here have, or
// with Everywhere or a Name also others.
func (v *Inventory) Accounts(w Wanted) []Account {
	objects := map[Ref]*policy.ServiceAccount{}
	pods := map[Ref][]Ref{}
	for _, ep := range v.snapshot.Endpoints {
		if ep.ServiceAccount != "" && w.takes(ep.Namespace, ep.ServiceAccount) && v.here(w, ep) {
			r := accountRef(ep.Namespace, ep.ServiceAccount)
			pods[r] = append(pods[r], podRef(ep))
		}
	}
	for _, sa := range v.snapshot.ServiceAccounts {
		r := accountRef(sa.Namespace, sa.Name)
		if !w.takes(sa.Namespace, sa.Name) {
			continue
		}
		objects[r] = sa
		if _, ok := pods[r]; !ok && (w.Everywhere || w.Name != "") {
			pods[r] = nil
		}
	}
	list := []Account{}
	for r, of := range pods {
		a := Account{Ref: r, Missing: objects[r] == nil, Pods: of}
		if sa := objects[r]; sa != nil {
			a.Labels = sa.Labels
		}
		for _, u := range v.explain.AccountUses(r.Namespace, r.Name, v.snapshot.Policies) {
			a.Uses = append(a.Uses, use(u))
		}
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b Account) int { return byName(a.Ref, b.Ref) })
	return list
}

func use(u explain.AccountUse) Use {
	as := Use{Policy: ref(u.Policy.Key()), Tier: u.Policy.Tier, As: "subject", By: "label"}
	if u.ByName {
		as.By = "name"
	}
	if !u.Subject {
		as.As, as.Direction, as.Rule, as.Action = u.Side, u.Direction.String(), &u.Rule.Index, u.Rule.Action.String()
	}
	return as
}

// Sets lists network sets by namespace and name, global ones first.
func (v *Inventory) Sets(w Wanted) []Set {
	list := []Set{}
	for _, s := range v.snapshot.NetworkSets {
		if w.takes(s.Namespace, s.Name) {
			list = append(list, Set{Ref: Ref{s.Kind, s.Namespace, s.Name}, Labels: s.Labels, Prefixes: s.Nets})
		}
	}
	slices.SortFunc(list, func(a, b Set) int { return byName(a.Ref, b.Ref) })
	return list
}

func ref(k policy.Key) Ref                  { return Ref(k) }
func podRef(ep *policy.Endpoint) Ref        { return Ref{policy.PodKind, ep.Namespace, ep.Name} }
func accountRef(namespace, name string) Ref { return Ref{policy.ServiceAccountKind, namespace, name} }

func byName(a, b Ref) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind))
}

// order is nil for one that is not stated.
func order(o float64) *float64 {
	if math.IsInf(o, 0) || math.IsNaN(o) {
		return nil
	}
	return &o
}

func text(s *selector.Selector) string {
	if s == nil {
		return ""
	}
	return s.String()
}
