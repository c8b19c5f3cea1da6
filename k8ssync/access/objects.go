package access

import (
	"fmt"
	"slices"
	"strings"

	rbac "k8s.io/api/rbac/v1"

	"github.com/postern-project/postern/filter/policy"
)

// Objects are those of a cluster that accesses and rights follow from. They are only
// read.
type Objects struct {
	Roles               []rbac.Role
	ClusterRoles        []rbac.ClusterRole
	RoleBindings        []rbac.RoleBinding
	ClusterRoleBindings []rbac.ClusterRoleBinding

	// Snapshot holds policies, tiers, namespaces and service accounts. Pods are not
	// needed.
	Snapshot *policy.Snapshot
	// Stored: Calico's kinds are served as crd.projectcalico.org only.
	Stored bool

	// UseGuard asks for the verb use on a service account of whoever runs pods with
	// it, and TierGuard for rights in a tier of whoever writes policy.
	UseGuard, TierGuard Guard
}

// The names of the guards that deploy/guards has.
const (
	useGuard  = "service-accounts.postern"
	tierGuard = "tiers.postern"
)

// Guard is what is known of a ValidatingAdmissionPolicy of deploy/guards.
type Guard struct {
	// Policy: it is there, and fails closed. Bound: a binding to it denies, for all
	// objects.
	Policy, Bound bool
	// Doubt tells why a binding that is there does not count, or the policy.
	Doubt string
}

// On tells whether the guard refuses what it is there for.
func (g Guard) On() bool { return g.Policy && g.Bound }

// absent words what is wrong with a guard that is not on.
func (g Guard) absent() string {
	switch {
	case g.Doubt != "":
		return g.Doubt
	case g.Bound:
		return "it is bound, and there is no such ValidatingAdmissionPolicy"
	case g.Policy:
		return "it has no binding"
	}
	return "it is not there"
}

// warnings tell of guards that are not on.
func (o *Objects) warnings() (out []string) {
	if !o.UseGuard.On() {
		out = append(out, fmt.Sprintf("guard %s: %s; whoever runs pods may give them any account of the namespace", useGuard, o.UseGuard.absent()))
	}
	if !o.TierGuard.On() {
		out = append(out, fmt.Sprintf("guard %s: %s; whoever writes policy may write it in any tier", tierGuard, o.TierGuard.absent()))
	}
	return out
}

// calico is the API group of Calico's kinds.
func (o *Objects) calico() string {
	if o.Stored {
		return "crd.projectcalico.org"
	}
	return calicoGroup
}

const calicoGroup = "projectcalico.org"

// Subject is a User, a Group or a ServiceAccount.
type Subject struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// String is "Kind name", or "ServiceAccount namespace/name".
func (s Subject) String() string {
	if s.Namespace != "" {
		return s.Kind + " " + s.Namespace + "/" + s.Name
	}
	return s.Kind + " " + s.Name
}

// groups are those that everybody of the kind is in.
func (s Subject) groups() []Subject {
	authenticated := Subject{Kind: rbac.GroupKind, Name: "system:authenticated"}
	switch {
	case s.Kind == rbac.ServiceAccountKind:
		return []Subject{authenticated, {Kind: rbac.GroupKind, Name: "system:serviceaccounts"}, {Kind: rbac.GroupKind, Name: "system:serviceaccounts:" + s.Namespace}}
	case s == authenticated, s.Name == "system:anonymous", s.Name == "system:unauthenticated":
		return nil
	}
	return []Subject{authenticated}
}

// exempt tells whether the guard of service accounts asks nothing of the subject.
func (s Subject) exempt() bool {
	return s == Subject{Kind: rbac.UserKind, Name: "system:kube-controller-manager"} || s == Subject{Kind: rbac.GroupKind, Name: "system:nodes"} ||
		s.Kind == rbac.ServiceAccountKind && s.Namespace == "kube-system"
}

// grant is a list of rules that a subject has, in a namespace or everywhere.
type grant struct {
	namespace string // empty: everywhere
	rules     []rbac.PolicyRule
	through   string
	builtIn   bool // the API server makes the binding
}

// builtIn tells whether the API server makes a binding, and restores it.
func builtIn(labels map[string]string) bool {
	return labels["kubernetes.io/bootstrapping"] == "rbac-defaults"
}

