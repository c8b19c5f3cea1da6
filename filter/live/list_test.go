package live

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	ct "github.com/ti-mo/conntrack"
	"github.com/vishvananda/netns"

	"github.com/postern-project/postern/conntrack"
	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/nft"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// inNamespace puts the test's thread into a network namespace of its own, with a table of
// flows that only the test fills. The thread dies with the test.
func inNamespace(t testing.TB) *ct.Conn {
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
	return maker
}

func add(t testing.TB, maker *ct.Conn, proto flow.Proto, src, dst string, sport, dport uint16, mark uint32, change func(*ct.Flow)) {
	t.Helper()
	f := ct.NewFlow(uint8(proto), ct.StatusConfirmed|ct.StatusSeenReply, addr(src), addr(dst), sport, dport, 120, mark)
	if change != nil {
		change(&f)
	}
	if err := maker.Create(f); err != nil {
		t.Fatal(err)
	}
}

// ruleset has the pods a/web (10.0.0.1) and a/db (10.0.0.2) here, b/far (10.9.0.1) on
// another node, and allows all.
func ruleset(t testing.TB) *filter.Ruleset {
	t.Helper()
	one := func(a string) netip.Prefix { return netip.PrefixFrom(addr(a), 32) }
	pod := func(ns, name, account, a string, hosted bool) filter.Endpoint {
		return filter.Endpoint{EndpointInfo: filter.EndpointInfo{Namespace: ns, Name: name, ServiceAccount: account, Hosted: hosted}, Addrs: []netip.Addr{addr(a)}}
	}
	rs, err := filter.New(&filter.Spec{
		Generation: 9,
		Prefixes:   []filter.ClassPrefix{{Prefix: one("10.0.0.1"), Class: 1}, {Prefix: one("10.0.0.2"), Class: 1}, {Prefix: one("10.9.0.1"), Class: 2}},
		Classes:    []filter.Class{{}, {Hosted: true}, {}},
		Programs:   []filter.Program{{Final: filter.FinalAllow}},
		Endpoints:  []filter.Endpoint{pod("a", "web", "web-sa", "10.0.0.1", true), pod("a", "db", "", "10.0.0.2", true), pod("b", "far", "far-sa", "10.9.0.1", false)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func marks(t testing.TB) nft.Marks {
	t.Helper()
	m, err := nft.NewMarks(nft.DefaultMask)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestList(t *testing.T) {
	maker := inNamespace(t)
	m := marks(t)
	v := NewView(m, ruleset(t), &nft.State{Epoch: 5, Past: []uint32{4, 3}, Dirty: []netip.Addr{addr("10.0.0.2")}}, false)
	service := func(f *ct.Flow) {
		f.TupleReply.IP.SourceAddress, f.TupleReply.Proto.SourcePort = addr("10.0.0.2"), 5432
		f.Status |= ct.StatusDstNAT
	}
	masqueraded := func(f *ct.Flow) {
		f.TupleReply.IP.DestinationAddress, f.TupleReply.Proto.DestinationPort = addr("192.168.0.1"), 777
		f.Status |= ct.StatusSrcNAT
	}
	add(t, maker, flow.TCP, "10.0.0.1", "10.96.0.1", 1001, 80, m.Flow(5)|0x4000, service)
	add(t, maker, flow.TCP, "10.0.0.1", "1.1.1.1", 1002, 443, m.Flow(4), masqueraded)
	add(t, maker, flow.UDP, "10.0.0.1", "10.0.0.2", 1003, 53, m.Flow(4), nil)
	add(t, maker, flow.UDP, "10.9.0.1", "10.0.0.1", 1004, 53, m.Flow(1), nil)
	add(t, maker, flow.UDP, "10.9.0.1", "10.0.0.1", 1005, 53, m.Denied(5), nil)
	add(t, maker, flow.UDP, "10.9.0.1", "10.0.0.1", 1006, 53, m.Denied(4), nil)
	add(t, maker, flow.TCP, "10.9.0.1", "10.0.0.1", 1007, 80, 0x4000, nil)
	add(t, maker, flow.TCP, "1.1.1.1", "2.2.2.2", 1008, 80, 0, nil)
	add(t, maker, flow.ICMP, "10.0.0.1", "10.9.0.1", 0, 0, m.Flow(5), func(f *ct.Flow) {
		f.TupleOrig.Proto = ct.ProtoTuple{Protocol: 1, ICMPv4: true, ICMPType: 8, ICMPID: 77}
		f.TupleReply.Proto = ct.ProtoTuple{Protocol: 1, ICMPv4: true, ICMPType: 0, ICMPID: 77}
	})
	text := func(f *Flow) string {
		s := fmt.Sprintf("%s %v:%d %s %s > %v:%d %s %s: %s %s", f.Proto, f.Src.Addr, f.Src.Port, f.Src.Pod, f.Src.Account, f.Dst.Addr, f.Dst.Port, f.Dst.Pod, f.Dst.Account, f.Verdict, f.Standing)
		if f.Reason != "" {
			s += " " + f.Reason
		}
		if f.ICMPType != nil {
			s += fmt.Sprintf(" type %d", *f.ICMPType)
		}
		if n := f.Translated; n != nil {
			s += fmt.Sprintf(" %v>%v %v>%v %v %v", n.Original.Src, n.Original.Dst, n.Reply.Src, n.Reply.Dst, n.Destination, n.Source)
		}
		if f.AgeSeconds != nil || f.Sent != nil {
			s += " counted"
		}
		return s
	}
	all := map[string]string{
		"service":   "tcp 10.0.0.1:1001 a/web a/web-sa > 10.0.0.2:5432 a/db : allow current profile 10.0.0.1:1001>10.96.0.1:80 10.0.0.2:5432>10.0.0.1:1001 true false",
		"outside":   "tcp 10.0.0.1:1002 a/web a/web-sa > 1.1.1.1:443  : allow kept profile 10.0.0.1:1002>1.1.1.1:443 1.1.1.1:443>192.168.0.1:777 false true",
		"dirty":     "udp 10.0.0.1:1003 a/web a/web-sa > 10.0.0.2:53 a/db : allow again profile",
		"old":       "udp 10.9.0.1:1004 b/far b/far-sa > 10.0.0.1:53 a/web a/web-sa: allow again profile",
		"denied":    "udp 10.9.0.1:1005 b/far b/far-sa > 10.0.0.1:53 a/web a/web-sa: deny current",
		"denied 4":  "udp 10.9.0.1:1006 b/far b/far-sa > 10.0.0.1:53 a/web a/web-sa: deny again",
		"ping":      "icmp 10.0.0.1:0 a/web a/web-sa > 10.9.0.1:0 b/far b/far-sa: allow current profile type 8",
		"unprotect": "tcp 10.9.0.1:1007 b/far b/far-sa > 10.0.0.1:80 a/web a/web-sa: none again",
	}
	judged := []string{"service", "outside", "dirty", "old", "denied", "denied 4", "ping"}
	for _, tc := range []struct {
		filter Filter
		want   []string
	}{
		{Filter{}, judged},
		{Filter{Unjudged: true}, append(slices.Clone(judged), "unprotect")},
		{Filter{Pod: "a/db"}, []string{"service", "dirty"}},
		{Filter{Pod: "a/far"}, nil},
		{Filter{Account: "b/far-sa", Proto: flow.UDP, HasProto: true}, []string{"old", "denied", "denied 4"}},
		{Filter{Proto: flow.ICMP, HasProto: true}, []string{"ping"}},
		{Filter{Port: 80}, []string{"service"}},
		{Filter{Port: 5432}, []string{"service"}},
		{Filter{Port: 80, Unjudged: true}, []string{"service", "unprotect"}},
	} {
		var got, want []string
		s, err := List(t.Context(), v, tc.filter, func(f *Flow) error {
			got = append(got, text(f))
			return nil
		})
		if err != nil || s.Shown != len(got) || s.More != 0 || s.Entries != 9 || s.Accounting || s.Timestamps {
			t.Errorf("%+v: %+v, %v", tc.filter, s, err)
		}
		for _, name := range tc.want {
			want = append(want, all[name])
		}
		slices.Sort(got)
		slices.Sort(want)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%+v (-want +got):\n%s", tc.filter, d)
		}
	}
	n := 0
	count := func(*Flow) error { n++; return nil }
	if s, err := List(t.Context(), v, Filter{Limit: 3}, count); err != nil || n != 3 || s.Shown != 3 || s.More != 4 {
		t.Errorf("with a limit: %d, %+v, %v", n, s, err)
	}
	enough := errors.New("enough")
	if _, err := List(t.Context(), v, Filter{}, func(*Flow) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("a reader that wants no more: %v", err)
	}
	v.Keep = true // then every accepted flow goes on
	n = 0
	if _, err := List(t.Context(), v, Filter{}, func(f *Flow) error {
		if f.Verdict == "allow" && f.Standing == Current {
			n++
		}
		return nil
	}); err != nil || n != 5 {
		t.Errorf("with keep: %d stand, %v", n, err)
	}
}

// TestAccounting: what is switched on is counted from then on.
func TestAccounting(t *testing.T) {
	maker := inNamespace(t)
	m := marks(t)
	v := NewView(m, ruleset(t), &nft.State{Epoch: 5}, false)
	if counted, timed, err := conntrack.Accounting(); err != nil || counted || timed {
		t.Fatalf("%v %v %v", counted, timed, err)
	}
	if err := conntrack.Account(); err != nil {
		t.Fatal(err)
	}
	add(t, maker, flow.UDP, "10.0.0.1", "10.0.0.2", 1003, 53, m.Flow(5), nil)
	s, err := List(t.Context(), v, Filter{}, func(f *Flow) error {
		// An entry that was made by hand has carried nothing, and its age is known.
		if f.AgeSeconds == nil || *f.AgeSeconds < 0 || *f.AgeSeconds > 600 {
			t.Errorf("age %v", f.AgeSeconds)
		}
		return nil
	})
	if err != nil || s.Shown != 1 || !s.Accounting || !s.Timestamps {
		t.Errorf("%+v, %v", s, err)
	}
}
