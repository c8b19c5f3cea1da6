package lint

import (
	"fmt"
	"strings"

	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// Check gives the findings of a snapshot: those of pods, sets and host endpoints
// first, then those of policies in the order of the snapshot, each policy's own
// before its rules', and last what takes several policies to see. The same
// snapshot gives the same list. The snapshot is only read; origins are left empty.
//
// Policies that admission would refuse are better left out of the snapshot: what
// stands for them there is not what their author wrote.
func Check(s *policy.Snapshot) []Finding {
	c := &checker{world: newWorld(s), evaluator: explain.New(s, explain.Options{}), tiers: sortTiers(s), selected: map[*policy.Policy][]int{}}
	for _, p := range s.Policies {
		c.selected[p] = c.selectedBy(subjects(p))
	}
	c.objectLabels = labelNames{c.ofObjects, len(s.Endpoints) > 0, "pod, network set or host endpoint"}
	c.namespaceLabelNames = labelNames{c.ofNamespaces, len(s.Namespaces) > 0, "namespace"}
	c.accountLabelNames = labelNames{c.ofAccounts, len(s.ServiceAccounts) > 0, "service account"}
	c.checkObjects()
	for _, p := range s.Policies {
		if p.Staged == policy.StagedDelete {
			continue // states nothing but its name
		}
		c.checkPolicy(p)
	}
	for _, t := range c.tiers {
		c.checkUnreachable(t)
		c.checkTies(t)
	}
	c.checkLastTier()
	c.checkDNS()
	return c.findings
}

type checker struct {
	*world
	// What the three sorts of selector can read.
	objectLabels, namespaceLabelNames, accountLabelNames labelNames

	evaluator *explain.Evaluator
	tiers     []tier
	// selected holds the endpoints that each policy applies to, as indices of
	// objects, ascending.
	selected map[*policy.Policy][]int
	findings []Finding
}

func (c *checker) add(id string, key policy.Key, field, message, advice string) {
	c.findings = append(c.findings, Finding{ID: id, Severity: severities[id], Object: key, Field: field, Message: message, Advice: advice})
}

// selectedBy lists the pods and host endpoints that satisfy a conjunction.
func (c *checker) selectedBy(of conjunction) []int {
	var found []int
	for i := range c.objects {
		if o := &c.objects[i]; o.isEndpoint() && of.matches(o) {
			found = append(found, i)
		}
	}
	return found
}

var directions = []flow.Direction{flow.Ingress, flow.Egress}

// place is one rule of a policy.
type place struct {
	p    *policy.Policy
	d    flow.Direction
	rule *policy.Rule
}

func (at place) field() string { return ruleField(at.d, at.rule.Index) }

func ruleField(d flow.Direction, index int) string { return fmt.Sprintf("spec.%s[%d]", d, index) }

// side gives one half of the rule and its field.
func (at place) side(source bool) (entity, string) {
	n, name := entity{&at.rule.Destination, at.p.Namespace}, ".destination"
	if source {
		n, name = entity{&at.rule.Source, at.p.Namespace}, ".source"
	}
	if kubernetes(at.p) {
		name = map[flow.Direction]string{flow.Ingress: ".from", flow.Egress: ".to"}[at.d]
	}
	return n, at.field() + name
}

// below gives the field of a criterion. The Kubernetes kinds have other criteria
// than what they are converted to, so of them only the peers are named.
func (at place) below(field, criterion string) string {
	if kubernetes(at.p) {
		return field
	}
	return field + "." + criterion
}

// kubernetes tells whether the policy was converted from one of Kubernetes' kinds.
func kubernetes(p *policy.Policy) bool {
	switch p.Kind {
	case policy.KubernetesNetworkPolicy, policy.StagedKubernetesNetworkPolicy, policy.KubernetesClusterNetworkPolicy:
		return true
	}
	return false
}

// list prints at most five texts: "a, b and 3 more".
func list(texts []string) string {
	const most = 5
	if n := len(texts); n > most {
		return fmt.Sprintf("%s and %d more", strings.Join(texts[:most], ", "), n-most)
	}
	return strings.Join(texts, ", ")
}
