package filter

import "github.com/postern-project/postern/filter/flow"

// rule is a Rule with its sets replaced by terms. Segments are compiled from it;
// it is matched itself only where a segment keeps a rule aside and where logs
// ask which rules said so.
type rule struct {
	info            RuleInfo
	action          Action
	families        uint8 // bit 0: IPv4, bit 1: IPv6
	states          uint8 // stateProto, stateNotProto
	proto, notProto flow.Proto
	src, dst        term
	more            *criteria
	request         *RequestMatch // nil if it asks no more of a request
	boxes           []box         // of receivers that offer nothing (see boxesOf)
}

// ends gives what the rule asks of the endpoint and of its peer.
func (r *rule) ends(dir flow.Direction) (own, peer term) {
	if dir == flow.Egress {
		return r.src, r.dst
	}
	return r.dst, r.src
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
	src, dst      sidePorts
	icmp, notICMP *ICMPMatch
}

// sidePorts is what a rule asks of one side's port.
type sidePorts struct {
	in, notIn *portMatch // nil if not stated
	service   offerSet   // 0 if not stated
}

// portMatch holds if any of its ranges or offers does.
type portMatch struct {
	ranges []flow.PortRange
	named  offerSet // 0 if there is none
}

func (s *sidePorts) stated() bool { return s.in != nil || s.notIn != nil || s.service != 0 }

// named tells whether the answer depends on what the side's class offers.
func (s *sidePorts) named() bool {
	return s.service != 0 || s.in != nil && s.in.named != 0 || s.notIn != nil && s.notIn.named != 0
}

// sets appends the offer sets that are asked for.
func (s *sidePorts) sets(to []offerSet) []offerSet {
	for _, m := range []*portMatch{s.in, s.notIn} {
		if m != nil && m.named != 0 {
			to = append(to, m.named)
		}
	}
	if s.service != 0 {
		to = append(to, s.service)
	}
	return to
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
	if !s.src.holds(r.src) || !s.dst.holds(r.dst) {
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
	return c.src.match(s, s.src, s.SrcPort) && c.dst.match(s, s.dst, s.DstPort)
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

func (p *sidePorts) match(s *subject, side *signature, port uint16) bool {
	ported := s.Ported && s.Proto.HasPorts()
	if p.in != nil && !(ported && p.in.contains(s.Proto, side, port)) {
		return false
	}
	if p.notIn != nil && ported && p.notIn.contains(s.Proto, side, port) {
		return false
	}
	return p.service == 0 || ported && side.offers(p.service, s.Proto, port)
}

func (m *portMatch) contains(p flow.Proto, side *signature, port uint16) bool {
	for _, r := range m.ranges {
		if r.Contains(port) {
			return true
		}
	}
	return m.named != 0 && side.offers(m.named, p, port)
}
