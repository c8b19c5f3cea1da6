package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ct "github.com/ti-mo/conntrack"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter/flow"
)

// table is a network namespace with a conntrack table of its own, which the test's
// thread is in. The thread dies with the test.
type table struct {
	testing.TB
	make *ct.Conn
	conn *Conn
}

func newTable(t testing.TB) *table {
	t.Helper()
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("this test needs root (CAP_SYS_ADMIN), to make a network namespace: %v", err)
	}
	t.Cleanup(func() { ns.Close() })
	maker, err := ct.Dial(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { maker.Close() })
	c, err := Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &table{t, maker, c}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// flowOf gives an entry for the library to make.
func flowOf(proto flow.Proto, src, dst string, sport, dport uint16, mark uint32) ct.Flow {
	return ct.NewFlow(uint8(proto), ct.StatusConfirmed|ct.StatusSeenReply, addr(src), addr(dst), sport, dport, 120, mark)
}

// TestSweepAfterFailure: a walk that failed leaves nothing in the socket. The next one sees
// what it asks for, and all of it.
func TestSweepAfterFailure(t *testing.T) {
	table := newTable(t)
	for i := range uint16(200) { // more than the kernel sends at once
		table.add(flowOf(flow.UDP, "10.0.0.1", "10.0.0.2", 1000+i, 53, uint32(i%2)+1))
	}
	if err := table.conn.walk.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := table.conn.Sweep(Filter{Mark: 1, Mask: 3}, func(*Entry) Action { return Keep() }); err == nil {
		t.Fatal("a walk without time succeeded")
	}
	if err := table.conn.walk.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := table.conn.Sweep(Filter{Mark: 2, Mask: 3}, func(*Entry) Action { return Keep() })
		if err != nil || r.Seen != 100 {
			t.Errorf("a walk after it saw %d of 100 entries: %v", r.Seen, err)
		}
	}
}

func (t *table) add(fs ...ct.Flow) {
	t.Helper()
	for _, f := range fs {
		if err := t.make.Create(f); err != nil {
			t.Fatalf("make entry %v: %v", f, err)
		}
	}
}

// list gives every entry as text, in order.
func (t *table) list(f Filter) map[string]bool {
	t.Helper()
	es, err := t.conn.Entries(f)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for i := range es {
		s := es[i].String()
		if z := es[i].Zone; z != 0 {
			s = fmt.Sprintf("%s zone %d", s, z)
		}
		got[s] = true
	}
	return got
}

func (t *table) holds(f Filter, want ...string) {
	t.Helper()
	set := map[string]bool{}
	for _, w := range want {
		set[w] = true
	}
	if d := cmp.Diff(set, t.list(f)); d != "" {
		t.Errorf("entries of %+v (-want +got):\n%s", f, d)
	}
}

const (
	a4 = "tcp 10.0.0.1:1000 -> 10.0.0.2:80 mark 0x1000001"
	b4 = "udp 10.0.0.1:1000 -> 10.0.0.3:53 mark 0x2000000"
	c6 = "tcp [fd00::1]:1000 -> [fd00::2]:80 mark 0x1004000"
	d6 = "udp [fd00::1]:1000 -> [fd00::3]:53 mark 0x4000"
	z4 = "tcp 10.0.0.1:1000 -> 10.0.0.2:80 mark 0x1000000 zone 7"
)

func (t *table) fill() {
	t.Helper()
	zoned := flowOf(flow.TCP, "10.0.0.1", "10.0.0.2", 1000, 80, 0x01000000)
	zoned.Zone = 7
	t.add(
		flowOf(flow.TCP, "10.0.0.1", "10.0.0.2", 1000, 80, 0x01000001),
		flowOf(flow.UDP, "10.0.0.1", "10.0.0.3", 1000, 53, 0x02000000),
		flowOf(flow.TCP, "fd00::1", "fd00::2", 1000, 80, 0x01004000),
		flowOf(flow.UDP, "fd00::1", "fd00::3", 1000, 53, 0x00004000),
		zoned,
	)
}

