package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"github.com/postern-project/postern/test/lab"
)

// These tests change policy under flows that live. What arrived is told by the packet
// sockets of the receivers.

const (
	api     = "prod-engineering/api"
	db      = "prod-engineering/db"
	web     = "prod-engineering/web"
	reports = "prod-engineering/reports"
)

// toggle takes the label from web's account by which it may reach db, or gives it back.
func (b *bench) toggle(allow bool) {
	b.Helper()
	old, new := "{app: web-frontend}", "{app: nobody}"
	if allow {
		old, new = new, old
	}
	b.edit("serviceaccounts.yaml", old, new)
}

// probe is a packet that is told from all others by its payload or number.
type probe struct {
	name   string
	packet func(src, dst netip.Addr, n int) []byte
	is     func(p lab.Packet, n int) bool
}

func probes(six bool) []probe {
	icmp := layers.IPProtocolICMPv4
	if six {
		icmp = layers.IPProtocolICMPv6
	}
	echo := func(kind4, kind6 uint8) func(src, dst netip.Addr, n int) []byte {
		return func(src, dst netip.Addr, n int) []byte {
			if six {
				return lab.Build(lab.IP(src, dst, icmp), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind6, 0)}, &layers.ICMPv6Echo{Identifier: 77, SeqNumber: uint16(n)})
			}
			return lab.Build(lab.IP(src, dst, icmp), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind4, 0), Id: 77, Seq: uint16(n)})
		}
	}
	sequence := func(p lab.Packet, n int) bool {
		// type, code, checksum, id, sequence; or from the id on, where the decoder has cut
		// the first four bytes off.
		b := p.Payload
		return p.Proto == icmp && len(b) >= 8 && int(b[6])<<8|int(b[7]) == n
	}
	text := func(n int) []byte { return fmt.Appendf(nil, "datagram %d", n) }
	is := func(p lab.Packet, n int) bool {
		return p.Proto == layers.IPProtocolUDP && string(p.Payload) == string(text(n))
	}
	return []probe{
		{"udp", func(src, dst netip.Addr, n int) []byte {
			return udp(netip.AddrPortFrom(src, 4100), netip.AddrPortFrom(dst, 6000), text(n))
		}, is},
		{"udp answer", func(src, dst netip.Addr, n int) []byte {
			return udp(netip.AddrPortFrom(src, 6000), netip.AddrPortFrom(dst, 4100), text(n))
		}, is},
		{"icmp", echo(8, 128), sequence},
		{"icmp answer", echo(0, 129), sequence},
	}
}

