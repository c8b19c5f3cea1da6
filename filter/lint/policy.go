package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// checkPolicy looks at one policy and its rules.
func (c *checker) checkPolicy(p *policy.Policy) {
	c.checkTier(p)
	c.checkHostFields(p)
	c.checkSubjects(p)
	for _, d := range directions {
		rules := p.Rules(d)
		if !p.Applies(d) {
			if len(rules) > 0 {
				c.add(InertRules, p.Key(), "spec."+d.String(),
					fmt.Sprintf("these rules do nothing: %s does not list %s", typesField(p), typeName(d)),
					fmt.Sprintf("add %s to %s, or remove the rules", typeName(d), typesField(p)))
			}
			continue
		}
		c.checkLogOnly(p, d)
		for i := range rules {
			c.checkRule(place{p, d, &rules[i]})
		}
		c.checkShadowed(p, d)
	}
}

func typeName(d flow.Direction) string {
	return map[flow.Direction]string{flow.Ingress: "Ingress", flow.Egress: "Egress"}[d]
}

func typesField(p *policy.Policy) string {
	if kubernetes(p) {
		return "policyTypes"
	}
	return "types"
}

func (c *checker) tierOf(p *policy.Policy) (policy.Tier, bool) {
	i := slices.IndexFunc(c.Tiers, func(t policy.Tier) bool { return t.Name == p.Tier })
	if i < 0 {
		return policy.Tier{Name: p.Tier}, false
	}
	return c.Tiers[i], true
}

func (c *checker) checkTier(p *policy.Policy) {
	if _, ok := c.tierOf(p); ok {
		return
	}
	c.add(TierNotFound, p.Key(), "spec.tier",
		fmt.Sprintf("there is no Tier %s: its policies run after all other tiers, and what they do not decide is denied", p.Tier),
		"create the Tier object with the order it is meant to have, or correct the name")
}

func (c *checker) checkHostFields(p *policy.Policy) {
	const keep = "keep the firewall that protects the host itself"
	switch {
	case p.PreDNAT:
		c.add(HostPolicyNotEnforced, p.Key(), "spec.preDNAT", "is for host endpoints, which no policy protects yet; this policy does nothing", keep)
	case p.DoNotTrack:
		c.add(HostPolicyNotEnforced, p.Key(), "spec.doNotTrack", "is for host endpoints, which no policy protects yet; this policy does nothing", keep)
	case p.ApplyOnForward:
		c.add(HostPolicyNotEnforced, p.Key(), "spec.applyOnForward", "is for host endpoints, which no policy protects yet; to pods this policy applies as any other", keep)
	}
}

// checkLogOnly: a Log rule decides nothing, so that a policy made to watch traffic
// stops it.
func (c *checker) checkLogOnly(p *policy.Policy, d flow.Direction) {
	rules := p.Rules(d)
	if len(rules) == 0 || hostOnly(p) || slices.ContainsFunc(rules, func(r policy.Rule) bool { return r.Action != policy.Log }) {
		return
	}
	if t, _ := c.tierOf(p); t.DefaultAction == policy.Pass {
		return
	}
	c.add(LogOnlyIsolates, p.Key(), "spec."+d.String(),
		"only logs, and Log decides nothing: what the tier's other policies do not allow is denied at its end",
		"write a rule with action: Allow after the Log rules, or Pass to leave it to later tiers")
}

