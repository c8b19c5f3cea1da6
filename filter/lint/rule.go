package lint

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// checkRule looks at one rule of a direction that the policy lists.
func (c *checker) checkRule(at place) {
	c.checkHTTP(at)
	if !kubernetes(at.p) { // whose converted rules pair nets with exceptions of the same family
		c.checkFamilies(at)
	}
	for _, source := range []bool{true, false} {
		n, field := at.side(source)
		c.checkEntity(at, n, field)
	}
}

// checkFamilies finds rules that do not exist for one family because of their
// nets, where that is not what it looks like (section 6, V071, V072).
func (c *checker) checkFamilies(at place) {
	r := at.rule
	if family(r) != 0 || r.Action == policy.Log {
		return
	}
	for _, source := range []bool{true, false} {
		n, field := at.side(source)
		if r.Action == policy.Deny {
			c.denyOneFamily(at, n, field)
		} else if len(n.Nets) == 0 && len(n.NotNets) > 0 {
			c.notNetsOneFamily(at, n, field)
		}
	}
}

func (c *checker) denyOneFamily(at place, n entity, field string) {
	nets, list := n.Nets, ".nets"
	if len(nets) == 0 {
		nets, list = n.NotNets, ".notNets"
	}
	is6, one := oneFamily(nets)
	if !one || !c.familyInUse(!is6) || siblingOfFamily(at, !is6) {
		return
	}
	// A Deny of 10.0.0.0/8 says nothing of IPv6, and need not: but one of all
	// addresses, of all but some, or of pods that have others too, seems to.
	everything := slices.ContainsFunc(n.Nets, func(p netip.Prefix) bool { return p.Bits() == 0 })
	what := ""
	if !everything && len(n.Nets) > 0 {
		pod := c.dualStackPod(n.Nets)
		if pod == "" {
			return
		}
		what = fmt.Sprintf("; pod %s is in the range and has %s addresses too", pod, familyName(!is6))
	}
	c.add(DenyOneFamily, at.p.Key(), field+list,
		fmt.Sprintf("all entries are %s, so that %s is not denied%s", familyName(is6), familyName(!is6), what),
		fmt.Sprintf("write a second rule for %s, or deny by selector, which holds for both", familyName(!is6)))
}

func (c *checker) notNetsOneFamily(at place, n entity, field string) {
	is6, one := oneFamily(n.NotNets)
	if !one || !c.familyInUse(!is6) || siblingOfFamily(at, !is6) {
		return
	}
	c.add(NotNetsOneFamily, at.p.Key(), field+".notNets",
		fmt.Sprintf("all entries are %s, so that the rule never matches %s", familyName(is6), familyName(!is6)),
		fmt.Sprintf("write a second rule for %s, or ipVersion: %s if it is meant", familyName(!is6), familyName(is6)[3:]))
}

func familyName(is6 bool) string {
	if is6 {
		return "IPv6"
	}
	return "IPv4"
}

// oneFamily tells whether all prefixes are of one family, and which.
func oneFamily(nets []netip.Prefix) (is6, one bool) {
	if len(nets) == 0 {
		return false, false
	}
	is6 = nets[0].Addr().Is6()
	return is6, !slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Addr().Is6() != is6 })
}

// familyInUse tells whether any pod has an address of the family, or no pod is
// known.
func (c *checker) familyInUse(is6 bool) bool {
	return len(c.Endpoints) == 0 || slices.ContainsFunc(c.Endpoints, func(ep *policy.Endpoint) bool { return hasFamily(ep, is6) })
}

func hasFamily(ep *policy.Endpoint, is6 bool) bool {
	return slices.ContainsFunc(ep.Addrs, func(a netip.Addr) bool { return a.Is6() == is6 })
}

// siblingOfFamily tells whether another rule of the list does the same for a
// family, or for everything.
func siblingOfFamily(at place, is6 bool) bool {
	return slices.ContainsFunc(at.p.Rules(at.d), func(r policy.Rule) bool {
		if r.Action != at.rule.Action || r.Index == at.rule.Index {
			return false
		}
		if v := family(&r); v != 0 {
			return (v == 6) == is6
		}
		nets := slices.Concat(r.Source.Nets, r.Source.NotNets, r.Destination.Nets, r.Destination.NotNets)
		return unconditional(&r) || len(nets) > 0 && nets[0].Addr().Is6() == is6
	})
}

// dualStackPod names a pod with an address in the range and one of the other
// family.
func (c *checker) dualStackPod(nets []netip.Prefix) string {
	for _, ep := range c.Endpoints {
		if !hasFamily(ep, false) || !hasFamily(ep, true) {
			continue
		}
		for _, a := range ep.Addrs {
			if slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) }) {
				return ep.Namespace + "/" + ep.Name
			}
		}
	}
	return ""
}

// checkEntity looks at one half of a rule.
func (c *checker) checkEntity(at place, n entity, field string) {
	c.checkPorts(at, n, field)
	c.checkService(at, n, field)
	if !n.statesIdentity() {
		return
	}
	found := c.labelChecks(
		asked{n.Selector, &c.objectLabels, at.p.Key(), at.below(field, "selector")},
		asked{n.NotSelector, &c.objectLabels, at.p.Key(), at.below(field, "notSelector")},
		asked{n.NamespaceSelector, &c.namespaceLabelNames, at.p.Key(), at.below(field, "namespaceSelector")},
		asked{n.accountSelector(), &c.accountLabelNames, at.p.Key(), at.below(field, "serviceAccounts.selector")})
	if !kubernetes(at.p) {
		c.checkNegative(at, n, field)
	}
	found = c.checkAccounts(at, n, field, found) || found
	if !found && n.hasPositive() {
		c.checkMatchesAnything(at, n, field)
	}
}