func TestFilter(t *testing.T) {
	tab := newTable(t)
	tab.fill()
	tab.holds(Filter{}, a4, b4, c6, d6, z4)
	tab.holds(Filter{Mark: 0x01000000, Mask: 0xff000000}, a4, c6, z4)
	tab.holds(Filter{Mark: 0, Mask: 0xff000000}, d6)
	tab.holds(Filter{Mark: 0x01000000, Mask: 0xff000000, InZone: true, Zone: 7}, z4)
	tab.holds(Filter{InZone: true}, a4, b4, c6, d6)
	tab.holds(Filter{Status: SeenReply, StatusMask: SeenReply | Assured}, a4, b4, c6, d6, z4)
	tab.holds(Filter{Status: Assured, StatusMask: Assured})
	if _, err := tab.conn.Entries(Filter{Mark: 3, Mask: 1}); err == nil || !strings.Contains(err.Error(), "outside its mask") {
		t.Errorf("a filter that cannot match: %v", err)
	}
}

// TestSetMark changes marks under a mask, also to 0, and leaves other bits.
func TestSetMark(t *testing.T) {
	tab := newTable(t)
	tab.fill()
	r, err := tab.conn.Sweep(Filter{Mark: 0x01000000, Mask: 0xff000000}, func(*Entry) Action { return SetMark(0, 0xff000000) })
	if err != nil || r != (Report{Seen: 3, Marked: 3}) {
		t.Fatalf("%+v, %v", r, err)
	}
	tab.holds(Filter{},
		"tcp 10.0.0.1:1000 -> 10.0.0.2:80 mark 0x1", b4,
		"tcp [fd00::1]:1000 -> [fd00::2]:80 mark 0x4000", d6,
		"tcp 10.0.0.1:1000 -> 10.0.0.2:80 mark 0x0 zone 7")
	r, err = tab.conn.Sweep(Filter{}, func(e *Entry) Action {
		if e.Original.Is6() {
			return SetMark(0xffffffff, 0x30000000)
		}
		return Keep()
	})
	if err != nil || r != (Report{Seen: 5, Marked: 2}) {
		t.Fatalf("%+v, %v", r, err)
	}
	tab.holds(Filter{Mark: 0x30000000, Mask: 0x30000000},
		"tcp [fd00::1]:1000 -> [fd00::2]:80 mark 0x30004000", "udp [fd00::1]:1000 -> [fd00::3]:53 mark 0x30004000")
}

func TestDelete(t *testing.T) {
	tab := newTable(t)
	tab.fill()
	leaves := addr("10.0.0.2")
	r, err := tab.conn.Sweep(Filter{}, func(e *Entry) Action {
		if e.Touches(func(a netip.Addr) bool { return a == leaves }) {
			return Delete()
		}
		return Keep()
	})
	if err != nil || r != (Report{Seen: 5, Deleted: 2}) {
		t.Fatalf("%+v, %v", r, err)
	}
	tab.holds(Filter{}, b4, c6, d6)
}

// TestYoungerFlow: between the walk and the action an entry ends and another with the
// same tuple begins. A deletion must not hit that one.
func TestYoungerFlow(t *testing.T) {
	tab := newTable(t)
	f := flowOf(flow.UDP, "10.0.0.1", "10.0.0.3", 1000, 53, 0x02000000)
	tab.add(f)
	r, err := tab.conn.Sweep(Filter{Mark: 0x02000000, Mask: 0xff000000}, func(e *Entry) Action {
		if err := tab.make.Delete(f); err != nil {
			t.Fatal(err)
		}
		for i := range 64 { // something else takes the memory of the old one
			tab.add(flowOf(flow.UDP, "10.0.0.1", "10.0.0.4", uint16(i+1), 53, 1))
		}
		tab.add(f)
		return Delete()
	})
	if err != nil || r != (Report{Seen: 1, Gone: 1}) {
		t.Errorf("%+v, %v", r, err)
	}
	tab.holds(Filter{Mark: 0x02000000, Mask: 0xff000000}, b4)
}