// ofCluster tells whether the subject is a part of Kubernetes itself.
func (s Subject) ofCluster() bool {
	return s.Kind == rbac.ServiceAccountKind && s.Namespace == "kube-system" || s.Kind == rbac.UserKind && strings.HasPrefix(s.Name, "system:kube-")
}

// grants collects the rules of every subject. A binding to a role that is not there
// gives nothing, as in the API server.
func (o *Objects) grants() map[Subject][]grant {
	cluster := map[string][]rbac.PolicyRule{}
	for i := range o.ClusterRoles {
		cluster[o.ClusterRoles[i].Name] = o.ClusterRoles[i].Rules
	}
	local := map[[2]string][]rbac.PolicyRule{}
	for i := range o.Roles {
		local[[2]string{o.Roles[i].Namespace, o.Roles[i].Name}] = o.Roles[i].Rules
	}
	of := map[Subject][]grant{}
	add := func(subjects []rbac.Subject, namespace string, g grant) {
		for _, s := range subjects {
			who := subject(s, namespace)
			of[who] = append(of[who], g)
		}
	}
	for i := range o.ClusterRoleBindings {
		b := &o.ClusterRoleBindings[i]
		add(b.Subjects, "", grant{"", cluster[b.RoleRef.Name], "ClusterRoleBinding " + b.Name + " of ClusterRole " + b.RoleRef.Name, builtIn(b.Labels)})
	}
	for i := range o.RoleBindings {
		b := &o.RoleBindings[i]
		rules := cluster[b.RoleRef.Name]
		if b.RoleRef.Kind == "Role" {
			rules = local[[2]string{b.Namespace, b.RoleRef.Name}]
		}
		add(b.Subjects, b.Namespace, grant{b.Namespace, rules, "RoleBinding " + b.Namespace + "/" + b.Name + " of " + b.RoleRef.Kind + " " + b.RoleRef.Name, builtIn(b.Labels)})
	}
	return of
}

// subject names a binding's subject. A service account may be named as the user that
// the API server makes of it.
func subject(s rbac.Subject, namespace string) Subject {
	if s.Kind == rbac.ServiceAccountKind {
		if s.Namespace != "" {
			namespace = s.Namespace
		}
		return Subject{s.Kind, namespace, s.Name}
	}
	if of, ok := strings.CutPrefix(s.Name, "system:serviceaccount:"); ok && s.Kind == rbac.UserKind {
		if ns, name, ok := strings.Cut(of, ":"); ok {
			return Subject{rbac.ServiceAccountKind, ns, name}
		}
	}
	return Subject{Kind: s.Kind, Name: s.Name}
}

// scope is where a rule gives a verb on a resource.
type scope struct {
	namespace string   // empty: everywhere
	names     []string // nil: every name, and requests without one
	through   string
	builtIn   bool
	// inherited: by a group that everybody of the subject's kind is in.
	inherited bool
}

// covers tells whether a right is within the scope. A rule with names gives nothing
// where the right names none: a request that creates has no name.
func (s *scope) covers(namespace, name string) bool {
	return (s.namespace == "" || s.namespace == namespace) && (s.names == nil || name != "" && slices.Contains(s.names, name))
}

// scopes finds where grants give a right, whatever the place that it names.
func scopes(grants []grant, r Right, inherited bool) (out []scope) {
	for _, g := range grants {
		for i := range g.rules {
			rule := &g.rules[i]
			if !has(rule.Verbs, r.Verb) || !has(rule.APIGroups, r.Group) || !hasResource(rule.Resources, r.Resource) {
				continue
			}
			s := scope{namespace: g.namespace, through: g.through, builtIn: g.builtIn, inherited: inherited}
			if len(rule.ResourceNames) > 0 {
				s.names = rule.ResourceNames
			}
			out = append(out, s)
		}
	}
	return out
}

func has(list []string, one string) bool {
	return slices.Contains(list, "*") || slices.Contains(list, one)
}

// hasResource knows "*/sub", which is that part of every resource.
func hasResource(list []string, resource string) bool {
	if has(list, resource) {
		return true
	}
	_, sub, ok := strings.Cut(resource, "/")
	return ok && slices.Contains(list, "*/"+sub)
}
