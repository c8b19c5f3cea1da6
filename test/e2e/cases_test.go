package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/test/lab"
)

// These are cases of docs/kernel-cases.md: what a kernel's conntrack and a network do to
// packets on their way to the rules.

func segment(src, dst netip.AddrPort, set func(*layers.TCP)) []byte {
	t := &layers.TCP{SrcPort: layers.TCPPort(src.Port()), DstPort: layers.TCPPort(dst.Port()), Seq: 1000, Ack: 2000, Window: 1000}
	set(t)
	return lab.Build(lab.IP(src.Addr(), dst.Addr(), layers.IPProtocolTCP), t, gopacket.Payload("data"))
}

func ack(t *layers.TCP) { t.ACK, t.PSH = true, true }

// sends sends a packet and waits until the queue has none, so that what follows comes
// after its verdict.
func (b *bench) sends(from string, packets ...[]byte) {
	b.Helper()
	for _, p := range packets {
		if err := b.pods[from].Send(p); err != nil {
			b.Fatal(err)
		}
	}
}

// settled sends a datagram of an allowed flow behind, and waits for it and for the queue: what was
// to arrive at db has arrived.
func (b *bench) settled(six bool, received *lab.Sniffer) {
	b.Helper()
	b.marker++
	text := fmt.Sprintf("marker %d", b.marker)
	b.sends(api, udp(at(b.pods[api], six, 9998), at(b.pods[db], six, 9999), []byte(text)))
	eventually(b.T, "the packet behind arrives", func() bool {
		return received.Count(func(p lab.Packet) bool { return string(p.Payload) == text }) > 0
	})
	eventually(b.T, "the queue is empty", func() bool { return b.kernel().Waiting == 0 })
}

// soon is how long something is waited for that must not come where the receiver tells
// whether it did: longer than a verdict takes.
const soon = 300 * time.Millisecond

// connects asserts whether a new TCP flow gets an answer, and that the receiver sees nothing of
// one that may not.
func (b *bench) connects(from, dest string, six, want bool) {
	b.Helper()
	if want {
		b.reaches(from, dest, six, true)
		return
	}
	received := b.sniff(b.pods[dest])
	if err := b.pods[from].Exchange("tcp", at(b.pods[dest], six, 5432), []byte("hello"), soon); err == nil {
		b.Errorf("%s -> %s (ipv6 %v): denied, and answered", from, dest, six)
	}
	is := lab.From(at(b.pods[from], six, 0).Addr())
	if n := received.Count(func(p lab.Packet) bool { return is(p) && p.Opening }); n != 0 {
		b.Errorf("%s -> %s (ipv6 %v): %d denied SYNs arrived", from, dest, six, n)
	}
}

// ends are two addresses with ports, of two pods.
func (b *bench) ends(from, to string, six bool, sport, dport uint16) (src, dst netip.AddrPort) {
	return at(b.pods[from], six, sport), at(b.pods[to], six, dport)
}

func fromPort(a netip.AddrPort) func(lab.Packet) bool {
	return func(p lab.Packet) bool { return p.Src == a.Addr() && p.SrcPort == a.Port() }
}

