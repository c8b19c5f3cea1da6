package replay

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/capture"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/test/lab"
)

// examples are the manifests that the captures' addresses are of.
func examples(t testing.TB) *filter.Ruleset {
	t.Helper()
	s, err := lab.Snapshot("../../docs/examples/service-accounts")
	if err != nil {
		t.Fatal(err)
	}
	rs, problems := compile.Compile(s, compile.Options{})
	if rs == nil || len(problems) > 0 {
		t.Fatal(problems)
	}
	return rs
}

// TestCaptures: what is expected was read off the captures with tshark -z conv and
// the comments in make.sh.
func TestCaptures(t *testing.T) {
	t.Parallel()
	rs := examples(t)
	for _, tc := range []struct {
		name                             string
		allowed, denied                  Volume // without bytes
		invalid, related, link, part, no uint64
	}{
		{"dns.pcap", Volume{Flows: 1, Packets: 4}, Volume{Flows: 1, Packets: 4}, 0, 0, 0, 0, 0},
		{"fragments.pcap", Volume{Flows: 1, Packets: 6}, Volume{Flows: 1, Packets: 6}, 0, 0, 2, 8, 0},
		{"http.pcap", Volume{Flows: 3, Packets: 60}, Volume{Flows: 1, Packets: 24}, 0, 0, 3, 0, 8},
		{"http-cooked1.pcap", Volume{Flows: 3, Packets: 60}, Volume{Flows: 1, Packets: 24}, 0, 0, 0, 0, 0},
		{"http6.pcap", Volume{Flows: 1, Packets: 12}, Volume{Flows: 1, Packets: 12}, 0, 0, 2, 0, 0},
		{"icmp.pcap", Volume{Flows: 2, Packets: 5}, Volume{Flows: 1, Packets: 4}, 0, 1, 0, 0, 0},
		{"iperf.pcap", Volume{Flows: 4, Packets: 135}, Volume{}, 0, 0, 2, 0, 0},
		{"mixed.pcapng", Volume{Flows: 5, Packets: 76}, Volume{Flows: 3, Packets: 40}, 0, 0, 5, 0, 8},
		{"retransmissions.pcap", Volume{Flows: 1, Packets: 17}, Volume{}, 0, 0, 0, 0, 0},
		{"scan.pcap", Volume{}, Volume{Flows: 10, Packets: 30}, 0, 0, 0, 0, 0},
		{"sctp.pcap", Volume{Flows: 1, Packets: 1}, Volume{Flows: 1, Packets: 1}, 0, 2, 0, 0, 0},
		{"tls.pcap", Volume{Flows: 1, Packets: 19}, Volume{}, 0, 0, 0, 0, 0},
		{"vlan.pcap", Volume{Flows: 2, Packets: 16}, Volume{Flows: 2, Packets: 16}, 0, 0, 2, 0, 0},
	} {
		r := New(Config{Policy: rs})
		f, err := os.Open(filepath.Join("testdata/captures", tc.name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		in, err := capture.NewReader(tc.name, f)
		if err != nil {
			t.Fatal(err)
		}
		for {
			p, err := in.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			r.Packet(p)
		}
		got := r.Finish()
		got.Allowed.Bytes, got.Denied.Bytes = 0, 0
		if got.Allowed != tc.allowed || got.Denied != tc.denied || got.Outside.Flows != 0 {
			t.Errorf("%s: allowed %+v, denied %+v, outside %+v", tc.name, got.Allowed, got.Denied, got.Outside)
		}
		k := got.Kinds
		if k["invalid"] != tc.invalid || k["related"] != tc.related || k["link-local"] != tc.link || k["fragment"] != tc.part || k["not-ip"] != tc.no {
			t.Errorf("%s: %v", tc.name, k)
		}
		if k["undecodable"]+k["cut"]+k["loose-fragment"] != 0 {
			t.Errorf("%s: %v", tc.name, k)
		}
	}
}

var (
	db, api, reports = addr("10.244.0.10"), addr("10.244.0.11"), addr("10.244.0.14")
	stranger         = addr("198.51.100.7")
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

const second = int64(time.Second)

// driver feeds a Replayer with packets made here.
type driver struct {
	*testing.T
	*Replayer
	now int64
}

func drive(t *testing.T, cfg Config) *driver {
	cfg.Policy = examples(t)
	return &driver{t, New(cfg), 1e18}
}

func (d *driver) after(seconds float64) *driver {
	d.now += int64(seconds * float64(second))
	return d
}

func (d *driver) send(b []byte) Note { return d.IP(b, len(b), d.now) }

func (d *driver) tcp(src netip.Addr, sport uint16, dst netip.Addr, dport uint16, flags string) Note {
	l := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Window: 1000}
	for _, f := range flags {
		*map[rune]*bool{'S': &l.SYN, 'A': &l.ACK, 'F': &l.FIN, 'R': &l.RST, 'P': &l.PSH}[f] = true
	}
	return d.send(lab.Build(lab.IP(src, dst, layers.IPProtocolTCP), l))
}

func (d *driver) udp(src netip.Addr, sport uint16, dst netip.Addr, dport uint16) Note {
	return d.send(lab.Build(lab.IP(src, dst, layers.IPProtocolUDP), &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}))
}

// want checks what a packet was taken for: "new", "back", "same" or a Kind.
func (d *driver) want(what string, n Note) {
	d.Helper()
	got := n.Kind.String()
	if n.Kind == Member {
		got = map[[2]bool]string{{true, false}: "new", {false, true}: "back", {false, false}: "same"}[[2]bool{n.First, n.Back}]
	}
	if got != what {
		d.Errorf("%s, want %s", got, what)
	}
}

func TestConnection(t *testing.T) {
	t.Parallel()
	d := drive(t, Config{})
	for _, from := range []netip.Addr{api, reports} { // allowed, denied
		d.want("new", d.tcp(from, 4000, db, 80, "S"))
		d.want("same", d.after(1).tcp(from, 4000, db, 80, "S"))
		d.want("back", d.tcp(db, 80, from, 4000, "SA"))
		d.want("same", d.tcp(from, 4000, db, 80, "A"))
		// Established connections may rest for days.
		d.want("back", d.after(4*24*3600).tcp(db, 80, from, 4000, "PA"))
		d.want("same", d.tcp(from, 4000, db, 80, "FA"))
		d.want("back", d.tcp(db, 80, from, 4000, "FA"))
		d.want("same", d.tcp(from, 4000, db, 80, "A"))
		// The same ports again, in TIME_WAIT.
		d.want("new", d.tcp(from, 4000, db, 80, "S"))
		d.want("back", d.tcp(db, 80, from, 4000, "RA"))
		d.want("new", d.tcp(from, 4000, db, 80, "S"))
		d.want("new", d.after(121).tcp(from, 4000, db, 80, "S"))
	}
	r := d.Finish()
	if r.Allowed.Flows != 4 || r.Denied.Flows != 4 || r.Allowed.Packets != 12 {
		t.Errorf("%+v %+v", r.Allowed, r.Denied)
	}
}

// What the kernel's table makes of TCP packets without an entry.
func TestTCPWithoutFlow(t *testing.T) {
	t.Parallel()
	d := drive(t, Config{})
	for i, flags := range []string{"SA", "F", "FA", "R", "RA", "", "P"} {
		d.want("invalid", d.tcp(api, uint16(5000+i), db, 80, flags))
	}
	d.want("new", d.tcp(api, 6000, db, 80, "A"))
	n := d.tcp(db, 80, stranger, 6001, "PA")
	d.want("new", n)
	if !n.Flow.MidStream() || n.Flow.Tuple().Src != db {
		t.Errorf("picked up as %v", n.Flow.Tuple())
	}
	guess := drive(t, Config{GuessMidStream: true})
	n = guess.tcp(db, 80, stranger, 6001, "PA")
	if n.Flow.Tuple().Src != stranger || n.Flow.Outcome().Verdict != Denied {
		t.Errorf("guessed %v %v", n.Flow.Tuple(), n.Flow.Outcome())
	}
	judge := drive(t, Config{JudgeInvalid: true})
	judge.want("new", judge.tcp(api, 1, db, 80, "FA"))
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	d := drive(t, Config{})
	d.want("new", d.udp(api, 4000, db, 53))
	d.want("same", d.after(29).udp(api, 4000, db, 53))
	d.want("new", d.after(31).udp(api, 4000, db, 53))
	d.want("back", d.udp(db, 53, api, 4000))
	d.want("same", d.after(119).udp(api, 4000, db, 53)) // a stream now
	d.want("new", d.after(121).udp(db, 53, api, 4000))  // and over
	d.want("new", d.tcp(api, 1, db, 80, "S"))
	d.want("same", d.after(119).tcp(api, 1, db, 80, "S"))
	d.want("new", d.after(121).tcp(api, 1, db, 80, "S"))
	// Time that goes back ends nothing.
	d.want("same", d.after(-3600).tcp(api, 1, db, 80, "S"))
}

func TestICMP(t *testing.T) {
	t.Parallel()
	d := drive(t, Config{})
	echo := func(src, dst netip.Addr, typ uint8, id uint16) Note {
		return d.send(lab.Build(lab.IP(src, dst, layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(typ, 0), Id: id}))
	}
	d.want("new", echo(api, db, 8, 7))
	d.want("back", echo(db, api, 0, 7))
	d.want("new", echo(db, api, 8, 8))
	d.want("invalid", echo(db, api, 0, 9)) // answers nothing
	d.want("invalid", echo(db, api, 9, 9)) // router advertisement
	// Errors quote 8 bytes of the packet behind its IP header.
	quote := lab.Build(lab.IP(api, db, layers.IPProtocolTCP), &layers.TCP{SrcPort: 4000, DstPort: 80, SYN: true})[:28]
	about := func() Note {
		return d.send(lab.Build(lab.IP(db, api, layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)}, gopacket.Payload(quote)))
	}
	d.want("invalid", about())
	d.want("new", d.tcp(api, 4000, db, 80, "S"))
	d.want("related", about())
	six := func(typ uint8) Note {
		return d.send(lab.Build(lab.IP(addr("fd00:244::11"), addr("fd00:244::10"), layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(typ, 0)}, gopacket.Payload(make([]byte, 24))))
	}
	d.want("link-local", six(135))
	d.want("link-local", six(143))
	d.want("invalid", six(129))
	d.want("new", six(128))
}

