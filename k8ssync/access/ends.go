package access

import (
	"slices"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// Rule is a rule of a policy, with the direction whose list it is in.
type Rule struct {
	Direction flow.Direction
	policy.Rule
}

// sides gives the end that the policy protects, and the other.
func (r *Rule) sides(p *policy.Policy) (protects, other side) {
	if r.Direction == flow.Egress {
		return protected(p, "source", &r.Source), peer(p, "destination", &r.Destination)
	}
	return protected(p, "destination", &r.Destination), peer(p, "source", &r.Source)
}

// ends finds the ways to be at an end of a rule, or not to be there.
type ends struct {
	o    *Objects
	w    *world
	list *list
}

// accounts lists the accounts of a namespace. Where manifests show none, those that
// the side names are taken to be there.
func (e *ends) accounts(s *side, namespace string) []string {
	names := e.w.of(namespace)
	if slices.Contains(e.w.assumed, namespace) {
		for _, one := range s.all {
			names = append(names, one.Values(serviceAccountLabel)...)
		}
		slices.Sort(names)
		names = slices.Compact(names)
	}
	return names
}

// matching are the accounts whose pods may be at the side now, and namespaces theirs.
func (e *ends) matching(s *side) (accounts []Place) {
	for _, ns := range e.w.in(s) {
		for _, a := range e.accounts(s, ns) {
			if match, _ := s.could(e.w.now(ns, a)); match {
				accounts = append(accounts, Place{Namespace: ns, Name: a})
			}
		}
	}
	return accounts
}

func (e *ends) namespaces(s *side) []Place {
	places := spaces(e.matching(s))
	if len(places) == 0 && s.namespace != "" {
		places = []Place{{Namespace: s.namespace}}
	}
	return places
}

// spaces are the namespaces of places, each once.
func spaces(places []Place) (out []Place) {
	for _, p := range places {
		if p = (Place{Namespace: p.Namespace}); !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// changes are what would make an object match that does not, or not match that does.
type changes struct{ pods, label, remove, namespaces, both []Place }

// change looks which of the settings of an account's pods decide whether they match:
// one that somebody has to set, since without it they do not.
func (c *changes) change(s *side, v view, place Place, want func(match, not bool) bool) {
	relabelled, removed, moved := v, v, v
	relabelled.accountSet = true
	removed.accountGone = true
	moved.setting = true
	could := func(v view) bool { return want(s.could(v)) }
	namespace := Place{Namespace: place.Namespace, Name: place.Namespace}
	any := false
	if s.reads(accountPrefix) && could(relabelled) {
		c.label, any = append(c.label, place), true
	}
	if s.reads(accountPrefix, accountPrefix+nameLabel) && could(removed) {
		c.remove, any = append(c.remove, place), true
	}
	if s.reads(namespacePrefix) && could(moved) {
		if any = true; !slices.Contains(c.namespaces, namespace) {
			c.namespaces = append(c.namespaces, namespace)
		}
	}
	moved.accountSet = true
	if !any && could(moved) {
		c.both = append(c.both, place)
	}
}

func (l *list) changes(s *side, c changes, so string) {
	l.add(s.name, "label a pod "+so+" it", c.pods, group{"", "pods"}.on(here, some, "update", "patch")...)
	l.add(s.name, "label a pod "+so+" it", c.pods, group{"", "pods/status"}.on(here, some, "update", "patch")...)
	l.add(s.name, "label the account "+so+" its pods", c.label, accounts.on(here, here, "update", "patch")...)
	l.add(s.name, "remove the account and its labels "+so+" its pods", c.remove, accounts.on(here, here, "delete")...)
	l.add(s.name, "remove the account and its labels "+so+" its pods", c.remove, accounts.on(here, "", "deletecollection")...)
	l.add(s.name, "label the namespace "+so+" its pods", c.namespaces, labelNamespace()...)
	for _, a := range accounts.on(here, here, "update", "patch") {
		for _, verb := range []string{"update", "patch"} {
			l.add(s.name, "label the namespace and the account "+so+" its pods", c.both, with([][]Right{a}, Right{verb, "", "namespaces", here, inNamespace})...)
		}
	}
}

// join adds the ways to be at a side.
func (e *ends) join(s *side, opens bool) {
	if !s.identity {
		return
	}
	l, so := e.list, "so that the rule matches"
	runs := e.matching(s)
	l.runs(e.o, s.name, "run a pod that the rule matches", runs)
	if opens {
		l.enters(e.o, s.name, "get into a pod that the rule matches", runs)
	}
	l.add(s.name, "give a pod that the rule matches another address", spaces(runs), group{"", "pods/status"}.on(here, some, "update", "patch")...)
	var c changes
	var makes, makesIn []Place
	for _, ns := range e.w.in(s) {
		for _, a := range e.accounts(s, ns) {
			v, place := e.w.now(ns, a), Place{Namespace: ns, Name: a}
			match, not := s.could(v)
			switch {
			case !match:
				c.change(s, v, place, func(match, _ bool) bool { return match })
			case not:
				c.pods = append(c.pods, Place{Namespace: ns})
			}
		}
		if !s.reads(accountPrefix, accountPrefix+nameLabel, serviceAccountLabel) {
			continue // any account will do
		}
		exists := func(name string) bool { return slices.Contains(e.accounts(s, ns), name) }
		for _, a := range newNames(s, exists, serviceAccountLabel, accountPrefix+nameLabel) {
			v := e.w.now(ns, a.name)
			v.account, v.accountSet = a.named, true
			place := Place{Namespace: ns, Name: a.name}
			if match, _ := s.could(v); match {
				makes = append(makes, place)
			} else if v.setting = true; !slices.Contains(c.namespaces, Place{Namespace: ns, Name: ns}) {
				if match, _ := s.could(v); match {
					makesIn = append(makesIn, place)
				}
			}
		}
	}
	c.pods = spaces(c.pods)
	l.changes(s, c, so)
	l.makes(s, makes)
	l.makes(s, makesIn, "update", "patch")
	if s.namespace == "" {
		e.newNamespace(s)
	}
}

// makes adds the ways to make accounts: of the name that a place has, or of any. With
// verbs, the namespace has to be labelled too.
func (l *list) makes(s *side, places []Place, label ...string) {
	what := "make an account whose pods the rule matches"
	if len(label) > 0 {
		what = "make an account, and label the namespace, so that the rule matches its pods"
	}
	var named, others []Place
	for _, p := range places {
		if p.Name != "" {
			named = append(named, p)
		} else {
			others = append(others, p)
		}
	}
	add := func(places []Place, alternatives [][]Right) {
		if len(label) == 0 {
			l.add(s.name, what, places, alternatives...)
		}
		for _, verb := range label {
			l.add(s.name, what, places, with(alternatives, Right{verb, "", "namespaces", here, inNamespace})...)
		}
	}
	r := Right{"create", "", "serviceaccounts", here, ""}
	name, patch := r, r
	name.Name, patch.Verb, patch.Name = here, "patch", here
	add(named, [][]Right{{r}, {name, patch}})
	add(others, accounts.create(here))
}

// newNamespace adds the ways to make a namespace and be at the side in it.
func (e *ends) newNamespace(s *side) {
	exists := func(name string) bool { _, ok := e.w.labels[name]; return ok }
	for _, v := range newNames(s, exists, namespaceLabel, namespacePrefix+nameLabel, namespacePrefix+metadataName) {
		v.setting, v.accountSet = true, true
		// The account default is there at once; others have to be made.
		names := append([]view{{named: selector.Known, name: "default"}},
			newNames(s, func(name string) bool { return name == "default" }, serviceAccountLabel, accountPrefix+nameLabel)...)
		for _, a := range names {
			v.account, v.accountName = a.named, a.name
			if match, _ := s.could(v); !match {
				continue
			}
			place := []Place{{Namespace: newNamespace, Name: a.name}}
			also := [][]Right{{{"create", "", "namespaces", "", ""}}, {{"create", "", "namespaces", newNamespace, some}, {"patch", "", "namespaces", newNamespace, some}}}
			for _, rights := range also {
				e.list.runs(e.o, s.name, "make a namespace whose pods the rule matches, and run one", place, rights...)
			}
			if a.name == "default" {
				break
			}
		}
	}
}

// leave adds the ways to take what is at a side out of the rule.
func (e *ends) leave(s *side) {
	if !s.identity {
		return
	}
	var c changes
	for _, ns := range e.w.in(s) {
		for _, a := range e.accounts(s, ns) {
			v := e.w.now(ns, a)
			match, not := s.could(v)
			if match && not {
				c.pods = append(c.pods, Place{Namespace: ns})
			}
			if match {
				c.change(s, v, Place{Namespace: ns, Name: a}, func(_, not bool) bool { return not })
			}
		}
	}
	c.pods, c.both = spaces(c.pods), nil
	e.list.changes(s, c, "so that the rule no longer matches")
}

// escape adds the ways to run a pod that the rule does not match in a namespace where
// it matches others.
func (e *ends) escape(s *side) {
	if !s.identity {
		return
	}
	var places []Place
	for _, p := range spaces(e.matching(s)) {
		for _, a := range e.accounts(s, p.Namespace) {
			if _, not := s.could(e.w.now(p.Namespace, a)); not {
				places = append(places, Place{Namespace: p.Namespace, Name: a})
			}
		}
	}
	e.list.runs(e.o, s.name, "run a pod that the rule does not match, beside those it does", places)
}

// pass adds the ways to the ports of pods at a side past the network.
func (e *ends) pass(s *side) {
	if s.identity {
		e.list.reaches(s.name, "reach the ports of a pod through the API server", spaces(e.matching(s)))
	}
}

// others adds the ways by what else can be at the other end of a rule: network sets and
// host endpoints, by their labels, and the endpoints of a service.
func (e *ends) others(s *side, a policy.Action) {
	calico := e.o.calico()
	verbs := []string{"delete"}
	if a == policy.Allow {
		verbs = nil // who is not in it any more has no access
	}
	if s.identity {
		var places []Place
		for _, ns := range e.w.in(s) {
			v := e.w.now(ns, "")
			v.account = selector.Absent
			if match, _ := s.could(v); match {
				places = append(places, Place{Namespace: ns})
			}
		}
		const what = "say which addresses a set has that the rule matches"
		sets := group{calico, "networksets"}
		e.list.add(s.name, what, places, append(sets.write(here), sets.on(here, some, verbs...)...)...)
		if match, _ := s.could(view{}); match {
			for _, r := range []string{"globalnetworksets", "hostendpoints"} {
				sets := group{calico, r}
				e.list.add(s.name, what, cluster, append(sets.write(""), sets.on("", some, verbs...)...)...)
			}
		}
	}
	if s.service != nil {
		place := []Place{{Namespace: s.service.Namespace, Name: s.service.Name}}
		const what = "say which addresses the service has"
		for _, r := range []string{"services", "endpoints"} {
			kind := group{"", r}
			e.list.add(s.name, what, place, append(kind.on(here, "", "create"), kind.on(here, here, append(verbs, "update", "patch")...)...)...)
		}
		slices := group{"discovery.k8s.io", "endpointslices"}
		e.list.add(s.name, what, place, append(slices.write(here), slices.on(here, some, verbs...)...)...)
	}
}
