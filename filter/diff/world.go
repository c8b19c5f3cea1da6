package diff

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/policy"
)

// world is one side, indexed for signatures. A signature is text that holds
// everything the policies of either side can tell about an object or address, so
// that equal signatures mean equal treatment, within a side and between sides
// under equal policies.
type world struct {
	*policy.Snapshot
	reads      *reads
	namespaces map[string]*policy.Namespace
	accounts   map[[2]string]*policy.ServiceAccount
	profiles   map[string]*policy.Profile
	claims     map[netip.Addr]int // pods that have the address
	// covers are the signatures of everything but pods that covers addresses, by
	// masked prefix.
	covers map[netip.Prefix][]string
	// lengths of the prefixes in covers, by family: IPv4, IPv6.
	lengths [2][]int
}

func newWorld(s *policy.Snapshot, r *reads) *world {
	w := &world{
		Snapshot: s, reads: r,
		namespaces: make(map[string]*policy.Namespace),
		accounts:   make(map[[2]string]*policy.ServiceAccount),
		profiles:   make(map[string]*policy.Profile),
		claims:     make(map[netip.Addr]int),
		covers:     make(map[netip.Prefix][]string),
	}
	for _, n := range s.Namespaces {
		w.namespaces[n.Name] = n
	}
	for _, a := range s.ServiceAccounts {
		w.accounts[[2]string{a.Namespace, a.Name}] = a
	}
	for _, p := range s.Profiles {
		w.profiles[p.Name] = p
	}
	for _, ep := range s.Endpoints {
		for i, a := range ep.Addrs {
			if !slices.Contains(ep.Addrs[:i], a) {
				w.claims[a]++
			}
		}
	}
	for n := range r.nets {
		w.cover(n, "net "+n.String())
	}
	for _, set := range s.NetworkSets {
		sig := "set " + w.labels(set.Labels, "") + w.namespace(set.Namespace)
		for _, n := range set.Nets {
			w.cover(n, sig)
		}
	}
	for _, h := range s.HostEndpoints {
		sig := w.host(h)
		for _, a := range h.ExpectedIPs {
			w.coverAddr(a, sig)
		}
	}
	for _, slice := range s.EndpointSlices {
		if !r.services[policy.ServiceRef{Namespace: slice.Namespace, Name: slice.Service}] {
			continue
		}
		sig := fmt.Sprintf("service %q %q %v", slice.Namespace, slice.Service, slice.Ports)
		for _, a := range slice.Addrs {
			w.coverAddr(a, sig)
		}
	}
	return w
}

func (w *world) coverAddr(a netip.Addr, sig string) {
	if a.IsValid() && a.Zone() == "" {
		w.cover(netip.PrefixFrom(a, a.BitLen()), sig)
	}
}

func (w *world) cover(p netip.Prefix, sig string) {
	p = p.Masked()
	if !p.IsValid() || p.Addr().Is4In6() {
		return
	}
	w.covers[p] = append(w.covers[p], sig)
	if l := &w.lengths[family(p.Addr())]; !slices.Contains(*l, p.Bits()) {
		*l = append(*l, p.Bits())
	}
}

// family is 0 for IPv4 and 1 for IPv6.
func family(a netip.Addr) int {
	if a.Is6() {
		return 1
	}
	return 0
}

// address gives the signature of an address, the labels of its pod aside.
func (w *world) address(a netip.Addr) string {
	var sigs []string
	for _, bits := range w.lengths[family(a)] {
		if p, err := a.Prefix(bits); err == nil {
			sigs = append(sigs, w.covers[p]...)
		}
	}
	slices.Sort(sigs)
	sigs = slices.Compact(sigs)
	if w.claims[a] > 1 {
		sigs = append(sigs, "conflict")
	}
	return fmt.Sprintf("%q", sigs)
}

// pod gives the signature of what a pod itself says.
func (w *world) pod(ep *policy.Endpoint) string {
	return fmt.Sprintf("%q %q %s %s", ep.Namespace, ep.ServiceAccount, w.labels(ep.Labels, ""), w.ports(ep.Ports))
}

// endpoint gives the signature of a pod with what it inherits.
func (w *world) endpoint(ep *policy.Endpoint) string {
	return w.pod(ep) + w.namespace(ep.Namespace) + w.account(ep.Namespace, ep.ServiceAccount)
}

func (w *world) host(h *policy.HostEndpoint) string {
	sig := "host " + w.labels(h.Labels, "") + w.ports(h.Ports)
	for _, name := range h.Profiles {
		sig += fmt.Sprintf(" %q", name)
		if p := w.profiles[name]; p != nil {
			sig += w.labels(p.LabelsToApply, "")
		}
		if ns, ok := strings.CutPrefix(name, "kns."); ok {
			sig += w.namespace(ns)
		}
		if rest, ok := strings.CutPrefix(name, "ksa."); ok {
			ns, account, _ := strings.Cut(rest, ".")
			sig += w.account(ns, account)
		}
	}
	return sig
}

func (w *world) namespace(name string) string {
	ns := w.namespaces[name]
	if ns == nil {
		return fmt.Sprintf(" in %q unknown", name)
	}
	return fmt.Sprintf(" in %q %s", name, w.labels(ns.Labels, namespacePrefix))
}

func (w *world) account(namespace, name string) string {
	sa := w.accounts[[2]string{namespace, name}]
	if sa == nil {
		return fmt.Sprintf(" as %q unknown", name)
	}
	return fmt.Sprintf(" as %q %s", name, w.labels(sa.Labels, accountPrefix))
}

// labels prints those labels that some selector reads.
func (w *world) labels(labels map[string]string, prefix string) string {
	return fmt.Sprintf("%q", w.read(labels, prefix)) // fmt sorts keys
}

func (w *world) read(labels map[string]string, prefix string) map[string]string {
	out := maps.Clone(labels)
	maps.DeleteFunc(out, func(k, _ string) bool { return !w.reads.labels[prefix+k] })
	return out
}

// ports prints those named ports that some rule names.
func (w *world) ports(ports []policy.NamedPort) string {
	var out []string
	for _, p := range ports {
		if w.reads.names[p.Name] {
			out = append(out, fmt.Sprintf("%s %d %d", p.Name, p.Proto, p.Port))
		}
	}
	slices.Sort(out)
	return fmt.Sprintf("%q", slices.Compact(out))
}