func TestFragments(t *testing.T) {
	t.Parallel()
	d := drive(t, Config{})
	whole := lab.Build(lab.IP(api, db, layers.IPProtocolUDP), &layers.UDP{SrcPort: 4000, DstPort: 53}, gopacket.Payload(make([]byte, 64)))
	part := func(id byte, offset int, more byte) Note {
		b := append(append([]byte(nil), whole[:20]...), whole[20+offset:min(len(whole), 20+offset+24)]...)
		b[2], b[3], b[4], b[5], b[6], b[7] = 0, byte(len(b)), 0, id, more, byte(offset/8)
		return d.send(b)
	}
	const more = 0x20
	d.want("new", part(1, 0, more))
	d.want("fragment", part(1, 24, more))
	d.want("fragment", part(1, 48, 0))
	// In another order: those before the first join the flow when it comes.
	d.want("loose-fragment", part(2, 48, 0))
	d.want("loose-fragment", part(2, 24, more))
	n := part(2, 0, more)
	d.want("same", n)
	if n.Flow.Packets[Forward] != 6 {
		t.Errorf("%d packets, want 6", n.Flow.Packets[Forward])
	}
	d.want("loose-fragment", part(3, 24, 0))
	d.want("loose-fragment", d.after(31).sendPart(part, 1))
	if r := d.Finish(); r.LooseFragments != 2 {
		t.Errorf("%d loose fragments, want 2", r.LooseFragments)
	}
}

