package explain

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// Labels that identity derives (section 3.2).
const (
	namespaceLabel      = "projectcalico.org/namespace"
	orchestratorLabel   = "projectcalico.org/orchestrator"
	serviceAccountLabel = "projectcalico.org/serviceaccount"
	nameLabel           = "projectcalico.org/name"
	namespacePrefix     = "pcns."
	accountPrefix       = "pcsa."
)

// object is anything that covers addresses, with its derived labels.
type object struct {
	kind            policy.Kind // PodKind, HostEndpointKind, NetworkSetKind or GlobalNetworkSet
	namespace, name string
	labels          map[string]string
	ports           []policy.NamedPort

	node           string // pods and host endpoints
	serviceAccount string // pods
	// namespaceKnown: the pod's Namespace object exists, and with it the
	// profile kns.<namespace>.
	namespaceKnown bool
	host           *policy.HostEndpoint // host endpoints
}

// String prints "namespace/name", or "name".
func (o *object) String() string {
	if o.namespace == "" {
		return o.name
	}
	return o.namespace + "/" + o.name
}

// namespaced tells whether the object has a namespace: pods and NetworkSets.
func (o *object) namespaced() bool { _, ok := o.labels[namespaceLabel]; return ok }

type accountKey struct{ namespace, name string }

// serviceAddr is an address of a service; servicePort one of its ports there.
type serviceAddr struct {
	service policy.ServiceRef
	addr    netip.Addr
}

type servicePort struct {
	serviceAddr
	policy.ServicePort
}

// index finds what a snapshot holds by the keys that evaluation asks for.
type index struct {
	namespaces map[string]*policy.Namespace
	accounts   map[accountKey]*policy.ServiceAccount

	byAddr map[netip.Addr][]*object   // pods, then host endpoints
	byNet  map[netip.Prefix][]*object // sets, by masked prefix
	// bits4 and bits6 are the prefix lengths that occur in byNet.
	bits4, bits6 []int
	hosts        map[string]*object

	serviceAddrs map[serviceAddr]bool
	servicePorts map[servicePort]bool
}

