package access

import (
	"cmp"
	"slices"
	"strings"

	rbac "k8s.io/api/rbac/v1"
)

// Objects are those of a cluster that rights follow from. They are only read.
type Objects struct {
	Roles               []rbac.Role
	ClusterRoles        []rbac.ClusterRole
	RoleBindings        []rbac.RoleBinding
	ClusterRoleBindings []rbac.ClusterRoleBinding
	// UseGuard: the guard service-accounts.postern is bound, so that running a pod
	// with an account needs the verb use on it too.
	UseGuard bool
}

// Account is a service account.
type Account struct{ Namespace, Name string }

// Action is one thing that leads to the access. Several rights in All are needed
// together.
type Action struct {
	What string
	All  []Right
}

// Right is a verb on a resource, as a SubjectAccessReview asks for it. An empty
// Namespace is the cluster.
type Right struct {
	Verb, Group, Resource, Namespace, Name string
}

// String is "verb resource.group/name in namespace".
func (r Right) String() string {
	s := r.Verb + " " + r.Resource
	if r.Group != "" {
		s += "." + r.Group
	}
	if r.Name != "" {
		s += "/" + r.Name
	}
	if r.Namespace != "" {
		s += " in " + r.Namespace
	}
	return s
}

// Actions are the ways to the access of an account.
func Actions(a Account, useGuard bool) []Action {
	in := func(verb, group, resource, name string) Right { return Right{verb, group, resource, a.Namespace, name} }
	var all []Action
	add := func(what string, rights ...Right) { all = append(all, Action{what, rights}) }
	for _, w := range []struct{ group, resource string }{
		{"", "pods"}, {"", "replicationcontrollers"}, {"apps", "deployments"}, {"apps", "replicasets"}, {"apps", "statefulsets"},
		{"apps", "daemonsets"}, {"batch", "jobs"}, {"batch", "cronjobs"},
	} {
		// Pods that exist cannot change their account; what pods are made from can.
		verbs := []string{"create", "update", "patch"}
		if w.resource == "pods" {
			verbs = verbs[:1]
		}
		for _, verb := range verbs {
			rights := []Right{in(verb, w.group, w.resource, "")}
			if useGuard && a.Name != "default" {
				rights = append(rights, in("use", "", "serviceaccounts", a.Name))
			}
			add("run a pod with the account", rights...)
		}
	}
	add("run commands in a pod that has the account", in("create", "", "pods/exec", ""))
	add("run commands in a pod that has the account", in("create", "", "pods/attach", ""))
	add("add a container to a pod that has the account", in("patch", "", "pods/ephemeralcontainers", ""))
	add("create the account with labels", in("create", "", "serviceaccounts", ""))
	for _, verb := range []string{"update", "patch"} {
		add("label the account", in(verb, "", "serviceaccounts", a.Name))
		add("label the namespace", Right{verb, "", "namespaces", "", a.Namespace})
	}
	for _, verb := range []string{"create", "update", "patch"} {
		add("write network policy in the namespace", in(verb, "projectcalico.org", "networkpolicies", ""))
		add("write network policy of the cluster", Right{verb, "projectcalico.org", "globalnetworkpolicies", "", ""})
		add("write network policy in the namespace", in(verb, "networking.k8s.io", "networkpolicies", ""))
	}
	for _, r := range []string{"roles", "clusterroles"} {
		namespace := a.Namespace
		if r == "clusterroles" {
			namespace = ""
		}
		add("give itself a right", Right{"escalate", rbac.GroupName, r, namespace, ""}, Right{"update", rbac.GroupName, r, namespace, ""})
		add("give itself a right", Right{"bind", rbac.GroupName, r, namespace, ""}, in("create", rbac.GroupName, "rolebindings", ""))
	}
	for _, r := range []string{"users", "groups"} {
		add("act as somebody else", Right{"impersonate", "", r, "", ""})
	}
	return all
}

