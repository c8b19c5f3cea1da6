package packet

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/postern-project/postern/filter/flow"
)

// oracle decodes b with gopacket. Clean is false where gopacket finds fault with
// the packet or cannot follow it, and where the two differ by design: a later
// fragment, a stated length of 0, an extension header behind a fragment header,
// a hop-by-hop header that is not the first, and more than eight extension
// headers.
func oracle(b []byte) (t flow.Tuple, clean bool) {
	var l4 []byte
	if b[0]>>4 == 4 {
		l4, clean = oracleIPv4(&t, b)
	} else {
		l4, clean = oracleIPv6(&t, b)
	}
	if !clean {
		return t, false
	}
	var err error
	switch t.Proto {
	case flow.TCP:
		var l layers.TCP
		err = l.DecodeFromBytes(l4, gopacket.NilDecodeFeedback)
		t.Ported, t.SrcPort, t.DstPort = true, uint16(l.SrcPort), uint16(l.DstPort)
	case flow.UDP:
		var l layers.UDP
		err = l.DecodeFromBytes(l4, gopacket.NilDecodeFeedback)
		t.Ported, t.SrcPort, t.DstPort = true, uint16(l.SrcPort), uint16(l.DstPort)
	case flow.SCTP:
		var l layers.SCTP
		err = l.DecodeFromBytes(l4, gopacket.NilDecodeFeedback)
		t.Ported, t.SrcPort, t.DstPort = true, uint16(l.SrcPort), uint16(l.DstPort)
	case flow.ICMP:
		var l layers.ICMPv4
		err = l.DecodeFromBytes(l4, gopacket.NilDecodeFeedback)
		t.ICMPType, t.ICMPCode = l.TypeCode.Type(), l.TypeCode.Code()
	case flow.ICMPv6:
		var l layers.ICMPv6
		err = l.DecodeFromBytes(l4, gopacket.NilDecodeFeedback)
		t.ICMPType, t.ICMPCode = l.TypeCode.Type(), l.TypeCode.Code()
	}
	return t, err == nil
}

func oracleIPv4(t *flow.Tuple, b []byte) ([]byte, bool) {
	var h layers.IPv4
	if err := h.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		return nil, false
	}
	t.Src, _ = netip.AddrFromSlice(h.SrcIP)
	t.Dst, _ = netip.AddrFromSlice(h.DstIP)
	t.Proto = flow.Proto(h.Protocol)
	return h.Payload, h.FragOffset == 0 && binary.BigEndian.Uint16(b[2:]) != 0
}

func oracleIPv6(t *flow.Tuple, b []byte) ([]byte, bool) {
	// gopacket counts the payload length from behind the hop-by-hop header and
	// so reads padding as payload; it gets no padding.
	if end := statedEnd(b); end < len(b) {
		b = b[:end]
	}
	var h layers.IPv6
	if err := h.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		return nil, false
	}
	p := gopacket.NewPacket(b, layers.LayerTypeIPv6, gopacket.NoCopy)
	var (
		l4         []byte
		next       layers.IPProtocol
		extensions = -1
	)
walk:
	for _, l := range p.Layers() {
		switch l := l.(type) {
		case *layers.IPv6:
			if extensions >= 0 {
				break walk // another packet inside this one
			}
			if l.Length == 0 {
				return nil, false
			}
			t.Src, _ = netip.AddrFromSlice(l.SrcIP)
			t.Dst, _ = netip.AddrFromSlice(l.DstIP)
			next, l4 = l.NextHeader, l.Payload
		case *layers.IPv6HopByHop:
			next = l.NextHeader // the IPv6 layer's payload is cut already
			if extensions != 0 {
				return nil, false
			}
		case *layers.IPv6Destination:
			next, l4 = l.NextHeader, l.Payload
		case *layers.IPv6Routing:
			next, l4 = l.NextHeader, l.Payload
		case *layers.IPSecAH:
			next, l4 = l.NextHeader, l.Payload
		case *layers.IPv6Fragment:
			if l.FragmentOffset != 0 {
				return nil, false
			}
			next, l4 = l.NextHeader, l.Payload
		default:
			break walk
		}
		extensions++
	}
	t.Proto = flow.Proto(next)
	switch t.Proto {
	case hopByHop, routing, fragment, authentication, destOptions:
		return nil, false
	}
	return l4, extensions >= 0 && extensions <= maxExtensions
}

