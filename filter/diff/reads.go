package diff

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// Prefixes under which selectors see inherited labels (spec section 3.2).
const (
	namespacePrefix = "pcns."
	accountPrefix   = "pcsa."
)

// reads is what the policies of both sides look at. What none of them looks at
// cannot change a verdict.
type reads struct {
	labels   map[string]bool // as selectors see them: inherited ones with their prefix
	nets     map[netip.Prefix]bool
	services map[policy.ServiceRef]bool
	names    map[string]bool // of ports
	rules    []policy.Rule
}

func newReads(snapshots ...*policy.Snapshot) *reads {
	r := &reads{
		labels: make(map[string]bool), nets: make(map[netip.Prefix]bool),
		services: make(map[policy.ServiceRef]bool), names: make(map[string]bool),
	}
	for _, s := range snapshots {
		for _, p := range s.Policies {
			if counts(p) {
				r.addPolicy(p)
			}
		}
	}
	return r
}

// counts tells whether the policy can affect a pod.
func counts(p *policy.Policy) bool {
	staged := p.Staged != policy.Enforced || strings.HasPrefix(string(p.Kind), "Staged")
	return !staged && !p.DoNotTrack && !p.PreDNAT
}

func (r *reads) addPolicy(p *policy.Policy) {
	r.addLabels(p.Selector, "")
	r.addLabels(p.NamespaceSelector, namespacePrefix)
	r.addLabels(p.ServiceAccountSelector, accountPrefix)
	for _, dir := range []flow.Direction{flow.Ingress, flow.Egress} {
		if !p.Applies(dir) {
			continue
		}
		for _, rule := range p.Rules(dir) {
			r.rules = append(r.rules, rule)
			r.addEntity(&rule.Source)
			r.addEntity(&rule.Destination)
		}
	}
}

func (r *reads) addEntity(e *policy.EntityRule) {
	r.addLabels(e.Selector, "")
	r.addLabels(e.NotSelector, "")
	r.addLabels(e.NamespaceSelector, namespacePrefix)
	if e.ServiceAccounts != nil {
		r.addLabels(e.ServiceAccounts.Selector, accountPrefix)
	}
	for _, p := range slices.Concat(e.Nets, e.NotNets) {
		if p.IsValid() && !p.Addr().Is4In6() {
			r.nets[p.Masked()] = true
		}
	}
	if e.Service != nil {
		r.services[*e.Service] = true
	}
	for _, p := range slices.Concat(e.Ports, e.NotPorts) {
		if p.Name != "" {
			r.names[p.Name] = true
		}
	}
}

func (r *reads) addLabels(s *selector.Selector, prefix string) {
	for _, l := range s.Labels() {
		r.labels[prefix+l] = true
	}
}
