package policy

import (
	"math"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy/selector"
)

// Kind is the kind of an object. The strings are the ones that policies of
// equal order and name are sorted by (projectcalico/calico
// felix/calc/policy_sorter.go).
type Kind string

// Kinds of policy.
const (
	NetworkPolicy                  Kind = "NetworkPolicy"
	GlobalNetworkPolicy            Kind = "GlobalNetworkPolicy"
	KubernetesNetworkPolicy        Kind = "KubernetesNetworkPolicy"
	KubernetesClusterNetworkPolicy Kind = "KubernetesClusterNetworkPolicy"
	StagedNetworkPolicy            Kind = "StagedNetworkPolicy"
	StagedGlobalNetworkPolicy      Kind = "StagedGlobalNetworkPolicy"
	StagedKubernetesNetworkPolicy  Kind = "StagedKubernetesNetworkPolicy"
)

// Kinds of everything else in a Snapshot.
const (
	TierKind           Kind = "Tier"
	ProfileKind        Kind = "Profile"
	NamespaceKind      Kind = "Namespace"
	ServiceAccountKind Kind = "ServiceAccount"
	PodKind            Kind = "Pod"
	HostEndpointKind   Kind = "HostEndpoint"
	NetworkSetKind     Kind = "NetworkSet"
	GlobalNetworkSet   Kind = "GlobalNetworkSet"
	EndpointSliceKind  Kind = "EndpointSlice"
)

// Key names one object. Namespace is empty for kinds that have none.
type Key struct {
	Kind            Kind
	Namespace, Name string
}

// String prints "Kind namespace/name", or "Kind name".
func (k Key) String() string {
	if k.Namespace == "" {
		return string(k.Kind) + " " + k.Name
	}
	return string(k.Kind) + " " + k.Namespace + "/" + k.Name
}

// Action is what a rule says, or a tier at its end.
type Action uint8

// The zero Action denies.
const (
	Deny Action = iota
	Allow
	Pass
	Log
)

func (a Action) String() string {
	switch a {
	case Allow:
		return "Allow"
	case Pass:
		return "Pass"
	case Log:
		return "Log"
	default:
		return "Deny"
	}
}

// StagedAction tells what a staged policy would do; Enforced policies have none.
type StagedAction string

const (
	Enforced     StagedAction = ""
	StagedSet    StagedAction = "Set"
	StagedDelete StagedAction = "Delete"
	StagedLearn  StagedAction = "Learn"
	StagedIgnore StagedAction = "Ignore"
)

// Names that always exist.
const (
	DefaultTier         = "default"
	AdminTier           = "kube-admin"
	BaselineTier        = "kube-baseline"
	DefaultAllowProfile = "projectcalico-default-allow"
)

// DefaultTierOrder is the order of the default tier, and of a Tier object that
// states none.
const DefaultTierOrder = 1e6

// Unordered is the order of a policy that states none: last in its tier.
var Unordered = math.Inf(1)

// Tier is a Tier object. The built-in tiers are in every Snapshot; a tier that
// policies name without an object is not.
type Tier struct {
	Name  string
	Order float64
	// DefaultAction is Pass or Deny: what happens to a packet that no rule of
	// the tier's applicable policies matched.
	DefaultAction Action
}

// Policy is an enforced or staged policy of any kind. The Kubernetes kinds are
// expressed in Calico's terms, as spec section 8 converts them.
type Policy struct {
	Kind            Kind
	Namespace, Name string // Namespace is empty for global kinds
	Staged          StagedAction

	Tier  string
	Order float64 // Unordered if not stated

	// Which endpoints it applies to. A nil selector is one that is not stated.
	// NamespaceSelector is always nil on namespaced kinds.
	Selector, NamespaceSelector, ServiceAccountSelector *selector.Selector

	// AppliesIngress and AppliesEgress are the types list; at least one is true.
	// Rules of a direction that is not listed are inert.
	AppliesIngress, AppliesEgress bool
	Ingress, Egress               []Rule

	// Host endpoint properties. DoNotTrack and PreDNAT policies never affect pods.
	ApplyOnForward, DoNotTrack, PreDNAT bool
}