// TestPackets sends packets in the orders in which networks bring them.
func TestPackets(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start()
	bothFamilies(t, func(t *testing.T, six bool) {
		b.T = t
		atDB := b.sniff(b.pods[db])
		none := func(what string, src netip.AddrPort) {
			t.Helper()
			b.settled(six, atDB)
			if n := atDB.Count(fromPort(src)); n != 0 {
				t.Errorf("%s: %d denied packets arrived", what, n)
			}
		}
		arrives := func(what string, s *lab.Sniffer, src netip.AddrPort, least int) {
			t.Helper()
			eventually(t, what+" arrives", func() bool { return s.Count(fromPort(src)) >= least })
		}

		// The same SYN again, before and after there is a verdict on the first.
		src, dst := b.ends(api, db, six, 4101, 5439)
		b.sends(api, syn(src, dst), syn(src, dst), syn(src, dst))
		arrives("SYN again", atDB, src, 1)
		src, dst = b.ends(reports, db, six, 4102, 5439)
		b.sends(reports, syn(src, dst), syn(src, dst))
		b.settled(six, atDB)
		b.sends(reports, syn(src, dst))
		none("SYN again", src)

		// Datagrams of both directions at once, none having been seen before.
		atAPI, atReports := b.sniff(b.pods[api]), b.sniff(b.pods[reports])
		src, dst = b.ends(api, db, six, 4103, 4104)
		b.sends(api, udp(src, dst, []byte("there")), udp(src, dst, []byte("there")))
		b.sends(db, udp(dst, src, []byte("back")))
		b.sends(api, udp(src, dst, []byte("there")))
		arrives("both ways", atDB, src, 3)
		arrives("both ways", atAPI, dst, 1)

		// What looks like an answer comes first: who sends first has begun the flow. db may
		// send to anybody, and reports may answer that.
		src, dst = b.ends(reports, db, six, 4105, 4106)
		b.sends(db, udp(dst, src, []byte("answer first")))
		arrives("answer first", atReports, dst, 1)
		b.sends(reports, udp(src, dst, []byte("and then the question")))
		arrives("the question after its answer", atDB, src, 1)

		// Both open at once. A SYN is judged by itself, whatever flow it is of.
		src, dst = b.ends(reports, db, six, 4107, 4108)
		b.sends(db, syn(dst, src))
		arrives("simultaneous open", atReports, dst, 1)
		b.sends(reports, syn(src, dst))
		b.settled(six, atDB)
		if n := atDB.Count(func(p lab.Packet) bool { return fromPort(src)(p) && p.Opening }); n != 0 { // but an RST to its own SYN
			t.Errorf("simultaneous open: %d denied SYNs arrived", n)
		}
		src, dst = b.ends(api, db, six, 4109, 4110)
		b.sends(db, syn(dst, src))
		b.sends(api, syn(src, dst))
		arrives("simultaneous open", atDB, src, 1)

		// One direction only, in the middle of a connection that nobody saw begin: the
		// other goes another way. Who began it is told by the ports.
		src, dst = b.ends(api, db, six, 40101, 5438)
		b.sends(api, segment(src, dst, ack))
		arrives("questions only", atDB, src, 1)
		src, dst = b.ends(reports, db, six, 40102, 5438)
		b.sends(reports, segment(src, dst, ack))
		none("questions only", src)
		atWeb := b.sniff(b.pods[web])
		src, dst = b.ends(web, db, six, 40103, 5438)
		b.sends(db, segment(dst, src, ack))
		arrives("answers only", atWeb, dst, 1)
		src, dst = b.ends(reports, db, six, 40104, 5437)
		b.sends(db, segment(dst, src, ack))
		b.settled(six, atDB)
		if n := atReports.Count(fromPort(dst)); n != 0 {
			t.Errorf("answers only: %d packets of a connection that may not be arrived", n)
		}
	})
}

