package packet

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/postern-project/postern/filter/flow"
)

var (
	src4 = netip.MustParseAddr("10.0.1.10")
	dst4 = netip.MustParseAddr("10.0.2.11")
	src6 = netip.MustParseAddr("fd00:1::10")
	dst6 = netip.MustParseAddr("fd00:2::11")
)

// fixture is one packet and what it must decode to; want is zero unless status
// is OK.
type fixture struct {
	name   string
	packet []byte
	want   flow.Tuple
	status Status
}

// ip4 and ip6 build a network header with the fixtures' addresses.
func ip4(proto flow.Proto) *layers.IPv4 {
	return &layers.IPv4{
		Version: 4, TTL: 64, Id: 7, Protocol: layers.IPProtocol(proto),
		SrcIP: net.IP(src4.AsSlice()), DstIP: net.IP(dst4.AsSlice()),
	}
}

func ip6(next flow.Proto) *layers.IPv6 {
	return &layers.IPv6{
		Version: 6, HopLimit: 64, NextHeader: layers.IPProtocol(next),
		SrcIP: net.IP(src6.AsSlice()), DstIP: net.IP(dst6.AsSlice()),
	}
}

func ip(v int, proto flow.Proto) gopacket.SerializableLayer {
	if v == 4 {
		return ip4(proto)
	}
	return ip6(proto)
}

func tcp() *layers.TCP {
	return &layers.TCP{SrcPort: 4711, DstPort: 5432, SYN: true, Window: 64240, Options: []layers.TCPOption{
		{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 0xb4}},
	}}
}

func udp() *layers.UDP   { return &layers.UDP{SrcPort: 4711, DstPort: 9053} }
func sctp() *layers.SCTP { return &layers.SCTP{SrcPort: 4711, DstPort: 9} }

func icmp(v int) gopacket.SerializableLayer {
	if v == 4 {
		return &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4)}
	}
	return &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(1, 4)}
}

func icmpProto(v int) flow.Proto {
	if v == 4 {
		return flow.ICMP
	}
	return flow.ICMPv6
}

func payload(n int) gopacket.Payload { return make(gopacket.Payload, n) }

// build serializes the layers with right lengths and checksums.
func build(ls ...gopacket.SerializableLayer) []byte {
	if n, ok := ls[0].(gopacket.NetworkLayer); ok {
		for _, l := range ls[1:] {
			if c, ok := l.(interface {
				SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
			}); ok {
				must(c.SetNetworkLayerForChecksum(n))
			}
		}
	}
	buf := gopacket.NewSerializeBuffer()
	must(gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...))
	return buf.Bytes()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// put overwrites bytes of a packet.
func put[B ~[]byte](packet B, at int, with ...byte) B {
	copy(packet[at:], with)
	return packet
}

// ext builds an extension header of 8+8*units bytes with zero content.
func ext(next flow.Proto, units int) gopacket.Payload {
	b := payload(8 + 8*units)
	b[0], b[1] = byte(next), byte(units)
	return b
}

// routingHdr builds a routing header of the given type with nothing left to visit.
func routingHdr(next flow.Proto, kind byte) gopacket.Payload {
	b := ext(next, 2)
	b[2] = kind
	return b
}

// fragHdr builds a fragment header; offset is in units of 8 bytes.
func fragHdr(next flow.Proto, offset uint16, more bool) gopacket.Payload {
	b := ext(next, 0)
	v := offset << 3
	if more {
		v |= 1
	}
	binary.BigEndian.PutUint16(b[2:], v)
	return b
}

// authHdr builds an authentication header of (words+2)*4 bytes.
func authHdr(next flow.Proto, words int) gopacket.Payload {
	b := payload(4 * (words + 2))
	b[0], b[1] = byte(next), byte(words)
	return b
}

// chain builds an IPv6 packet: the headers in order, each naming the next, with
// the transport layer and 10 bytes of payload at the end.
func chain(proto flow.Proto, l4 gopacket.SerializableLayer, kinds ...flow.Proto) []byte {
	first := proto
	if len(kinds) > 0 {
		first = kinds[0]
	}
	ls := []gopacket.SerializableLayer{ip6(first)}
	for i, k := range kinds {
		next := proto
		if i+1 < len(kinds) {
			next = kinds[i+1]
		}
		switch k {
		case routing:
			ls = append(ls, routingHdr(next, 4))
		case fragment:
			ls = append(ls, fragHdr(next, 0, false))
		case authentication:
			ls = append(ls, authHdr(next, 4))
		default:
			ls = append(ls, ext(next, i%2))
		}
	}
	return build(append(ls, l4, payload(10))...)
}