// Key names the policy's object.
func (p *Policy) Key() Key { return Key{p.Kind, p.Namespace, p.Name} }

// Applies tells whether the policy lists the direction in its types.
func (p *Policy) Applies(d flow.Direction) bool {
	if d == flow.Egress {
		return p.AppliesEgress
	}
	return p.AppliesIngress
}

// Rules gives the rules of a direction, in order.
func (p *Policy) Rules(d flow.Direction) []Rule {
	if d == flow.Egress {
		return p.Egress
	}
	return p.Ingress
}

// Rule is one rule. Every criterion that is stated must hold; zero values state
// nothing.
type Rule struct {
	// Index is the position, from 0, of the rule in the object's list for its
	// direction. Converted kinds may repeat it, and fail-closed conversion may
	// skip numbers.
	Index  int
	Action Action

	IPVersion             uint8 // 4, 6, or 0 for not stated
	Protocol, NotProtocol *Protocol
	ICMP, NotICMP         *ICMPMatch
	Source, Destination   EntityRule
	HTTP                  *HTTPMatch
	Annotations           map[string]string
}

// Protocol is a protocol as the rule wrote it. Whether it was written by name
// matters: the name ICMP narrows the rule to IPv4 and ICMPv6 to IPv6, while the
// numbers 1 and 58 narrow nothing (spec section 6).
type Protocol struct {
	Number flow.Proto
	ByName bool
}

// ICMPMatch matches an ICMP type and, if Code is not nil, a code.
type ICMPMatch struct {
	Type uint8
	Code *uint8
}

// HTTPMatch narrows an Allow at the application layer only. Empty lists match.
type HTTPMatch struct {
	Methods []string
	Paths   []HTTPPath
}

// HTTPPath has exactly one field set.
type HTTPPath struct{ Exact, Prefix string }

// EntityRule is the source or destination half of a rule.
type EntityRule struct {
	// Nets and NotNets are masked prefixes of one family; nil if not stated.
	Nets, NotNets []netip.Prefix
	// Selectors are nil if not stated. global() appears in NamespaceSelector
	// only, and then alone.
	Selector, NotSelector, NamespaceSelector *selector.Selector
	// ServiceAccounts is nil if not stated. It may be present and empty, which
	// constrains nothing.
	ServiceAccounts *ServiceAccountMatch
	// Service is nil if not stated.
	Service *ServiceRef
	// Ports and NotPorts are nil if not stated.
	Ports, NotPorts []Port
}

// ServiceAccountMatch matches by exact account name, by account label, or both.
type ServiceAccountMatch struct {
	Names    []string // compared literally
	Selector *selector.Selector
}

// ServiceRef names a Kubernetes service. Namespace is filled in with the
// policy's own where a NetworkPolicy leaves it out.
type ServiceRef struct{ Namespace, Name string }

// Port is a range of numbers, or a name if Name is not empty.
type Port struct {
	flow.PortRange
	Name string
}

// Endpoint is a pod that counts as an endpoint: scheduled, not on the host
// network, live, with at least one address (spec section 3.1).
type Endpoint struct {
	Namespace, Name, UID string
	// ServiceAccount is spec.serviceAccountName; empty for pods that have none.
	ServiceAccount string
	// Node is the node that hosts it, empty where the source does not say.
	Node string
	// Labels are the pod's own labels, as written. Reserved keys may be among
	// them and must be ignored (spec section 3.2).
	Labels map[string]string
	Addrs  []netip.Addr
	Ports  []NamedPort
}

// Key names the pod.
func (e *Endpoint) Key() Key { return Key{PodKind, e.Namespace, e.Name} }

