package compile

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"unsafe"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// identity is what policy can tell about an object that has addresses. Objects
// of one identity are one to every selector.
type identity struct {
	// What following a relabelled pod reads comes first, and so side by side.
	objects int       // that have it
	next    *identity // that the last pod which was relabelled went to; nil once nothing has it
	classes []*class  // that it is in
	first   [1]*class // memory for it: most have one
	// shapes are its keys in people.shapes, the newest last.
	shapes [maxShapes]shape
	shaped int // how many there are

	atom      atom
	key       string
	labels    []label // effective, spec section 3; each name once
	ports     []policy.NamedPort
	namespace string // empty for what has none
	// open is set for a pod whose namespace is known, so that its profile allows
	// what no tier decides.
	open   bool
	hosted map[*policy.Endpoint]bool // of its objects, pods of this node; only they need programs
	plan   *endpointPlan
	place  int  // in identitiesIn
	stale  bool // what it inherits changes, so that it is not in interned
}

// people has the objects with labels, and their identities.
type people struct {
	pods int // in podsIn
	// podsIn has the pods by namespace. An object's pod is found by its addresses, and
	// by the object if it has none that packets carry.
	podsIn  map[string][]*pod
	nowhere map[*policy.Endpoint]*pod
	sets    map[*policy.NetworkSet]*identity
	setsIn  map[string]map[*policy.NetworkSet]bool
	// interned has the identities by their keys: those of pods by what their labels
	// derive from, until what they inherit changes, and others by their labels.
	interned map[string]*identity
	// identitiesIn has them by namespace.
	identitiesIn map[string][]*identity
	shapes       map[shape]*identity // has some of these identities, for pods that share memory
	podKey       podKey
}

type pod struct {
	endpoint *policy.Endpoint
	identity *identity
	place    uint32 // in podsIn
	hosted   bool
}

func newPeople() people {
	return people{
		podsIn:       make(map[string][]*pod),
		nowhere:      make(map[*policy.Endpoint]*pod),
		sets:         make(map[*policy.NetworkSet]*identity),
		setsIn:       make(map[string]map[*policy.NetworkSet]bool),
		interned:     make(map[string]*identity),
		identitiesIn: make(map[string][]*identity),
		shapes:       make(map[shape]*identity),
	}
}

// podOf gives the pod of an object, or nil.
func (c *Compiler) podOf(ep *policy.Endpoint) *pod {
	carried := false
	for _, addr := range ep.Addrs {
		a := c.at(addr)
		if a == nil {
			continue
		}
		if a.pod != nil && a.pod.endpoint == ep {
			return a.pod
		}
		for _, o := range a.others {
			if o.of == any(ep) {
				return o.pod
			}
		}
		carried = carried || plain(addr)
	}
	if carried {
		return nil
	}
	return c.nowhere[ep]
}

func (c *Compiler) addPod(ep *policy.Endpoint) {
	if c.podOf(ep) != nil {
		return
	}
	id := c.identityOfPod(ep)
	p := &pod{endpoint: ep, identity: id, hosted: c.hostedOn(ep.Node), place: uint32(len(c.podsIn[ep.Namespace]))}
	id.objects++
	if p.hosted {
		if len(id.hosted) == 0 {
			id.hosted = make(map[*policy.Endpoint]bool)
			c.planFor(id)
		}
		id.hosted[ep] = true
	}
	c.pods++
	c.podsIn[ep.Namespace] = append(c.podsIn[ep.Namespace], p)
	if !slices.ContainsFunc(ep.Addrs, plain) {
		c.nowhere[ep] = p
	}
	for _, a := range ep.Addrs {
		c.addAddress(ep, ep.Key(), "status.podIPs", a, owner{of: ep, pod: p, atom: id.atom})
	}
}

func (c *Compiler) removePod(ep *policy.Endpoint) {
	p := c.podOf(ep)
	if p == nil {
		return
	}
	c.pods--
	takeOut(c.podsIn, ep.Namespace, int(p.place)).place = p.place
	delete(c.nowhere, ep)
	delete(c.notes, any(ep))
	for _, a := range ep.Addrs {
		c.disown(netip.PrefixFrom(a, a.BitLen()), ep)
	}
	if p.hosted {
		if delete(p.identity.hosted, ep); len(p.identity.hosted) == 0 {
			c.dropPlan(p.identity)
		}
	}
	c.release(p.identity)
}

func (c *Compiler) addSet(set *policy.NetworkSet) {
	if c.sets[set] != nil {
		return
	}
	id := c.intern(c.setLabels(set), nil)
	id.objects++
	c.sets[set] = id
	addTo(c.setsIn, set.Namespace, set)
	for _, p := range set.Nets {
		if p = p.Masked(); !p.IsValid() || p.Addr().Is4In6() {
			c.note(set, problem(setKey(set), "spec.nets", "%s is neither an IPv4 nor an IPv6 prefix: ignored", p))
			continue
		}
		c.own(p, owner{of: set, atom: id.atom})
	}
}

