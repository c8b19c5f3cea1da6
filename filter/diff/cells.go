package diff

import (
	"cmp"
	"maps"
	"slices"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// last is the highest port, and the highest ICMP type and code.
const last = 1<<16 - 1

// usualSource is the source port of examples: one that clients use.
const usualSource = 40000

var whole = flow.PortRange{Min: 0, Max: last}

// cell is traffic that no rule of either side can tell apart.
type cell struct {
	proto flow.Proto
	// other: every protocol that no cell names; proto is one of them.
	other bool
	// dst is the range of destination ports of a protocol with ports. For ICMP it
	// is a range of type<<8 | code. whole for everything else.
	dst flow.PortRange
	src flow.PortRange // source ports; whole unless some rule states them
}

// cuts collects boundaries: the numbers at which a new range begins.
type cuts map[uint32]bool

func (c cuts) add(low, high uint16) { c[uint32(low)], c[uint32(high)+1] = true, true }

// ranges cuts 0 to last.
func (c cuts) ranges() (out []flow.PortRange) {
	at := slices.Sorted(maps.Keys(c))
	at = slices.DeleteFunc(at, func(n uint32) bool { return n == 0 || n > last })
	low := uint32(0)
	for _, n := range append(at, last+1) {
		out = append(out, flow.PortRange{Min: uint16(low), Max: uint16(n - 1)})
		low = n
	}
	return out
}

// partition cuts the traffic of each family, IPv4 and IPv6, into cells. ICMP inside
// IPv6 and ICMPv6 inside IPv4 are left out: the decoder drops them.
func partition(r *reads, worlds ...*world) (byFamily [2][]cell) {
	dst, src := make(map[flow.Proto]cuts), make(map[flow.Proto]cuts)
	for _, p := range []flow.Proto{flow.TCP, flow.UDP, flow.SCTP, flow.ICMP, flow.ICMPv6} {
		dst[p], src[p] = cuts{}, cuts{}
	}
	cutPorts := func(into map[flow.Proto]cuts, rule *policy.Rule, ports []policy.Port) {
		for proto, c := range into {
			if !proto.HasPorts() || rule.Protocol != nil && rule.Protocol.Number != proto {
				continue
			}
			for _, p := range ports {
				if p.Name == "" {
					c.add(p.Min, p.Max)
				} else {
					cutNamed(c, p.Name, proto, worlds)
				}
			}
		}
	}
	for i := range r.rules {
		rule := &r.rules[i]
		for _, p := range []*policy.Protocol{rule.Protocol, rule.NotProtocol} {
			if p != nil && dst[p.Number] == nil {
				dst[p.Number], src[p.Number] = cuts{}, cuts{}
			}
		}
		cutPorts(src, rule, slices.Concat(rule.Source.Ports, rule.Source.NotPorts))
		cutPorts(dst, rule, slices.Concat(rule.Destination.Ports, rule.Destination.NotPorts))
		for _, m := range []*policy.ICMPMatch{rule.ICMP, rule.NotICMP} {
			for _, proto := range []flow.Proto{flow.ICMP, flow.ICMPv6} {
				cutICMP(dst[proto], m)
			}
		}
		if s := rule.Destination.Service; s != nil {
			cutService(dst, *s, worlds)
		}
	}
	for _, proto := range slices.Sorted(maps.Keys(dst)) {
		for _, s := range src[proto].ranges() {
			for _, d := range dst[proto].ranges() {
				c := cell{proto: proto, dst: d, src: s}
				if proto != flow.ICMPv6 {
					byFamily[0] = append(byFamily[0], c)
				}
				if proto != flow.ICMP {
					byFamily[1] = append(byFamily[1], c)
				}
			}
		}
	}
	if proto, ok := unnamed(dst); ok {
		for f := range byFamily {
			byFamily[f] = append(byFamily[f], cell{proto: proto, other: true, dst: whole, src: whole})
		}
	}
	return byFamily
}

// unnamed gives a protocol that no rule names, if there is one.
func unnamed(named map[flow.Proto]cuts) (flow.Proto, bool) {
	for n := 253; n >= 0; n-- { // 253 is for experiments (RFC 3692)
		if named[flow.Proto(n)] == nil {
			return flow.Proto(n), true
		}
	}
	return 0, false
}

func cutNamed(c cuts, name string, proto flow.Proto, worlds []*world) {
	cut := func(ports []policy.NamedPort) {
		for _, p := range ports {
			if p.Name == name && p.Proto == proto {
				c.add(p.Port, p.Port)
			}
		}
	}
	for _, w := range worlds {
		for _, ep := range w.Endpoints {
			cut(ep.Ports)
		}
		for _, h := range w.HostEndpoints {
			cut(h.Ports)
		}
	}
}

func cutService(dst map[flow.Proto]cuts, ref policy.ServiceRef, worlds []*world) {
	for _, w := range worlds {
		for _, s := range w.EndpointSlices {
			if s.Namespace != ref.Namespace || s.Service != ref.Name {
				continue
			}
			for _, p := range s.Ports {
				if p.Proto.HasPorts() {
					dst[p.Proto].add(p.Port, p.Port)
				}
			}
		}
	}
}

func cutICMP(c cuts, m *policy.ICMPMatch) {
	if m == nil {
		return
	}
	low := uint16(m.Type) << 8
	c.add(low, low|0xff)
	if m.Code != nil {
		c.add(low|uint16(*m.Code), low|uint16(*m.Code))
	}
}

// tuple gives the flow that stands for the cell.
func (c *cell) tuple(t flow.Tuple) flow.Tuple {
	t.Proto = c.proto
	switch {
	case c.other:
	case c.proto.HasPorts():
		t.Ported, t.DstPort, t.SrcPort = true, max(c.dst.Min, min(1, c.dst.Max)), c.src.Min
		if c.src.Contains(usualSource) {
			t.SrcPort = usualSource
		}
	case c.proto == flow.ICMP || c.proto == flow.ICMPv6:
		t.ICMPType, t.ICMPCode = uint8(c.dst.Min>>8), uint8(c.dst.Min)
	}
	return t
}

// only narrows cells to what a filter asks for.
func only(cells []cell, p *Port) (out []cell) {
	if p == nil {
		return cells
	}
	named := slices.ContainsFunc(cells, func(c cell) bool { return !c.other && c.proto == p.Proto })
	for _, c := range cells {
		isICMP := p.Proto == flow.ICMP || p.Proto == flow.ICMPv6
		if named && (c.other || c.proto != p.Proto) || !named && (!c.other || isICMP) {
			continue
		}
		low, high := max(c.dst.Min, p.Range.Min), min(c.dst.Max, p.Range.Max)
		if low > high {
			continue
		}
		c.proto, c.other = p.Proto, false
		c.dst = flow.PortRange{Min: low, Max: high}
		out = append(out, c)
	}
	return out
}

// join merges ranges that touch; the result is sorted.
func join(list []flow.PortRange) []flow.PortRange {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b flow.PortRange) int { return cmp.Compare(a.Min, b.Min) })
	var out []flow.PortRange
	for _, r := range list {
		if n := len(out); n > 0 && uint32(r.Min) <= uint32(out[n-1].Max)+1 {
			out[n-1].Max = max(out[n-1].Max, r.Max)
			continue
		}
		out = append(out, r)
	}
	return out
}

// outside gives what joined ranges leave out of 0 to last.
func outside(joined []flow.PortRange) []flow.PortRange {
	var out []flow.PortRange
	low := uint32(0)
	for _, r := range joined {
		if uint32(r.Min) > low {
			out = append(out, flow.PortRange{Min: uint16(low), Max: r.Min - 1})
		}
		low = uint32(r.Max) + 1
	}
	if low <= last {
		out = append(out, flow.PortRange{Min: uint16(low), Max: last})
	}
	return out
}