// TestErrors: an ICMP error reaches whom it concerns if the flow is accepted, whoever sends it,
// and not if it is about a flow that is not there.
func TestErrors(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.start()
	bothFamilies(t, func(t *testing.T, six bool) {
		b.T = t
		// Nobody listens there, so db refuses.
		var c net.Conn
		if err := b.pods[api].Do(func() (err error) {
			c, err = net.Dial("udp", at(b.pods[db], six, 9).String())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		eventually(t, "the refusal arrives", func() bool {
			if _, err := c.Write([]byte("anybody?")); errors.Is(err, syscall.ECONNREFUSED) {
				return true
			}
			c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, err := c.Read(make([]byte, 1))
			return errors.Is(err, syscall.ECONNREFUSED)
		})

		// reports says that a packet of api did not reach it, which api never sent; and of
		// its own flow, which is denied.
		received := b.sniff(b.pods[db])
		src := at(b.pods[reports], six, 0).Addr()
		about := udp(at(b.pods[db], six, 4200), at(b.pods[reports], six, 4201), []byte("never sent"))
		packet := lab.Build(lab.IP(src, at(b.pods[db], six, 0).Addr(), layers.IPProtocolICMPv4),
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)}, gopacket.Payload(about))
		if six {
			packet = lab.Build(lab.IP(src, at(b.pods[db], six, 0).Addr(), layers.IPProtocolICMPv6),
				&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(1, 4)}, gopacket.Payload(append(make([]byte, 4), about...)))
		}
		b.sends(reports, packet)
		b.settled(six, received)
		if n := received.Count(lab.From(src)); n != 0 {
			t.Errorf("%d errors about nothing arrived", n)
		}
	})
}

// TestPathMTU: the host tells a pod that a packet is too long for a link behind it, also where
// policy lets neither end receive anything from the host.
func TestPathMTU(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	link := b.linkOf(b.pods[db])
	b.shell("ip link set dev " + link + " mtu 1300")
	b.start()
	bothFamilies(t, func(t *testing.T, six bool) {
		var c *net.UDPConn
		if err := b.pods[web].Do(func() (err error) {
			c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at(b.pods[db], six, 5432)))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var set error
		if err := raw.Control(func(fd uintptr) {
			if six {
				set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
			} else {
				set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
			}
		}); err != nil || set != nil {
			t.Fatal(err, set)
		}
		eventually(t, "the sender learns the path's MTU", func() bool {
			_, err := c.Write(make([]byte, 1400))
			return errors.Is(err, syscall.EMSGSIZE)
		})
		// Each error that has come in the meantime is told once.
		eventually(t, "what fits passes", func() bool { return lab.Echo(c, make([]byte, 1200), patience) == nil })
	})
}

// linkOf is the host's end of a pod's link.
func (b *bench) linkOf(pod *lab.Host) string {
	b.Helper()
	_, rest, _ := strings.Cut(b.output(b.Node, "ip", "-o", "route", "get", pod.Addr4().String()), " dev ")
	link, _, ok := strings.Cut(rest, " ")
	if !ok {
		b.Fatalf("no link of %s", pod.Name)
	}
	return link
}

// output runs a program at a host and returns what it prints.
func (b *bench) output(h *lab.Host, args ...string) string {
	b.Helper()
	var out []byte
	if err := h.Do(func() (err error) {
		out, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		return err
	}); err != nil {
		b.Fatalf("%v: %v: %s", args, err, out)
	}
	return string(out)
}

// TestSegmentsInOne: a packet that is many datagrams, left in one piece for the network card
// to cut (UDP_SEGMENT), is judged once and arrives whole.
func TestSegmentsInOne(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start()
	bothFamilies(t, func(t *testing.T, six bool) {
		send := func(from string) net.Conn {
			var c *net.UDPConn
			if err := b.pods[from].Do(func() (err error) {
				c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at(b.pods[db], six, 5432)))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			raw, err := c.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var set error
			if err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 500) }); err != nil || set != nil {
				t.Fatal(err, set)
			}
			if _, err := c.Write(make([]byte, 5000)); err != nil {
				t.Fatal(err)
			}
			return c
		}
		before := b.kernel().LastID
		c := send(api)
		c.SetReadDeadline(time.Now().Add(patience))
		for i := range 10 {
			if n, err := c.Read(make([]byte, 1000)); err != nil || n != 500 {
				t.Fatalf("answer %d: %d bytes, %v", i, n, err)
			}
		}
		if n := b.kernel().LastID - before; n != 1 {
			t.Errorf("%d packets were queued, want 1", n)
		}
		received := b.sniff(b.pods[db])
		send(reports)
		b.T = t
		b.settled(six, received)
		if n := received.Count(lab.From(at(b.pods[reports], six, 0).Addr())); n != 0 {
			t.Errorf("%d denied datagrams arrived", n)
		}
	})
}