// tuple is the tuple of the fixtures' addresses in family v.
func tuple(v int, proto flow.Proto) flow.Tuple {
	if v == 4 {
		return flow.Tuple{Src: src4, Dst: dst4, Proto: proto}
	}
	return flow.Tuple{Src: src6, Dst: dst6, Proto: proto}
}

func ported(v int, proto flow.Proto, dst uint16) flow.Tuple {
	t := tuple(v, proto)
	t.Ported, t.SrcPort, t.DstPort = true, 4711, dst
	return t
}

func icmpTuple(v int, kind, code uint8) flow.Tuple {
	t := tuple(v, icmpProto(v))
	t.ICMPType, t.ICMPCode = kind, code
	return t
}

// header is the length of the network header of family v.
func header(v int) int {
	if v == 4 {
		return ipv4HeaderLen
	}
	return ipv6HeaderLen
}

// fixtures gives every packet the tests know.
func fixtures() []fixture {
	var fs []fixture
	for _, v := range []int{4, 6} {
		fs = append(fs, bothFamilies(v)...)
	}
	fs = append(fs, onlyIPv4()...)
	fs = append(fs, onlyIPv6()...)
	return fs
}

// bothFamilies gives the packets that mean the same in IPv4 and IPv6.
func bothFamilies(v int) []fixture {
	name := func(s string) string { return map[int]string{4: "ipv4 ", 6: "ipv6 "}[v] + s }
	h := header(v)
	multicast, zero, unreachable := net.ParseIP("ff02::1"), net.IPv6zero, uint8(1)
	if v == 4 {
		multicast, zero, unreachable = net.IP{224, 0, 0, 1}, net.IP{0, 0, 0, 0}, 3
	}
	// addressed replaces the addresses that are not nil.
	addressed := func(src, dst net.IP) []byte {
		b := build(ip(v, flow.UDP), udp(), payload(4))
		n := len(zero)
		put(b, h-2*n, src...)
		return put(b, h-n, dst...)
	}
	with := func(t flow.Tuple, src, dst net.IP) flow.Tuple {
		if src != nil {
			t.Src, _ = netip.AddrFromSlice(src)
		}
		if dst != nil {
			t.Dst, _ = netip.AddrFromSlice(dst)
		}
		return t
	}
	other := icmpProto(10 - v)
	return []fixture{
		{name("tcp syn"), build(ip(v, flow.TCP), tcp()), ported(v, flow.TCP, 5432), OK},
		{name("tcp data"), build(ip(v, flow.TCP), tcp(), payload(50)), ported(v, flow.TCP, 5432), OK},
		{name("tcp options cut"), build(ip(v, flow.TCP), tcp())[:h+20], ported(v, flow.TCP, 5432), OK},
		{name("tcp padded"), append(build(ip(v, flow.TCP), tcp()), 1, 2, 3, 4, 5, 6), ported(v, flow.TCP, 5432), OK},
		{name("tcp data offset 4"), put(build(ip(v, flow.TCP), tcp()), h+12, 0x40), flow.Tuple{}, BadTransport},
		{name("tcp cut by length, padded"), append(build(ip(v, flow.TCP), payload(19)), 1, 2, 3, 4), flow.Tuple{}, Truncated},
		{name("udp"), build(ip(v, flow.UDP), udp(), payload(12)), ported(v, flow.UDP, 9053), OK},
		{name("udp empty"), build(ip(v, flow.UDP), udp()), ported(v, flow.UDP, 9053), OK},
		{name("udp length beyond copy"), build(ip(v, flow.UDP), udp(), payload(500))[:h+8], ported(v, flow.UDP, 9053), OK},
		{name("udp length 0"), put(build(ip(v, flow.UDP), udp(), payload(12)), h+4, 0, 0), ported(v, flow.UDP, 9053), OK},
		{name("udp length 7"), put(build(ip(v, flow.UDP), udp(), payload(12)), h+4, 0, 7), flow.Tuple{}, BadTransport},
		{name("udp length 1"), put(build(ip(v, flow.UDP), udp(), payload(12)), h+4, 0, 1), flow.Tuple{}, BadTransport},
		{name("udp cut by length, padded"), append(build(ip(v, flow.UDP), payload(7)), 1, 2, 3, 4), flow.Tuple{}, Truncated},
		{name("sctp"), build(ip(v, flow.SCTP), sctp(), payload(16)), ported(v, flow.SCTP, 9), OK},
		{name("sctp cut by length, padded"), append(build(ip(v, flow.SCTP), payload(11)), 1, 2), flow.Tuple{}, Truncated},
		{name("icmp"), build(ip(v, icmpProto(v)), icmp(v), payload(24)), icmpTuple(v, unreachable, 4), OK},
		{name("icmp of 4 bytes"), build(ip(v, icmpProto(v)), gopacket.Payload{9, 2, 0, 0}), icmpTuple(v, 9, 2), OK},
		{name("icmp of 3 bytes, padded"), append(build(ip(v, icmpProto(v)), payload(3)), 1, 2), flow.Tuple{}, Truncated},
		{name("icmp of the other family"), build(ip(v, other), icmp(10-v), payload(8)), flow.Tuple{}, ICMPFamily},
		{name("udplite has no ports"), build(ip(v, flow.UDPLite), payload(24)), tuple(v, flow.UDPLite), OK},
		{name("gre"), build(ip(v, 47), payload(24)), tuple(v, 47), OK},
		{name("esp"), build(ip(v, 50), payload(24)), tuple(v, 50), OK},
		{name("no next header"), build(ip(v, 59)), tuple(v, 59), OK},
		{name("mobility"), build(ip(v, 135), ext(flow.TCP, 0), tcp()), tuple(v, 135), OK},
		{name("hip"), build(ip(v, 139), ext(flow.TCP, 0), tcp()), tuple(v, 139), OK},
		{name("shim6"), build(ip(v, 140), ext(flow.TCP, 0), tcp()), tuple(v, 140), OK},
		{name("protocol 253, no payload"), build(ip(v, 253)), tuple(v, 253), OK},
		{name("multicast source"), addressed(multicast, nil), flow.Tuple{}, BadSource},
		{name("multicast destination"), addressed(nil, multicast), with(ported(v, flow.UDP, 9053), nil, multicast), OK},
		{name("unspecified source"), addressed(zero, nil), with(ported(v, flow.UDP, 9053), zero, nil), OK},
		{name("unspecified destination"), addressed(nil, zero), flow.Tuple{}, BadDestination},
		{name("header cut"), build(ip(v, flow.UDP), udp())[:h-1], flow.Tuple{}, TooShort},
	}
}

