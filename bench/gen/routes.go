package gen

import (
	"encoding/binary"
	"iter"
	"math/rand/v2"
	"net/netip"
)

// Route is a prefix and its value, from 1.
type Route struct {
	Prefix netip.Prefix
	Value  uint32
}

// Routes is a table and the addresses to look up in it.
type Routes struct {
	Routes []Route
	Hosts  Addrs // single addresses of it, in random order
	Nets   Addrs // in its other prefixes and no single address
}

// Addrs are addresses of one family, in a sixth or two thirds of the memory of a
// netip.Addr: the caches are for the tables. One of the slices is empty.
//
// A number that is 0 to everybody but the processor lets a loop make each look-up wait
// for the last: an IPv4 address xor it, or the IPv6 address at an index plus it, as
// octets that lie in memory, as in a packet. To store an address that was computed and
// load its octets together would have each look-up wait until every instruction before
// it has retired, whether or not its result hangs on them.
type Addrs struct {
	V4 []uint32
	V6 [][16]byte
}

func (a *Addrs) add(addr netip.Addr) {
	if addr.Is4() {
		a.V4 = append(a.V4, number(addr))
		return
	}
	a.V6 = append(a.V6, addr.As16())
}

// All gives them as they were.
func (a *Addrs) All() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, n := range a.V4 {
			if !yield(Addr4(n)) {
				return
			}
		}
		for _, b := range a.V6 {
			if !yield(netip.AddrFrom16(b)) {
				return
			}
		}
	}
}

// First gives one of them.
func (a *Addrs) First() netip.Addr {
	for addr := range a.All() {
		return addr
	}
	return netip.Addr{}
}

// Len is their number.
func (a *Addrs) Len() int { return len(a.V4) + len(a.V6) }

// NewRoutes puts pods into blocks of 100 per node, in 10.0.0.0/8 with a /24 per
// node or in 2001:db8::/32 with a /64 per node, and prefixes of usual lengths
// elsewhere. There are StreamLen addresses of each kind: they touch half of
// 100,000 pods, and nearly every cache line of any table of them.
func NewRoutes(six bool, pods, nets int) *Routes {
	t := new(Routes)
	rnd := rand.New(rand.NewPCG(uint64(pods), uint64(nets)))
	seen := map[netip.Prefix]bool{}
	add := func(p netip.Prefix) bool {
		if seen[p] {
			return false
		}
		seen[p] = true
		t.Routes = append(t.Routes, Route{p, uint32(len(t.Routes)) + 1})
		return true
	}
	var podAddrs, netAddrs []netip.Addr
	for node := 0; len(podAddrs) < pods; node++ {
		for range podsOnNode {
			a := address(six, 0x0a000000|uint32(node)<<8|rnd.Uint32N(256), 0x20010db8<<32|uint64(node), 2+rnd.Uint64N(1<<62))
			if add(netip.PrefixFrom(a, a.BitLen())) {
				podAddrs = append(podAddrs, a)
			}
		}
	}
	for len(netAddrs) < nets {
		length := 12 + rnd.IntN(17)
		if six {
			length = 28 + rnd.IntN(37)
		}
		a := address(six, rnd.Uint32()|0x80000000, 0x2a00<<48|rnd.Uint64()>>8, rnd.Uint64())
		if add(netip.PrefixFrom(a, length).Masked()) {
			netAddrs = append(netAddrs, a)
		}
	}
	for range StreamLen {
		t.Hosts.add(podAddrs[rnd.IntN(len(podAddrs))])
		t.Nets.add(netAddrs[rnd.IntN(len(netAddrs))])
	}
	rnd.Shuffle(len(t.Routes), func(i, j int) { t.Routes[i], t.Routes[j] = t.Routes[j], t.Routes[i] })
	return t
}

func address(six bool, v4 uint32, hi, lo uint64) netip.Addr {
	if six {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:8], hi)
		binary.BigEndian.PutUint64(b[8:], lo)
		return netip.AddrFrom16(b)
	}
	return Addr4(v4)
}
