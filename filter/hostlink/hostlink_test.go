package hostlink

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

func TestLead(t *testing.T) {
	t.Parallel()
	p := netip.MustParsePrefix
	routes := []route{
		{p("0.0.0.0/0"), 0},
		{p("10.0.0.0/16"), 0}, // other hosts' pods, behind a gateway
		{p("10.0.1.0/24"), 7}, // a bridge
		{p("10.0.1.5/32"), 9}, // a pod's own link, beside the bridge
		{p("10.0.2.5/32"), 11},
		{p("10.0.2.5/32"), 12}, // another table
		{p("::/0"), 3},
		{p("fd00::5/128"), 9},
	}
	for _, tc := range []struct {
		addrs []string
		want  []int
	}{
		{nil, nil},
		{[]string{"10.0.1.4"}, []int{7}},
		{[]string{"10.0.1.5", "10.0.1.4", "fd00::5"}, []int{7, 9}},
		{[]string{"10.0.2.5"}, []int{11, 12}},
		{[]string{"10.0.9.9", "192.0.2.1", "fd00::6"}, nil},
	} {
		var addrs []netip.Addr
		for _, a := range tc.addrs {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		if got := lead(routes, addrs); !slices.Equal(got, tc.want) {
			t.Errorf("%v: %v, want %v", tc.addrs, got, tc.want)
		}
	}
}

// TestWatcher follows links, routes and pods as they come and go.
func TestWatcher(t *testing.T) {
	runtime.LockOSThread() // the thread dies with the test, and its namespace with it
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("this test needs root (CAP_SYS_ADMIN), to make a network namespace: %v", err)
	}
	t.Cleanup(func() { ns.Close() })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	add := func(l netlink.Link) int {
		t.Helper()
		must(netlink.LinkAdd(l))
		must(netlink.LinkSetUp(l))
		l, err := netlink.LinkByName(l.Attrs().Name)
		must(err)
		return l.Attrs().Index
	}
	veth := add(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a"}, PeerName: "b"})
	bridge := add(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}})

	applied := make(chan []int, 100)
	w := New(func(links []int) error { applied <- links; return nil })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- w.Run(ctx, func(err error) { t.Error(err) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	wants := func(what string, want ...int) {
		t.Helper()
		select {
		case got := <-applied:
			if !slices.Equal(got, want) {
				t.Fatalf("%s: %v, want %v", what, got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: nothing applied, want %v", what, want)
		}
	}
	w.Pods([]netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.1.5"), netip.MustParseAddr("fd00::5")})
	wants("no routes yet")
	host := func(addr string, bits int) *net.IPNet {
		return &net.IPNet{IP: net.ParseIP(addr), Mask: net.CIDRMask(bits, bits)}
	}
	must(netlink.RouteAdd(&netlink.Route{LinkIndex: veth, Dst: host("fd00::5", 128)}))
	wants("a host route", veth)
	must(netlink.AddrAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Index: bridge}}, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 0, 0, 1).To4(), Mask: net.CIDRMask(24, 32)}}))
	wants("a subnet on a bridge", veth, bridge)
	w.Pods([]netip.Addr{netip.MustParseAddr("fd00::5")})
	wants("fewer pods", veth)
	must(netlink.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a", Index: veth}}))
	wants("the pod is gone")
}
