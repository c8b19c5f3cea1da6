package access

import (
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// Account is a service account.
type Account struct{ Namespace, Name string }

// AccountWays are the ways to the access that an account has: to be it, to be what
// policies that choose by its labels take for it, and to write policy for its pods.
func AccountWays(o *Objects, a Account) []Way {
	var l list
	place := []Place{{Namespace: a.Namespace, Name: a.Name}}
	namespace := []Place{{Namespace: a.Namespace, Name: a.Namespace}}
	l.runs(o, "", "run a pod with the account", place)
	l.enters(o, "", "get into a pod that has the account", place)
	l.add("", "give a pod that has the account another address", namespace, group{"", "pods/status"}.on(here, some, "update", "patch")...)
	l.add("", "make the account, with labels", place, accounts.create(here)[0], []Right{{"create", "", "serviceaccounts", here, here}, {"patch", "", "serviceaccounts", here, here}})
	l.add("", "label the account", place, accounts.on(here, here, "update", "patch")...)
	l.add("", "label the namespace", namespace, labelNamespace()...)
	w := writer{o: o, list: &l, namespaces: []string{a.Namespace}, what: "write policy for its pods"}
	for _, t := range o.Snapshot.Tiers {
		w.tiers = append(w.tiers, t.Name)
	}
	w.kubernetes = true
	w.write()
	w.moveTiers()
	return l
}

// RuleWays are the ways to what rules of a policy give or deny. Rules that only log
// have none.
func RuleWays(o *Objects, p *policy.Policy, rules []Rule) []Way {
	var l list
	w := newWorld(o.Snapshot)
	written := false
	for _, r := range rules {
		if r.Action == policy.Log {
			continue
		}
		protects, other := r.sides(p)
		ends := ends{o: o, w: w, list: &l}
		// Who opens the flow, and who is reached.
		opens, reached := other, protects
		if r.Direction == flow.Egress {
			opens, reached = protects, other
		}
		if r.Action != policy.Deny {
			ends.join(&opens, true)
			ends.join(&reached, false)
		}
		if r.Action != policy.Allow {
			ends.leave(&opens)
			ends.leave(&reached)
			ends.escape(&opens)
		} else {
			ends.leave(&protects)
		}
		ends.pass(&reached)
		ends.others(&other, r.Action)
		if !written {
			written = true
			writeWays(o, &l, p, rules, ends.namespaces(&protects))
		}
	}
	return unique(l)
}
