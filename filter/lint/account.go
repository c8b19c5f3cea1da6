package lint

import (
	"fmt"
	"slices"

	"github.com/postern-project/postern/filter/policy/selector"
)

// noLabels is what a selector sees of an object that has none of its labels.
var noLabels = selector.Map(nil)

// checkAccounts looks at the service account criteria of one half of a rule. It
// tells whether it found why the half matches nothing. Explained is true if the
// labels of a selector are the reason already.
func (c *checker) checkAccounts(at place, n entity, field string, explained bool) (found bool) {
	if !n.hasAccounts() {
		return false
	}
	field += ".serviceAccounts"
	sa := n.accountSelector()
	if n.NamespaceSelector.IsGlobal() {
		if !n.hasNames() && sa.Matches(noLabels) {
			return false
		}
		c.add(AccountClauseNeverMatches, at.p.Key(), field,
			"never matches: namespaceSelector global() means what has no namespace, and service accounts have one",
			"write namespaceSelector: all() for accounts of every namespace")
		return true
	}
	missing := c.checkNames(at, n, field)
	if n.hasNames() && missing == len(n.ServiceAccounts.Names) {
		return true
	}
	if explained || sa == nil || len(c.ServiceAccounts) == 0 {
		return false
	}
	bySelector := c.accountsWhere(n, func(a *account) bool { return sa.Matches(selector.Map(a.labels)) })
	if len(bySelector) == 0 {
		if sa.Matches(noLabels) { // true of pods whose account has no object
			return false
		}
		where := ""
		if n.NamespaceSelector == nil && n.namespace != "" {
			where = " of namespace " + n.namespace
		}
		c.add(AccountSelectorMatchesNothing, at.p.Key(), field+".selector", fmt.Sprintf("no service account%s matches %s", where, sa),
			"compare it with the labels of the ServiceAccount objects; labels of pods do not count here")
		return true
	}
	if n.hasNames() && !slices.ContainsFunc(bySelector, func(a *account) bool { return slices.Contains(n.ServiceAccounts.Names, a.name) }) {
		c.add(AccountNamesAndSelector, at.p.Key(), field, "no service account has one of the names and matches the selector too; both must hold",
			"write two rules, one with names and one with selector, if either is meant")
		return true
	}
	return false
}

func (c *checker) accountsWhere(n entity, holds func(*account) bool) []*account {
	var out []*account
	for _, a := range c.accounts {
		if c.inScope(n, a.namespace) && holds(a) {
			out = append(out, a)
		}
	}
	return out
}

// checkNames counts the names that stand for nobody.
func (c *checker) checkNames(at place, n entity, field string) (missing int) {
	if !n.hasNames() || len(c.accounts) == 0 {
		return 0
	}
	for i, name := range n.ServiceAccounts.Names {
		field := fmt.Sprintf("%s.names[%d]", field, i)
		found := c.accountsWhere(n, func(a *account) bool { return a.name == name })
		pods := 0
		for _, a := range found {
			pods += a.pods
		}
		switch {
		case pods > 0:
			continue
		case len(found) > 0 || len(c.ServiceAccounts) == 0 && !c.elsewhere(name):
			if len(c.Endpoints) == 0 {
				continue
			}
			c.add(AccountUnused, at.p.Key(), field, fmt.Sprintf("no pod%s runs as %s", c.scopeText(n), name), "nothing to do if pods are to come")
		case n.namespace != "" && n.NamespaceSelector == nil && c.elsewhere(name):
			c.add(AccountInOtherNamespace, at.p.Key(), field,
				fmt.Sprintf("service account %s is not in namespace %s, which a NetworkPolicy's names mean; it is in %s", name, n.namespace, list(c.namespacesOf(name))),
				`write namespaceSelector beside serviceAccounts, for instance projectcalico.org/name == "`+c.namespacesOf(name)[0]+`"`)
		default:
			c.add(AccountNotFound, at.p.Key(), field, fmt.Sprintf("there is no service account %s%s", name, c.scopeText(n)), c.nearestAccount(n, name))
		}
		missing++
	}
	return missing
}

// scopeText names the namespaces that an entity's names are looked up in.
func (c *checker) scopeText(n entity) string {
	switch {
	case n.NamespaceSelector != nil:
		return fmt.Sprintf(" in the namespaces where %s", n.NamespaceSelector)
	case n.namespace != "":
		return " in namespace " + n.namespace
	}
	return ""
}

func (c *checker) elsewhere(name string) bool { return len(c.namespacesOf(name)) > 0 }

// namespacesOf lists the namespaces that have an account of the name.
func (c *checker) namespacesOf(name string) []string {
	var out []string
	for _, a := range c.accounts {
		if a.name == name && !slices.Contains(out, a.namespace) {
			out = append(out, a.namespace)
		}
	}
	slices.Sort(out)
	return out
}

func (c *checker) nearestAccount(n entity, name string) string {
	var names []string
	for _, a := range c.accountsWhere(n, func(*account) bool { return true }) {
		names = append(names, a.name)
	}
	slices.Sort(names)
	if near := nearest(name, names); near != "" {
		return "did you mean " + near + "?"
	}
	return "create the account, or correct the name; names are compared literally"
}