// TestNeighbours: a pod that may send and receive nothing finds its neighbours all the same, so
// that the host reaches it after both have forgotten each other.
func TestNeighbours(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start()
	b.write("policy-0-closed.yaml", `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: closed, namespace: prod-engineering}
spec: {order: 1, selector: 'app == "db"', types: [Ingress, Egress], ingress: [{action: Deny}], egress: [{action: Deny}]}
`)
	bothFamilies(t, func(t *testing.T, six bool) {
		b.T = t
		for _, h := range []*lab.Host{b.Node, b.pods[db]} {
			b.output(h, "ip", "neigh", "flush", "all")
			b.output(h, "ip", "-6", "neigh", "flush", "all")
		}
		if err := b.Node.Exchange("tcp", at(b.pods[db], six, 5432), []byte("probe"), patience); err != nil {
			t.Errorf("host -> db: %v", err)
		}
		b.connects(api, db, six, false)
	})
}

// TestRouterMessages: no pod can pass for a router of its link, whatever address it says
// so from. What it may say from the same address passes.
func TestRouterMessages(t *testing.T) {
	b := setup(t, examples)
	b.startChecking()
	b.nft(`add table inet watch; add counter inet watch router; add counter inet watch behind; add chain inet watch in { type filter hook input priority 200; };
		add rule inet watch in ip6 saddr fe80::bad icmpv6 type { nd-router-advert, nd-redirect } counter name router; add rule inet watch in ip6 saddr fe80::bad icmpv6 type nd-router-solicit counter name behind`)
	pod := b.pods[reports]
	for _, message := range []struct {
		typ  uint8
		body gopacket.SerializableLayer
	}{
		{layers.ICMPv6TypeRouterAdvertisement, &layers.ICMPv6RouterAdvertisement{HopLimit: 64, RouterLifetime: 1800}},
		{layers.ICMPv6TypeRedirect, &layers.ICMPv6Redirect{TargetAddress: net.ParseIP("fe80::bad"), DestinationAddress: b.pods[api].Addr6().AsSlice()}},
		{layers.ICMPv6TypeRouterSolicitation, &layers.ICMPv6RouterSolicitation{}},
	} {
		ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: net.ParseIP("fe80::bad"), DstIP: net.ParseIP("ff02::2")}
		if err := pod.Send(lab.Build(ip, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(message.typ, 0)}, message.body)); err != nil {
			t.Fatal(err)
		}
	}
	counted := func(name string, n int) bool {
		return strings.Contains(b.nft("list", "counter", "inet", "watch", name), fmt.Sprintf("packets %d ", n))
	}
	eventually(t, "the message behind arrives", func() bool { return counted("behind", 1) })
	if !counted("router", 0) {
		t.Error("a router's message arrived")
	}
}

// TestZones: flows that somebody puts into a conntrack zone of their own are
// remembered there, and judged and listed like others.
func TestZones(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.serve(5432)
	b.nft("add table inet zones; add chain inet zones early { type filter hook prerouting priority -300; }; add rule inet zones early ct zone set 7")
	b.start()
	c := b.connect(web, db, false)
	before := b.kernel().LastID
	if err := lab.Echo(c, make([]byte, 100000), patience); err != nil {
		t.Fatal(err)
	}
	if n := b.kernel().LastID - before; n != 0 {
		t.Errorf("%d packets of a judged flow were queued", n)
	}
	b.connects(reports, db, false, false)
	fs := b.flows("--pod", web)
	if len(fs) != 1 || fs[0].Zone != 7 || fs[0].Verdict != "allow" {
		t.Errorf("listed: %+v", fs)
	}
	b.toggle(false)
	if err := lab.Echo(c, []byte("go on"), soon); err == nil {
		t.Error("a denied connection went on")
	}
}