// checkSubjects looks at which endpoints a policy is for.
func (c *checker) checkSubjects(p *policy.Policy) {
	global := p.Namespace == "" && !kubernetes(p)
	if global && p.Selector == nil && p.NamespaceSelector == nil && p.ServiceAccountSelector == nil {
		c.add(SelectsEverything, p.Key(), "spec.selector",
			"no selector is stated, so that the policy is for every pod of every namespace, kube-system included, and every host endpoint",
			"write selector: all() to say that everything is meant; to spare a namespace, write namespaceSelector: projectcalico.org/name not in {\"kube-system\"} beside it")
		return
	}
	if global {
		c.checkNegativeSubjects(p)
	}
	found := c.labelChecks(
		asked{p.Selector, &c.objectLabels, p.Key(), policyField(p, "selector")},
		asked{p.NamespaceSelector, &c.namespaceLabelNames, p.Key(), policyField(p, "namespaceSelector")},
		asked{p.ServiceAccountSelector, &c.accountLabelNames, p.Key(), policyField(p, "serviceAccountSelector")})
	if found || len(c.selected[p]) > 0 {
		return
	}
	if p.Namespace != "" && len(c.Namespaces) > 0 && c.namespaces[p.Namespace] == nil {
		c.add(NamespaceNotFound, p.Key(), "metadata.namespace", fmt.Sprintf("there is no namespace %s", p.Namespace), c.nearestNamespace(p.Namespace))
		return
	}
	if len(c.Endpoints) == 0 {
		return
	}
	field, what := c.whySelectsNothing(p)
	c.add(PolicySelectsNothing, p.Key(), field, "no pod is selected"+what, "compare the selector with the labels of the pods that are meant; the policy does nothing until one has them")
}

// policyField gives the field of a selector as the policy's kind calls it.
func policyField(p *policy.Policy, name string) string {
	switch p.Kind {
	case policy.KubernetesNetworkPolicy, policy.StagedKubernetesNetworkPolicy:
		return "spec.podSelector"
	case policy.KubernetesClusterNetworkPolicy:
		return "spec.subject"
	}
	return "spec." + name
}

// whySelectsNothing finds the one selector that selects nothing by itself.
func (c *checker) whySelectsNothing(p *policy.Policy) (field, what string) {
	where := ""
	if p.Namespace != "" {
		where = " in namespace " + p.Namespace
	}
	for _, one := range []struct {
		field  string
		stated *selector.Selector
		alone  policy.Policy
	}{
		{"selector", p.Selector, policy.Policy{Namespace: p.Namespace, Selector: p.Selector}},
		{"namespaceSelector", p.NamespaceSelector, policy.Policy{NamespaceSelector: p.NamespaceSelector}},
		{"serviceAccountSelector", p.ServiceAccountSelector, policy.Policy{Namespace: p.Namespace, ServiceAccountSelector: p.ServiceAccountSelector}},
	} {
		if one.stated != nil && len(c.selectedBy(subjects(&one.alone))) == 0 {
			return policyField(p, one.field), fmt.Sprintf("%s by %s", where, one.stated)
		}
	}
	return "spec", where
}

// checkNegativeSubjects finds selectors that host endpoints satisfy only because
// they lack every label (section 4.4, V108).
func (c *checker) checkNegativeSubjects(p *policy.Policy) {
	ns, sa := p.NamespaceSelector, p.ServiceAccountSelector
	if ns != nil && !matchesBare(ns) || sa != nil && !matchesBare(sa) {
		return
	}
	bare := p.Selector == nil || (ns != nil || sa != nil) && matchesBare(p.Selector)
	names := c.bareObjects(subjects(p), policy.HostEndpointKind)
	if !bare && len(names) == 0 {
		return
	}
	also := ""
	if len(names) > 0 {
		also = ": " + list(names)
	}
	switch {
	case ns != nil:
		c.add(NegativeNamespaceSelector, p.Key(), "spec.namespaceSelector",
			fmt.Sprintf("%s is also true of host endpoints, which have no namespace%s", ns, also),
			"write selector: all() beside it, which then means pods only")
	case sa != nil:
		c.add(NegativeAccountSelector, p.Key(), "spec.serviceAccountSelector",
			fmt.Sprintf("%s is also true of host endpoints, which have no service account%s", sa, also),
			"write namespaceSelector: all() beside it")
	}
}

// bareObjects names the objects of some kinds that satisfy a conjunction.
func (c *checker) bareObjects(of conjunction, kinds ...policy.Kind) []string {
	var names []string
	for i := range c.objects {
		if o := &c.objects[i]; slices.Contains(kinds, o.Kind) && of.matches(o) {
			names = append(names, o.Key.String())
		}
	}
	return names
}

func (c *checker) nearestNamespace(name string) string {
	var names []string
	for _, ns := range c.Namespaces {
		names = append(names, ns.Name)
	}
	if near := nearest(name, names); near != "" {
		return "did you mean " + near + "?"
	}
	return "the policy does nothing until the namespace exists; correct the name if it is not to come: " + strings.TrimSpace(list(names))
}
