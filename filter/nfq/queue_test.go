package nfq

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	nfqueue "github.com/florianl/go-nfqueue/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/flowlog"
	"github.com/postern-project/postern/filter/packet"
)

// oneRule is a ruleset in which 10.0.0.1 accepts TCP to port 80 and nothing else.
func oneRule(t testing.TB) *filter.Ruleset {
	t.Helper()
	tcp := flow.TCP
	rs, err := filter.New(&filter.Spec{
		Generation: 1,
		Prefixes:   []filter.ClassPrefix{{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Class: 1}},
		Classes:    []filter.Class{{}, {Hosted: true, Programs: [2]int{flow.Ingress: 0, flow.Egress: 1}}},
		Rules: []filter.Rule{
			{
				Info: filter.RuleInfo{Tier: "default", Kind: "NetworkPolicy", Namespace: "ns", Name: "web", Action: filter.Allow},
				IPv4: true, IPv6: true, Proto: &tcp,
				Destination: filter.Side{Ports: &filter.PortMatch{Ranges: []flow.PortRange{{Min: 80, Max: 80}}}},
			},
			{Info: filter.RuleInfo{Tier: "default", Index: -1, Action: filter.Deny}, IPv4: true, IPv6: true},
		},
		Programs:  []filter.Program{{Segments: []*filter.Segment{{Rules: []filter.RuleID{1}, End: 2}}}, {Final: filter.FinalAllow}},
		Endpoints: []filter.Endpoint{{EndpointInfo: filter.EndpointInfo{Namespace: "ns", Name: "web", Hosted: true}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// tcpPacket is an IPv4 TCP SYN.
func tcpPacket(src, dst string, sport, dport uint16) []byte {
	b := make([]byte, 40)
	b[0], b[3], b[8], b[9] = 0x45, 40, 64, byte(flow.TCP)
	copy(b[12:], netip.MustParseAddr(src).AsSlice())
	copy(b[16:], netip.MustParseAddr(dst).AsSlice())
	binary.BigEndian.PutUint16(b[20:], sport)
	binary.BigEndian.PutUint16(b[22:], dport)
	b[32], b[33] = 0x50, 0x02
	return b
}

// offline is a queue without a socket: datagrams are laid into its receive buffer
// and verdicts are written to a file.
func offline(t testing.TB, ring *flowlog.Ring) (q *Queue, out *os.File) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "verdicts")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	e := &filter.Engine{}
	e.Swap(oneRule(t))
	return &Queue{
		cfg: Config{
			Queue: 100, CopyRange: DefaultCopyRange, Ring: ring,
			Marks: Marks{Mask: 0xff000000, Reply: 0x02000000, Taken: 0x0a000000, Doubt: 0x12000000, Pass: 0x03000000, Learn: 0x04000000, Deny: 0x06000000, EpochShift: 27},
		},
		engine: e, fd: int(out.Fd()),
		in: newReceiver(batch, slotOverhead+DefaultCopyRange), out: make([]byte, batch*verdictLen),
	}, out
}

func (q *Queue) lay(i int, datagram []byte) {
	q.in.headers[i].n = uint32(len(datagram))
	copy(q.in.buffer[i*q.in.slot:(i+1)*q.in.slot], datagram)
}

// given is a verdict as the kernel would read it.
type given struct {
	ID, Verdict, Mark uint32
}

func verdicts(t testing.TB, b []byte) (vs []given) {
	t.Helper()
	for len(b) > 0 {
		m, rest, ok := nextMessage(b)
		if !ok || m.typ != msgVerdict {
			t.Fatalf("no verdict message: %x", b)
		}
		attrs, err := netlink.UnmarshalAttributes(m.body[genericLen:])
		if err != nil {
			t.Fatal(err)
		}
		var g given
		for _, a := range attrs {
			switch a.Type {
			case attrVerdictHeader:
				g.Verdict, g.ID = binary.BigEndian.Uint32(a.Data), binary.BigEndian.Uint32(a.Data[4:])
			case attrMark:
				g.Mark = binary.BigEndian.Uint32(a.Data)
			}
		}
		vs, b = append(vs, g), rest
	}
	return vs
}

// TestAnswer: each packet id gets exactly one verdict, in order, whatever the
// packet is.
func TestAnswer(t *testing.T) {
	ring := flowlog.NewRing(64)
	q, out := offline(t, ring)
	allowed := tcpPacket("10.0.0.9", "10.0.0.1", 4000, 80)
	back := tcpPacket("10.0.0.1", "10.0.0.9", 80, 4000)
	denied := tcpPacket("10.0.0.9", "10.0.0.1", 4000, 81)
	ah := append([]byte(nil), denied...)
	ah[9] = 99 // a protocol without ports

	datagrams := [][]byte{
		packetDatagram(t, 1, 0, allowed),
		packetDatagram(t, 2, 0, denied),
		packetDatagram(t, 3, 0x00004000, allowed),             // somebody else's mark stays
		packetDatagram(t, 4, 0x02000000, back),                // the answer of an allowed flow
		packetDatagram(t, 5, 0x02000000, allowed),             // the answer of a flow that 10.0.0.1 began: egress is open
		packetDatagram(t, 6, 0, ah),                           // no ports
		packetDatagram(t, 7, 0, nil),                          // no packet at all
		packetDatagram(t, 8, 0, []byte{0x45, 0}),              // cut off
		packetDatagram(t, 9, 0, []byte("GET / HTTP/1.1\r\n")), // garbage
		packetDatagram(t, 10, 0, allowed[:30]),                // ports, but not the whole header
		packetDatagram(t, 11, 0, tcpPacket("10.0.0.8", "10.0.0.9", 1, 80)),
		packetDatagram(t, 12, 0, allowed)[:80], // cut by the receive buffer
	}
	for i, d := range datagrams {
		q.lay(i, d)
	}
	if err := q.answer(len(datagrams), 1); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	const drop, repeat = 0, 4
	want := []given{
		{1, repeat, 0x04000000}, {2, repeat, 0x06000000}, {3, repeat, 0x04004000}, {4, repeat, 0x04000000}, {5, repeat, 0x04000000},
		{6, repeat, 0x06000000}, {7, drop, 0}, {8, drop, 0}, {9, drop, 0}, {10, drop, 0}, {11, repeat, 0x06000000}, {12, drop, 0},
	}
	if d := cmp.Diff(want, verdicts(t, got)); d != "" {
		t.Errorf("verdicts (-want +got):\n%s", d)
	}
	if a, d := q.stats.Total(filter.Accept), q.stats.Total(filter.Drop); a != 4 || d != 8 {
		t.Errorf("counted %d accepted, %d dropped; want 4 and 8", a, d)
	}
	if n := q.stats.Undecodable[packet.Truncated].Load(); n != 1 {
		t.Errorf("counted %d truncated, want 1", n)
	}
	if n := q.stats.Decided[filter.Drop][filter.NoLocalEndpoint].Load(); n != 1 {
		t.Errorf("counted %d without a local endpoint, want 1", n)
	}
	records := make([]flowlog.Record, 64)
	if n := ring.Take(records); n != 7 {
		t.Errorf("%d records, want one for each of the 7 decided packets", n)
	}
}

// TestAnswerBeforeFirstRuleset: without policy nothing passes.
func TestAnswerBeforeFirstRuleset(t *testing.T) {
	q, out := offline(t, nil)
	q.engine = &filter.Engine{}
	q.lay(0, packetDatagram(t, 1, 0, tcpPacket("10.0.0.9", "10.0.0.1", 4000, 80)))
	if err := q.answer(1, 1); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]given{{ID: 1}}, verdicts(t, got)); d != "" {
		t.Errorf("verdicts (-want +got):\n%s", d)
	}
	if n := q.stats.Decided[filter.Drop][filter.NotReady].Load(); n != 1 {
		t.Errorf("counted %d not ready, want 1", n)
	}
}

// TestOverrideHoldsNothing: while policy is not asked, nobody waits for a pod. What waited
// before is answered like everything else.
func TestOverrideHoldsNothing(t *testing.T) {
	for o, want := range map[Override]uint32{DenyAll: nfqueue.NfDrop, AllowAll: nfqueue.NfAccept} {
		q, out := offline(t, nil)
		q.cfg.Holds = Holds{Local: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, Time: time.Hour, Max: 4, MaxOf: 4}
		unknown := tcpPacket("10.0.0.9", "10.0.0.1", 4000, 81)
		q.lay(0, packetDatagram(t, 1, 0, unknown))
		if err := q.answer(1, 1); err != nil {
			t.Fatal(err)
		}
		if len(q.held) != 1 {
			t.Fatal("the packet of an unknown pod does not wait")
		}
		q.Override(o)
		q.lay(0, packetDatagram(t, 2, 0, unknown))
		if err := q.answer(1, 1); err != nil {
			t.Fatal(err)
		}
		if err := q.release(2); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]given{{ID: 2, Verdict: want}, {ID: 1, Verdict: want}}, verdicts(t, got)); d != "" {
			t.Errorf("override %d: verdicts (-want +got):\n%s", o, d)
		}
	}
}

