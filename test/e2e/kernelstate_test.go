package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"github.com/postern-project/postern/conntrack"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/nft"
	"github.com/postern-project/postern/test/lab"
)

// These tests look at what the kernel holds of flows while policy and pods change, and
// at packets.

// entry finds a TCP connection to port 5432 in the node's conntrack, and whether it is
// marked accepted or denied; found is false if conntrack has none.
func (b *bench) entry(src, dst netip.Addr) (found, accepted, denied bool) {
	b.Helper()
	marks, err := nft.NewMarks(nft.DefaultMask)
	if err != nil {
		b.Fatal(err)
	}
	if err := b.Node.Do(func() error {
		c, err := conntrack.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Sweep(conntrack.Filter{}, func(e *conntrack.Entry) conntrack.Action {
			if t := e.Tuple(); t.Src == src && t.Dst == dst && t.Proto == flow.TCP && t.DstPort == 5432 {
				_, was, judged := marks.Judged(e.Mark)
				found, accepted, denied = true, judged && was, judged && !was
			}
			return conntrack.Keep()
		})
		return err
	}); err != nil {
		b.Fatal(err)
	}
	return found, accepted, denied
}

// TestTakeoverWithConntrack starts the daemon for the first time on a host whose
// conntrack knows every live connection, which way round it is too. Each is judged
// once, when it speaks: those that policy allows go on, whoever speaks first, and the others stop.
func TestTakeoverWithConntrack(t *testing.T) {
	t.Parallel()
	bothFamilies(t, func(t *testing.T, six bool) {
		b := setup(t, examples)
		b.serve(5432)
		b.nft("table inet other { chain c { type filter hook forward priority 0; ct state established accept; }; }")
		goesOn := []net.Conn{b.connect(api, db, six), b.connect(web, db, six), b.connect(web, api, six)}
		stops := map[string]net.Conn{
			"reports -> db":   b.connect(reports, db, six),
			"api -> intern-1": b.connect(api, "prod-engineering/intern-1", six),
		}
		if found, accepted, _ := b.entry(at(b.pods[api], six, 0).Addr(), at(b.pods[db], six, 0).Addr()); !found || accepted {
			t.Fatalf("the test is void: conntrack knows the connection: %v, and it is judged: %v", found, accepted)
		}
		b.start()
		for i, c := range goesOn {
			for range 10 {
				if err := lab.Echo(c, []byte("go on"), patience); err != nil {
					t.Fatalf("allowed connection %d was cut: %v", i, err)
				}
			}
		}
		if n := b.kernel().LastID; n > 10 { // what waits may be sent again
			t.Errorf("%d packets of two protected connections were queued, of 20 exchanges; want the first of each", n)
		}
		for name, c := range stops {
			atDB := b.sniff(b.pods[db])
			if err := lab.Echo(c, []byte("go on"), impatience); err == nil {
				t.Errorf("%s: a denied connection goes on", name)
			}
			if n := atDB.Count(lab.From(at(b.pods[reports], six, 0).Addr())); n != 0 {
				t.Errorf("%s: db received %d packets", name, n)
			}
		}
	})
}

// TestIdleFlowsAreSwept: a connection over which nobody speaks is stopped all the same when
// policy denies it, and forgotten when its pod goes.
func TestIdleFlowsAreSwept(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start()
	for _, six := range []bool{false, true} {
		b.connect(web, db, six)
		b.connect(api, db, six)
	}
	state := func(from string, six bool) string {
		found, accepted, denied := b.entry(at(b.pods[from], six, 0).Addr(), at(b.pods[db], six, 0).Addr())
		return map[bool]string{true: "gone"}[!found] + map[bool]string{true: "accepted"}[accepted] + map[bool]string{true: "denied"}[denied]
	}
	all := func(from, want string) func() bool {
		return func() bool { return state(from, false) == want && state(from, true) == want }
	}
	eventually(t, "both connections are accepted", func() bool { return all(web, "accepted")() && all(api, "accepted")() })
	queued := b.kernel().LastID
	b.toggle(false)
	eventually(t, "the idle denied connections are marked so", all(web, "denied"))
	if n := b.kernel().LastID - queued; n != 0 {
		t.Errorf("%d packets were queued: the connections were not idle", n)
	}
	if !all(api, "accepted")() {
		t.Error("idle connections that policy still allows are not marked accepted any more")
	}
	b.removePod("api")
	eventually(t, "connections of a pod that is gone are forgotten", all(api, "gone"))
}

// removePod takes a pod out of the manifests and waits until that is in force. The pod
// itself stays, as does what it may still send.
func (b *bench) removePod(name string) {
	b.Helper()
	b.rewritePods(func(doc string) string {
		if strings.Contains(doc, "  name: "+name+"\n  namespace: prod-engineering\n") {
			return ""
		}
		return doc
	})
}

