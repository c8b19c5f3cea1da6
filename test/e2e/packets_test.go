package e2e

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/postern-project/postern/test/lab"
)

func udp(src, dst netip.AddrPort, payload []byte) []byte {
	return lab.Build(lab.IP(src.Addr(), dst.Addr(), layers.IPProtocolUDP),
		&layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}, gopacket.Payload(payload))
}

func syn(src, dst netip.AddrPort) []byte {
	return lab.Build(lab.IP(src.Addr(), dst.Addr(), layers.IPProtocolTCP),
		&layers.TCP{SrcPort: layers.TCPPort(src.Port()), DstPort: layers.TCPPort(dst.Port()), SYN: true, Seq: 1, Window: 1000})
}

// eventually waits for something that other processes bring about.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	eventuallyFor(t, patience, what, f)
}

func eventuallyFor(t *testing.T, wait time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(wait); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// writeOnly changes a manifest and does not wait.
func (b *bench) writeOnly(name, text string) {
	b.Helper()
	writeFile(b.T, b.dir, name, text)
}

// TestProtocols sends one packet of each protocol from an account that may and
// from one that may not. The rules of the example name no protocol.
func TestProtocols(t *testing.T) {
	b := setup(t, examples)
	b.start()
	bothFamilies(t, func(t *testing.T, six bool) {
		db := b.pods["prod-engineering/db"]
		dst := at(db, six, 5432)
		echo := func(src netip.Addr) []byte {
			return lab.Build(lab.IP(src, dst.Addr(), layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 7, Seq: 1})
		}
		icmp := layers.IPProtocolICMPv4
		if six {
			icmp = layers.IPProtocolICMPv6
			echo = func(src netip.Addr) []byte {
				return lab.Build(lab.IP(src, dst.Addr(), icmp), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}, &layers.ICMPv6Echo{Identifier: 7, SeqNumber: 1})
			}
		}
		for _, p := range []struct {
			proto layers.IPProtocol
			build func(src netip.Addr) []byte
		}{
			{layers.IPProtocolTCP, func(src netip.Addr) []byte { return syn(netip.AddrPortFrom(src, 4001), dst) }},
			{layers.IPProtocolUDP, func(src netip.Addr) []byte { return udp(netip.AddrPortFrom(src, 4001), dst, []byte("x")) }},
			{icmp, echo},
			{layers.IPProtocolSCTP, func(src netip.Addr) []byte {
				return lab.Build(lab.IP(src, dst.Addr(), layers.IPProtocolSCTP), &layers.SCTP{SrcPort: 4001, DstPort: 5432},
					&layers.SCTPInit{SCTPChunk: layers.SCTPChunk{Type: layers.SCTPChunkTypeInit, Length: 20}, InitiateTag: 1, AdvertisedReceiverWindowCredit: 1500, OutboundStreams: 1, InboundStreams: 1, InitialTSN: 1})
			}},
			{layers.IPProtocolGRE, func(src netip.Addr) []byte {
				return lab.Build(lab.IP(src, dst.Addr(), layers.IPProtocolGRE), gopacket.Payload([]byte{0, 0, 8, 0, 1, 2, 3, 4}))
			}},
			{253, func(src netip.Addr) []byte { // RFC 3692: for experiments
				return lab.Build(lab.IP(src, dst.Addr(), 253), gopacket.Payload("anything"))
			}},
		} {
			t.Run(p.proto.String(), func(t *testing.T) {
				received := b.sniff(db)
				send := func(name string) func(lab.Packet) bool {
					src := at(b.pods[name], six, 0).Addr()
					if err := b.pods[name].Send(p.build(src)); err != nil {
						t.Fatal(err)
					}
					return func(got lab.Packet) bool { return got.Src == src && got.Proto == p.proto }
				}
				denied := send("prod-engineering/reports")
				allowed := send("prod-engineering/api")
				eventually(t, "the allowed packet arrives", func() bool { return received.Count(allowed) > 0 })
				time.Sleep(50 * time.Millisecond)
				if n := received.Count(denied); n != 0 {
					t.Errorf("%d denied packets arrived", n)
				}
			})
		}
	})
}

