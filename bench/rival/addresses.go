package rival

import (
	"net/netip"

	"github.com/armon/go-radix"
	"github.com/gaissmai/bart"

	"github.com/postern-project/postern/bench/gen"
	"github.com/postern-project/postern/trie"
)

// Addresses is a kind of table of prefixes.
type Addresses struct {
	Name string
	// Exact is set if it matches single addresses only: a map has no part in
	// look-ups of other prefixes.
	Exact bool
	Build func([]gen.Route) Lookups
}

// Lookups is a table that was built.
type Lookups struct {
	// Lookup gives the value of the longest prefix that holds the address, or 0.
	Lookup func(netip.Addr) uint32
	// Chase looks all addresses up. Each has to wait for the result before: v>>30
	// is always 0, and the processor cannot know it.
	Chase func(gen.Addrs) uint32
}

// Tables are postern's own, then its rivals. Each has the loop of Chase written
// out for itself: through an interface or a func value a call costs one to two
// nanoseconds more, which flatters the slow.
var Tables = []Addresses{
	{"trie.Table", false, func(routes []gen.Route) Lookups {
		t := Trie(routes)
		return Lookups{t.Lookup, func(addrs gen.Addrs) (v uint32) {
			for _, n := range addrs.V4 {
				v = t.Lookup(gen.Addr4(n ^ v>>30))
			}
			for i := range addrs.V6 {
				v = t.Lookup(netip.AddrFrom16(addrs.V6[i+int(v>>30)]))
			}
			return v
		}}
	}},
	{"bart.Table", false, func(routes []gen.Route) Lookups {
		t := Bart(routes)
		return Lookups{func(a netip.Addr) uint32 { v, _ := t.Lookup(a); return v }, func(addrs gen.Addrs) (v uint32) {
			for _, n := range addrs.V4 {
				v, _ = t.Lookup(gen.Addr4(n ^ v>>30))
			}
			for i := range addrs.V6 {
				v, _ = t.Lookup(netip.AddrFrom16(addrs.V6[i+int(v>>30)]))
			}
			return v
		}}
	}},
	{"bart.Fast", false, func(routes []gen.Route) Lookups {
		t := new(bart.Fast[uint32])
		for _, r := range routes {
			t.Insert(r.Prefix, r.Value)
		}
		return Lookups{func(a netip.Addr) uint32 { v, _ := t.Lookup(a); return v }, func(addrs gen.Addrs) (v uint32) {
			for _, n := range addrs.V4 {
				v, _ = t.Lookup(gen.Addr4(n ^ v>>30))
			}
			for i := range addrs.V6 {
				v, _ = t.Lookup(netip.AddrFrom16(addrs.V6[i+int(v>>30)]))
			}
			return v
		}}
	}},
	{"map", true, func(routes []gen.Route) Lookups {
		m := map[netip.Addr]uint32{}
		for _, r := range routes {
			if r.Prefix.IsSingleIP() {
				m[r.Prefix.Addr()] = r.Value
			}
		}
		return Lookups{func(a netip.Addr) uint32 { return m[a] }, func(addrs gen.Addrs) (v uint32) {
			for _, n := range addrs.V4 {
				v = m[gen.Addr4(n^v>>30)]
			}
			for i := range addrs.V6 {
				v = m[netip.AddrFrom16(addrs.V6[i+int(v>>30)])]
			}
			return v
		}}
	}},
	{"go-radix", false, func(routes []gen.Route) Lookups {
		t := radixTable{radix.New()}
		for _, r := range routes {
			t.tree.Insert(radixKey(nil, r.Prefix.Addr(), r.Prefix.Bits()), r.Value)
		}
		return Lookups{t.lookup, func(addrs gen.Addrs) (v uint32) {
			for _, n := range addrs.V4 {
				v = t.lookup(gen.Addr4(n ^ v>>30))
			}
			for i := range addrs.V6 {
				v = t.lookup(netip.AddrFrom16(addrs.V6[i+int(v>>30)]))
			}
			return v
		}}
	}},
}

// Trie builds postern's table.
func Trie(routes []gen.Route) *trie.Table {
	t := new(trie.Table)
	for _, r := range routes {
		if err := t.Insert(r.Prefix, r.Value); err != nil {
			panic(err)
		}
	}
	return t
}

// Bart builds a bart.Table.
func Bart(routes []gen.Route) *bart.Table[uint32] {
	t := new(bart.Table[uint32])
	for _, r := range routes {
		t.Insert(r.Prefix, r.Value)
	}
	return t
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

func (t radixTable) lookup(a netip.Addr) uint32 {
	var buf [128]byte
	_, v, found := t.tree.LongestPrefix(radixKey(buf[:], a, a.BitLen()))
	if !found {
		return 0
	}
	return v.(uint32)
}
