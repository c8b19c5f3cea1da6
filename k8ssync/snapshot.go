package k8ssync

import (
	"maps"
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

// change is the change of the value that stands for the object of an index key.
type change struct {
	key string
	policy.Change
}

// build makes the next snapshot, unless it would be equal to the last one.
// Slices of classes without changes are shared between the two, and what did not
// change keeps its pointer.
func (s *Store) build() {
	changes := make([]change, 0, len(s.pending))
	for _, key := range slices.Sorted(maps.Keys(s.pending)) {
		was := s.pending[key]
		e := s.get(key)
		var now any
		if e != nil {
			now = inForce(key, e.value)
		}
		switch {
		case now == was:
		case now != nil && reflect.DeepEqual(now, was): // there and back
			if e.object.Value == e.value {
				e.object.Value = was
			}
			e.value = was
			s.put(key, e)
		default:
			changes = append(changes, change{key, policy.Change{Old: was, New: now}})
		}
	}
	s.pending = make(map[string]any) // the old one may have had every object
	if len(changes) == 0 && s.snapshot.Generation > 0 {
		return
	}
	next := *s.snapshot
	next.Generation++
	for rest := changes; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].key[0] == rest[0].key[0] {
			n++
		}
		s.fill(&next, classOfIndex(rest[0].key), rest[:n])
		rest = rest[n:]
	}
	s.snapshot = &next
	s.journal.add(&next, changes)
}

// inForce gives what an object's value adds to a snapshot; nil is nothing.
func inForce(key string, value any) any {
	switch classOfIndex(key) {
	case policies:
		return only[policy.Policy](value)
	case tiers:
		if t, _ := value.(*policy.Tier); t != nil && slices.ContainsFunc(builtInTiers, func(b policy.Tier) bool { return b.Name == t.Name }) {
			return nil
		}
		return only[policy.Tier](value)
	case profiles:
		if p, _ := value.(*policy.Profile); p != nil && p.Name == policy.DefaultAllowProfile {
			return nil
		}
		return only[policy.Profile](value)
	case namespaces:
		return only[policy.Namespace](value)
	case serviceAccounts:
		return only[policy.ServiceAccount](value)
	case endpoints:
		return only[policy.Endpoint](value)
	case hostEndpoints:
		return only[policy.HostEndpoint](value)
	case networkSets:
		return only[policy.NetworkSet](value)
	case endpointSlices:
		return only[policy.EndpointSlice](value)
	}
	return nil
}

// only gives a *T that is not nil, else nil.
func only[T any](value any) any {
	if v, _ := value.(*T); v != nil {
		return v
	}
	return nil
}

// fill changes the slice of a class.
func (s *Store) fill(next *policy.Snapshot, c class, changes []change) {
	keys := &s.sorted[c]
	switch c {
	case policies:
		fillLong(s.large, &next.Policies, &next.Pieces.Policies, keys, changes)
	case tiers:
		merge(&s.tiers, keys, changes)
		next.Tiers = withBuiltIn(s.tiers)
	case profiles:
		merge(&s.profiles, keys, changes)
		next.Profiles = withDefaultAllow(s.profiles)
	case namespaces:
		merge(&next.Namespaces, keys, changes)
	case serviceAccounts:
		fillLong(s.large, &next.ServiceAccounts, &next.Pieces.ServiceAccounts, keys, changes)
	case endpoints:
		fillLong(s.large, &next.Endpoints, &next.Pieces.Endpoints, keys, changes)
	case hostEndpoints:
		merge(&next.HostEndpoints, keys, changes)
	case networkSets:
		merge(&next.NetworkSets, keys, changes)
	case endpointSlices:
		merge(&next.EndpointSlices, keys, changes)
	}
}

// fillLong changes a list that is in pieces if the store is a large one.
func fillLong[T any](large bool, list *[]*T, pieces *[][]*T, keys *[]string, changes []change) {
	if large {
		*pieces = mergePieces(*pieces, keys, changes)
	} else {
		merge(list, keys, changes)
	}
}

// merge puts changes, in the order of their keys, into a copy of a list whose
// elements have the keys given.
func merge[T any](list *[]*T, keys *[]string, changes []change) {
	if mergeList(list, *keys, changes) {
		mergeKeys[T](keys, changes)
	}
}

// mergeList is merge without the keys, and tells whether they change.
func mergeList[T any](list *[]*T, keys []string, changes []change) (moved bool) {
	var out []*T
	if n := len(*list) + len(changes); n > 0 {
		out = make([]*T, 0, n)
	}
	at := 0
	for _, ch := range changes {
		n, found := slices.BinarySearch(keys[at:], ch.key)
		out = append(out, (*list)[at:at+n]...)
		if at += n; found {
			at++
		}
		v, _ := ch.New.(*T)
		if v != nil {
			out = append(out, v)
		}
		moved = moved || found != (v != nil)
	}
	out = append(out, (*list)[at:]...)
	if *list = slices.Clip(out); len(out) == 0 {
		*list = nil
	}
	return moved
}

// mergeKeys follows merge in the keys. These are nobody else's, so that a few
// changes are made in place: the keys of 100,000 pods are twice as large as the list.
func mergeKeys[T any](keys *[]string, changes []change) {
	const few = 16
	if len(changes) <= few {
		for _, ch := range changes {
			at, found := slices.BinarySearch(*keys, ch.key)
			if v, _ := ch.New.(*T); v != nil && !found {
				*keys = slices.Insert(*keys, at, ch.key)
			} else if v == nil && found {
				*keys = slices.Delete(*keys, at, at+1)
			}
		}
		return
	}
	out := make([]string, 0, len(*keys)+len(changes))
	at := 0
	for _, ch := range changes {
		n, found := slices.BinarySearch((*keys)[at:], ch.key)
		out = append(out, (*keys)[at:at+n]...)
		if at += n; found {
			at++
		}
		if v, _ := ch.New.(*T); v != nil {
			out = append(out, ch.key)
		}
	}
	*keys = append(out, (*keys)[at:]...)
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
