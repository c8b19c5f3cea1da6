package e2e

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-project/postern/test/lab"
)

// startChecking starts the daemon and waits until it checks source addresses.
func (b *bench) startChecking(args ...string) {
	b.Helper()
	b.start(args...)
	if _, _, err := b.daemon.Wait(0, patience, lab.Message("checking source addresses")); err != nil {
		b.Fatal(err)
	}
}

// forge sends a datagram with another's address from a pod, and one of its own behind
// it, and tells how many of the first arrived at to by when the second had.
func (b *bench) forge(from *lab.Host, src netip.AddrPort, to *lab.Host, port uint16) int {
	b.Helper()
	received := b.sniff(to)
	six := src.Addr().Is6()
	if err := from.Send(udp(src, at(to, six, port), []byte("forged"))); err != nil {
		b.Fatal(err)
	}
	marker := "behind " + src.String()
	if err := from.Send(udp(at(from, six, 4444), at(to, six, 9999), []byte(marker))); err != nil {
		b.Fatal(err)
	}
	eventually(b.T, "the honest packet behind arrives", func() bool {
		return received.Count(func(p lab.Packet) bool { return string(p.Payload) == marker }) > 0
	})
	return received.Count(func(p lab.Packet) bool { return string(p.Payload) == "forged" })
}

// TestForgedSource: a pod cannot speak with another's address, whoever that is: a pod
// of this host whose rights are better, one of another host, nobody, or the host.
func TestForgedSource(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	const port = 5432
	b.serve(port)
	// web has no policy of its own: nothing but the check stands in the way.
	web, api, reports := b.pods["prod-engineering/web"], b.pods["prod-engineering/api"], b.pods["prod-engineering/reports"]
	forgeries := func(six bool) map[string]netip.Addr {
		elsewhere, nobody := "10.244.7.7", "203.0.113.7"
		if six {
			elsewhere, nobody = "fd00:244:7::7", "2001:db8::7"
		}
		return map[string]netip.Addr{
			"another pod": at(api, six, 0).Addr(), "the host": at(b.Node, six, 0).Addr(),
			"a pod of another host": netip.MustParseAddr(elsewhere), "nobody": netip.MustParseAddr(nobody),
		}
	}
	each := func(want map[string]bool) {
		t.Helper()
		for _, six := range []bool{false, true} {
			for name, src := range forgeries(six) {
				arrived := b.forge(reports, netip.AddrPortFrom(src, 4000), web, port) > 0
				if arrived != want[name] {
					t.Errorf("the address of %s (%v): arrived %v, want %v", name, src, arrived, want[name])
				}
			}
		}
	}
	b.startChecking("--anti-spoof", "count")
	got := b.counter("spoofed")
	// The kernel itself refuses packets that come in with its own IPv4 address.
	for _, name := range []string{"another pod", "a pod of another host", "nobody"} {
		for _, six := range []bool{false, true} {
			if b.forge(reports, netip.AddrPortFrom(forgeries(six)[name], 4000), web, port) == 0 {
				t.Errorf("counting only: a packet with the address of %s was dropped", name)
			}
		}
	}
	if n := b.counter("spoofed") - got; n != 6 {
		t.Errorf("counting: %d of 6 forged packets counted", n)
	}
	b.stop()

	b.startChecking()
	got = b.counter("spoofed")
	each(nil)
	if n := b.counter("spoofed") - got; n != 8 {
		t.Errorf("%d of 8 forged packets counted", n)
	}
	for _, six := range []bool{false, true} { // what is honest passes
		b.reaches("prod-engineering/api", "prod-engineering/db", six, true)
		b.reaches("prod-engineering/web", "prod-engineering/api", six, true)
		if err := web.Exchange("tcp", at(web, six, port), []byte("to itself"), patience); err != nil {
			t.Error(err)
		}
		if err := b.Node.Exchange("tcp", at(web, six, port), []byte("probe"), patience); err != nil {
			t.Error(err)
		}
	}
	b.stop()

	b.startChecking("--anti-spoof-exempt", "10.244.7.0/24", "--anti-spoof-exempt", "fd00:244:7::/64")
	each(map[string]bool{"a pod of another host": true})
	b.stop()

	b.startChecking("--anti-spoof", "off")
	for _, six := range []bool{false, true} {
		if b.forge(reports, netip.AddrPortFrom(forgeries(six)["nobody"], 4000), web, port) == 0 {
			t.Error("off, and a forged packet was dropped")
		}
	}
}

// TestForgedIdentity is the attack that the check is for: a denied pod takes the address of
// one that a policy allows. Without the check its packets arrive.
func TestForgedIdentity(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"off", "enforce"} {
		t.Run(mode, func(t *testing.T) {
			b := setup(t, examples)
			b.startChecking("--anti-spoof", mode)
			for _, six := range []bool{false, true} {
				db := b.sniff(b.pods["prod-engineering/db"])
				api, reports := b.pods["prod-engineering/api"], b.pods["prod-engineering/reports"]
				if err := reports.Send(syn(at(api, six, 4000), at(b.pods["prod-engineering/db"], six, 5432))); err != nil {
					t.Fatal(err)
				}
				if err := api.Send(syn(at(api, six, 4001), at(b.pods["prod-engineering/db"], six, 5432))); err != nil {
					t.Fatal(err)
				}
				eventually(t, "api's own SYN arrives", func() bool {
					return db.Count(func(p lab.Packet) bool { return p.Opening && p.SrcPort == 4001 }) > 0
				})
				arrived := db.Count(func(p lab.Packet) bool { return p.Opening && p.SrcPort == 4000 }) > 0
				if arrived != (mode == "off") {
					t.Errorf("ipv6 %v: a forged SYN arrived: %v", six, arrived)
				}
			}
		})
	}
}

// TestNewPodIsNotCut: a pod that postern has not heard of speaks from its first moment, and
// cannot take the address of one that it knows.
func TestNewPodIsNotCut(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.startChecking()
	late, err := b.AddPod("late", netip.MustParseAddr("10.244.0.99"), netip.MustParseAddr("fd00:244::99"))
	if err != nil {
		t.Fatal(err)
	}
	web, api := b.pods["prod-engineering/web"], b.pods["prod-engineering/api"]
	for _, six := range []bool{false, true} {
		if err := late.Exchange("tcp", at(web, six, 5432), []byte("hello"), patience); err != nil {
			t.Errorf("ipv6 %v: %v", six, err)
		}
		if n := b.forge(late, at(api, six, 4000), web, 5432); n != 0 {
			t.Errorf("ipv6 %v: a forged packet of a new pod arrived", six)
		}
	}
}

// counter reads a counter of postern's table, in packets.
func (b *bench) counter(name string) (packets int) {
	b.Helper()
	words := strings.Fields(b.nft("list", "counter", "inet", "postern", name))
	for i, w := range words[:len(words)-1] {
		if w == "packets" {
			for _, digit := range words[i+1] {
				packets = packets*10 + int(digit-'0')
			}
			return packets
		}
	}
	b.Fatalf("no counter %s", name)
	return 0
}

// stop ends the daemon in order.
func (b *bench) stop() {
	b.Helper()
	if err := b.daemon.Stop(syscall.SIGTERM); err != nil {
		b.Fatal(err)
	}
}