// onlyIPv4 gives options, IPv4's lengths and its fragments.
func onlyIPv4() []fixture {
	withOptions := func() []byte {
		h := ip4(flow.TCP)
		h.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
		return build(h, tcp(), payload(3))
	}
	// frag sets flags and offset, the latter in units of 8 bytes.
	frag := func(flags layers.IPv4Flag, offset uint16, l4 ...gopacket.SerializableLayer) []byte {
		h := ip4(flow.UDP)
		h.Flags, h.FragOffset = flags, offset
		return build(append([]gopacket.SerializableLayer{h}, l4...)...)
	}
	tcpData := func() []byte { return build(ip4(flow.TCP), tcp(), payload(40)) }
	udpData := func() []byte { return build(ip4(flow.UDP), udp(), payload(40)) }
	fragICMP := ip4(flow.ICMP)
	fragICMP.FragOffset = 3
	return []fixture{
		{"empty", []byte{}, flow.Tuple{}, TooShort},
		{"version 0", put(tcpData(), 0, 0x05), flow.Tuple{}, BadVersion},
		{"version 5", put(tcpData(), 0, 0x55), flow.Tuple{}, BadVersion},
		{"ipv4 router alert", withOptions(), ported(4, flow.TCP, 5432), OK},
		{"ipv4 options cut", withOptions()[:22], flow.Tuple{}, TooShort},
		{"ipv4 60-byte header", build(longest4(), udp()), ported(4, flow.UDP, 9053), OK},
		{"ipv4 header length 4", put(tcpData(), 0, 0x44), flow.Tuple{}, BadHeaderLength},
		{"ipv4 header length 0", put(tcpData(), 0, 0x40), flow.Tuple{}, BadHeaderLength},
		{"ipv4 total length 19", put(tcpData(), 2, 0, 19), flow.Tuple{}, BadTotalLength},
		{"ipv4 total length below options", put(withOptions(), 2, 0, 23), flow.Tuple{}, BadTotalLength},
		{"ipv4 total length beyond copy", put(tcpData(), 2, 0xff, 0xff), ported(4, flow.TCP, 5432), OK},
		{"ipv4 total length 0, tcp", put(tcpData(), 2, 0, 0), ported(4, flow.TCP, 5432), OK},
		{"ipv4 total length 0, udp", put(udpData(), 2, 0, 0), flow.Tuple{}, BadTotalLength},
		{"ipv4 total length 0, tcp fragment", put(tcpData(), 2, 0, 0, 0, 7, 0x20, 0), flow.Tuple{}, BadTotalLength},
		{"ipv4 don't fragment", frag(layers.IPv4DontFragment, 0, udp()), ported(4, flow.UDP, 9053), OK},
		{"ipv4 first fragment", frag(layers.IPv4MoreFragments, 0, udp(), payload(24)), ported(4, flow.UDP, 9053), OK},
		{"ipv4 tiny first fragment", frag(layers.IPv4MoreFragments, 0, payload(4)), flow.Tuple{}, Truncated},
		{"ipv4 middle fragment", frag(layers.IPv4MoreFragments, 3, payload(24)), flow.Tuple{}, Fragment},
		{"ipv4 last fragment", frag(0, 0x1fff, payload(24)), flow.Tuple{}, Fragment},
		{"ipv4 fragment at offset 1", frag(0, 1, payload(24)), flow.Tuple{}, Fragment},
		{"ipv4 icmp fragment", build(fragICMP, payload(24)), flow.Tuple{}, Fragment},
		{"ipv4 protocol 0", build(ip4(0), ext(flow.TCP, 0), tcp()), tuple(4, 0), OK},
		{"ipv4 authentication header", build(ip4(authentication), authHdr(flow.TCP, 4), tcp()), tuple(4, authentication), OK},
	}
}

