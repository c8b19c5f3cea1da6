package explain

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// misses collects the criteria of one rule that do not hold.
type misses struct {
	all  bool // go on after the first
	text bool // write texts
	list []Criterion
}

// add records a criterion. Its text is only written if it is wanted, because
// most rules of most flows do not match.
func (m *misses) add(field string, text func() string) {
	c := Criterion{Field: field}
	if m.text {
		c.Text = text()
	}
	m.list = append(m.list, c)
}

// done tells whether nothing more needs to be found.
func (m *misses) done() bool { return len(m.list) > 0 && !m.all }

// match checks every criterion of a rule of the namespace's policy (section 6),
// in the order in which an operator would. The rule matches if m stays empty.
func (w *walk) match(r *policy.Rule, namespace string, m *misses) {
	src := entity{&r.Source, "source", namespace}
	dst := entity{&r.Destination, "destination", namespace}
	w.family(r, m)
	if m.done() {
		return
	}
	w.protocol(r, m)
	if m.done() {
		return
	}
	w.icmp(r, m)
	if m.done() {
		return
	}
	w.entity(src, w.src, w.SrcPort, m)
	if m.done() {
		return
	}
	w.entity(dst, w.dst, w.DstPort, m)
	if m.done() || w.request == nil {
		return
	}
	w.certificate(src, w.request.source, m)
	if m.done() {
		return
	}
	w.certificate(dst, w.request.destination, m)
	if m.done() {
		return
	}
	w.http(r.HTTP, m)
}

// family checks ipVersion, or the family that a protocol's name implies.
func (w *walk) family(r *policy.Rule, m *misses) {
	want, why := r.IPVersion, "ipVersion"
	if want == 0 && r.Protocol != nil && r.Protocol.ByName {
		switch r.Protocol.Number {
		case flow.ICMP:
			want, why = 4, "protocol ICMP"
		case flow.ICMPv6:
			want, why = 6, "protocol ICMPv6"
		}
	}
	if want == 0 || (want == 6) == w.Is6() {
		return
	}
	m.add("ipVersion", func() string {
		return fmt.Sprintf("the packet is %s and the rule is for IPv%d only (%s)", familyName(w.Is6()), want, why)
	})
}

func familyName(is6 bool) string {
	if is6 {
		return "IPv6"
	}
	return "IPv4"
}

func (w *walk) protocol(r *policy.Rule, m *misses) {
	if p := r.Protocol; p != nil && p.Number != w.Proto {
		m.add("protocol", func() string { return fmt.Sprintf("protocol %s is not %s", w.Proto, p.Number) })
	}
	if p := r.NotProtocol; p != nil && p.Number == w.Proto {
		m.add("notProtocol", func() string { return fmt.Sprintf("protocol is %s", p.Number) })
	}
}

// icmp checks icmp and notICMP. Both need the packet to be its family's ICMP;
// notICMP negates type and code as a pair [D5].
func (w *walk) icmp(r *policy.Rule, m *misses) {
	isICMP := w.Proto == flow.ICMP && !w.Is6() || w.Proto == flow.ICMPv6 && w.Is6()
	equal := func(c *policy.ICMPMatch) bool {
		return c.Type == w.ICMPType && (c.Code == nil || *c.Code == w.ICMPCode)
	}
	what := func() string {
		if !isICMP {
			return fmt.Sprintf("%s over %s is not ICMP of its family", w.Proto, familyName(w.Is6()))
		}
		return fmt.Sprintf("ICMP type %d code %d", w.ICMPType, w.ICMPCode)
	}
	if c := r.ICMP; c != nil && !(isICMP && equal(c)) {
		m.add("icmp", func() string { return what() + "; the rule wants " + icmpText(c) })
	}
	if c := r.NotICMP; c != nil && !(isICMP && !equal(c)) {
		m.add("notICMP", func() string { return what() + "; the rule wants ICMP other than " + icmpText(c) })
	}
}

func icmpText(c *policy.ICMPMatch) string {
	if c.Code == nil {
		return fmt.Sprintf("type %d", c.Type)
	}
	return fmt.Sprintf("type %d code %d", c.Type, *c.Code)
}

// entity checks one half of a rule at the packet's address and port.
func (w *walk) entity(n entity, at place, port uint16, m *misses) {
	w.nets(n, at.addr, m)
	if m.done() {
		return
	}
	if !w.e.covers(n, at) {
		w.e.whyNotCovered(n, at, m)
	}
	if m.done() {
		return
	}
	w.service(n, at.addr, port, m)
	if m.done() {
		return
	}
	w.ports(n, at, port, m)
}

// nets checks nets and notNets. A stated list without an entry of the packet's
// family takes the whole rule away from that family, notNets too.
func (w *walk) nets(n entity, a netip.Addr, m *misses) {
	holds := func(nets []netip.Prefix) bool {
		return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	hasFamily := func(nets []netip.Prefix) bool {
		return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Addr().Is6() == a.Is6() })
	}
	foreign := func(field string, nets []netip.Prefix) func() string {
		return func() string {
			return fmt.Sprintf("%s %s has no %s entry, so the rule does not exist for %[3]s", field, listText(nets), familyName(a.Is6()))
		}
	}
	if field := n.side + ".nets"; len(n.Nets) > 0 {
		switch {
		case !hasFamily(n.Nets):
			m.add(field, foreign(field, n.Nets))
		case !holds(n.Nets):
			m.add(field, func() string { return fmt.Sprintf("%s address %s is not in %s", n.side, a, listText(n.Nets)) })
		}
	}
	if field := n.side + ".notNets"; len(n.NotNets) > 0 {
		switch {
		case !hasFamily(n.NotNets):
			m.add(field, foreign(field, n.NotNets))
		case holds(n.NotNets):
			m.add(field, func() string {
				return fmt.Sprintf("%s address %s is in the excluded %s", n.side, a, listText(n.NotNets))
			})
		}
	}
}
