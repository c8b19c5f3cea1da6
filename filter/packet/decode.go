package packet

import (
	"encoding/binary"
	"net/netip"

	"github.com/postern-project/postern/filter/flow"
)

// Next headers that are IPv6 extension headers to the kernel's walk
// (ipv6_ext_hdr in net/ipv6/exthdrs_core.c). Mobility (135), HIP (139) and shim6
// (140) have a standard length field but are left out as the kernel leaves them
// out: conntrack and nftables stop there and know the flow by that number, so a
// rule for TCP must not match what is behind them. ESP (50) and no-next-header (59) end the walk as well.
const (
	hopByHop       flow.Proto = 0
	routing        flow.Proto = 43
	fragment       flow.Proto = 44
	authentication flow.Proto = 51
	destOptions    flow.Proto = 60
)

const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
	extensionUnit = 8 // the shortest extension header, in bytes
	maxExtensions = 8

	// Transport bytes that must be there, whatever the copy range. TCP options
	// and payload may be cut. ICMP needs 4, not 8: policy reads the first two, and
	// type, code and checksum are all that every message has (RFC 4443 section
	// 2.1; RFC 792 gives the next four bytes a meaning by type).
	tcpHeaderLen  = 20
	udpHeaderLen  = 8
	sctpHeaderLen = 12
	icmpHeaderLen = 4
)

// Decode reads the packet in b, which starts at its IP header and may be cut
// behind it. The tuple is valid only with OK; otherwise it is the zero Tuple,
// which the engine denies.
//
// Bytes behind the length that the IP header states are padding and never read.
// A first or only fragment decodes like a whole packet if it holds the complete
// transport header; every other fragment is refused with Fragment.
//
// IPv4 stops at the header's protocol number. IPv6 walks up to eight extension
// headers; a next header it does not know is the protocol.
//
// b is not modified and not kept. Decode may be called by any number of
// goroutines at once and never allocates.
func Decode(b []byte) (flow.Tuple, Status) {
	var t flow.Tuple
	if _, st := decode(&t, b); st != OK {
		return flow.Tuple{}, st
	}
	return t, OK
}

// DecodeTransport is Decode for callers that follow flows themselves: with OK it
// also gives what was captured of the packet from its transport header on, a part
// of b.
func DecodeTransport(b []byte) (flow.Tuple, []byte, Status) {
	var t flow.Tuple
	l4, st := decode(&t, b)
	if st != OK {
		return flow.Tuple{}, nil, st
	}
	return t, l4, OK
}

// decode fills t, which is good for nothing unless the status is OK.
func decode(t *flow.Tuple, b []byte) (l4 []byte, st Status) {
	if len(b) == 0 {
		return nil, TooShort
	}
	st = BadVersion
	switch b[0] >> 4 {
	case 4:
		l4, st = readIPv4(t, b)
	case 6:
		l4, st = readIPv6(t, b)
	}
	if st == OK {
		st = checkAddrs(t)
	}
	if st == OK {
		st = readTransport(t, l4)
	}
	return l4, st
}

// readIPv4 sets addresses and protocol and returns what follows the header, cut
// at the stated total length (RFC 791 section 3.1).
func readIPv4(t *flow.Tuple, b []byte) ([]byte, Status) {
	if len(b) < ipv4HeaderLen {
		return nil, TooShort
	}
	header := int(b[0]&0xf) * 4
	if header < ipv4HeaderLen {
		return nil, BadHeaderLength
	}
	if len(b) < header {
		return nil, TooShort
	}
	t.Src = netip.AddrFrom4([4]byte(b[12:16]))
	t.Dst = netip.AddrFrom4([4]byte(b[16:20]))
	t.Proto = flow.Proto(b[9])

	// 0 | DF | MF | 13 bits of offset in units of 8 bytes
	frag := binary.BigEndian.Uint16(b[6:])
	if frag&0x1fff != 0 {
		return nil, Fragment
	}
	total := int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 && t.Proto == flow.TCP && frag&0x2000 == 0 {
		// A TCP super-packet above 64 KiB (iph_set_totlen in linux/ip.h). On
		// the wire 0 is an error, which ip_rcv has dropped.
		total = len(b)
	}
	if total < header {
		return nil, BadTotalLength
	}
	return b[header:min(total, len(b))], OK
}

