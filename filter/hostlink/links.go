package hostlink

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// route is what matters of a route: what it is for, and the link that its
// destinations are on; 0 if they are behind a gateway.
type route struct {
	dst  netip.Prefix
	link int
}

// read lists the unicast routes of all tables in the caller's network namespace.
func read() (routes []route, err error) {
	list, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range list {
		if r.Type != unix.RTN_UNICAST || r.Dst == nil {
			continue
		}
		a, ok := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		if !ok {
			continue
		}
		if r.Dst.IP.To4() != nil && len(r.Dst.Mask) == 4 {
			a = a.Unmap()
		}
		link := r.LinkIndex
		if r.Gw != nil || r.Via != nil || r.MPLSDst != nil || len(r.MultiPath) > 0 {
			link = 0
		}
		routes = append(routes, route{netip.PrefixFrom(a, bits), link})
	}
	return routes, nil
}

// lead gives the links that lead to the addresses, each once and in order. Of the
// routes for an address those with the longest prefix count; tables may disagree,
// and then all do.
func lead(routes []route, addrs []netip.Addr) (links []int) {
	by := map[netip.Prefix][]int{}
	var lengths [2][129]bool
	family := func(a netip.Addr) int {
		if a.Is6() {
			return 1
		}
		return 0
	}
	for _, r := range routes {
		by[r.dst] = append(by[r.dst], r.link)
		lengths[family(r.dst.Addr())][r.dst.Bits()] = true
	}
	found := map[int]bool{}
	for _, a := range addrs {
		for bits := a.BitLen(); bits > 0; bits-- { // a default route leads to no pod
			if !lengths[family(a)][bits] {
				continue
			}
			p, err := a.Prefix(bits)
			if err != nil {
				break
			}
			if at := by[p]; len(at) > 0 {
				for _, l := range at {
					found[l] = true
				}
				break
			}
		}
	}
	delete(found, 0)
	for l := range found {
		links = append(links, l)
	}
	slices.Sort(links)
	return links
}