func (d *driver) sendPart(part func(byte, int, byte) Note, id byte) Note { return part(id, 24, 0) }

func TestBeforeTheEngine(t *testing.T) {
	t.Parallel()
	d := drive(t, Config{VXLANPort: 4789, NodeAddrs: map[netip.Addr]bool{stranger: true}})
	for _, tc := range []struct {
		note    Note
		verdict Verdict
		cause   string
	}{
		{d.udp(api, 1, db, 4789), Denied, "tunnel"},
		{d.udp(addr("198.51.100.8"), 1, db, 4789), Denied, "end-of-tier"}, // no pod's: policy decides
		{d.tcp(stranger, 1, db, 80, "S"), Allowed, "from-node"},
		{d.tcp(stranger, 1, addr("198.51.100.8"), 80, "S"), Outside, "no-local-endpoint"},
		{d.tcp(api, 2, stranger, 80, "S"), Allowed, "profile"},
		{d.tcp(api, 2, db, 80, "S"), Allowed, "rule"},
	} {
		if o := tc.note.Flow.Outcome(); o.Verdict != tc.verdict || o.Cause.String() != tc.cause {
			t.Errorf("%v: %v %v, want %v %s", tc.note.Flow.Tuple(), o.Verdict, o.Cause, tc.verdict, tc.cause)
		}
	}
}