// TestExpected: a connection that a helper expects, such as that for data of FTP, is not let
// in for its control connection's sake: it is a flow of its own.
func TestExpected(t *testing.T) {
	b := setup(t, examples)
	b.nft("add table inet assist; add ct helper inet assist ftp { type \"ftp\" protocol tcp; }; add chain inet assist early { type filter hook prerouting priority -150; };" +
		" add rule inet assist early tcp dport 21 ct helper set \"ftp\"")
	b.start()
	b.write("policy-0-control.yaml", `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: control-only, namespace: prod-engineering}
spec:
  order: 1
  selector: 'app == "db"'
  ingress: [{action: Allow, protocol: TCP, destination: {ports: [21]}}, {action: Deny}]
`)
	// api talks to a stand-in for a server at db, which announces a port for data.
	var l net.Listener
	if err := b.pods[db].Do(func() (err error) { l, err = net.Listen("tcp", at(b.pods[db], false, 21).String()); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "220 ready\r\n") // the helper wants to have seen a line before
			buf := make([]byte, 100)
			c.Read(buf)
			a := strings.ReplaceAll(b.pods[db].Addr4().String(), ".", ",")
			fmt.Fprintf(c, "227 Entering Passive Mode (%s,%d,%d)\r\n", a, 5432>>8, 5432&255)
		}
	}()
	b.serve(5432)
	c, err := b.pods[api].DialTCP(at(b.pods[db], false, 21), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	buf := make([]byte, 100)
	if _, err := c.Read(buf); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("PASV\r\n")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "227 ") {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	eventually(t, "the helper expects the connection", func() bool {
		return strings.Contains(b.output(b.Node, "conntrack", "-L", "expect"), "dport=5432")
	})
	b.connects(api, db, false, false)
	b.write("policy-0-control.yaml", "")
	b.reaches(api, db, false, true)
}

// TestBridgedPods: pods that share a bridge of the host do not reach each other past the
// rules, as long as the kernel shows bridged packets to them (br_netfilter); where it does not,
// the status says so.
func TestBridgedPods(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.output(b.Node, "ip", "link", "add", "cni0", "type", "bridge")
	callTables := func(value int) {
		b.shell(fmt.Sprintf("sysctl -qw net.bridge.bridge-nf-call-iptables=%[1]d net.bridge.bridge-nf-call-ip6tables=%[1]d", value))
	}
	script := "ip addr add 169.254.1.1/32 dev cni0; ip -6 addr add fe80::1/64 dev cni0 nodad; ip link set cni0 up"
	names := []string{api, reports, db}
	for _, name := range names {
		link, a4, a6 := b.linkOf(b.pods[name]), b.pods[name].Addr4(), b.pods[name].Addr6()
		script += fmt.Sprintf("; ip addr flush dev %[1]s; ip link set %[1]s master cni0; ip link set %[1]s up; ip route replace %[2]s/32 dev cni0 scope link; ip -6 route replace %[3]s/128 dev cni0", link, a4, a6)
		for _, other := range names {
			if other != name {
				b.output(b.pods[name], "ip", "route", "add", b.pods[other].Addr4().String()+"/32", "dev", "eth0")
				b.output(b.pods[name], "ip", "-6", "route", "add", b.pods[other].Addr6().String()+"/128", "dev", "eth0")
			}
		}
	}
	for command := range strings.SplitSeq(script, "; ") { // not by a shell that has an ip of its own
		b.output(b.Node, strings.Fields(command)...)
	}
	for _, name := range names {
		b.output(b.pods[name], "ip", "neigh", "flush", "all")
		b.output(b.pods[name], "ip", "-6", "neigh", "flush", "all")
	}
	callTables(0)
	b.start()
	unseen := func() bool {
		_, out, _ := ask(t, nil, "status", "--socket", b.socket)
		return strings.Contains(out, "pods on the bridge cni0 reach each other past all rules, since net.bridge.bridge-nf-call-iptables and net.bridge.bridge-nf-call-ip6tables is not 1")
	}
	eventually(t, "the status names the bridge", unseen)
	b.connects(reports, db, false, true) // past the rules: no forward and no postrouting hook sees it
	callTables(1)
	if unseen() {
		t.Error("the status still says that the rules see nothing")
	}
	bothFamilies(t, func(t *testing.T, six bool) {
		b.T = t
		b.connects(api, db, six, true)
		b.connects(reports, db, six, false)
	})
}

