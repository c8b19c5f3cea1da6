package convert

import (
	"math"
	"reflect"
	"strconv"

	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

const maxRules = 1024 // per direction

// policySpec is the spec of any of Calico's policy kinds; a GlobalNetworkPolicy
// has every field that the others have.
type policySpec struct {
	calico.GlobalNetworkPolicySpec
	staged       bool
	stagedAction calico.StagedAction
	// stored: the object is as storage holds it, after admission. Types are then
	// never empty, and an empty list means both directions (spec 1.1).
	stored bool
}

func fromNetworkPolicy(o *calico.NetworkPolicy) policySpec {
	s := o.Spec
	return policySpec{stored: o.APIVersion == crdVersion, GlobalNetworkPolicySpec: calico.GlobalNetworkPolicySpec{
		Tier: s.Tier, Order: s.Order, Ingress: s.Ingress, Egress: s.Egress, Selector: s.Selector, Types: s.Types,
		ServiceAccountSelector: s.ServiceAccountSelector, PerformanceHints: s.PerformanceHints}}
}

func fromStagedPolicy(o *calico.StagedNetworkPolicy) policySpec {
	s := o.Spec
	return policySpec{staged: true, stagedAction: s.StagedAction, stored: o.APIVersion == crdVersion, GlobalNetworkPolicySpec: calico.GlobalNetworkPolicySpec{
		Tier: s.Tier, Order: s.Order, Ingress: s.Ingress, Egress: s.Egress, Selector: s.Selector, Types: s.Types,
		ServiceAccountSelector: s.ServiceAccountSelector, PerformanceHints: s.PerformanceHints}}
}

func fromStagedGlobalPolicy(o *calico.StagedGlobalNetworkPolicy) policySpec {
	s := o.Spec
	return policySpec{staged: true, stagedAction: s.StagedAction, stored: o.APIVersion == crdVersion, GlobalNetworkPolicySpec: calico.GlobalNetworkPolicySpec{
		Tier: s.Tier, Order: s.Order, Ingress: s.Ingress, Egress: s.Egress, Selector: s.Selector, Types: s.Types,
		DoNotTrack: s.DoNotTrack, PreDNAT: s.PreDNAT, ApplyOnForward: s.ApplyOnForward, ServiceAccountSelector: s.ServiceAccountSelector,
		NamespaceSelector: s.NamespaceSelector, PerformanceHints: s.PerformanceHints}}
}

// calicoPolicy converts the spec of a policy of one of Calico's own kinds.
func (r *report) calicoPolicy(s policySpec) *policy.Policy {
	p := &policy.Policy{
		Kind: r.key.Kind, Namespace: r.key.Namespace, Name: r.key.Name,
		Tier: s.Tier, Order: policy.Unordered,
		ApplyOnForward: s.ApplyOnForward, DoNotTrack: s.DoNotTrack, PreDNAT: s.PreDNAT,
	}
	if s.staged {
		p.Staged = r.stagedAction(s.stagedAction)
	}
	if p.Staged == policy.StagedDelete {
		r.emptyBesideTier(s.GlobalNetworkPolicySpec)
		s.GlobalNetworkPolicySpec = calico.GlobalNetworkPolicySpec{}
	}
	if p.Tier == "" {
		p.Tier = policy.DefaultTier
	} else if !tierName.allows(p.Tier) {
		r.add("spec.tier", "%q is no valid tier name; write at most 63 %s", shorten(p.Tier), tierName.want)
	}
	if s.Order != nil {
		p.Order = *s.Order
		if math.IsInf(p.Order, 0) || math.IsNaN(p.Order) {
			r.add("spec.order", "%v is no order; write a finite number, or leave it out to come last", p.Order)
			p.Order = policy.Unordered
		}
	}
	r.performanceHints(s.PerformanceHints)
	r.types(p, s)
	r.hostFlags(s.GlobalNetworkPolicySpec)

	before := r.count
	p.Selector = r.endpointSelector("spec.selector", s.Selector)
	p.NamespaceSelector = r.endpointSelector("spec.namespaceSelector", s.NamespaceSelector)
	p.ServiceAccountSelector = r.endpointSelector("spec.serviceAccountSelector", s.ServiceAccountSelector)
	unselective := s.Selector == "" && s.NamespaceSelector == "" && s.ServiceAccountSelector == ""
	if r.count > before || r.unknownSpec && unselective {
		// A field that is not understood may have been meant to be the selector.
		r.noEndpoints = true
	}

	p.Ingress = r.rules("spec.ingress", flow.Ingress, s.Ingress)
	p.Egress = r.rules("spec.egress", flow.Egress, s.Egress)
	if r.noEndpoints {
		return nil
	}
	return p
}

// types sets the directions the policy applies to.
func (r *report) types(p *policy.Policy, s policySpec) {
	before := r.count
	if len(s.Types) > 2 {
		r.add("spec.types", "%d entries; write Ingress, Egress or both", len(s.Types))
	}
	for i, t := range s.Types {
		at := "spec.types[" + strconv.Itoa(i) + "]"
		switch {
		case t == calico.PolicyTypeIngress && p.AppliesIngress, t == calico.PolicyTypeEgress && p.AppliesEgress:
			r.add(at, "%s is listed twice; keep one", t)
		case t == calico.PolicyTypeIngress:
			p.AppliesIngress = true
		case t == calico.PolicyTypeEgress:
			p.AppliesEgress = true
		default:
			r.add(at, "%q is no policy type; write Ingress or Egress, with this case", shorten(string(t)))
		}
	}
	switch {
	case r.count > before || r.noTypes || r.faultyRules["spec.ingress"] || r.faultyRules["spec.egress"] || r.unknownSpec:
		// Not known which were meant: isolate in both.
		p.AppliesIngress, p.AppliesEgress = true, true
	case len(s.Types) > 0:
	case s.stored:
		p.AppliesIngress, p.AppliesEgress = true, true
	default:
		p.AppliesEgress = len(s.Egress) > 0
		p.AppliesIngress = len(s.Ingress) > 0 || !p.AppliesEgress
	}
}

// hostFlags checks the properties that only host endpoints feel. A policy that
// has them wrong would meet its packets at another hook, so its rules cannot be
// taken as written.
func (r *report) hostFlags(s calico.GlobalNetworkPolicySpec) {
	before := r.count
	if s.DoNotTrack && s.PreDNAT {
		r.add("spec.preDNAT", "excludes doNotTrack; split the policy in two")
	}
	if s.PreDNAT && !s.ApplyOnForward {
		r.add("spec.applyOnForward", "must be true where preDNAT is; write applyOnForward: true")
	}
	if s.DoNotTrack && !s.ApplyOnForward {
		r.add("spec.applyOnForward", "must be true where doNotTrack is; write applyOnForward: true")
	}
	if s.PreDNAT && len(s.Egress) > 0 {
		r.add("spec.egress", "a preDNAT policy has no egress rules; move them to another policy")
	}
	if s.PreDNAT {
		for i, t := range s.Types {
			if t == calico.PolicyTypeEgress {
				r.add("spec.types["+strconv.Itoa(i)+"]", "a preDNAT policy applies to ingress only; write types: [Ingress]")
			}
		}
	}
	if r.count > before {
		r.allFaulty = true
	}
}

func (r *report) performanceHints(hints []calico.PolicyPerformanceHint) {
	seen := map[calico.PolicyPerformanceHint]bool{}
	for i, h := range hints {
		at := "spec.performanceHints[" + strconv.Itoa(i) + "]"
		switch {
		case h != calico.PerfHintAssumeNeededOnEveryNode:
			r.add(at, "%q is no performance hint; the only one is %s", shorten(string(h)), calico.PerfHintAssumeNeededOnEveryNode)
		case seen[h]:
			r.add(at, "%s is listed twice; keep one", h)
		}
		seen[h] = true
	}
}

// stagedAction never gives Enforced: a staged policy must not change a verdict.
func (r *report) stagedAction(a calico.StagedAction) policy.StagedAction {
	switch a {
	case calico.StagedActionDelete:
		return policy.StagedDelete
	case calico.StagedActionLearn:
		return policy.StagedLearn
	case calico.StagedActionIgnore:
		return policy.StagedIgnore
	case calico.StagedActionSet, "":
	default:
		r.add("spec.stagedAction", "%q is no staged action; write Set, Delete, Learn or Ignore", shorten(string(a)))
	}
	return policy.StagedSet
}

// emptyBesideTier refuses what a staged deletion must not say.
func (r *report) emptyBesideTier(s calico.GlobalNetworkPolicySpec) {
	s.Tier = ""
	if !reflect.ValueOf(s).IsZero() {
		r.add("spec", "a staged policy whose stagedAction is Delete states nothing but its tier; remove the other fields")
	}
}