// A full table lets go of one flow for each new one, and never grows.
func TestEviction(t *testing.T) {
	t.Parallel()
	ended := map[uint64]int{}
	d := drive(t, Config{MaxFlows: 100, Ended: func(f *Flow) { ended[f.Number]++ }})
	d.tcp(api, 1, db, 80, "S")
	d.tcp(db, 80, api, 1, "SA")
	d.tcp(api, 1, db, 80, "A")
	for i := range 1000 {
		d.want("new", d.after(0.001).udp(reports, uint16(i), db, 53))
	}
	d.want("same", d.tcp(api, 1, db, 80, "A")) // established ones go last
	if len(d.table.flows) != 100 {
		t.Errorf("room for %d flows, want 100", len(d.table.flows))
	}
	r := d.Finish()
	if r.Evicted != 901 || r.Flows != 1001 || r.Allowed.Flows+r.Denied.Flows != 1001 {
		t.Errorf("%d evicted, %d flows", r.Evicted, r.Flows)
	}
	for n, times := range ended {
		if times != 1 {
			t.Errorf("flow %d ended %d times", n, times)
		}
	}
	if len(ended) != 1001 {
		t.Errorf("%d flows ended", len(ended))
	}
}

// Packets of known flows cost no allocation.
func TestKnownFlowsDoNotAllocate(t *testing.T) {
	d := drive(t, Config{})
	var packets [][]byte
	for i := range 64 {
		packets = append(packets, lab.Build(lab.IP(api, db, layers.IPProtocolTCP), &layers.TCP{SrcPort: layers.TCPPort(i), DstPort: 80, SYN: true}),
			lab.Build(lab.IP(addr("fd00:244::11"), addr("fd00:244::10"), layers.IPProtocolUDP), &layers.UDP{SrcPort: layers.UDPPort(i), DstPort: 80}))
	}
	run := func() {
		for _, p := range packets {
			d.send(p)
		}
	}
	run()
	if n := testing.AllocsPerRun(50, func() { d.after(1); run() }); n != 0 {
		t.Errorf("%v allocations for %d packets", n, len(packets))
	}
}