// longest4 is a header with 40 bytes of options, all no-operation.
func longest4() *layers.IPv4 {
	h := ip4(flow.UDP)
	for range 40 {
		h.Options = append(h.Options, layers.IPv4Option{OptionType: 1, OptionLength: 1})
	}
	return h
}

// onlyIPv6 gives extension headers, IPv6's lengths and mapped addresses.
func onlyIPv6() []fixture {
	const hbh, dst, rt, fr, ah = hopByHop, destOptions, routing, fragment, authentication
	ok := ported(6, flow.TCP, 5432)
	mapped := netip.MustParseAddr("::ffff:10.0.1.10").As16()
	eight := []flow.Proto{hbh, dst, rt, fr, ah, dst, dst, dst}
	// jumbo is the header Linux puts before a TCP super-packet.
	jumbo := gopacket.Payload{byte(flow.TCP), 0, 0xc2, 4, 0, 1, 0x40, 0}
	padding := gopacket.Payload{byte(flow.TCP), 0, 1, 4, 0, 0, 0, 0}
	wrongJumbo := gopacket.Payload{byte(flow.TCP), 0, 0xc2, 3, 0, 1, 0x40, 0}
	longJumbo := put(ext(flow.TCP, 1), 2, 0xc2, 4, 0, 1, 0x40, 0)
	jumboUDP := gopacket.Payload{byte(flow.UDP), 0, 0xc2, 4, 0, 1, 0x40, 0}
	return []fixture{
		{"ipv6 hop-by-hop", chain(flow.TCP, tcp(), hbh), ok, OK},
		{"ipv6 hop-by-hop of 2048 bytes", build(ip6(hbh), ext(flow.TCP, 255), tcp()), ok, OK},
		{"ipv6 hop-by-hop longer than packet", build(ip6(hbh), put(ext(flow.TCP, 0), 1, 9), tcp()), flow.Tuple{}, Truncated},
		{"ipv6 hop-by-hop second", chain(flow.TCP, tcp(), dst, hbh), flow.Tuple{}, BadExtension},
		{"ipv6 hop-by-hop twice", chain(flow.TCP, tcp(), hbh, hbh), flow.Tuple{}, BadExtension},
		{"ipv6 destination options", chain(flow.UDP, udp(), dst), ported(6, flow.UDP, 9053), OK},
		{"ipv6 segment routing", chain(flow.TCP, tcp(), rt), ok, OK},
		{"ipv6 routing type 0", build(ip6(rt), routingHdr(flow.TCP, 0), tcp()), flow.Tuple{}, RoutingType0},
		{"ipv6 routing type 0 behind others", build(ip6(hbh), ext(rt, 0), routingHdr(flow.TCP, 0), tcp()), flow.Tuple{}, RoutingType0},
		{"ipv6 routing type 2", build(ip6(rt), routingHdr(flow.TCP, 2), tcp()), ok, OK},
		{"ipv6 atomic fragment", chain(flow.TCP, tcp(), fr), ok, OK},
		{"ipv6 atomic fragment, length byte set", build(ip6(fr), put(fragHdr(flow.TCP, 0, false), 1, 0xff), tcp()), ok, OK},
		{"ipv6 first fragment", build(ip6(fr), fragHdr(flow.TCP, 0, true), tcp(), payload(8)), ok, OK},
		{"ipv6 tiny first fragment", build(ip6(fr), fragHdr(flow.TCP, 0, true), payload(8)), flow.Tuple{}, Truncated},
		{"ipv6 first fragment ends in extension", build(ip6(fr), fragHdr(dst, 0, true), put(ext(flow.TCP, 0), 1, 1)), flow.Tuple{}, Truncated},
		{"ipv6 later fragment", build(ip6(fr), fragHdr(flow.TCP, 1, true), tcp()), flow.Tuple{}, Fragment},
		{"ipv6 last fragment", build(ip6(fr), fragHdr(flow.ICMPv6, 0x1fff, false), payload(8)), flow.Tuple{}, Fragment},
		{"ipv6 later fragment behind options", build(ip6(hbh), ext(fr, 1), fragHdr(flow.TCP, 9, true), tcp()), flow.Tuple{}, Fragment},
		{"ipv6 authentication", chain(flow.TCP, tcp(), ah), ok, OK},
		{"ipv6 authentication of 12 bytes", build(ip6(ah), authHdr(flow.TCP, 1), tcp()), ok, OK},
		{"ipv6 authentication of 8 bytes", build(ip6(ah), authHdr(flow.TCP, 0), tcp()), flow.Tuple{}, BadExtension},
		{"ipv6 eight extensions", chain(flow.TCP, tcp(), eight...), ok, OK},
		{"ipv6 nine extensions", chain(flow.TCP, tcp(), append(eight, dst)...), flow.Tuple{}, TooManyExtensions},
		{"ipv6 icmpv6 behind extensions", chain(flow.ICMPv6, icmp(6), hbh, dst), icmpTuple(6, 1, 4), OK},
		{"ipv6 icmp behind extensions", chain(flow.ICMP, icmp(4), hbh, dst), flow.Tuple{}, ICMPFamily},
		{"ipv6 esp behind extensions", chain(50, tcp(), hbh, dst), tuple(6, 50), OK},
		{"ipv6 no next header behind extensions", chain(59, tcp(), hbh), tuple(6, 59), OK},
		{"ipv6 unknown behind extensions", chain(253, tcp(), hbh, rt), tuple(6, 253), OK},
		{"ipv6 payload length beyond copy", put(build(ip6(flow.TCP), tcp()), 4, 0xff, 0xff), ok, OK},
		{"ipv6 payload length 0, tcp", put(build(ip6(flow.TCP), tcp()), 4, 0, 0), ok, OK},
		{"ipv6 payload length 0, jumbo tcp", put(build(ip6(hbh), jumbo, tcp()), 4, 0, 0), ok, OK},
		{"ipv6 payload length and jumbo option", build(ip6(hbh), jumbo, tcp()), ok, OK},
		{"ipv6 payload length 0, jumbo udp", put(build(ip6(hbh), jumboUDP, udp()), 4, 0, 0), flow.Tuple{}, Truncated},
		{"ipv6 payload length 0, padding only", put(build(ip6(hbh), padding, tcp()), 4, 0, 0), flow.Tuple{}, Truncated},
		{"ipv6 payload length 0, jumbo of 3 bytes", put(build(ip6(hbh), wrongJumbo, tcp()), 4, 0, 0), flow.Tuple{}, Truncated},
		{"ipv6 payload length 0, jumbo and more", put(build(ip6(hbh), longJumbo, tcp()), 4, 0, 0), flow.Tuple{}, Truncated},
		{"ipv6 payload length 0, udp", put(build(ip6(flow.UDP), udp()), 4, 0, 0), flow.Tuple{}, Truncated},
		{"ipv6 payload length 0, gre padded", put(build(ip6(47), payload(9)), 4, 0, 0), tuple(6, 47), OK},
		{"ipv6 mapped source", put(build(ip6(flow.TCP), tcp()), 8, mapped[:]...), flow.Tuple{}, MappedAddress},
		{"ipv6 mapped destination", put(build(ip6(flow.TCP), tcp()), 24, mapped[:]...), flow.Tuple{}, MappedAddress},
	}
}