// statedEnd is the end of the packet as its IP header states it, or the end of
// the buffer if the header states 0 or is not there.
func statedEnd(b []byte) int {
	switch {
	case len(b) >= ipv4HeaderLen && b[0]>>4 == 4 && binary.BigEndian.Uint16(b[2:]) != 0:
		return int(binary.BigEndian.Uint16(b[2:]))
	case len(b) >= ipv6HeaderLen && b[0]>>4 == 6 && binary.BigEndian.Uint16(b[4:]) != 0:
		return ipv6HeaderLen + int(binary.BigEndian.Uint16(b[4:]))
	}
	return len(b)
}

// refusedByDesign tells whether Decode may refuse a packet that gopacket reads
// as t, and why.
func refusedByDesign(t flow.Tuple, st Status) bool {
	switch st {
	case MappedAddress:
		return t.Src.Is4In6() || t.Dst.Is4In6()
	case BadSource:
		return t.Src.IsMulticast()
	case BadDestination:
		return t.Dst.IsUnspecified()
	case ICMPFamily:
		return t.Proto == flow.ICMP && t.Is6() || t.Proto == flow.ICMPv6 && !t.Is6()
	case RoutingType0:
		return t.Is6()
	default:
		return false
	}
}

// checkTransport proves from outside that what Decode read lies in the packet:
// the shortest prefix that decodes ends where the transport header does, so the
// header's place is known without walking there.
func checkTransport(t *testing.T, b []byte, got flow.Tuple) {
	n := map[flow.Proto]int{
		flow.TCP: tcpHeaderLen, flow.UDP: udpHeaderLen, flow.SCTP: sctpHeaderLen,
		flow.ICMP: icmpHeaderLen, flow.ICMPv6: icmpHeaderLen,
	}[got.Proto]
	t.Helper()
	if got.Ported != got.Proto.HasPorts() {
		t.Fatalf("%v: ported %v", got, got.Ported)
	}
	end := 0
	for ; end < len(b); end++ {
		if _, st := Decode(b[:end:end]); st == OK {
			break
		}
	}
	network := ipv4HeaderLen
	if got.Is6() {
		network = ipv6HeaderLen
	}
	if end > statedEnd(b) || end < network+n {
		t.Fatalf("%v: headers end at %d, packet at %d", got, end, statedEnd(b))
	}
	l4 := b[end-n : end]
	switch {
	case got.Ported && (got.SrcPort != binary.BigEndian.Uint16(l4) || got.DstPort != binary.BigEndian.Uint16(l4[2:])):
		t.Fatalf("%v: bytes of the header are % x", got, l4)
	case n == icmpHeaderLen && (got.ICMPType != l4[0] || got.ICMPCode != l4[1]):
		t.Fatalf("%v: bytes of the header are % x", got, l4)
	}
}

func FuzzDecode(f *testing.F) {
	for _, x := range fixtures() {
		f.Add(x.packet)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4096 {
			return // keeps the scan over prefixes short
		}
		got, st := Decode(b)
		if st == Unknown || st >= Statuses {
			t.Fatalf("status %d", st)
		}
		if st != OK && got != (flow.Tuple{}) {
			t.Fatalf("%v with tuple %v", st, got)
		}
		if st == OK {
			if !got.Valid() || got.Src.Is4In6() || got.Dst.Is4In6() || got.Src.Zone() != "" || got.Dst.Zone() != "" {
				t.Fatalf("invalid tuple %v", got)
			}
			checkTransport(t, b, got)
		}
		if st == TooShort || st == BadVersion {
			return
		}
		want, clean := oracle(b)
		switch {
		case !clean:
		case st == OK && got != want:
			t.Fatalf("tuple %v, gopacket says %v", got, want)
		case st != OK && !refusedByDesign(want, st):
			t.Fatalf("%v, gopacket says %v", st, want)
		}
	})
}