// TestMany sweeps more entries than go into one batch or one datagram.
func TestMany(t *testing.T) {
	tab := newTable(t)
	const n = 5*batch + 3
	for i := range n {
		tab.add(flowOf(flow.UDP, "fd00::1", "fd00::2", uint16(i+1), 53, 1<<24))
	}
	r, err := tab.conn.Sweep(Filter{}, func(e *Entry) Action { return SetMark(2<<24, 0xff000000) })
	if err != nil || r.Seen != n || r.Marked != n {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err = tab.conn.Sweep(Filter{Mark: 2 << 24, Mask: 0xff000000}, func(e *Entry) Action { return Delete() }); err != nil || r.Deleted != n {
		t.Errorf("%+v, %v", r, err)
	}
	if entries, limit, err := Size(); err != nil || entries != 0 || limit == 0 {
		t.Errorf("size %d of %d, %v", entries, limit, err)
	}
}

// TestTranslated: what policy judges, of entries as destination and source NAT leave
// them.
func TestTranslated(t *testing.T) {
	tab := newTable(t)
	nat := func(f ct.Flow, server string, port uint16, client string, cport uint16, status ct.Status) ct.Flow {
		f.Status |= status
		f.TupleReply.IP.SourceAddress, f.TupleReply.Proto.SourcePort = addr(server), port
		f.TupleReply.IP.DestinationAddress, f.TupleReply.Proto.DestinationPort = addr(client), cport
		return f
	}
	ping := flowOf(flow.ICMP, "10.0.0.1", "10.0.0.9", 0, 0, 3)
	ping.TupleOrig.Proto = ct.ProtoTuple{Protocol: 1, ICMPv4: true, ICMPType: 8, ICMPID: 77}
	ping.TupleReply.Proto = ct.ProtoTuple{Protocol: 1, ICMPv4: true, ICMPType: 0, ICMPID: 77}
	ping6 := flowOf(flow.ICMPv6, "fd00::1", "fd00::9", 0, 0, 4)
	ping6.TupleOrig.Proto = ct.ProtoTuple{Protocol: 58, ICMPv6: true, ICMPType: 128, ICMPID: 77}
	ping6.TupleReply.Proto = ct.ProtoTuple{Protocol: 58, ICMPv6: true, ICMPType: 129, ICMPID: 77}
	gre := flowOf(47, "10.0.0.1", "10.0.0.9", 0, 0, 5)
	tab.add(
		nat(flowOf(flow.TCP, "10.0.0.1", "10.96.0.1", 1000, 80, 1), "10.0.0.2", 8080, "10.0.0.1", 1000, ct.StatusDstNAT),
		nat(flowOf(flow.UDP, "fd00::1", "fd00:96::1", 1000, 53, 2), "fd00::2", 5353, "fd00:77::1", 4321, ct.StatusDstNAT|ct.StatusSrcNAT),
		ping, ping6, gre,
	)
	tab.holds(Filter{},
		"tcp 10.0.0.1:1000 -> 10.0.0.2:8080 mark 0x1",
		"udp [fd00::1]:1000 -> [fd00::2]:5353 mark 0x2",
		"icmp 10.0.0.1 -> 10.0.0.9 type 8 code 0 mark 0x3",
		"icmpv6 fd00::1 -> fd00::9 type 128 code 0 mark 0x4",
		"47 10.0.0.1 -> 10.0.0.9 mark 0x5",
	)
	es, err := tab.conn.Entries(Filter{Mark: 1, Mask: 0xff})
	if err != nil || len(es) != 1 {
		t.Fatal(es, err)
	}
	if at, ok := es[0].Service(); !ok || at != netip.MustParseAddrPort("10.96.0.1:80") {
		t.Errorf("service %v, %v", at, ok)
	}
	for _, a := range []string{"10.0.0.1", "10.0.0.2", "10.96.0.1"} {
		if !es[0].Touches(func(x netip.Addr) bool { return x == addr(a) }) {
			t.Errorf("does not touch %s", a)
		}
	}
	// All of them can be found again, translated or not.
	r, err := tab.conn.Sweep(Filter{}, func(*Entry) Action { return Delete() })
	if err != nil || r != (Report{Seen: 5, Deleted: 5}) {
		t.Errorf("%+v, %v", r, err)
	}
}

// events runs a watch until the test ends.
func (t *table) events(buffer int, mask uint32, event func(Kind, *Entry), missed func()) *Watcher {
	t.Helper()
	w, err := Watch(buffer, Began, Ended)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx, mask, event, missed) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.Close()
	})
	return w
}

