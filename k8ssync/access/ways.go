package access

// group is a resource without verb.
type group struct{ group, resource string }

// workloads are what pods are made from, and pods.
var workloads = []group{
	{"", "pods"}, {"", "replicationcontrollers"}, {"apps", "deployments"}, {"apps", "replicasets"}, {"apps", "statefulsets"},
	{"apps", "daemonsets"}, {"apps", "controllerrevisions"}, {"batch", "jobs"}, {"batch", "cronjobs"},
}

// list gathers ways.
type list []Way

// add adds ways that differ in their rights, unless there is no place to go them.
func (l *list) add(side, what string, places []Place, alternatives ...[]Right) {
	if len(places) == 0 {
		return
	}
	for _, rights := range alternatives {
		*l = append(*l, Way{What: what, Side: side, Rights: rights, Places: places})
	}
}

// on makes an alternative of each verb.
func (g group) on(namespace, name string, verbs ...string) (out [][]Right) {
	for _, verb := range verbs {
		out = append(out, []Right{{verb, g.group, g.resource, namespace, name}})
	}
	return out
}

// create lists what it takes to make an object whose name one chooses. A right that is
// limited to names does for a server-side apply, whose request has the name.
func (g group) create(namespace string) [][]Right {
	r := Right{"create", g.group, g.resource, namespace, ""}
	named, patch := r, r
	named.Name, patch.Verb, patch.Name = some, "patch", some
	ways := [][]Right{{r}, {named, patch}}
	switch g.resource {
	case "services", "endpoints", "roles", "clusterroles", "rolebindings", "clusterrolebindings":
		// Of these a PUT makes the object too.
		put := named
		put.Verb = "update"
		ways = append(ways, []Right{named, put})
	}
	return ways
}

// write is create, or to change one of whatever name.
func (g group) write(namespace string) [][]Right {
	return append(g.create(namespace), g.on(namespace, some, "update", "patch")...)
}

// with adds rights to every alternative.
func with(alternatives [][]Right, rights ...Right) (out [][]Right) {
	for _, a := range alternatives {
		out = append(out, append(append([]Right{}, a...), rights...))
	}
	return out
}

// runs are the ways to run a pod with the account that a place names.
func (l *list) runs(o *Objects, side, what string, places []Place, also ...Right) {
	for _, w := range workloads {
		alternatives := w.write(here)
		if w.resource == "pods" || w.resource == "controllerrevisions" { // those that exist cannot change their account
			alternatives = w.create(here)
		}
		l.using(o, side, what, places, with(alternatives, also...))
	}
}

// using adds ways that take the right to use the account of a place, if the guard is on.
// The account default is free.
func (l *list) using(o *Objects, side, what string, places []Place, alternatives [][]Right) {
	free, guarded := places, []Place(nil)
	if o.UseGuard.On() {
		free = nil
		for _, p := range places {
			if p.Name == "default" {
				free = append(free, p)
			} else {
				guarded = append(guarded, p)
			}
		}
	}
	l.add(side, what, free, alternatives...)
	l.add(side, what, guarded, with(alternatives, Right{"use", "", "serviceaccounts", here, here})...)
}

// enters are the ways into pods that exist, by account.
func (l *list) enters(o *Objects, side, what string, accounts []Place) {
	places := spaces(accounts)
	// The API server takes a WebSocket's request for a read (until Kubernetes 1.35).
	for _, sub := range []string{"pods/exec", "pods/attach"} {
		l.add(side, what, places, group{"", sub}.on(here, some, "create", "get")...)
	}
	l.using(o, side, what, accounts, group{"", "pods/ephemeralcontainers"}.on(here, some, "update", "patch"))
	if len(places) > 0 {
		l.add(side, what, cluster, group{"", "nodes/proxy"}.on("", some, "create", "get")...)
	}
}

// reaches are the ways to a pod's ports past the network, by namespace.
func (l *list) reaches(side, what string, places []Place) {
	l.add(side, what, places, group{"", "pods/portforward"}.on(here, some, "create", "get")...)
	for _, sub := range []string{"pods/proxy", "services/proxy"} {
		l.add(side, what, places, group{"", sub}.on(here, some, "create", "get", "update", "patch", "delete")...)
	}
}

// labelNamespace are the ways to a namespace's labels: its own requests and those of
// its parts are in the namespace.
func labelNamespace() (out [][]Right) {
	for _, r := range []string{"namespaces", "namespaces/status", "namespaces/finalize"} {
		verbs := []string{"update", "patch"}
		if r == "namespaces/finalize" {
			verbs = verbs[:1]
		}
		out = append(out, group{"", r}.on(here, here, verbs...)...)
	}
	return out
}

var accounts = group{"", "serviceaccounts"}

// cluster is the one place of what is in no namespace.
var cluster = []Place{{}}

// guards are the ways to take away a guard that is on.
func (l *list) guards(o *Objects) {
	for _, g := range []struct {
		Guard
		name, what string
	}{
		{o.UseGuard, useGuard, "take away the guard of service accounts, and then whoever runs pods may use the account"},
		{o.TierGuard, tierGuard, "take away the guard of tiers, and then whoever writes policy may write it in any tier"},
	} {
		if !g.On() {
			continue
		}
		for _, r := range []string{"validatingadmissionpolicies", "validatingadmissionpolicybindings"} {
			kind := group{"admissionregistration.k8s.io", r}
			l.add("", g.what, []Place{{Name: g.name}}, kind.on("", here, "update", "patch", "delete")...)
			l.add("", g.what, []Place{{Name: g.name}}, kind.on("", "", "deletecollection")...)
		}
	}
	for _, r := range []string{"mutatingwebhookconfigurations", "mutatingadmissionpolicybindings"} {
		l.add("", "change what others write, on its way", cluster, group{"admissionregistration.k8s.io", r}.write("")...)
	}
}