// TestOddPackets sends what no honest program sends, from an account that may reach
// the receiver. Each is accepted or dropped for a reason, none is left in the queue,
// and what is dropped never arrives.
func TestOddPackets(t *testing.T) {
	b := setup(t, examples)
	b.start()
	api, db := b.pods["prod-engineering/api"], b.pods["prod-engineering/db"]
	src4, dst4 := at(api, false, 4001), at(db, false, 5432)
	src6, dst6 := at(api, true, 4001), at(db, true, 5432)
	v6 := func(first layers.IPProtocol, rest ...byte) []byte {
		return lab.Build(lab.IP(src6.Addr(), dst6.Addr(), first), gopacket.Payload(rest))
	}
	segment := syn(src6, dst6)[40:]
	// options is a destination options header of 8 bytes: next header, length 0,
	// and one padding option (RFC 8200 section 4.6).
	options := func(next byte) []byte { return []byte{next, 0, 1, 4, 0, 0, 0, 0} }
	const tcp, dstOpts, routing = 6, 60, 43
	var nine []byte
	for i := range 9 {
		nine = append(nine, options([]byte{dstOpts, tcp}[i/8])...)
	}
	for _, tc := range []struct {
		name    string
		packet  []byte
		arrives bool
	}{
		{"options before TCP", v6(dstOpts, append(options(tcp), segment...)...), true},
		{"nine extension headers", v6(dstOpts, append(nine, segment...)...), false},
		{"routing header type 0", v6(routing, append([]byte{tcp, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, segment...)...), false},
		{"extension header cut off", v6(dstOpts, tcp, 9), false},
		{"TCP header cut off", v6(tcp, segment[:12]...), false},
		{"TCP data offset 0", v6(tcp, append(append([]byte(nil), segment[:12]...), append([]byte{0}, segment[13:]...)...)...), false},
		{"no payload", v6(17), false},
		{"ICMP in IPv6", v6(1, 8, 0, 0, 0, 0, 0, 0, 0), false},
		{"UDP, 7 bytes", lab.Build(lab.IP(src4.Addr(), dst4.Addr(), 17), gopacket.Payload("7 bytes")), false},
		{"ACK of no connection", lab.Build(lab.IP(src4.Addr(), at(b.pods["prod-engineering/db"], false, 0).Addr(), 6), &layers.TCP{SrcPort: 9, DstPort: 9, Seq: 5, Ack: 5, ACK: true, RST: true}), false},
		{"every TCP flag", lab.Build(lab.IP(src4.Addr(), dst4.Addr(), 6), &layers.TCP{SrcPort: 10, DstPort: 10, SYN: true, FIN: true, RST: true, PSH: true, URG: true, ACK: true}), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			received := b.sniff(db)
			before := len(received.Packets())
			if err := api.Send(tc.packet); err != nil {
				t.Fatal(err)
			}
			// A good packet behind it shows that everything before has been settled.
			marker := udp(src4, at(db, false, 9999), []byte(tc.name))
			if err := api.Send(marker); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the packet behind arrives", func() bool {
				return received.Count(func(p lab.Packet) bool { return p.DstPort == 9999 && string(p.Payload) == tc.name }) > 0
			})
			arrived := 0
			for _, p := range received.Packets()[before:] {
				if (p.Src == src4.Addr() || p.Src == src6.Addr()) && p.DstPort != 9999 {
					arrived++
				}
			}
			if (arrived > 0) != tc.arrives {
				t.Errorf("%d arrived, want some: %v", arrived, tc.arrives)
			}
			eventually(t, "the queue is empty", func() bool { return b.kernel().Waiting == 0 })
		})
	}
}

// TestFragments: a datagram in fragments is judged as the whole, once.
func TestFragments(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.serve(5432)
	b.start()
	bothFamilies(t, func(t *testing.T, six bool) {
		payload := make([]byte, 9000)
		dst := at(b.pods["prod-engineering/db"], six, 5432)
		before := b.kernel().LastID
		if err := b.pods["prod-engineering/api"].Exchange("udp", dst, payload, patience); err != nil {
			t.Errorf("allowed: %v", err)
		}
		if n := b.kernel().LastID - before; n != 1 {
			t.Errorf("%d packets were queued, want 1", n)
		}
		received := b.sniff(b.pods["prod-engineering/db"])
		denied := b.pods["prod-engineering/reports"]
		if err := denied.Exchange("udp", dst, payload, impatience); err == nil {
			t.Error("denied, and answered")
		}
		if n := received.Count(lab.From(at(denied, six, 0).Addr())); n != 0 {
			t.Errorf("%d fragments of a denied datagram arrived", n)
		}
	})
}
