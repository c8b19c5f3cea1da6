package k8ssync

import (
	"reflect"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/policy"
)

// class is one slice of a Snapshot.
type class int

const (
	policies class = iota
	tiers
	profiles
	namespaces
	serviceAccounts
	endpoints
	hostEndpoints
	networkSets
	endpointSlices
	others // kinds that no Snapshot holds
	classes
)

func classOf(k policy.Kind) class {
	switch k {
	case policy.NetworkPolicy, policy.GlobalNetworkPolicy, policy.KubernetesNetworkPolicy, policy.KubernetesClusterNetworkPolicy,
		policy.StagedNetworkPolicy, policy.StagedGlobalNetworkPolicy, policy.StagedKubernetesNetworkPolicy:
		return policies
	case policy.TierKind:
		return tiers
	case policy.ProfileKind:
		return profiles
	case policy.NamespaceKind:
		return namespaces
	case policy.ServiceAccountKind:
		return serviceAccounts
	case policy.PodKind:
		return endpoints
	case policy.HostEndpointKind:
		return hostEndpoints
	case policy.NetworkSetKind, policy.GlobalNetworkSet:
		return networkSets
	case policy.EndpointSliceKind:
		return endpointSlices
	}
	return others
}

// What exists without an object (spec 1.4, 1.5). An object of one of these names
// changes nothing.
var (
	builtInTiers = []policy.Tier{
		{Name: policy.DefaultTier, Order: policy.DefaultTierOrder, DefaultAction: policy.Deny},
		{Name: policy.AdminTier, Order: 1000, DefaultAction: policy.Pass},
		{Name: policy.BaselineTier, Order: 10_000_000, DefaultAction: policy.Pass},
	}
	defaultAllow = &policy.Profile{
		Name:    policy.DefaultAllowProfile,
		Ingress: []policy.Rule{{Action: policy.Allow}},
		Egress:  []policy.Rule{{Action: policy.Allow}},
	}
)

// build makes the next snapshot, unless it would be equal to the last one.
// Slices of classes without changes are shared between the two, so that one
// pod's change does not copy everything.
func (s *Store) build() {
	next := *s.snapshot
	next.Generation++
	changed := false
	for c := range classes {
		if s.dirty[c] {
			changed = s.fill(&next, c) || changed
		}
	}
	s.dirty = [classes]bool{}
	if changed {
		s.snapshot = &next
	}
}

// fill sets the slice of a class and tells whether it differs.
func (s *Store) fill(next *policy.Snapshot, c class) bool {
	switch c {
	case policies:
		return update(&next.Policies, values[policy.Policy](s, c))
	case tiers:
		return update(&next.Tiers, withBuiltIn(values[policy.Tier](s, c)))
	case profiles:
		return update(&next.Profiles, withDefaultAllow(values[policy.Profile](s, c)))
	case namespaces:
		return update(&next.Namespaces, values[policy.Namespace](s, c))
	case serviceAccounts:
		return update(&next.ServiceAccounts, values[policy.ServiceAccount](s, c))
	case endpoints:
		return update(&next.Endpoints, values[policy.Endpoint](s, c))
	case hostEndpoints:
		return update(&next.HostEndpoints, values[policy.HostEndpoint](s, c))
	case networkSets:
		return update(&next.NetworkSets, values[policy.NetworkSet](s, c))
	case endpointSlices:
		return update(&next.EndpointSlices, values[policy.EndpointSlice](s, c))
	}
	return false
}

// update compares by value; elements that are the same pointer cost nothing.
func update[T any](field *[]T, list []T) bool {
	if reflect.DeepEqual(*field, list) {
		return false
	}
	*field = list
	return true
}

// values lists what is in force in a class, ordered; objects that contribute
// nothing are left out.
func values[T any](s *Store, c class) []*T {
	var out []*T
	for _, e := range s.objects.WalkPrefix(string(rune('A'+c)) + "\x00") {
		if v, ok := e.value.(*T); ok && v != nil {
			out = append(out, v)
		}
	}
	return out
}

func withBuiltIn(stated []*policy.Tier) []policy.Tier {
	out := slices.Clone(builtInTiers)
	for _, t := range stated {
		if !slices.ContainsFunc(builtInTiers, func(b policy.Tier) bool { return b.Name == t.Name }) {
			out = append(out, *t)
		}
	}
	slices.SortFunc(out, func(a, b policy.Tier) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func withDefaultAllow(stated []*policy.Profile) []*policy.Profile {
	out := []*policy.Profile{defaultAllow}
	for _, p := range stated {
		if p.Name != policy.DefaultAllowProfile {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *policy.Profile) int { return strings.Compare(a.Name, b.Name) })
	return out
}
