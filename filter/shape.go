package filter

import (
	"cmp"
	"slices"

	"github.com/postern-project/postern/filter/flow"
)

// interval is a set of neighbouring points, both ends included.
type interval struct{ first, last uint16 }

var wholeAxis = []interval{{0, axisEnd}}

// boxesOf gives the points a rule matches, whoever the ends are and whatever the
// source port. dst is the receiver's signature; without one, nil, the rule is
// taken as if the receiver offered nothing under any name.
func boxesOf(r *rule, dst *signature) []box {
	var of [groups][]interval
	for _, family := range []struct {
		bit   uint8
		icmp  flow.Proto
		first int
	}{{family4, flow.ICMP, 0}, {family6, flow.ICMPv6, familyGroups}} {
		if r.families&family.bit == 0 {
			continue
		}
		to := of[family.first : family.first+familyGroups]
		if r.allows(family.icmp) && !r.needsPorts() {
			to[groupICMP] = r.icmpPoints()
		}
		if r.more != nil && (r.more.icmp != nil || r.more.notICMP != nil) {
			continue
		}
		to[groupTCP] = r.portPoints(flow.TCP, dst)
		to[groupUDP] = r.portPoints(flow.UDP, dst)
		to[groupSCTP] = r.portPoints(flow.SCTP, dst)
		if !r.needsPorts() {
			to[groupOther] = r.protoPoints()
		}
	}
	var out []box
	for g, points := range of {
		mask := uint16(0)
		for h := range of {
			if slices.Equal(of[h], points) {
				mask |= 1 << h
			}
		}
		if mask&(1<<g-1) != 0 { // done with an earlier group
			continue
		}
		for _, i := range points {
			out = append(out, box{mask, i.first, i.last})
		}
	}
	return out
}

// allows tells what the rule's protocol criteria say of one.
func (r *rule) allows(p flow.Proto) bool {
	return (r.states&stateProto == 0 || r.proto == p) && (r.states&stateNotProto == 0 || r.notProto != p)
}

// needsPorts tells whether the rule matches only packets whose ports were read.
func (r *rule) needsPorts() bool {
	return r.more != nil && (r.more.dst.in != nil || r.more.dst.service != 0)
}

func (r *rule) icmpPoints() []interval {
	points := wholeAxis
	if r.more != nil && r.more.icmp != nil {
		points = []interval{r.more.icmp.points()}
	}
	if r.more != nil && r.more.notICMP != nil {
		points = without(points, []interval{r.more.notICMP.points()})
	}
	return points
}

func (m *ICMPMatch) points() interval {
	if m.AnyCode {
		return interval{uint16(m.Type) << 8, uint16(m.Type)<<8 | 255}
	}
	return interval{uint16(m.Type)<<8 | uint16(m.Code), uint16(m.Type)<<8 | uint16(m.Code)}
}

// protoPoints gives protocol numbers. Among them are those of other groups,
// for packets without ports.
func (r *rule) protoPoints() []interval {
	points := wholeAxis
	if r.states&stateProto != 0 {
		points = []interval{{uint16(r.proto), uint16(r.proto)}}
	}
	if r.states&stateNotProto != 0 {
		points = without(points, []interval{{uint16(r.notProto), uint16(r.notProto)}})
	}
	return points
}

func (r *rule) portPoints(p flow.Proto, dst *signature) []interval {
	switch {
	case !r.allows(p):
		return nil
	case r.more == nil:
		return wholeAxis
	}
	points := wholeAxis
	side := &r.more.dst
	if side.in != nil {
		points = side.in.points(p, dst)
	}
	if side.notIn != nil {
		points = without(points, side.notIn.points(p, dst))
	}
	if side.service != 0 {
		points = within(points, normal(dst.ports(nil, side.service, p)))
	}
	return points
}

// points gives the ports of a match for one protocol.
func (m *portMatch) points(p flow.Proto, side *signature) []interval {
	out := make([]interval, 0, len(m.ranges))
	for _, r := range m.ranges {
		out = append(out, interval{r.Min, r.Max})
	}
	if m.named != 0 {
		out = side.ports(out, m.named, p)
	}
	return normal(out)
}

// normal sorts intervals and joins those that touch. It may change its argument.
func normal(list []interval) []interval {
	slices.SortFunc(list, func(a, b interval) int { return cmp.Compare(a.first, b.first) })
	out := list[:0]
	for _, i := range list {
		if n := len(out); n > 0 && int(i.first) <= int(out[n-1].last)+1 {
			out[n-1].last = max(out[n-1].last, i.last)
		} else {
			out = append(out, i)
		}
	}
	return out
}

// complement gives the points that a normal list leaves out.
func complement(list []interval) []interval {
	out := make([]interval, 0, len(list)+1)
	next := 0
	for _, i := range list {
		if next < int(i.first) {
			out = append(out, interval{uint16(next), i.first - 1})
		}
		next = int(i.last) + 1
	}
	if next <= axisEnd {
		out = append(out, interval{uint16(next), axisEnd})
	}
	return out
}

// within gives the points that are in both of two normal lists.
func within(a, b []interval) []interval {
	var out []interval
	for len(a) > 0 && len(b) > 0 {
		if first, last := max(a[0].first, b[0].first), min(a[0].last, b[0].last); first <= last {
			out = append(out, interval{first, last})
		}
		if a[0].last < b[0].last {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return out
}

func without(a, b []interval) []interval { return within(a, complement(b)) }