func newIndex(s *policy.Snapshot) index {
	x := index{
		namespaces:   make(map[string]*policy.Namespace, len(s.Namespaces)),
		accounts:     make(map[accountKey]*policy.ServiceAccount, len(s.ServiceAccounts)),
		byAddr:       make(map[netip.Addr][]*object, len(s.Endpoints)),
		byNet:        make(map[netip.Prefix][]*object),
		hosts:        make(map[string]*object, len(s.HostEndpoints)),
		serviceAddrs: make(map[serviceAddr]bool),
		servicePorts: make(map[servicePort]bool),
	}
	for _, ns := range s.Namespaces {
		x.namespaces[ns.Name] = ns
	}
	for _, sa := range s.ServiceAccounts {
		x.accounts[accountKey{sa.Namespace, sa.Name}] = sa
	}
	for _, ep := range s.Endpoints {
		x.cover(x.pod(ep), ep.Addrs)
	}
	profiles := make(map[string]*policy.Profile, len(s.Profiles))
	for _, p := range s.Profiles {
		profiles[p.Name] = p
	}
	for _, h := range s.HostEndpoints {
		o := hostEndpoint(h, profiles)
		x.hosts[h.Name] = o
		x.cover(o, h.ExpectedIPs)
	}
	lengths := map[netip.Prefix]bool{} // one prefix of each family and length
	for _, set := range s.NetworkSets {
		o := x.networkSet(set)
		for _, net := range set.Nets {
			net = net.Masked()
			if !net.IsValid() || slices.Contains(x.byNet[net], o) {
				continue
			}
			x.byNet[net] = append(x.byNet[net], o)
			lengths[netip.PrefixFrom(unspecified(net.Addr()), net.Bits())] = true
		}
	}
	for p := range lengths {
		if p.Addr().Is4() {
			x.bits4 = append(x.bits4, p.Bits())
		} else {
			x.bits6 = append(x.bits6, p.Bits())
		}
	}
	slices.Sort(x.bits4) // maps have no order, traces must
	slices.Sort(x.bits6)
	for _, slice := range s.EndpointSlices {
		x.service(slice)
	}
	return x
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func (x *index) cover(o *object, addrs []netip.Addr) {
	for _, a := range addrs {
		if !slices.Contains(x.byAddr[a], o) { // an address may be listed twice
			x.byAddr[a] = append(x.byAddr[a], o)
		}
	}
}

// service expands a slice: every address on every port (section 6).
func (x *index) service(s *policy.EndpointSlice) {
	ref := policy.ServiceRef{Namespace: s.Namespace, Name: s.Service}
	for _, a := range s.Addrs {
		at := serviceAddr{ref, a}
		x.serviceAddrs[at] = true
		for _, p := range s.Ports {
			x.servicePorts[servicePort{at, p}] = true
		}
	}
}

// place finds everything that covers an address (section 3.5).
func (x *index) place(a netip.Addr) place {
	p := place{addr: a, objects: slices.Clone(x.byAddr[a])}
	bits := x.bits6
	if a.Is4() {
		bits = x.bits4
	}
	for _, n := range slices.Backward(bits) { // narrowest first
		net, err := a.Prefix(n)
		if err != nil {
			continue
		}
		for _, o := range x.byNet[net] {
			if !slices.Contains(p.objects, o) {
				p.objects = append(p.objects, o)
			}
		}
	}
	return p
}

// pod derives the labels of a pod (section 3.2). What the pod itself says about
// its namespace, account or inherited labels is thrown away [D2].
func (x *index) pod(ep *policy.Endpoint) *object {
	o := &object{
		kind: policy.PodKind, namespace: ep.Namespace, name: ep.Name,
		labels: ownLabels(ep.Labels), ports: ep.Ports,
		node: ep.Node, serviceAccount: ep.ServiceAccount,
	}
	o.labels[namespaceLabel] = ep.Namespace
	o.labels[orchestratorLabel] = "k8s"
	o.namespaceKnown = x.inheritNamespace(o)
	if ep.ServiceAccount == "" {
		return o
	}
	o.labels[serviceAccountLabel] = ep.ServiceAccount
	if sa := x.accounts[accountKey{ep.Namespace, ep.ServiceAccount}]; sa != nil {
		for k, v := range sa.Labels {
			o.labels[accountPrefix+k] = v
		}
		o.labels[accountPrefix+nameLabel] = sa.Name
	}
	return o
}

// networkSet derives the labels of a NetworkSet or GlobalNetworkSet (3.3).
func (x *index) networkSet(s *policy.NetworkSet) *object {
	o := &object{kind: s.Kind, namespace: s.Namespace, name: s.Name, labels: ownLabels(s.Labels)}
	if s.Namespace != "" {
		o.labels[namespaceLabel] = s.Namespace
		x.inheritNamespace(o)
	}
	return o
}

// hostEndpoint derives the labels of a host endpoint (3.3). Reserved keys are
// refused from its profiles too: a profile must not make a host a pod.
func hostEndpoint(h *policy.HostEndpoint, profiles map[string]*policy.Profile) *object {
	o := &object{
		kind: policy.HostEndpointKind, name: h.Name, labels: ownLabels(h.Labels),
		ports: h.Ports, node: h.Node, host: h,
	}
	for _, name := range h.Profiles {
		p := profiles[name]
		if p == nil {
			continue
		}
		for k, v := range ownLabels(p.LabelsToApply) {
			if _, ok := o.labels[k]; !ok { // own labels first, then profiles in order
				o.labels[k] = v
			}
		}
	}
	return o
}

// inheritNamespace adds the labels of the object's namespace and tells whether
// the namespace is known.
func (x *index) inheritNamespace(o *object) bool {
	ns := x.namespaces[o.namespace]
	if ns == nil {
		return false
	}
	for k, v := range ns.Labels {
		o.labels[namespacePrefix+k] = v
	}
	o.labels[namespacePrefix+nameLabel] = ns.Name
	return true
}

// ownLabels copies labels without the keys that only derivation may set [D2].
func ownLabels(labels map[string]string) map[string]string {
	own := make(map[string]string, len(labels)+8)
	maps.Copy(own, labels)
	maps.DeleteFunc(own, func(k, _ string) bool { return isDerived(k) })
	return own
}

// isDerived tells whether a label is one that only derivation may set.
func isDerived(k string) bool {
	return k == namespaceLabel || k == orchestratorLabel || k == serviceAccountLabel ||
		strings.HasPrefix(k, namespacePrefix) || strings.HasPrefix(k, accountPrefix)
}

// serves tells whether the address is one of the service's.
func (x *index) serves(ref policy.ServiceRef, a netip.Addr) bool {
	return x.serviceAddrs[serviceAddr{ref, a}]
}

// servesPort tells whether the service is served at the address and port.
func (x *index) servesPort(ref policy.ServiceRef, a netip.Addr, proto flow.Proto, port uint16) bool {
	return x.servicePorts[servicePort{serviceAddr{ref, a}, policy.ServicePort{Proto: proto, Port: port}}]
}