// rewritePods changes each of the documents that are pods.
func (b *bench) rewritePods(f func(doc string) string) {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, "pods.yaml"))
	if err != nil {
		b.Fatal(err)
	}
	var rest []string
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		if doc = f(doc); doc != "" {
			rest = append(rest, doc)
		}
	}
	b.write("pods.yaml", strings.Join(rest, "\n---\n"))
}

// TestAddressReuse gives the address of a pod that was allowed to another that is not,
// and lets it open the very connection that the first one had, whose entry conntrack still
// holds. Nothing that the kernel remembers of the first speaks for the second.
func TestAddressReuse(t *testing.T) {
	t.Parallel()
	bothFamilies(t, func(t *testing.T, six bool) {
		b := setup(t, examples)
		b.serve(5432) // who refuses a connection makes conntrack forget it
		b.start()
		src, dst := at(b.pods[web], six, 4700), at(b.pods[db], six, 5432)
		atDB := b.sniff(b.pods[db])
		arrived := func(sport uint16) int {
			return atDB.Count(func(p lab.Packet) bool { return p.Opening && p.SrcPort == sport })
		}
		send := func(sport uint16) {
			t.Helper()
			if err := b.pods[web].Send(syn(netip.AddrPortFrom(src.Addr(), sport), dst)); err != nil {
				t.Fatal(err)
			}
		}
		send(4700)
		eventually(t, "a SYN of the first pod arrives", func() bool { return arrived(4700) == 1 })
		eventually(t, "its flow is accepted", func() bool { _, accepted, _ := b.entry(src.Addr(), dst.Addr()); return accepted })

		// The address goes from web to a pod with the account of reports.
		changed := 0
		b.rewritePods(func(doc string) string {
			if !strings.Contains(doc, "  name: web\n  namespace: prod-engineering\n") {
				return doc
			}
			changed++
			doc = strings.Replace(doc, "  name: web\n", "  name: another\n", 1)
			return strings.Replace(doc, "web-sa", "reports-sa", 1)
		})
		if changed != 1 {
			t.Fatalf("%d pods are called web", changed)
		}
		send(4700) // the tuple of the old connection
		send(4701) // and a new one of the way that was learned
		marker := b.pods[api]
		if err := marker.Send(syn(at(marker, six, 4702), dst)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a SYN that is allowed arrives behind them", func() bool { return arrived(4702) == 1 })
		if n := arrived(4700) - 1 + arrived(4701); n != 0 {
			t.Errorf("%d SYNs arrived for what the address was allowed under another pod", n)
		}
	})
}

// TestGuardFlood: one source that asks about more than its share is stopped by the rules,
// and counted. Others, and what is known of that source itself, are not affected.
func TestGuardFlood(t *testing.T) {
	const rate, flood = 20, 200
	b := setup(t, examples)
	b.serve(5432)
	b.start("--guard-rate", fmt.Sprint(rate), "--guard-portless-rate", fmt.Sprint(rate))
	bothFamilies(t, func(t *testing.T, six bool) {
		b.T = t
		stays := b.connect(api, db, six)
		send := func(name, counter string, packet func(i int) []byte) {
			before, guarded, began := b.kernel().LastID, b.counter(counter), time.Now()
			for i := range flood {
				if err := b.pods[api].Send(packet(i)); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, name+": each is asked about, or stopped by the guard", func() bool {
				return int(b.kernel().LastID-before)+b.counter(counter)-guarded >= flood
			})
			// Besides the burst as much as the time that it took allows, however long.
			most := rate * (2 + int(time.Since(began)/time.Second))
			if n := int(b.kernel().LastID - before); n > most {
				t.Errorf("%s: %d were asked about, want %d at most", name, n, most)
			}
			if n := b.counter(counter) - guarded; n == 0 {
				t.Errorf("%s: none was stopped", name)
			}
			b.reaches(web, db, six, true) // another source
			if err := lab.Echo(stays, []byte("go on"), patience); err != nil {
				t.Errorf("%s: a connection that lives was cut: %v", name, err)
			}
			b.connect(api, db, six).Close() // of a way that is known
		}
		src, dst := at(b.pods[api], six, 4000), at(b.pods[db], six, 0).Addr()
		send("with ports", "guard", func(i int) []byte {
			return udp(src, netip.AddrPortFrom(dst, uint16(20000+i)), []byte("flood"))
		})
		send("without ports", "guard_portless", func(i int) []byte {
			if six {
				return lab.Build(lab.IP(src.Addr(), dst, layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}, &layers.ICMPv6Echo{Identifier: uint16(i), SeqNumber: 1})
			}
			return lab.Build(lab.IP(src.Addr(), dst, layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: uint16(i), Seq: 1})
		})
	})
}