func (c *checker) checkPorts(at place, n entity, field string) {
	if at.rule.Protocol != nil || kubernetes(at.p) {
		return
	}
	for _, list := range []struct {
		name  string
		ports []policy.Port
	}{{"ports", n.Ports}, {"notPorts", n.NotPorts}} {
		if i := slices.IndexFunc(list.ports, func(p policy.Port) bool { return p.Name != "" }); i >= 0 {
			c.add(NamedPortAnyProtocol, at.p.Key(), field+"."+list.name,
				fmt.Sprintf("port %s without a protocol is whatever protocol each pod declares it with", list.ports[i].Name),
				"write protocol: TCP, UDP or SCTP in the rule if one is meant")
		}
	}
}

func (c *checker) checkService(at place, n entity, field string) {
	s := n.Service
	if s == nil || len(c.EndpointSlices) == 0 ||
		slices.ContainsFunc(c.EndpointSlices, func(e *policy.EndpointSlice) bool { return e.Namespace == s.Namespace && e.Service == s.Name }) {
		return
	}
	var names []string
	for _, e := range c.EndpointSlices {
		if e.Namespace == s.Namespace {
			names = append(names, e.Service)
		}
	}
	advice := "the rule matches nothing until the service exists; correct name and namespace if it is not to come"
	if near := nearest(s.Name, names); near != "" {
		advice = "did you mean " + near + "?"
	}
	c.add(ServiceNotFound, at.p.Key(), at.below(field, "services"), fmt.Sprintf("there is no EndpointSlice of service %s/%s", s.Namespace, s.Name), advice)
}

// checkMatchesAnything finds a peer that is nobody at present.
func (c *checker) checkMatchesAnything(at place, n entity, field string) {
	if c.matchesAny(n) {
		return
	}
	if s := n.NamespaceSelector; s != nil && len(c.Namespaces) > 0 && !s.IsGlobal() && !matchesBare(s) &&
		!slices.ContainsFunc(c.Namespaces, func(ns *policy.Namespace) bool { return c.matchesNamespace(s, ns.Name) }) {
		c.add(NamespaceSelectorNoMatch, at.p.Key(), at.below(field, "namespaceSelector"), fmt.Sprintf("no namespace matches %s", s),
			"compare it with the labels of the namespaces that are meant; by name, write projectcalico.org/name == \"…\"")
		return
	}
	if len(c.Endpoints) == 0 {
		return
	}
	what := "nothing"
	if n.NamespaceSelector == nil && n.namespace != "" {
		what += " in namespace " + n.namespace
	}
	switch {
	case n.Selector != nil && !c.matchesAny(entity{&policy.EntityRule{Selector: n.Selector, NamespaceSelector: n.NamespaceSelector}, n.namespace}):
		advice := "compare it with the labels of the pods and network sets that are meant"
		if n.NamespaceSelector == nil && n.namespace != "" && c.matchesAny(entity{&policy.EntityRule{Selector: n.Selector}, ""}) {
			advice = "it matches in other namespaces or global sets: write namespaceSelector beside it"
		}
		c.add(SelectorMatchesNothing, at.p.Key(), at.below(field, "selector"), fmt.Sprintf("%s matches %s", n.Selector, what), advice)
	case n.NamespaceSelector.IsGlobal():
		c.add(SelectorMatchesNothing, at.p.Key(), field+".namespaceSelector", "global() means global network sets and host endpoints, and none is left after the other criteria",
			"pods always have a namespace; write all() to mean those of every namespace")
	default:
		c.add(SelectorMatchesNothing, at.p.Key(), field, "all criteria together match "+what, "they are combined by AND; write one rule for each if either is meant")
	}
}

// checkNegative finds criteria that things without namespace or account satisfy
// only because they lack every label (section 4.2, V041, V048).
func (c *checker) checkNegative(at place, n entity, field string) {
	ns, sa := n.NamespaceSelector, n.accountSelector()
	byNamespace := ns != nil && !ns.IsGlobal() && matchesBare(ns)
	byAccount := ns == nil && n.namespace == "" && sa != nil
	// all() of accounts is true of whatever has none.
	if !byNamespace && !byAccount || n.hasNames() || sa != nil && !sa.Matches(noLabels) {
		return
	}
	kinds := []policy.Kind{policy.GlobalNetworkSet, policy.HostEndpointKind}
	if byAccount {
		kinds = append(kinds, policy.NetworkSetKind)
	}
	names := c.bareObjects(n.positive(), kinds...)
	if n.Selector != nil && !n.Selector.Matches(noLabels) && len(names) == 0 {
		return
	}
	also := ""
	if len(names) > 0 {
		also = ": " + list(names)
	}
	if byNamespace {
		c.add(NegativeNamespaceSelector, at.p.Key(), field+".namespaceSelector",
			fmt.Sprintf("%s is also true of global network sets and host endpoints, which have no namespace%s", ns, also),
			fmt.Sprintf("write %s to mean namespaces only", selector.And(ns, selector.Has(nameLabel))))
		return
	}
	c.add(NegativeAccountSelector, at.p.Key(), field+".serviceAccounts.selector",
		fmt.Sprintf("%s is also true of network sets and host endpoints, which have no service account%s", sa, also),
		fmt.Sprintf("write %s to mean service accounts only", selector.And(sa, selector.Has(nameLabel))))
}
