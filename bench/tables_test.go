package bench

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"

	"github.com/armon/go-radix"
	"github.com/gaissmai/bart"
	"github.com/postern-project/postern/trie"
)

// route is a prefix and its value.
type route struct {
	prefix netip.Prefix
	value  uint32
}

// table is a set of routes and the addresses to look up in it.
type table struct {
	name   string
	routes []route
	hits   []netip.Addr // of single addresses, in random order
	nets   []netip.Addr // in the other prefixes and no single address
}

// probeCount is a power of two: the dependent loop masks with it. 2^16 addresses
// touch half of 100,000 pods, and nearly every cache line of any table of them.
const probeCount = 1 << 16

var tables = sync.OnceValue(func() []*table {
	return []*table{
		newTable("v4/100k", false, 100_000, 1_000),
		newTable("v6/100k", true, 100_000, 1_000),
		newTable("v4/1M", false, 800_000, 200_000),
		newTable("v6/1M", true, 800_000, 200_000),
	}
})

// newTable puts pods into blocks of 100 per node, in 10.0.0.0/8 with a /24 per
// node or in 2001:db8::/32 with a /64 per node, and prefixes of usual lengths
// elsewhere.
func newTable(name string, six bool, pods, nets int) *table {
	t := &table{name: name}
	rnd := rand.New(rand.NewPCG(uint64(pods), uint64(nets)))
	seen := map[netip.Prefix]bool{}
	add := func(p netip.Prefix) bool {
		if seen[p] {
			return false
		}
		seen[p] = true
		t.routes = append(t.routes, route{p, uint32(len(t.routes)) + 1})
		return true
	}
	var podAddrs, netAddrs []netip.Addr
	for node := 0; len(podAddrs) < pods; node++ {
		for range 100 {
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
	for range probeCount {
		t.hits = append(t.hits, podAddrs[rnd.IntN(len(podAddrs))])
		t.nets = append(t.nets, netAddrs[rnd.IntN(len(netAddrs))])
	}
	rnd.Shuffle(len(t.routes), func(i, j int) { t.routes[i], t.routes[j] = t.routes[j], t.routes[i] })
	return t
}

func address(six bool, v4 uint32, hi, lo uint64) netip.Addr {
	var b [16]byte
	if six {
		binary.BigEndian.PutUint64(b[:8], hi)
		binary.BigEndian.PutUint64(b[8:], lo)
		return netip.AddrFrom16(b)
	}
	binary.BigEndian.PutUint32(b[:4], v4)
	return netip.AddrFrom4([4]byte(b[:4]))
}

// The rivals: each is built from routes and then looked up in. Exact matching
// alone is all a map can do, so it has no part in look-ups of nets.

func buildTrie(routes []route) *trie.Table {
	t := &trie.Table{}
	for _, r := range routes {
		if err := t.Insert(r.prefix, r.value); err != nil {
			panic(err)
		}
	}
	return t
}

func buildBart(routes []route) *bart.Table[uint32] {
	t := &bart.Table[uint32]{}
	for _, r := range routes {
		t.Insert(r.prefix, r.value)
	}
	return t
}

func buildBartFast(routes []route) *bart.Fast[uint32] {
	t := &bart.Fast[uint32]{}
	for _, r := range routes {
		t.Insert(r.prefix, r.value)
	}
	return t
}

func buildMap(routes []route) map[netip.Addr]uint32 {
	m := map[netip.Addr]uint32{}
	for _, r := range routes {
		if r.prefix.IsSingleIP() {
			m[r.prefix.Addr()] = r.value
		}
	}
	return m
}

// radixTable is go-radix with a key of one character per bit.
type radixTable struct{ tree *radix.Tree }

func radixKey(buf []byte, a netip.Addr, length int) string {
	b := a.As16()
	octets := b[:]
	if a.Is4() {
		octets = b[12:]
	}
	buf = buf[:0]
	for i := range length {
		buf = append(buf, '0'+octets[i/8]>>(7-i%8)&1)
	}
	return string(buf)
}

func buildRadix(routes []route) radixTable {
	t := radixTable{radix.New()}
	for _, r := range routes {
		t.tree.Insert(radixKey(nil, r.prefix.Addr(), r.prefix.Bits()), r.value)
	}
	return t
}

func (t radixTable) Lookup(a netip.Addr) (uint32, bool) {
	var buf [128]byte
	_, v, found := t.tree.LongestPrefix(radixKey(buf[:], a, a.BitLen()))
	if !found {
		return 0, false
	}
	return v.(uint32), true
}
