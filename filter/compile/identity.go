package compile

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// identity is what policy can tell about an object that has addresses. Objects
// of one identity are one to every selector.
type identity struct {
	labels selector.Map // effective, spec section 3
	ports  []policy.NamedPort
	// hosted is set for pods of this node; only they need programs.
	hosted bool
	// open is set for a pod whose namespace is known, so that its profile allows
	// what no tier decides.
	open bool
	// programs are indexes of spec.Programs by flow.Direction; 0 denies.
	programs [2]int
}

// entry is an address or prefix of something that makes classes.
type entry struct {
	prefix netip.Prefix
	atom   atom
}

// addIdentities derives the labels of pods, sets and host endpoints and interns
// them. Pods come first: they are sorted by namespace, and so identities are.
func (c *compiler) addIdentities() {
	c.byNamespace = make(map[string][]int)
	interned := make(map[string]int)
	c.addPods(interned)
	for _, set := range c.NetworkSets {
		id := c.intern(interned, c.setLabels(set), nil)
		for _, p := range set.Nets {
			if p = p.Masked(); !p.IsValid() || p.Addr().Is4In6() {
				c.problem(policy.Key{Kind: set.Kind, Namespace: set.Namespace, Name: set.Name}, "spec.nets", "%s is neither an IPv4 nor an IPv6 prefix: ignored", p)
				continue
			}
			c.addresses = append(c.addresses, entry{p, atom(id)})
		}
	}
	c.hostIdentity = make([]int, len(c.HostEndpoints))
	for i, h := range c.HostEndpoints {
		c.hostIdentity[i] = c.intern(interned, c.hostLabels(h), h.Ports)
		for _, a := range h.ExpectedIPs {
			c.addAddress(policy.Key{Kind: policy.HostEndpointKind, Name: h.Name}, "spec.expectedIPs", a, atom(c.hostIdentity[i]))
		}
	}
}

func (c *compiler) addPods(interned map[string]int) {
	c.podIdentity = make([]int, len(c.Endpoints))
	c.spec.Endpoints = make([]filter.Endpoint, 0, len(c.Endpoints))
	c.addresses = make([]entry, 0, 2*len(c.Endpoints))
	owners := make(map[netip.Addr]int, len(c.Endpoints))
	pods := make(map[string]int) // identities by what their labels derive from
	var key podKey
	for i, ep := range c.Endpoints {
		k := key.of(ep)
		id, known := pods[string(k)]
		if !known {
			id = c.intern(interned, c.podLabels(ep), ep.Ports)
			c.identities[id].open = c.namespaces[ep.Namespace] != nil
			pods[string(k)] = id
		}
		c.podIdentity[i] = id
		hosted := c.hostedOn(ep.Node)
		if hosted {
			c.identities[id].hosted = true
		}
		out := filter.Endpoint{EndpointInfo: filter.EndpointInfo{
			Namespace: ep.Namespace, Name: ep.Name, ServiceAccount: ep.ServiceAccount, Hosted: hosted,
		}}
		for _, a := range ep.Addrs {
			if !c.addAddress(ep.Key(), "status.podIPs", a, atom(id)) {
				continue
			}
			out.Addrs = append(out.Addrs, a)
			p := netip.PrefixFrom(a, a.BitLen())
			if hosted {
				c.addresses = append(c.addresses, entry{p, atomHosted})
			}
			owner, taken := owners[a]
			if !taken {
				owners[a] = i
			} else if owner != i {
				c.addresses = append(c.addresses, entry{p, atomConflict})
				c.problem(ep.Key(), "status.podIPs", "%s claims %s too: the address is denied until one of them is gone", c.Endpoints[owner].Key(), a)
			}
		}
		c.spec.Endpoints = append(c.spec.Endpoints, out)
	}
}

// addAddress notes an address of an object's field. It refuses those that no
// packet carries to a decision: IPv4-mapped ones, and those with a zone, which
// mean nothing off their link.
func (c *compiler) addAddress(object policy.Key, field string, addr netip.Addr, a atom) bool {
	if !addr.IsValid() || addr.Is4In6() || addr.Zone() != "" {
		c.problem(object, field, "address %s is not a plain IPv4 or IPv6 address: ignored", addr)
		return false
	}
	c.addresses = append(c.addresses, entry{netip.PrefixFrom(addr, addr.BitLen()), a})
	return true
}

