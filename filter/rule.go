package filter

import "github.com/postern-project/postern/filter/flow"

// rule is a Rule laid out for matching: what nearly every rule states is in the
// struct itself, the rest behind one pointer that is nil for most.
type rule struct {
	action          Action
	families        uint8 // bit 0: IPv4, bit 1: IPv6
	states          uint8 // stateProto, stateNotProto
	proto, notProto flow.Proto
	src, dst        *ClassSet
	more            *criteria
}

const (
	family4 = 1 << iota
	family6
)

const (
	stateProto = 1 << iota
	stateNotProto
)

// criteria are those that few rules state; nil ones are not stated.
type criteria struct {
	src, dst      Side // Classes is not read here
	icmp, notICMP *ICMPMatch
}

func newRule(r *Rule) rule {
	out := rule{action: r.Info.Action, src: r.Source.Classes, dst: r.Destination.Classes}
	if r.IPv4 {
		out.families |= family4
	}
	if r.IPv6 {
		out.families |= family6
	}
	if r.Proto != nil {
		out.states |= stateProto
		out.proto = *r.Proto
	}
	if r.NotProto != nil {
		out.states |= stateNotProto
		out.notProto = *r.NotProto
	}
	if r.ICMP != nil || r.NotICMP != nil || !r.Source.portless() || !r.Destination.portless() {
		out.more = &criteria{r.Source, r.Destination, r.ICMP, r.NotICMP}
	}
	return out
}

// matches tells whether every stated criterion holds (spec section 6).
func (r *rule) matches(s *subject) bool {
	family := uint8(family4)
	if s.Is6() {
		family = family6
	}
	if r.families&family == 0 {
		return false
	}
	if r.states&stateProto != 0 && s.Proto != r.proto {
		return false
	}
	if r.states&stateNotProto != 0 && s.Proto == r.notProto {
		return false
	}
	if !r.src.Contains(s.src) || !r.dst.Contains(s.dst) {
		return false
	}
	return r.more == nil || r.more.match(s)
}

func (c *criteria) match(s *subject) bool {
	if c.icmp != nil && (!isICMP(s) || !c.icmp.match(s)) {
		return false
	}
	if c.notICMP != nil && (!isICMP(s) || c.notICMP.match(s)) {
		return false
	}
	return c.src.match(ClassPort{s.src, s.Proto, s.SrcPort}, s.Ported) &&
		c.dst.match(ClassPort{s.dst, s.Proto, s.DstPort}, s.Ported)
}

// isICMP tells whether the packet is ICMP of its own family.
func isICMP(s *subject) bool {
	if s.Is6() {
		return s.Proto == flow.ICMPv6
	}
	return s.Proto == flow.ICMP
}

func (m *ICMPMatch) match(s *subject) bool {
	return s.ICMPType == m.Type && (m.AnyCode || s.ICMPCode == m.Code)
}

func (s *Side) portless() bool { return s.Ports == nil && s.NotPorts == nil && s.Service == nil }

// match tests the port criteria of one side; ported tells whether p.Port was read.
func (s *Side) match(p ClassPort, ported bool) bool {
	if s.Ports != nil && !(ported && s.Ports.contains(p)) {
		return false
	}
	if s.NotPorts != nil && ported && s.NotPorts.contains(p) {
		return false
	}
	return s.Service == nil || ported && s.Service.Contains(p)
}

func (m *PortMatch) contains(p ClassPort) bool {
	for _, r := range m.Ranges {
		if r.Contains(p.Port) {
			return true
		}
	}
	return m.Named.Contains(p)
}