// Synthetic traffic through a capture that is made while it is read: memory must
// not grow with it. STREAM_GB says how much; the default is a quarter of one.
func TestStream(t *testing.T) {
	size := int64(256 << 20)
	if text := os.Getenv("STREAM_GB"); text != "" {
		var gb int64
		if _, err := fmt.Sscan(text, &gb); err != nil {
			t.Fatal(err)
		}
		size = gb << 30
	}
	r := New(Config{Policy: examples(t), MaxFlows: 20_000})
	in, err := capture.NewReader("synthetic", newSynthetic(size))
	if err != nil {
		t.Fatal(err)
	}
	var peak, base runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&base)
	start, packets, bytes := time.Now(), 0, int64(0)
	for {
		p, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		r.Packet(p)
		packets++
		bytes += int64(len(p.Frame)) + 16
		if packets%(1<<17) == 0 {
			runtime.GC()
			runtime.ReadMemStats(&peak)
			if grown := int64(peak.HeapAlloc) - int64(base.HeapAlloc); grown > 64<<20 {
				t.Fatalf("%d MB more in use after %d MB of capture", grown>>20, bytes>>20)
			}
		}
	}
	took := time.Since(start)
	report := r.Finish()
	if report.Packets != uint64(packets) || bytes < size || report.Evicted == 0 || report.Allowed.Flows == 0 || report.Denied.Flows == 0 {
		t.Errorf("%d MB, %d packets, report %+v %+v", bytes>>20, packets, report.Allowed, report.Denied)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MB, %d packets, %d flows in %v: %.2f million packets a second, heap %d MB, resident at most %s",
		bytes>>20, packets, report.Flows, took.Round(time.Millisecond), float64(packets)/took.Seconds()/1e6, peak.HeapAlloc>>20,
		strings.TrimSpace(regexp.MustCompile(`VmHWM:(.*)`).FindStringSubmatch(string(status))[1]))
}

// synthetic is a pcap of raw IP that is made as it is read: connections of a few
// packets each from ever new addresses and ports, among them strangers'.
type synthetic struct {
	left   int64
	n      uint64
	packet []byte
	buf    []byte // not yet read
	block  []byte
}

func newSynthetic(size int64) *synthetic {
	s := &synthetic{left: size}
	s.packet = lab.Build(lab.IP(api, db, layers.IPProtocolTCP), &layers.TCP{SYN: true, DstPort: 80}, gopacket.Payload(make([]byte, 400)))
	head := []byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0}
	s.buf = head
	return s
}

func (s *synthetic) Read(to []byte) (int, error) {
	if len(s.buf) == 0 {
		if s.left <= 0 {
			return 0, io.EOF
		}
		s.block = s.block[:0]
		for range 64 {
			s.append()
		}
		s.left -= int64(len(s.block))
		s.buf = s.block
	}
	n := copy(to, s.buf)
	s.buf = s.buf[n:]
	return n, nil
}

func (s *synthetic) append() {
	s.n++
	p := s.packet
	micro := s.n * 10
	header := [4]uint32{uint32(1.7e9 + micro/1e6), uint32(micro % 1e6), uint32(len(p)), uint32(len(p))}
	for _, v := range header {
		s.block = append(s.block, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
	}
	connection := s.n / 8
	p[20], p[21] = byte(connection>>8), byte(connection)
	switch connection % 3 {
	case 0:
		copy(p[12:], api.AsSlice())
	case 1:
		copy(p[12:], reports.AsSlice())
	default:
		p[12], p[13], p[14], p[15] = 198, byte(connection>>16), byte(connection>>8), byte(connection)
	}
	p[33] = fin << 4 // ACK
	if s.n%8 == 0 {
		p[33] = syn
	}
	s.block = append(s.block, p...)
}

func BenchmarkPacket(b *testing.B) {
	for _, flows := range []int{1, 1000, 50_000} {
		b.Run(fmt.Sprint(flows), func(b *testing.B) {
			r := New(Config{Policy: examples(b)})
			var packets [][]byte
			for i := range flows {
				src := netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})
				packets = append(packets, lab.Build(lab.IP(src, db, layers.IPProtocolTCP), &layers.TCP{SrcPort: 4000, DstPort: 80, SYN: true}))
			}
			for _, p := range packets {
				r.IP(p, len(p), second)
			}
			for _, p := range packets { // data from now on
				p[33] = ack
			}
			b.ReportAllocs()
			i, now := 0, second
			for b.Loop() {
				r.IP(packets[i], 40, now)
				now += 200
				if i++; i == flows {
					i = 0
				}
			}
		})
	}
}