// Found is that a subject may do what leads to the access.
type Found struct {
	Subject Subject  `json:"subject"`
	What    string   `json:"what"`
	Rights  []string `json:"rights"` // that it has for this
	Through []string `json:"through"`
}

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

// grant is a list of rules that a subject has, in a namespace or everywhere.
type grant struct {
	namespace string // empty: everywhere
	rules     []rbac.PolicyRule
	through   string
}

// Find tells who could do each of the actions, by subjects as bindings name them: the
// members of a group are not known here. The order is that of subjects, then actions.
func Find(o Objects, actions []Action) []Found {
	grants := o.grants()
	var found []Found
	for subject, of := range grants {
		for _, action := range actions {
			f := Found{Subject: subject, What: action.What}
			for _, right := range action.All {
				through := ""
				for _, g := range of {
					if g.gives(right) {
						through = g.through
						break
					}
				}
				if through == "" {
					f.Rights = nil
					break
				}
				f.Rights = append(f.Rights, right.String())
				if !slices.Contains(f.Through, through) {
					f.Through = append(f.Through, through)
				}
			}
			if f.Rights != nil {
				found = append(found, f)
			}
		}
	}
	slices.SortFunc(found, func(a, b Found) int {
		return cmp.Or(cmp.Compare(a.Subject.String(), b.Subject.String()), cmp.Compare(a.What, b.What), slices.Compare(a.Rights, b.Rights))
	})
	return found
}

// grants collects the rules of every subject. A binding to a role that is not there
// gives nothing, as in the API server.
func (o Objects) grants() map[Subject][]grant {
	cluster := map[string][]rbac.PolicyRule{}
	for i := range o.ClusterRoles {
		cluster[o.ClusterRoles[i].Name] = o.ClusterRoles[i].Rules
	}
	local := map[[2]string][]rbac.PolicyRule{}
	for i := range o.Roles {
		local[[2]string{o.Roles[i].Namespace, o.Roles[i].Name}] = o.Roles[i].Rules
	}
	of := map[Subject][]grant{}
	add := func(subjects []rbac.Subject, g grant) {
		for _, s := range subjects {
			who := Subject{Kind: s.Kind, Name: s.Name}
			if s.Kind == rbac.ServiceAccountKind {
				who.Namespace = s.Namespace
			}
			of[who] = append(of[who], g)
		}
	}
	for i := range o.ClusterRoleBindings {
		b := &o.ClusterRoleBindings[i]
		add(b.Subjects, grant{"", cluster[b.RoleRef.Name], "ClusterRoleBinding " + b.Name + " of ClusterRole " + b.RoleRef.Name})
	}
	for i := range o.RoleBindings {
		b := &o.RoleBindings[i]
		rules := cluster[b.RoleRef.Name]
		if b.RoleRef.Kind == "Role" {
			rules = local[[2]string{b.Namespace, b.RoleRef.Name}]
		}
		subjects := slices.Clone(b.Subjects)
		for i := range subjects {
			if subjects[i].Kind == rbac.ServiceAccountKind && subjects[i].Namespace == "" {
				subjects[i].Namespace = b.Namespace
			}
		}
		add(subjects, grant{b.Namespace, rules, "RoleBinding " + b.Namespace + "/" + b.Name + " of " + b.RoleRef.Kind + " " + b.RoleRef.Name})
	}
	return of
}

// gives tells whether a rule of the grant allows the right. A rule with names gives
// nothing where the right names none: a request that creates has no name.
func (g grant) gives(r Right) bool {
	if g.namespace != "" && g.namespace != r.Namespace {
		return false
	}
	for i := range g.rules {
		rule := &g.rules[i]
		if has(rule.Verbs, r.Verb) && has(rule.APIGroups, r.Group) && hasResource(rule.Resources, r.Resource) &&
			(len(rule.ResourceNames) == 0 || r.Name != "" && slices.Contains(rule.ResourceNames, r.Name)) {
			return true
		}
	}
	return false
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