// NamedPort is a port that a container or a host endpoint declares by name.
type NamedPort struct {
	Name  string
	Proto flow.Proto
	Port  uint16
}

// HostEndpoint is a host's own endpoint.
type HostEndpoint struct {
	Name, Node, InterfaceName string
	Labels                    map[string]string
	ExpectedIPs               []netip.Addr
	Profiles                  []string
	Ports                     []NamedPort
}

// NetworkSet is a NetworkSet or a GlobalNetworkSet (Namespace empty).
type NetworkSet struct {
	Kind            Kind
	Namespace, Name string
	Labels          map[string]string // as written, reserved keys included
	Nets            []netip.Prefix    // masked, both families
}

// Namespace is a namespace and its labels.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// ServiceAccount is a service account and its labels.
type ServiceAccount struct {
	Namespace, Name string
	Labels          map[string]string
}

// Profile is a Profile object. The profiles derived from namespaces and service
// accounts (kns.*, ksa.*) are not listed; they follow from those objects.
type Profile struct {
	Name            string
	Ingress, Egress []Rule
	LabelsToApply   map[string]string
}

// EndpointSlice is the part of an EndpointSlice that service matches read:
// every address is served on every port.
type EndpointSlice struct {
	Namespace, Name string
	Service         string // label kubernetes.io/service-name
	Addrs           []netip.Addr
	Ports           []ServicePort // entries without a number are left out
}

// ServicePort is one numbered port of an EndpointSlice.
type ServicePort struct {
	Proto flow.Proto
	Port  uint16
}

// Snapshot is one consistent state of everything that decisions depend on. The
// slices are sorted by namespace and name, so equal states are equal values.
type Snapshot struct {
	// Generation numbers snapshots of one store; it only grows.
	Generation uint64

	Tiers           []Tier
	Policies        []*Policy
	Profiles        []*Profile
	Namespaces      []*Namespace
	ServiceAccounts []*ServiceAccount
	Endpoints       []*Endpoint
	HostEndpoints   []*HostEndpoint
	NetworkSets     []*NetworkSet
	EndpointSlices  []*EndpointSlice

	// Pieces holds lists in the place of the slices above, if the snapshot is of a store
	// for large clusters.
	Pieces Pieces `json:"-"`
}

// Pieces are the lists of a Snapshot that are long and change all the time, cut, in the
// order of the lists: successive snapshots share the pieces in which nothing changed,
// while a list of 100,000 pods would be a new one at each event.
type Pieces struct {
	Policies        [][]*Policy
	ServiceAccounts [][]*ServiceAccount
	Endpoints       [][]*Endpoint
}

// Pods gives the endpoints, in pieces or not. It may make the list.
func (s *Snapshot) Pods() []*Endpoint { return whole(s.Endpoints, s.Pieces.Endpoints) }

// NumPods is how many endpoints there are, in pieces or not.
func (s *Snapshot) NumPods() int { return length(s.Endpoints, s.Pieces.Endpoints) }

// NumPolicies is how many policies there are, in pieces or not.
func (s *Snapshot) NumPolicies() int { return length(s.Policies, s.Pieces.Policies) }

// Complete gives the same snapshot without pieces: all is in the slices.
func (s *Snapshot) Complete() *Snapshot {
	p := s.Pieces
	if len(p.Policies)+len(p.ServiceAccounts)+len(p.Endpoints) == 0 {
		return s
	}
	c := *s
	c.Policies, c.ServiceAccounts, c.Endpoints = whole(s.Policies, p.Policies), whole(s.ServiceAccounts, p.ServiceAccounts), whole(s.Endpoints, p.Endpoints)
	c.Pieces = Pieces{}
	return &c
}

func whole[T any](list []T, pieces [][]T) []T {
	if len(pieces) == 0 {
		return list
	}
	return slices.Concat(pieces...)
}

func length[T any](list []T, pieces [][]T) int {
	n := len(list)
	for _, p := range pieces {
		n += len(p)
	}
	return n
}