// TestManyMessagesInOneDatagram: more verdicts than the buffer holds at once.
func TestManyMessagesInOneDatagram(t *testing.T) {
	q, out := offline(t, nil)
	q.in = newReceiver(1, 1<<20)
	var all []byte
	const n = 3*batch + 1
	for id := range uint32(n) {
		all = append(all, packetDatagram(t, id, 0, tcpPacket("10.0.0.9", "10.0.0.1", 4000, 80))...)
	}
	q.lay(0, all)
	if err := q.answer(1, 1); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	vs := verdicts(t, got)
	if len(vs) != n {
		t.Fatalf("%d verdicts, want %d", len(vs), n)
	}
	for i, v := range vs {
		if v.ID != uint32(i) {
			t.Fatalf("verdict %d is for id %d", i, v.ID)
		}
	}
}

func TestAnswerAllocatesNothing(t *testing.T) {
	q, out := offline(t, flowlog.NewRing(1<<16))
	for i := range batch {
		d := tcpPacket("10.0.0.9", "10.0.0.1", 4000, uint16(80+i%2))
		if i%16 == 0 {
			d = d[:25]
		}
		q.lay(i, packetDatagram(t, uint32(i), 0, d))
	}
	if n := testing.AllocsPerRun(100, func() {
		if err := q.answer(batch, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Seek(int(out.Fd()), 0, 0); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a batch, want 0", n)
	}
}

// FuzzAnswer: whatever lies in the receive buffer, each packet whose id can be read
// gets exactly one verdict, in the order of the messages, and no other id gets one.
func FuzzAnswer(f *testing.F) {
	allowed := packetDatagram(f, 1, 0x4000, tcpPacket("10.0.0.9", "10.0.0.1", 4000, 80))
	f.Add(allowed)
	f.Add(append(packetDatagram(f, 2, 0, []byte{0x60}), allowed...))
	f.Add(allowed[:len(allowed)-30])
	q, out := offline(f, nil) // made once: it is large, and a fuzzing process has one goroutine
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), q.in.slot)]
		q.lay(0, b)
		if err := errors.Join(out.Truncate(0), seekStart(out)); err != nil {
			t.Fatal(err)
		}
		if err := q.answer(1, 1); err != nil {
			t.Fatal(err)
		}
		var want []uint32
		for {
			m, rest, ok := nextMessage(b)
			if !ok {
				break
			}
			if p, ok := parsePacket(m.body); ok && m.typ == msgPacket {
				want = append(want, p.id)
			}
			b = rest
		}
		written, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		var got []uint32
		for _, v := range verdicts(t, written) {
			got = append(got, v.ID)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("ids (-want +got):\n%s", d)
		}
	})
}

