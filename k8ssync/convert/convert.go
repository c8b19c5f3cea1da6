package convert

import (
	"fmt"

	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/postern-project/postern/filter/policy"
)

// Result is one converted object.
type Result struct {
	Key policy.Key
	// Value is a pointer to the policy value of the object's kind, or nil if the
	// object contributes nothing. Of an object with problems it is the
	// fail-closed reading, or nil if there is none.
	Value any
	// Problems is what admission would refuse the object for; empty if it is valid.
	Problems []policy.Problem
	// Warnings tell where a valid object does not do what it seems to say.
	Warnings []policy.Problem
}

// Convert converts a pointer to one of the types listed in KindOf. Defaults are
// filled in as admission fills them in. Any other type gives a Result without
// Value and one problem.
func Convert(obj any) Result {
	r := newReport(KindOf(obj), obj)
	return r.result(convert(r, obj))
}

// KindOf gives the kind that an object's values and keys carry, or "" if Convert
// does not know the type. networking/v1 NetworkPolicy is
// KubernetesNetworkPolicy, to tell it from Calico's.
func KindOf(obj any) policy.Kind {
	switch obj.(type) {
	case *core.Namespace:
		return policy.NamespaceKind
	case *core.ServiceAccount:
		return policy.ServiceAccountKind
	case *core.Pod:
		return policy.PodKind
	case *discovery.EndpointSlice:
		return policy.EndpointSliceKind
	case *networking.NetworkPolicy:
		return policy.KubernetesNetworkPolicy
	case *cnp.ClusterNetworkPolicy:
		return policy.KubernetesClusterNetworkPolicy
	case *calico.NetworkPolicy:
		return policy.NetworkPolicy
	case *calico.GlobalNetworkPolicy:
		return policy.GlobalNetworkPolicy
	case *calico.StagedNetworkPolicy:
		return policy.StagedNetworkPolicy
	case *calico.StagedGlobalNetworkPolicy:
		return policy.StagedGlobalNetworkPolicy
	case *calico.StagedKubernetesNetworkPolicy:
		return policy.StagedKubernetesNetworkPolicy
	case *calico.Tier:
		return policy.TierKind
	case *calico.Profile:
		return policy.ProfileKind
	case *calico.NetworkSet:
		return policy.NetworkSetKind
	case *calico.GlobalNetworkSet:
		return policy.GlobalNetworkSet
	case *calico.HostEndpoint:
		return policy.HostEndpointKind
	}
	return ""
}

// namespaced tells whether objects of the kind live in a namespace.
func namespaced(k policy.Kind) bool {
	switch k {
	case policy.NetworkPolicy, policy.KubernetesNetworkPolicy, policy.StagedNetworkPolicy,
		policy.StagedKubernetesNetworkPolicy, policy.ServiceAccountKind, policy.PodKind,
		policy.NetworkSetKind, policy.EndpointSliceKind:
		return true
	}
	return false
}

// newReport names the object. A namespace on a kind that has none is ignored,
// as the API server does.
func newReport(kind policy.Kind, obj any) *report {
	r := &report{key: policy.Key{Kind: kind}}
	if o, ok := obj.(meta.Object); ok {
		r.key.Name = o.GetName()
		if namespaced(kind) {
			r.key.Namespace = o.GetNamespace()
		}
	}
	return r
}

// convert gives nil, or a pointer to a policy value.
func convert(r *report, obj any) any {
	switch o := obj.(type) {
	case *core.Namespace:
		return r.namespace(o)
	case *core.ServiceAccount:
		return r.serviceAccount(o)
	case *core.Pod:
		return r.pod(o)
	case *discovery.EndpointSlice:
		return r.endpointSlice(o)
	case *networking.NetworkPolicy:
		r.metadata(&o.ObjectMeta, anyName)
		return r.kubernetesPolicy(&o.Spec, policy.Enforced)
	case *cnp.ClusterNetworkPolicy:
		r.metadata(&o.ObjectMeta, anyName)
		return r.clusterPolicy(&o.Spec)
	case *calico.NetworkPolicy:
		r.metadata(&o.ObjectMeta, policyName)
		return r.calicoPolicy(fromNetworkPolicy(o))
	case *calico.GlobalNetworkPolicy:
		r.metadata(&o.ObjectMeta, globalPolicyName)
		return r.calicoPolicy(policySpec{GlobalNetworkPolicySpec: o.Spec, stored: o.APIVersion == crdVersion})
	case *calico.StagedNetworkPolicy:
		r.metadata(&o.ObjectMeta, policyName)
		return r.calicoPolicy(fromStagedPolicy(o))
	case *calico.StagedGlobalNetworkPolicy:
		r.metadata(&o.ObjectMeta, globalPolicyName)
		return r.calicoPolicy(fromStagedGlobalPolicy(o))
	case *calico.StagedKubernetesNetworkPolicy:
		r.metadata(&o.ObjectMeta, anyName)
		return r.stagedKubernetesPolicy(o)
	case *calico.Tier:
		return r.tierObject(o)
	case *calico.Profile:
		return r.profile(o)
	case *calico.NetworkSet:
		return r.networkSet(&o.ObjectMeta, o.Spec.Nets)
	case *calico.GlobalNetworkSet:
		return r.networkSet(&o.ObjectMeta, o.Spec.Nets)
	case *calico.HostEndpoint:
		return r.hostEndpoint(o)
	}
	r.add("", "objects of type %s cannot be converted", fmt.Sprintf("%T", obj))
	return nil
}
