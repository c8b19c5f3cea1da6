package kube

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/postern-project/postern/filter/policy"
)

// resource is something that is listed and watched.
type resource struct {
	gv     schema.GroupVersion
	plural string
	object string // kind, as objects say it
	kind   policy.Kind
	// raw resources are read as JSON, so that the strict decoder sees fields which
	// this version of postern does not know: in a policy they may be criteria.
	raw    bool
	fields string // field selector
}

func (r resource) String() string { return r.plural + "." + r.gv.String() }

var (
	coreV1       = schema.GroupVersion{Version: "v1"}
	discoveryV1  = schema.GroupVersion{Group: "discovery.k8s.io", Version: "v1"}
	networkingV1 = schema.GroupVersion{Group: "networking.k8s.io", Version: "v1"}
	clusterV1    = schema.GroupVersion{Group: "policy.networking.k8s.io", Version: "v1alpha2"}
	calicoV3     = schema.GroupVersion{Group: "projectcalico.org", Version: "v3"}
	calicoCRD    = schema.GroupVersion{Group: "crd.projectcalico.org", Version: "v1"}
)

// podsResource is the place of pods in required.
const podsResource = 2

// required are served by every API server.
var required = []resource{
	{gv: coreV1, plural: "namespaces", object: "Namespace", kind: policy.NamespaceKind},
	{gv: coreV1, plural: "serviceaccounts", object: "ServiceAccount", kind: policy.ServiceAccountKind},
	// A pod that has ended leaves the selection and so is deleted here, with its
	// address; the completed ones of jobs are never sent.
	{gv: coreV1, plural: "pods", object: "Pod", kind: policy.PodKind, fields: "status.phase!=Succeeded,status.phase!=Failed"},
	{gv: discoveryV1, plural: "endpointslices", object: "EndpointSlice", kind: policy.EndpointSliceKind},
	{gv: networkingV1, plural: "networkpolicies", object: "NetworkPolicy", kind: policy.KubernetesNetworkPolicy, raw: true},
}

// optional are read where they are served. Of two of one kind the earlier counts:
// Calico's API server shows in projectcalico.org/v3 what crd.projectcalico.org/v1
// stores.
var optional = append([]resource{
	{gv: clusterV1, plural: "clusternetworkpolicies", object: "ClusterNetworkPolicy", kind: policy.KubernetesClusterNetworkPolicy, raw: true},
}, append(calico(calicoV3), calico(calicoCRD)...)...)

func calico(gv schema.GroupVersion) []resource {
	return []resource{
		{gv: gv, plural: "tiers", object: "Tier", kind: policy.TierKind, raw: true},
		{gv: gv, plural: "networkpolicies", object: "NetworkPolicy", kind: policy.NetworkPolicy, raw: true},
		{gv: gv, plural: "globalnetworkpolicies", object: "GlobalNetworkPolicy", kind: policy.GlobalNetworkPolicy, raw: true},
		{gv: gv, plural: "stagednetworkpolicies", object: "StagedNetworkPolicy", kind: policy.StagedNetworkPolicy, raw: true},
		{gv: gv, plural: "stagedglobalnetworkpolicies", object: "StagedGlobalNetworkPolicy", kind: policy.StagedGlobalNetworkPolicy, raw: true},
		{gv: gv, plural: "stagedkubernetesnetworkpolicies", object: "StagedKubernetesNetworkPolicy", kind: policy.StagedKubernetesNetworkPolicy, raw: true},
		{gv: gv, plural: "networksets", object: "NetworkSet", kind: policy.NetworkSetKind, raw: true},
		{gv: gv, plural: "globalnetworksets", object: "GlobalNetworkSet", kind: policy.GlobalNetworkSet, raw: true},
		{gv: gv, plural: "hostendpoints", object: "HostEndpoint", kind: policy.HostEndpointKind, raw: true},
		{gv: gv, plural: "profiles", object: "Profile", kind: policy.ProfileKind, raw: true},
	}
}

// groups are the versions that discovery asks for.
var groups = []schema.GroupVersion{clusterV1, calicoV3, calicoCRD}