// TestOtherTables: what others do at the same hooks, with marks of their own, changes nothing
// of what postern decides, and nothing of theirs is lost: an accept of theirs opens
// nothing, and flushing theirs leaves ours.
func TestOtherTables(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	const theirs = `
add table inet firewall
add chain inet firewall pre { type filter hook prerouting priority raw; policy accept; }
add chain inet firewall through { type filter hook forward priority filter; policy drop; }
add chain inet firewall post { type filter hook postrouting priority 95; policy accept; }
add chain inet firewall last { type filter hook postrouting priority 300; policy accept; }
add chain inet firewall mid { type filter hook prerouting priority mangle; policy accept; }
add rule inet firewall pre meta mark set mark or 0x00000080
add rule inet firewall mid ct mark set ct mark or 0x00000100
add rule inet firewall through ct state established,related accept
add rule inet firewall through accept
add rule inet firewall post accept
add rule inet firewall last tcp dport 5432 meta mark & 0x000000ff == 0x80 ct mark & 0x00000f00 == 0x100 counter
add rule inet firewall last tcp dport 5432 meta mark & 0x000000ff != 0x80 counter drop
`
	before := theirs[:len(theirs)/2] // some of it is there when postern starts, all of it after
	before = before[:strings.LastIndexByte(before, '\n')+1]
	b.shell("nft -f - <<'END'\n" + before + "END")
	b.start()
	b.shell("nft -f - <<'END'\n" + theirs[len(before):] + "END")
	holds := func(when string) {
		t.Helper()
		for _, six := range []bool{false, true} {
			b.reaches(web, db, six, true)
			b.connects(reports, db, six, false)
		}
		if t.Failed() {
			t.Fatal(when)
		}
	}
	c := b.connect(api, db, false)
	holds("beside another firewall")
	out := b.nft("list", "chain", "inet", "firewall", "last")
	if strings.Contains(out, "0x00000100 counter packets 0 ") || !strings.Contains(out, "0x00000080 counter packets 0 ") {
		t.Errorf("marks of others did not stay as they were:\n%s", out)
	}
	b.shell("iptables -t nat -A POSTROUTING -j RETURN; iptables -F; iptables -t nat -F; iptables -X; ip6tables -F")
	holds("after iptables -F")
	b.shell("printf '*filter\\n:FORWARD ACCEPT [0:0]\\n-A FORWARD -j ACCEPT\\nCOMMIT\\n' | iptables-restore")
	holds("after iptables-restore")
	b.nft("delete", "table", "inet", "firewall")
	holds("after the other firewall has gone")
	if err := lab.Echo(c, []byte("still here"), patience); err != nil {
		t.Errorf("a connection was cut: %v", err)
	}
}

// TestQueueOverflow: what does not fit into the queue is dropped and counted by the kernel,
// and not let through.
func TestQueueOverflow(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start("--queue-length", "4")
	b.reaches(api, db, false, true)
	received := b.sniff(b.pods[db])
	b.stopped(func() {
		for i := range 20 {
			src, dst := b.ends(web, db, false, 4300, uint16(6000+i))
			b.sends(web, syn(src, dst))
		}
		eventually(t, "the queue overflows", func() bool { return b.kernel().QueueDropped > 0 })
		if n := received.Count(lab.From(b.pods[web].Addr4())); n != 0 {
			t.Errorf("%d packets arrived that nobody has judged", n)
		}
	})
	b.reaches(web, db, false, true)
}
