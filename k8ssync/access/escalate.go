package access

import (
	"slices"

	rbac "k8s.io/api/rbac/v1"
)

// grants are the ways to give oneself a right that is among those of the ways.
func (l *list) grants(o *Objects, ways []Way) {
	const what = "give itself such a right"
	clusterRoles, roles, namespaces := o.useful(ways)
	roleKind, clusterRoleKind := group{rbac.GroupName, "roles"}, group{rbac.GroupName, "clusterroles"}
	local, global := group{rbac.GroupName, "rolebindings"}, group{rbac.GroupName, "clusterrolebindings"}
	inAll := product(namespaces, clusterRoles)

	bind := Right{"bind", rbac.GroupName, "clusterroles", "", role}
	l.add("", what, inAll, with(local.create(here), bind)...)
	l.add("", what, product([]string{""}, clusterRoles), with(global.create(""), bind)...)
	l.add("", what, roles, with(local.create(here), Right{"bind", rbac.GroupName, "roles", here, role})...)
	var bound, boundLocally, boundEverywhere []Place
	for i := range o.RoleBindings {
		b := &o.RoleBindings[i]
		p := Place{b.Namespace, b.Name, b.RoleRef.Name}
		if b.RoleRef.Kind == "Role" {
			boundLocally = append(boundLocally, p)
		} else {
			bound = append(bound, p)
		}
	}
	for i := range o.ClusterRoleBindings {
		boundEverywhere = append(boundEverywhere, Place{"", o.ClusterRoleBindings[i].Name, o.ClusterRoleBindings[i].RoleRef.Name})
	}
	l.add("", what, known(bound, inAll), with(local.on(here, here, "update", "patch"), bind)...)
	l.add("", what, known(boundLocally, roles), with(local.on(here, here, "update", "patch"), Right{"bind", rbac.GroupName, "roles", here, role})...)
	l.add("", what, known(boundEverywhere, product([]string{""}, clusterRoles)), with(global.on("", here, "update", "patch"), bind)...)

	// Whoever may escalate a role that is bound to it needs no binding; a new
	// ClusterRole may be aggregated into one that is.
	escalate := Right{"escalate", rbac.GroupName, "clusterroles", "", some}
	l.add("", what, cluster, with(clusterRoleKind.write(""), escalate)...)
	in := product(namespaces, []string{""})
	escalate = Right{"escalate", rbac.GroupName, "roles", here, some}
	l.add("", what, in, with(roleKind.on(here, some, "update", "patch"), escalate)...)
	for _, a := range roleKind.create(here) {
		l.add("", what, in, with(local.create(here), append(a, escalate, Right{"bind", rbac.GroupName, "roles", here, some})...)...)
	}
}

// useful finds the roles that give any right of the ways, and the namespaces that
// these are about.
func (o *Objects) useful(ways []Way) (clusterRoles []string, roles []Place, namespaces []string) {
	seen := map[string]bool{}
	for i := range ways {
		for _, p := range ways[i].Places {
			if p.Namespace != "" && p.Namespace != newNamespace && !seen[p.Namespace] {
				seen[p.Namespace] = true
				namespaces = append(namespaces, p.Namespace)
			}
		}
	}
	gives := func(rules []rbac.PolicyRule) bool {
		g := []grant{{rules: rules}}
		known := map[Right]bool{}
		for i := range ways {
			for _, r := range ways[i].Rights {
				r.Namespace, r.Name = "", ""
				does, ok := known[r]
				if !ok {
					does = len(scopes(g, r, false)) > 0
					known[r] = does
				}
				if does {
					return true
				}
			}
		}
		return false
	}
	for i := range o.ClusterRoles {
		if gives(o.ClusterRoles[i].Rules) {
			clusterRoles = append(clusterRoles, o.ClusterRoles[i].Name)
		}
	}
	for i := range o.Roles {
		if r := &o.Roles[i]; seen[r.Namespace] && gives(r.Rules) {
			roles = append(roles, Place{r.Namespace, "", r.Name})
		}
	}
	return clusterRoles, roles, namespaces
}

func product(namespaces, roles []string) (out []Place) {
	for _, ns := range namespaces {
		for _, r := range roles {
			out = append(out, Place{ns, "", r})
		}
	}
	return out
}

// known keeps the bindings whose role is among others, in their namespace.
func known(bindings, roles []Place) (out []Place) {
	is := map[Place]bool{}
	for _, p := range roles {
		is[p] = true
	}
	for _, b := range bindings {
		if is[Place{b.Namespace, "", b.Role}] {
			out = append(out, b)
		}
	}
	return out
}

// becomes are the ways to act as subjects.
func (l *list) becomes(o *Objects, subjects []Subject) {
	var users, groups, robots []Place
	for _, s := range subjects {
		switch s.Kind {
		case rbac.UserKind:
			users = append(users, Place{Name: s.Name})
		case rbac.GroupKind:
			groups = append(groups, Place{Name: s.Name})
		case rbac.ServiceAccountKind:
			robots = append(robots, Place{Namespace: s.Namespace, Name: s.Name})
		}
	}
	l.add("", "act as a user of this list", users, []Right{{"impersonate", "", "users", "", here}})
	// Groups are asked for beside somebody who is in them.
	asGroup := Right{"impersonate", "", "groups", "", here}
	l.add("", "act as a group of this list", groups, []Right{asGroup, {"impersonate", "", "users", "", some}})
	const what = "act as a service account of this list"
	l.add("", what, robots, []Right{{"impersonate", "", "serviceaccounts", here, here}}, []Right{{"create", "", "serviceaccounts/token", here, here}})
	l.runs(o, "", what+", whose token its pods have", robots)
	l.enters(o, "", what+", whose token its pods have", robots)
	// A controller puts the token into a Secret that asks for it.
	for _, verb := range []string{"get", "list", "watch"} {
		l.add("", what+", by a Secret for its token", spaces(robots), with(group{"", "secrets"}.create(here), Right{verb, "", "secrets", here, some})...)
	}
}

// Obtain finds who could go the ways, give itself a right to, or act as one who could.
// Of a subject that may do everything it tells just that.
func Obtain(o *Objects, ways []Way) []Found {
	all := list(slices.Clone(ways))
	all.guards(o)
	all.grants(o, all)
	grants := o.grants()
	everything := map[Subject]bool{}
	var found []Found
	for subject, own := range grants {
		if through := mayEverything(own); through != "" {
			everything[subject] = true
			found = append(found, Found{Subject: subject, What: "do everything", Rights: []string{"* *.*"}, Through: []string{through}})
		}
	}
	find := func(ways []Way) (round []Found) {
		return slices.DeleteFunc(minimal(Find(o, ways)), func(f Found) bool { return everything[f.Subject] })
	}
	// Who could act as one of those found is found too, and so on.
	known := map[Subject]bool{}
	round := append(find(all), found...)
	found = round
	for {
		var subjects []Subject
		for i := range round {
			if s := round[i].Subject; !known[s] {
				known[s] = true
				subjects = append(subjects, s)
			}
		}
		if len(subjects) == 0 {
			break
		}
		var as list
		as.becomes(o, subjects)
		round = find(as)
		found = append(found, round...)
	}
	sortFound(found)
	return found
}

// mayEverything gives the binding by which that is so.
func mayEverything(own []grant) string {
	for _, g := range own {
		for i := range g.rules {
			r := &g.rules[i]
			if g.namespace == "" && len(r.ResourceNames) == 0 && slices.Contains(r.Verbs, "*") && slices.Contains(r.APIGroups, "*") && slices.Contains(r.Resources, "*") {
				return g.through
			}
		}
	}
	return ""
}