// intern gives the identity with these labels and ports.
func (c *compiler) intern(interned map[string]int, labels selector.Map, ports []policy.NamedPort) int {
	k := appendLabels(nil, labels, nil)
	k = appendPorts(k, ports)
	id, known := interned[string(k)]
	if !known {
		id = len(c.identities)
		interned[string(k)] = id
		c.identities = append(c.identities, identity{labels: labels, ports: ports})
		if ns, ok := labels[namespaceLabel]; ok {
			c.byNamespace[ns] = append(c.byNamespace[ns], id)
		}
	}
	return id
}

// podLabels derives the effective labels of a pod (spec section 3.2).
func (c *compiler) podLabels(ep *policy.Endpoint) selector.Map {
	labels := make(selector.Map, len(ep.Labels)+8)
	for k, v := range ep.Labels {
		if !inherited(k) {
			labels[k] = v
		}
	}
	labels[namespaceLabel] = ep.Namespace
	labels[orchestratorLabel] = "k8s"
	delete(labels, serviceAccountLabel)
	if ep.ServiceAccount != "" {
		labels[serviceAccountLabel] = ep.ServiceAccount
	}
	c.inheritNamespace(labels, ep.Namespace)
	c.inheritAccount(labels, accountKey{ep.Namespace, ep.ServiceAccount})
	return labels
}

// setLabels derives the effective labels of a network set (spec section 3.3).
func (c *compiler) setLabels(set *policy.NetworkSet) selector.Map {
	labels := unreserved(set.Labels)
	if set.Namespace != "" {
		labels[namespaceLabel] = set.Namespace
		c.inheritNamespace(labels, set.Namespace)
	}
	return labels
}

// hostLabels derives the effective labels of a host endpoint: its own, then
// those its profiles apply.
func (c *compiler) hostLabels(h *policy.HostEndpoint) selector.Map {
	labels := unreserved(h.Labels)
	for _, name := range h.Profiles {
		if c.profile(name) != objectProfile {
			continue
		}
		for k, v := range unreserved(c.profiles[name].LabelsToApply) {
			inherit(labels, k, v)
		}
	}
	return labels
}

func (c *compiler) inheritNamespace(labels selector.Map, name string) {
	if ns := c.namespaces[name]; ns != nil {
		for k, v := range ns.Labels {
			if k != nameLabel {
				inherit(labels, namespacePrefix+k, v)
			}
		}
		inherit(labels, namespacePrefix+nameLabel, name)
	}
}

func (c *compiler) inheritAccount(labels selector.Map, key accountKey) {
	if sa := c.serviceAccounts[key]; sa != nil {
		for k, v := range sa.Labels {
			if k != nameLabel {
				inherit(labels, accountPrefix+k, v)
			}
		}
		inherit(labels, accountPrefix+nameLabel, key.name)
	}
}

// inherit sets a label that the object does not have yet.
func inherit(labels selector.Map, label, value string) {
	if _, has := labels[label]; !has {
		labels[label] = value
	}
}

// inherited tells whether only a namespace or service account may give the label.
func inherited(label string) bool {
	return strings.HasPrefix(label, namespacePrefix) || strings.HasPrefix(label, accountPrefix)
}

// unreserved copies labels without those that would let a set or host endpoint
// pass for a pod (spec section 3.3, D2).
func unreserved(labels map[string]string) selector.Map {
	out := make(selector.Map, len(labels)+4)
	for k, v := range labels {
		if k != namespaceLabel && k != serviceAccountLabel && k != orchestratorLabel && !inherited(k) {
			out[k] = v
		}
	}
	return out
}

// podKey is scratch for the key of what a pod's identity derives from.
type podKey struct {
	key   []byte
	names []string
}

// of gives the key, valid until the next call.
func (k *podKey) of(ep *policy.Endpoint) []byte {
	k.names = k.names[:0]
	k.key = appendString(k.key[:0], ep.Namespace)
	k.key = appendString(k.key, ep.ServiceAccount)
	k.key = appendLabels(k.key, ep.Labels, &k.names)
	k.key = appendPorts(k.key, ep.Ports)
	return k.key
}

// appendLabels appends labels unambiguously and in sorted order; names is
// optional scratch.
func appendLabels(b []byte, labels map[string]string, names *[]string) []byte {
	if names == nil {
		names = new([]string)
	}
	for k := range labels {
		*names = append(*names, k)
	}
	slices.Sort(*names)
	b = binary.AppendUvarint(b, uint64(len(labels)))
	for _, k := range *names {
		b = appendString(appendString(b, k), labels[k])
	}
	return b
}

func appendPorts(b []byte, ports []policy.NamedPort) []byte {
	for _, p := range ports {
		b = append(appendString(b, p.Name), byte(p.Proto), byte(p.Port>>8), byte(p.Port))
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