// readIPv6 sets addresses and protocol and returns what follows the last
// extension header, cut at the stated payload length (RFC 8200 sections 3, 4).
func readIPv6(t *flow.Tuple, b []byte) ([]byte, Status) {
	if len(b) < ipv6HeaderLen {
		return nil, TooShort
	}
	t.Src = netip.AddrFrom16([16]byte(b[8:24]))
	t.Dst = netip.AddrFrom16([16]byte(b[24:40]))
	if t.Src.Is4In6() || t.Dst.Is4In6() {
		return nil, MappedAddress
	}
	next, rest := flow.Proto(b[6]), b[ipv6HeaderLen:]
	payload := int(binary.BigEndian.Uint16(b[4:]))
	if payload == 0 && isBigTCP(next, rest) {
		payload = len(rest)
	}
	rest = rest[:min(payload, len(rest))]

	for n := 0; ; n++ {
		switch next {
		case hopByHop, routing, fragment, authentication, destOptions:
		default:
			t.Proto = next
			return rest, OK
		}
		if n == maxExtensions {
			return nil, TooManyExtensions
		}
		if len(rest) < extensionUnit {
			return nil, Truncated
		}
		// next header | length in units of 8 bytes without the first 8 | ...
		size := extensionUnit + 8*int(rest[1])
		switch next {
		case hopByHop:
			if n != 0 {
				return nil, BadExtension
			}
		case routing:
			if rest[2] == 0 {
				return nil, RoutingType0
			}
		case fragment:
			// next header | reserved | 13 bits of offset, 2 reserved, M | id
			size = extensionUnit
			if binary.BigEndian.Uint16(rest[2:])&0xfff8 != 0 {
				return nil, Fragment
			}
		case authentication:
			// Its length is in units of 4 bytes less 2; the fixed part is 12.
			size = 4 * (int(rest[1]) + 2)
			if size < 12 {
				return nil, BadExtension
			}
		}
		if len(rest) < size {
			return nil, Truncated
		}
		next, rest = flow.Proto(rest[0]), rest[size:]
	}
}

// isBigTCP tells whether a payload length of 0 stands for a TCP super-packet
// above 64 KiB. Linux puts an 8-byte hop-by-hop header with nothing but a jumbo
// payload option (RFC 2675) before the TCP header (ipv6_has_hopopt_jumbo), and
// since commit 741d069aa488 nothing at all. In every other packet a payload
// length of 0 is taken at its word, so other jumbograms end as Truncated.
func isBigTCP(next flow.Proto, rest []byte) bool {
	if next != hopByHop {
		return next == flow.TCP
	}
	return len(rest) >= extensionUnit &&
		flow.Proto(rest[0]) == flow.TCP && rest[1] == 0 && rest[2] == 0xc2 && rest[3] == 4
}

// checkAddrs refuses only what no flow can have by the letter of the RFCs.
// Unspecified sources and multicast destinations are legal.
func checkAddrs(t *flow.Tuple) Status {
	if t.Src.IsMulticast() {
		return BadSource
	}
	if t.Dst.IsUnspecified() {
		return BadDestination
	}
	return OK
}

// readTransport sets ports or ICMP type and code.
func readTransport(t *flow.Tuple, b []byte) Status {
	switch t.Proto {
	case flow.TCP:
		if len(b) < tcpHeaderLen {
			return Truncated
		}
		if b[12]>>4 < 5 {
			return BadTransport
		}
	case flow.UDP:
		if len(b) < udpHeaderLen {
			return Truncated
		}
		// 0 means "to the end" (RFC 2675 section 4), which Linux honours in any
		// IPv6 packet. A length beyond the copied bytes is normal.
		if n := binary.BigEndian.Uint16(b[4:]); n != 0 && n < udpHeaderLen {
			return BadTransport
		}
	case flow.SCTP:
		if len(b) < sctpHeaderLen {
			return Truncated
		}
	case flow.ICMP, flow.ICMPv6:
		if (t.Proto == flow.ICMPv6) != t.Src.Is6() {
			return ICMPFamily
		}
		if len(b) < icmpHeaderLen {
			return Truncated
		}
		t.ICMPType, t.ICMPCode = b[0], b[1]
		return OK
	default:
		return OK
	}
	t.Ported = true
	t.SrcPort = binary.BigEndian.Uint16(b)
	t.DstPort = binary.BigEndian.Uint16(b[2:])
	return OK
}