// TestRevocation: when an account loses a label, its pods' flows stop with the next
// packet in either direction, over every protocol; and when it gets it back, they go on.
// Flows that the change is not about notice nothing, and the queue does not see them.
func TestRevocation(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start()
	bothFamilies(t, func(t *testing.T, six bool) {
		b.T = t
		stays := b.connect(api, db, six)
		goes := b.connect(web, db, six)
		webHost, dbHost := b.pods[web], b.pods[db]
		webAddr, dbAddr := at(webHost, six, 0).Addr(), at(dbHost, six, 0).Addr()
		atDB, atWeb := b.sniff(dbHost), b.sniff(webHost)
		// send sends packet n of each probe, questions from web and answers from db, and
		// tells how many arrived.
		send := func(n int) (arrived int) {
			ps := probes(six)
			for i, p := range ps {
				from, src, dst := webHost, webAddr, dbAddr
				if i%2 == 1 {
					from, src, dst = dbHost, dbAddr, webAddr
				}
				if err := from.Send(p.packet(src, dst, n)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Millisecond) // for the verdict on the first of a flow
			}
			count := func() (c int) {
				for i, p := range ps {
					at, from := atDB, webAddr
					if i%2 == 1 {
						at, from = atWeb, dbAddr
					}
					if at.Count(func(got lab.Packet) bool { return got.Src == from && p.is(got, n) }) > 0 {
						c++
					}
				}
				return c
			}
			for range 30 {
				if arrived = count(); arrived == len(ps) {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			return arrived
		}
		eventually(t, "all probes arrive", func() bool { return send(1) == 4 })

		b.toggle(false)
		if n := send(2); n != 0 {
			t.Errorf("%d of 4 flows went on after they were denied", n)
		}
		before := len(atDB.Packets())
		if err := lab.Echo(goes, []byte("go on"), impatience); err == nil {
			t.Error("a denied connection went on")
		}
		for _, p := range atDB.Packets()[before:] {
			if p.Src == webAddr {
				t.Errorf("db received %v of a denied connection", p.Proto)
			}
		}
		queued := b.kernel().LastID
		for range 20 {
			if err := lab.Echo(stays, []byte("go on"), patience); err != nil {
				t.Fatalf("a flow that the change is not about was cut: %v", err)
			}
		}
		if n := b.kernel().LastID - queued; n > 10 {
			// db is an end that other rules apply to, so its flows may be asked about once, and
			// what waits for that may be sent again.
			t.Errorf("%d packets of a flow that goes on were queued, of 20 exchanges", n)
		}

		b.toggle(true)
		eventually(t, "all probes arrive again", func() bool { return send(3) == 4 })
		if err := lab.Echo(goes, nil, patience); err != nil {
			t.Error(err)
		}
	})
}

// TestKeptFlowsAreNotQueued: a change that is about somebody else leaves a flow to the
// kernel.
func TestKeptFlowsAreNotQueued(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start()
	c := b.connect(web, db, false)
	kept := b.counter("kept")
	b.edit("serviceaccounts.yaml", "{role: intern}", "{role: staff}") // nobody's in this flow
	queued := b.kernel().LastID
	if err := lab.Echo(c, []byte("go on"), patience); err != nil {
		t.Fatal(err)
	}
	if n := b.kernel().LastID - queued; n != 0 {
		t.Errorf("%d packets were queued", n)
	}
	if n := b.counter("kept") - kept; n != 1 {
		t.Errorf("%d flows were taken into the new epoch, want 1", n)
	}
}

// TestCacheAnswers: a way that was decided is decided by the kernel from then on, until
// policy changes; accepted or denied.
func TestCacheAnswers(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432, 5433)
	b.start()
	bothFamilies(t, func(t *testing.T, six bool) {
		b.T = t
		b.connect(api, db, six).Close()
		queued, cached := b.kernel().LastID, b.counter("allowed_cache")
		for range 20 {
			b.connect(api, db, six).Close()
		}
		if n := b.kernel().LastID - queued; n != 0 {
			t.Errorf("%d packets of 20 connections were queued, want none", n)
		}
		if n := b.counter("allowed_cache") - cached; n != 20 {
			t.Errorf("the cache allowed %d, want 20", n)
		}
		denied := func(n int) {
			for i := range n {
				src := at(b.pods[reports], six, uint16(3000+i))
				if err := b.pods[reports].Send(syn(src, at(b.pods[db], six, 5432))); err != nil {
					t.Fatal(err)
				}
			}
		}
		sink := b.sniff(b.pods[db])
		denied(1)
		eventually(t, "the denial is learned", func() bool { return b.kernel().LastID > queued && b.kernel().Waiting == 0 })
		queued = b.kernel().LastID
		drops := b.counter("denied_cache")
		denied(100)
		eventually(t, "all are dropped", func() bool { return b.counter("denied_cache")-drops == 100 })
		if n := b.kernel().LastID - queued; n != 0 {
			t.Errorf("%d of 100 denied packets were queued", n)
		}
		if n := sink.Count(lab.From(at(b.pods[reports], six, 0).Addr())); n != 0 {
			t.Errorf("db received %d of them", n)
		}
		// What was denied a moment ago is allowed as soon as policy says so.
		b.edit("serviceaccounts.yaml", "{app: reports}", "{app: web-frontend, was: reports}")
		b.reaches(reports, db, six, true)
		b.edit("serviceaccounts.yaml", "{app: web-frontend, was: reports}", "{app: reports}")
		b.reaches(reports, db, six, false)
	})
}

// TestFullCache: where there is no room left to learn, each is asked about and decided.
func TestFullCache(t *testing.T) {
	b := setup(t, examples)
	ports := []uint16{7001, 7002, 7003, 7004, 7005, 7006}
	b.serve(ports...)
	b.start("--verdict-cache", "2")
	for range 2 {
		for _, port := range ports {
			if err := b.pods[api].Exchange("tcp", at(b.pods[db], false, port), []byte("hello"), patience); err != nil {
				t.Errorf("port %d: %v", port, err)
			}
			if err := b.pods[reports].Exchange("tcp", at(b.pods[db], false, port), []byte("hello"), 100*time.Millisecond); err == nil {
				t.Errorf("port %d: denied, and answered", port)
			}
		}
	}
}

// TestEpochsComeRound has room for eight epochs, and three times as many changes.
func TestEpochsComeRound(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start("--mark-mask", "0x00fc0000")
	var stays net.Conn = b.connect(api, db, false)
	for i := range 12 {
		goes := b.connect(web, db, false)
		b.toggle(false)
		if err := lab.Echo(goes, []byte("go on"), 150*time.Millisecond); err == nil {
			t.Errorf("turn %d: a denied connection went on", i)
		}
		goes.Close()
		b.toggle(true)
		if err := lab.Echo(stays, []byte("go on"), patience); err != nil {
			t.Fatalf("turn %d: an allowed connection was cut: %v", i, err)
		}
	}
}

// TestKeepEstablished: on request flows go on that were accepted once, and new ones are
// denied all the same, however many changes later: epochs come round after eight.
func TestKeepEstablished(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start("--established-flows", "keep", "--mark-mask", "0x00fc0000")
	c := b.connect(web, db, false)
	for i := range 5 {
		b.toggle(false)
		if err := lab.Echo(c, []byte("go on"), patience); err != nil {
			t.Fatalf("turn %d: an accepted connection was cut: %v", i, err)
		}
		b.reaches(web, db, false, false)
		b.toggle(true)
	}
}