func TestWatch(t *testing.T) {
	tab := newTable(t)
	got := make(chan string, 100)
	tab.events(0, 0xff000000, func(k Kind, e *Entry) { got <- fmt.Sprint(map[Kind]string{Began: "+", Ended: "-"}[k], " ", e) }, func() { got <- "missed" })
	tab.fill() // d6 has no bit of the mask
	if _, err := tab.conn.Sweep(Filter{Mark: 0x02000000, Mask: 0xff000000}, func(*Entry) Action { return Delete() }); err != nil {
		t.Fatal(err)
	}
	want := []string{"+ " + a4, "+ " + b4, "+ " + c6, "+ " + strings.TrimSuffix(z4, " zone 7"), "- " + b4}
	for _, w := range want {
		select {
		case g := <-got:
			if g != w {
				t.Errorf("got %q, want %q", g, w)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q was not reported", w)
		}
	}
}

// TestOverrun: who reads too slowly is told that reports are lost, the kernel waits for
// nobody, and what comes later arrives.
func TestOverrun(t *testing.T) {
	tab := newTable(t)
	release, last := make(chan struct{}), make(chan struct{}, 1000)
	missed := make(chan struct{}, 100)
	w := tab.events(1<<12, 0, func(k Kind, e *Entry) {
		<-release
		if e.Mark == 99 {
			last <- struct{}{}
		}
	}, func() { missed <- struct{}{} })
	for i := range 500 {
		tab.add(flowOf(flow.UDP, "10.0.0.1", "10.0.0.2", uint16(i+1), 53, 1))
	}
	close(release)
	select {
	case <-missed:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told of lost reports")
	}
	if w.Overruns() == 0 {
		t.Error("not counted")
	}
	// Until the reader has emptied the buffer the kernel puts nothing more in.
	for i := range 1000 {
		tab.add(flowOf(flow.UDP, "10.0.0.1", "10.0.0.2", uint16(2000+i), 53, 99))
		select {
		case <-last:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("nothing is reported after an overrun")
}

// TestUnprivileged: without the capability there is an error, not an empty table.
func TestUnprivileged(t *testing.T) {
	tab := newTable(t)
	tab.fill()
	// Only this thread, which dies with the test.
	var none [2]unix.CapUserData
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
		t.Fatal(err)
	}
	if es, err := tab.conn.Entries(Filter{}); !errors.Is(err, unix.EPERM) {
		t.Errorf("%d entries, %v", len(es), err)
	}
}

// BenchmarkSweep walks a table of 10,000 entries: all are marked anew, none is meant.
func BenchmarkSweep(b *testing.B) {
	for _, meant := range []bool{true, false} {
		b.Run(fmt.Sprintf("meant=%v", meant), func(b *testing.B) {
			t := newTable(b)
			const n = 10000
			for i := range n {
				t.add(flowOf(flow.TCP, "10.0.0.1", "10.0.0.2", uint16(i+1), 80, 1<<24))
			}
			f := Filter{Mark: 1 << 24, Mask: 0xff000000}
			if !meant {
				f.Mark = 2 << 24
			}
			b.ReportAllocs()
			for b.Loop() {
				r, err := t.conn.Sweep(f, func(*Entry) Action { return SetMark(1<<24, 0xff000000) })
				if err != nil || (r.Marked == n) != meant {
					b.Fatal(r, err)
				}
			}
		})
	}
}
