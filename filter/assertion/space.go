package assertion

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// Labels as policy derives them (spec section 3.2).
const (
	namespacePrefix     = "pcns."
	accountPrefix       = "pcsa."
	serviceAccountLabel = "projectcalico.org/serviceaccount"
)

// space is who and what a snapshot's addresses are.
type space struct {
	snapshot *policy.Snapshot
	identity func(netip.Addr) explain.Identity
	labels   map[*policy.Endpoint]map[string]string // as far as they were asked for
	// edges are the addresses at which something begins or has just ended that
	// policy can tell apart, sorted; nil until asked for.
	edges []netip.Addr
}

func newSpace(s *policy.Snapshot, evaluator *explain.Evaluator) *space {
	return &space{
		snapshot: s,
		// A flow to nowhere is refused before any policy is read. What is left is
		// who the source is.
		identity: func(a netip.Addr) explain.Identity { return evaluator.Explain(flow.Tuple{Src: a}).Source },
		labels:   map[*policy.Endpoint]map[string]string{},
	}
}

// site is one pod, one address or one prefix.
type site struct {
	name   string
	pod    *policy.Endpoint // nil for the others
	prefix netip.Prefix
}

// sites gives what an end stands for; none if a selection matches no pod.
func (s *space) sites(e End) ([]site, error) {
	switch {
	case e.Selection != nil:
		var out []site
		for _, ep := range s.snapshot.Endpoints {
			if s.selects(e.Selection, ep) {
				out = append(out, site{name: ep.Namespace + "/" + ep.Name, pod: ep})
			}
		}
		return out, nil
	case e.Prefix.IsValid():
		return []site{{name: e.Prefix.String(), prefix: e.Prefix}}, nil
	case e.Addr.IsValid():
		return []site{{name: e.Addr.String(), prefix: netip.PrefixFrom(e.Addr, e.Addr.BitLen())}}, nil
	}
	if ep := e.Pod(s.snapshot); ep != nil {
		return []site{{name: e.String(), pod: ep}}, nil
	}
	return nil, fmt.Errorf("there is no pod %s, or it is not an endpoint (finished, on the host network, or without an address)", e)
}

func (s *space) selects(want *Selection, ep *policy.Endpoint) bool {
	if want.Namespace != "" && ep.Namespace != want.Namespace || want.Account != "" && ep.ServiceAccount != want.Account {
		return false
	}
	labels := s.labelsOf(ep)
	if !want.Selector.Matches(selector.Map(labels)) || !want.NamespaceSelector.Matches(below{labels, namespacePrefix}) {
		return false
	}
	if want.AccountSelector == nil {
		return true
	}
	_, hasAccount := labels[serviceAccountLabel] // without one not even all() matches
	return hasAccount && want.AccountSelector.Matches(below{labels, accountPrefix})
}

// labelsOf gives the labels that a policy's selector sees on a pod.
func (s *space) labelsOf(ep *policy.Endpoint) map[string]string {
	if l, ok := s.labels[ep]; ok {
		return l
	}
	var labels map[string]string
	for _, a := range ep.Addrs {
		for _, o := range s.identity(a).Pods { // several if they claim one address
			if o.Namespace == ep.Namespace && o.Name == ep.Name {
				labels = o.Labels
			}
		}
	}
	s.labels[ep] = labels
	return labels
}

// below is a view of labels that looks k up as prefix + k.
type below struct {
	labels map[string]string
	prefix string
}

// Get implements selector.Labels.
func (b below) Get(label string) (string, bool) { v, ok := b.labels[b.prefix+label]; return v, ok }

// addrs gives the addresses that stand for a site in one family: those of a pod,
// or as many of a prefix as policy can tell apart.
func (s *space) addrs(at site, six bool) []netip.Addr {
	if at.pod != nil {
		return AddrsOf(at.pod, six)
	}
	if at.prefix.Addr().Is6() != six {
		return nil
	}
	return s.samples(at.prefix)
}

// samples gives one address at least of each part of the prefix in which policy
// cannot tell addresses apart: whatever policy knows an address by is a prefix,
// so between two edges nothing changes.
func (s *space) samples(p netip.Prefix) []netip.Addr {
	if s.edges == nil {
		s.edges = edges(s.snapshot)
	}
	out := []netip.Addr{p.Addr()}
	from, _ := slices.BinarySearchFunc(s.edges, p.Addr(), netip.Addr.Compare)
	for _, a := range s.edges[from:] {
		if !p.Contains(a) {
			break
		}
		// No packet has such an address; the engine refuses it.
		if a != p.Addr() && !a.Is4In6() {
			out = append(out, a)
		}
	}
	return out
}

func edges(s *policy.Snapshot) []netip.Addr {
	out := []netip.Addr{}
	add := func(nets ...netip.Prefix) {
		for _, p := range nets {
			if !p.IsValid() {
				continue
			}
			out = append(out, p.Masked().Addr())
			if after := last(p).Next(); after.IsValid() {
				out = append(out, after)
			}
		}
	}
	addrs := func(list []netip.Addr) {
		for _, a := range list {
			add(netip.PrefixFrom(a, a.BitLen()))
		}
	}
	rules := func(list []policy.Rule) {
		for i := range list {
			for _, e := range []*policy.EntityRule{&list[i].Source, &list[i].Destination} {
				add(e.Nets...)
				add(e.NotNets...)
			}
		}
	}
	for _, e := range s.Endpoints {
		addrs(e.Addrs)
	}
	for _, h := range s.HostEndpoints {
		addrs(h.ExpectedIPs)
	}
	for _, e := range s.EndpointSlices {
		addrs(e.Addrs)
	}
	for _, n := range s.NetworkSets {
		add(n.Nets...)
	}
	for _, p := range s.Policies {
		rules(p.Ingress)
		rules(p.Egress)
	}
	for _, p := range s.Profiles {
		rules(p.Ingress)
		rules(p.Egress)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// last gives the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b) // 4 or 16 bytes
	return a
}
