package flow

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Proto is an IP protocol number (RFC 791 protocol, RFC 8200 next header).
type Proto uint8

// The protocols that policy knows by name, as IANA numbers them.
const (
	ICMP    Proto = 1
	TCP     Proto = 6
	UDP     Proto = 17
	ICMPv6  Proto = 58
	SCTP    Proto = 132
	UDPLite Proto = 136
)

var protoNames = map[Proto]string{
	ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPv6: "icmpv6", SCTP: "sctp", UDPLite: "udplite",
}

// String gives the lower-case name, or the number where there is no name.
func (p Proto) String() string {
	if n, ok := protoNames[p]; ok {
		return n
	}
	return strconv.Itoa(int(p))
}

// ParseProto reads a name in any case, or a number from 0 to 255.
func ParseProto(s string) (Proto, error) {
	for p, n := range protoNames {
		if strings.EqualFold(s, n) {
			return p, nil
		}
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("protocol %q: want tcp, udp, icmp, icmpv6, sctp, udplite or a number from 0 to 255", s)
	}
	return Proto(n), nil
}

// HasPorts tells whether policy reads ports in packets of this protocol: TCP,
// UDP and SCTP only. UDPLite has ports on the wire, but Calico matches it by
// number alone, and so do we.
func (p Proto) HasPorts() bool { return p == TCP || p == UDP || p == SCTP }

// Direction is the side of an endpoint a rule looks at: Ingress is traffic to
// the endpoint, Egress is traffic from it.
type Direction uint8

const (
	Ingress Direction = iota
	Egress
)

func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// PortRange is an inclusive range of ports; a single port has Min == Max.
type PortRange struct{ Min, Max uint16 }

// Contains tells whether Min ≤ port ≤ Max.
func (r PortRange) Contains(port uint16) bool { return r.Min <= port && port <= r.Max }

func (r PortRange) String() string {
	if r.Min == r.Max {
		return strconv.Itoa(int(r.Min))
	}
	return fmt.Sprintf("%d:%d", r.Min, r.Max)
}

// Tuple is what a decision is taken on. The zero value is no valid tuple and is
// denied by the engine.
//
// Both addresses are of one family, never IPv4-mapped IPv6 and never with a zone.
type Tuple struct {
	Src, Dst netip.Addr
	Proto    Proto

	// Ported is true where SrcPort and DstPort were read from the packet: TCP,
	// UDP or SCTP, and not a fragment without its first bytes. Where it is false
	// a rule that states ports does not match.
	Ported           bool
	SrcPort, DstPort uint16

	// ICMPType and ICMPCode are valid for Proto ICMP and ICMPv6.
	ICMPType, ICMPCode uint8
}

// Is6 tells whether the flow is IPv6.
func (t Tuple) Is6() bool { return t.Src.Is6() }

// Valid tells whether both addresses are set and of one family, which the
// engine requires.
func (t Tuple) Valid() bool {
	return t.Src.IsValid() && t.Dst.IsValid() && t.Src.BitLen() == t.Dst.BitLen()
}

// Reverse gives the tuple of the opposite direction. ICMP type and code are
// kept: for a query and its answer the caller judges the original direction.
func (t Tuple) Reverse() Tuple {
	t.Src, t.Dst = t.Dst, t.Src
	t.SrcPort, t.DstPort = t.DstPort, t.SrcPort
	return t
}

// String prints "tcp 10.0.0.1:4711 -> 10.0.0.2:80", with type/code in the place
// of the ports for ICMP and no ports where there are none.
func (t Tuple) String() string {
	switch {
	case t.Ported:
		return fmt.Sprintf("%s %s -> %s", t.Proto, netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, t.DstPort))
	case t.Proto == ICMP || t.Proto == ICMPv6:
		return fmt.Sprintf("%s %s -> %s type %d code %d", t.Proto, t.Src, t.Dst, t.ICMPType, t.ICMPCode)
	default:
		return fmt.Sprintf("%s %s -> %s", t.Proto, t.Src, t.Dst)
	}
}