func seekStart(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

// TestReceiveBuffer: the kernel grants root what a full queue takes, up to the most
// that fits into its int.
func TestReceiveBuffer(t *testing.T) {
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("this test needs root (CAP_SYS_ADMIN), to make a network namespace: %v", err)
	}
	defer ns.Close()
	for _, tc := range []struct {
		maxLen, copyRange uint32
		want              int // in SO_RCVBUF, which is twice what was asked for
	}{
		{8192, 128, 2 * 8192 * 1024},
		{8192, 64, 2 * 8192 * 1024},
		{1024, 1500, 2 * 1024 * (1024 + 1500 - 128)},
		{1 << 22, 128, 1<<31 - 2},
		{1<<32 - 1, 65531, 1<<31 - 2},
	} {
		q, err := Open(Config{Queue: 7, MaxLen: tc.maxLen, CopyRange: tc.copyRange}, &filter.Engine{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := unix.GetsockoptInt(q.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		if err != nil || got != tc.want || !q.BufferGranted() {
			t.Errorf("length %d, copy range %d: buffer %d, %v, granted %v; want %d", tc.maxLen, tc.copyRange, got, err, q.BufferGranted(), tc.want)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestRefused: a verdict that the kernel answers with an error is counted, and an
// acknowledgement is not.
func TestRefused(t *testing.T) {
	q, _ := offline(t, nil)
	for i, code := range []int32{-int32(unix.ENOENT), 0} {
		b := make([]byte, 36)
		binary.NativeEndian.PutUint32(b, 36)
		binary.NativeEndian.PutUint16(b[4:], unix.NLMSG_ERROR)
		binary.NativeEndian.PutUint32(b[16:], uint32(code))
		q.lay(i, b)
	}
	if err := q.answer(2, 1); err != nil {
		t.Fatal(err)
	}
	if n := q.stats.Refused.Load(); n != 1 {
		t.Errorf("counted %d refused verdicts, want 1", n)
	}
}

// TestConfigure compares the messages that bind and configure a queue with those
// written down here, and sees that FAIL_OPEN is in the mask and not in the flags.
func TestConfigure(t *testing.T) {
	t.Parallel()
	var sent [][]byte
	c := nltest.Dial(func(req []netlink.Message) ([]netlink.Message, error) {
		for _, m := range req {
			if m.Header.Type != msgConfig || m.Header.Flags&netlink.Acknowledge == 0 {
				t.Errorf("header %+v", m.Header)
			}
			sent = append(sent, m.Data)
		}
		return nltest.Error(0, req)
	})
	defer c.Close()
	err := configure(c, Config{Queue: 0x0102, MaxLen: 8192, CopyRange: 128})
	if err == nil || !strings.Contains(err.Error(), "NETLINK_NO_ENOBUFS") {
		t.Fatalf("the fake has no socket options, and configure said: %v", err)
	}
	want := [][]byte{
		{0, 0, 1, 2, 8, 0, 1, 0, 1, 0, 0, 0},
		{0, 0, 1, 2, 9, 0, 2, 0, 0, 0, 0, 128, 2, 0, 0, 0},
		{0, 0, 1, 2, 8, 0, 3, 0, 0, 0, 0x20, 0},
		{0, 0, 1, 2, 8, 0, 5, 0, 0, 0, 0, 4, 8, 0, 4, 0, 0, 0, 0, 5},
	}
	if d := cmp.Diff(want, sent); d != "" {
		t.Errorf("messages (-want +got):\n%s", d)
	}
}

// TestConfigureExplains: what the kernel answers, and the sentence that comes of
// it. The kernel of the test has queues, so a missing module is played.
func TestConfigureExplains(t *testing.T) {
	for _, tc := range []struct {
		answer unix.Errno
		want   error
	}{
		{unix.EINVAL, ErrUnsupported},
		{unix.EPERM, ErrPermission},
		{unix.EBUSY, ErrTaken},
	} {
		c := nltest.Dial(func(req []netlink.Message) ([]netlink.Message, error) {
			return nltest.Error(int(tc.answer), req)
		})
		err := configure(c, Config{Queue: 65000, MaxLen: 1, CopyRange: 1})
		if !errors.Is(err, tc.want) {
			t.Errorf("%v became %v, want %v", tc.answer, err, tc.want)
		}
		c.Close()
	}
}

// TestOpenTaken on the real kernel, in a namespace of its own.
func TestOpenTaken(t *testing.T) {
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("this test needs root (CAP_SYS_ADMIN), to make a network namespace: %v", err)
	}
	defer ns.Close()
	cfg := Config{Queue: 7, MaxLen: DefaultMaxLen, CopyRange: DefaultCopyRange}
	first, err := Open(cfg, &filter.Engine{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg, &filter.Engine{}); !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "queue 7") {
		t.Errorf("second Open: %v, want ErrTaken with the number", err)
	}
	s, ok, err := ReadKernelStats(7)
	if err != nil || !ok || s.PortID == 0 {
		t.Errorf("ReadKernelStats: %+v %v %v", s, ok, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- first.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, ok, _ := ReadKernelStats(7); ok {
		t.Error("the queue is still bound after Close")
	}
	again, err := Open(cfg, &filter.Engine{})
	if err != nil {
		t.Errorf("Open after Close: %v", err)
	} else {
		again.Close()
	}
}
