package diff

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter/policy"
)

// Identity is a set of pods, or of addresses that are no pod's, that the policies
// of neither side can tell apart.
type Identity struct {
	// Namespace, ServiceAccount and Labels are those of pods, as they are after
	// the change; Labels are the pods' own that some selector reads.
	Namespace      string            `json:"namespace,omitempty"`
	ServiceAccount string            `json:"serviceAccount,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
	// Pods are "namespace/name", sorted. Empty for addresses.
	Pods []string `json:"pods,omitempty"`
	// Regions are empty for pods.
	Regions []Region `json:"regions,omitempty"`

	// addrs are the addresses that stand for it, by family and side; invalid if
	// it has none of the family.
	addrs [2][2]netip.Addr
	// changed: the sides see different labels, ports or coverage.
	changed bool
}

// Region is the addresses of Prefix that are in none of Except and no pod's.
type Region struct {
	Prefix netip.Prefix   `json:"prefix"`
	Except []netip.Prefix `json:"except,omitempty"`
}

func (id *Identity) isPod() bool { return len(id.Pods) > 0 }

// counterpart is a pod as both sides have it.
type counterpart [2]*policy.Endpoint

// match finds the pods of both sides: by name, and where a name is on one side
// only, by what the pod itself says, so that a pod that was replaced by its like
// is not taken for a new identity. alone are those without counterpart, by side.
func match(worlds [2]*world) (both []counterpart, alone [2][]*policy.Endpoint) {
	var byName [2]map[policy.Key]*policy.Endpoint
	var alike [2]map[string]*policy.Endpoint
	for side, w := range worlds {
		byName[side], alike[side] = make(map[policy.Key]*policy.Endpoint), make(map[string]*policy.Endpoint)
		for _, ep := range w.Endpoints {
			byName[side][ep.Key()] = ep
			if k := w.pod(ep); alike[side][k] == nil {
				alike[side][k] = ep
			}
		}
	}
	for side, w := range worlds {
		for _, ep := range w.Endpoints {
			other, named := byName[1-side][ep.Key()]
			if named && side == 1 {
				continue // counted from the other side
			}
			if !named {
				other = alike[1-side][w.pod(ep)]
			}
			if other == nil {
				alone[side] = append(alone[side], ep)
				continue
			}
			c := counterpart{ep, other}
			if side == 1 {
				c = counterpart{other, ep}
			}
			both = append(both, c)
		}
	}
	return both, alone
}

// podIdentities groups pods. alone are identities that one side has only.
func podIdentities(worlds [2]*world) (ids []*Identity, alone [2][]*Identity) {
	both, single := match(worlds)
	index := make(map[string]*Identity)
	for _, c := range both {
		found := false
		pairs := [2][][2]netip.Addr{addressPairs(c, 0), addressPairs(c, 1)}
		for i := range max(len(pairs[0]), len(pairs[1])) {
			found = true
			var addrs [2][2]netip.Addr
			var sigs [2]string
			for f := range pairs {
				if i < len(pairs[f]) {
					addrs[f] = pairs[f][i]
				}
				for side := range sigs {
					if addrs[f][side].IsValid() {
						sigs[side] += worlds[side].address(addrs[f][side])
					} else {
						sigs[side] += "none"
					}
				}
			}
			for side := range sigs {
				sigs[side] = worlds[side].endpoint(c[side]) + sigs[side]
			}
			key := sigs[0] + "\n" + sigs[1]
			id := index[key]
			if id == nil {
				id = newIdentity(worlds[1], c[1])
				id.addrs, id.changed = addrs, sigs[0] != sigs[1]
				index[key] = id
				ids = append(ids, id)
			}
			for _, ep := range c {
				id.addPod(ep)
			}
		}
		if !found {
			single[0], single[1] = append(single[0], c[0]), append(single[1], c[1])
		}
	}
	for side, eps := range single {
		index := make(map[string]*Identity)
		for _, ep := range eps {
			key := worlds[side].endpoint(ep)
			if index[key] == nil {
				index[key] = newIdentity(worlds[side], ep)
				alone[side] = append(alone[side], index[key])
			}
			index[key].addPod(ep)
		}
	}
	for _, list := range [][]*Identity{ids, alone[0], alone[1]} {
		for _, id := range list {
			slices.Sort(id.Pods)
			id.Pods = slices.Compact(id.Pods)
		}
		slices.SortStableFunc(list, func(a, b *Identity) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.ServiceAccount, b.ServiceAccount), slices.Compare(a.Pods, b.Pods))
		})
	}
	return ids, alone
}

func newIdentity(w *world, ep *policy.Endpoint) *Identity {
	return &Identity{Namespace: ep.Namespace, ServiceAccount: ep.ServiceAccount, Labels: w.read(ep.Labels, "")}
}

func (id *Identity) addPod(ep *policy.Endpoint) {
	id.Pods = append(id.Pods, podName(ep))
}

func podName(ep *policy.Endpoint) string { return ep.Namespace + "/" + ep.Name }

// addressPairs pairs a pod's addresses of a family: those that both sides have
// with themselves, the others in their order, and what is over with the last.
func addressPairs(c counterpart, fam int) (out [][2]netip.Addr) {
	var rest [2][]netip.Addr
	of := [2][]netip.Addr{plain(c[0].Addrs, fam), plain(c[1].Addrs, fam)}
	if len(of[0]) == 0 || len(of[1]) == 0 {
		return nil
	}
	for side := range of {
		for _, a := range of[side] {
			switch {
			case !slices.Contains(of[1-side], a):
				rest[side] = append(rest[side], a)
			case side == 0:
				out = append(out, [2]netip.Addr{a, a})
			}
		}
	}
	for i := range max(len(rest[0]), len(rest[1])) {
		var pair [2]netip.Addr
		for side := range pair {
			from := rest[side]
			if len(from) == 0 {
				from = of[side]
			}
			pair[side] = from[min(i, len(from)-1)]
		}
		out = append(out, pair)
	}
	return out
}

// plain gives the addresses of a family that packets can carry to a decision.
func plain(addrs []netip.Addr, fam int) (out []netip.Addr) {
	for _, a := range addrs {
		if a.IsValid() && !a.Is4In6() && a.Zone() == "" && family(a) == fam && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}