func (c *Compiler) removeSet(set *policy.NetworkSet) {
	id := c.sets[set]
	if id == nil {
		return
	}
	delete(c.sets, set)
	removeFrom(c.setsIn, set.Namespace, set)
	delete(c.notes, any(set))
	for _, p := range set.Nets {
		c.disown(p.Masked(), set)
	}
	c.release(id)
}

func (s *state) note(object any, p policy.Problem) { s.notes[object] = append(s.notes[object], p) }

func addTo[T any](m map[string]map[*T]bool, namespace string, o *T) {
	if m[namespace] == nil {
		m[namespace] = make(map[*T]bool)
	}
	m[namespace][o] = true
}

func removeFrom[T any](m map[string]map[*T]bool, namespace string, o *T) {
	if delete(m[namespace], o); len(m[namespace]) == 0 {
		delete(m, namespace)
	}
}

// intern gives the identity of objects that are no pods, with these labels and ports. The
// caller counts itself among its objects.
func (c *Compiler) intern(labels selector.Map, ports []policy.NamedPort) *identity {
	key := string(appendPorts(appendLabels([]byte{keyOfOthers}, labels), ports))
	if id := c.interned[key]; id != nil {
		return id
	}
	var list []label
	for k, v := range labels {
		list = append(list, label{k, v})
	}
	return c.newIdentity(key, labels[namespaceLabel], list, ports)
}

func (c *Compiler) newIdentity(key, namespace string, labels []label, ports []policy.NamedPort) *identity {
	id := &identity{key: key, labels: labels, ports: ports, namespace: namespace}
	id.classes = id.first[:0]
	id.atom = c.newAtom(id)
	c.interned[key] = id
	of := c.identitiesIn[id.namespace]
	id.place = len(of)
	c.identitiesIn[id.namespace] = append(of, id)
	return id
}

// release takes one object from an identity.
func (c *Compiler) release(id *identity) {
	if id.objects--; id.objects > 0 {
		return
	}
	c.garbage++
	id.next = nil
	c.forgetIdentity(id)
	c.byAtom[id.atom] = nil
	c.dead++
	takeOut(c.identitiesIn, id.namespace, id.place).place = id.place
}

// takeOut takes an element out of a list without an order. The last one, which it gives,
// gets its place.
func takeOut[T any](lists map[string][]*T, name string, place int) (moved *T) {
	list := lists[name]
	last := len(list) - 1
	moved = list[last]
	list[place], list[last] = moved, nil
	if lists[name] = list[:last]; last == 0 {
		delete(lists, name)
	}
	return moved
}

// identityOfPod gives the identity of a pod. The caller counts itself among its objects.
func (c *Compiler) identityOfPod(ep *policy.Endpoint) *identity {
	at := shapeOf(ep)
	if id := c.shapes[at]; id != nil {
		return id
	}
	key := c.podKey.of(ep)
	id := c.interned[string(key)]
	if id == nil {
		id = c.newIdentity(string(key), ep.Namespace, c.podLabels(ep, c.podKey.names), ep.Ports)
		id.open = c.namespaces[ep.Namespace] != nil
	}
	if id.shaped == maxShapes {
		delete(c.shapes, id.shapes[0])
		copy(id.shapes[:], id.shapes[1:])
		id.shaped--
	}
	c.shapes[at] = id
	id.shapes[id.shaped] = at
	id.shaped++
	return id
}

// Get implements selector.Labels. A dozen labels are read faster than a map.
func (id *identity) Get(name string) (value string, has bool) {
	for i := range id.labels {
		if l := &id.labels[i]; l.name == name {
			return l.value, true
		}
	}
	return "", false
}

// has tells whether pods of a shape are of this identity, as far as is remembered.
func (id *identity) has(s *shape) bool {
	for i := range id.shaped {
		if id.shapes[i] == *s {
			return true
		}
	}
	return false
}

// forgetIdentity sees to it that no other pod is given the identity.
func (p *people) forgetIdentity(id *identity) {
	for i := range id.shaped {
		delete(p.shapes, id.shapes[i])
	}
	id.shapes, id.shaped = [maxShapes]shape{}, 0
	if !id.stale {
		id.stale = true
		delete(p.interned, id.key)
	}
}

// forgetIdentities is called before what pods of a namespace inherit changes, for the
// identities that which tells: their pods will be put back as pods of others.
func (p *people) forgetIdentities(namespace string, which func(*identity) bool) {
	for _, id := range p.identitiesIn[namespace] {
		if id.key[0] == keyOfPods && which(id) {
			p.forgetIdentity(id)
		}
	}
}

// shape is where in memory the things are that a pod's identity derives from. Sources
// let pods share what is equal (k8ssync/kube keeps one map for each set of labels), and
// nobody writes to it, so pods of one shape are of one identity; those of two may be. The
// pointers keep what they point to alive, so that no address comes to mean something else.
type shape struct {
	labels             unsafe.Pointer
	namespace, account *byte
	ports              *policy.NamedPort
	// The lengths of both strings and the number of ports.
	namespaceLen, accountLen uint32
	portsLen                 int
}

// maxShapes bounds the shapes that are remembered of an identity: most have one, and
// pods of a source that shares nothing have one each.
const maxShapes = 2

func shapeOf(ep *policy.Endpoint) shape {
	return shape{
		labels:    reflect.ValueOf(ep.Labels).UnsafePointer(),
		namespace: unsafe.StringData(ep.Namespace), namespaceLen: uint32(len(ep.Namespace)),
		account: unsafe.StringData(ep.ServiceAccount), accountLen: uint32(len(ep.ServiceAccount)),
		ports: unsafe.SliceData(ep.Ports), portsLen: len(ep.Ports),
	}
}

// podLabels derives the effective labels of a pod, of whose own these names count (spec
// section 3.2). No name is given twice: what is inherited has prefixes.
func (s *state) podLabels(ep *policy.Endpoint, names []string) []label {
	namespace, account := s.namespaces[ep.Namespace], s.serviceAccounts[accountKey{ep.Namespace, ep.ServiceAccount}]
	labels := make([]label, 0, len(names)+3+len(namespace)+len(account))
	for _, name := range names {
		labels = append(labels, label{name, ep.Labels[name]})
	}
	labels = append(labels, label{namespaceLabel, ep.Namespace}, label{orchestratorLabel, "k8s"})
	if ep.ServiceAccount != "" {
		labels = append(labels, label{serviceAccountLabel, ep.ServiceAccount})
	}
	return append(append(labels, namespace...), account...)
}

// setLabels derives the effective labels of a network set (spec section 3.3).
func (s *state) setLabels(set *policy.NetworkSet) selector.Map {
	labels := unreserved(set.Labels)
	if set.Namespace != "" {
		labels[namespaceLabel] = set.Namespace
		for _, l := range s.namespaces[set.Namespace] {
			labels[l.name] = l.value
		}
	}
	return labels
}

// hostLabels derives the effective labels of a host endpoint: its own, then
// those its profiles apply.
func (s *state) hostLabels(h *policy.HostEndpoint) selector.Map {
	labels := unreserved(h.Labels)
	for _, name := range h.Profiles {
		if s.profile(name) != objectProfile {
			continue
		}
		for k, v := range unreserved(s.profiles[name].LabelsToApply) {
			inherit(labels, k, v)
		}
	}
	return labels
}

// inheritance gives the labels that a namespace or service account of that name passes on.
func inheritance(prefix, name string, labels map[string]string) []label {
	out := make([]label, 0, len(labels)+1)
	for k, v := range labels {
		if k != nameLabel {
			out = append(out, label{prefix + k, v})
		}
	}
	return append(out, label{prefix + nameLabel, name})
}

// inherit sets a label that the object does not have yet.
func inherit(labels selector.Map, label, value string) {
	if _, has := labels[label]; !has {
		labels[label] = value
	}
}

// own tells whether a pod's own label of that name counts (spec section 3.2).
func own(label string) bool {
	return !inherited(label) && label != namespaceLabel && label != orchestratorLabel && label != serviceAccountLabel
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

// The first bytes of identities' keys.
const (
	keyOfOthers = iota
	keyOfPods
)

// podKey is scratch for the key of what a pod's identity derives from, while what it
// inherits stays: pods of one key have the same effective labels, and pods of two do not.
type podKey struct {
	key   []byte
	names []string
}

// of gives the key, valid until the next call.
func (k *podKey) of(ep *policy.Endpoint) []byte {
	k.names = k.names[:0]
	for name := range ep.Labels {
		if own(name) {
			k.names = append(k.names, name)
		}
	}
	k.key = appendString(append(k.key[:0], keyOfPods), ep.Namespace)
	k.key = appendString(k.key, ep.ServiceAccount)
	k.key = appendNamed(k.key, ep.Labels, k.names)
	k.key = appendPorts(k.key, ep.Ports)
	return k.key
}

// appendLabels appends labels unambiguously and in sorted order.
func appendLabels(b []byte, labels map[string]string) []byte {
	return appendNamed(b, labels, slices.Collect(maps.Keys(labels)))
}

// appendNamed appends the labels of these names, which it sorts.
func appendNamed(b []byte, labels map[string]string, names []string) []byte {
	slices.Sort(names)
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, k := range names {
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
