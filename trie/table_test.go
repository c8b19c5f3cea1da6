package trie

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/armon/go-radix"
	"pgregory.net/rapid"
)

func TestZeroTable(t *testing.T) {
	t.Parallel()
	var table Table
	p := netip.MustParsePrefix("10.0.0.0/8")
	if got := table.Lookup(p.Addr()); got != 0 || table.Len() != 0 || table.Delete(p) || len(contents(&table)) != 0 {
		t.Errorf("zero table: lookup %d, len %d, or it deleted or listed something", got, table.Len())
	}
	if table.Delete(netip.MustParsePrefix("10.0.0.1/32")) || table.Delete(netip.MustParsePrefix("::1/128")) || table.Delete(netip.MustParsePrefix("::/0")) {
		t.Error("zero table deleted something")
	}
}

func TestInsertRefuses(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		prefix netip.Prefix
		value  uint32
		want   string
	}{
		{"zero value", netip.MustParsePrefix("10.0.0.0/8"), 0, "value 0"},
		{"value too great", netip.MustParsePrefix("10.0.0.0/8"), MaxValue + 1, "value 536870912"},
		{"zero prefix", netip.Prefix{}, 1, "invalid"},
		{"unmasked", netip.MustParsePrefix("10.0.0.1/8"), 1, "want 10.0.0.0/8"},
		{"unmasked IPv6", netip.MustParsePrefix("2001:db8::1/64"), 1, "want 2001:db8::/64"},
		{"mapped", netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 104), 1, "IPv4-mapped"},
		{"mapped host", netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.1"), 128), 1, "IPv4-mapped"},
		{"mapped range", netip.PrefixFrom(netip.MustParseAddr("::ffff:0.0.0.0"), 96), 1, "IPv4-mapped"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var table Table
			err := table.Insert(c.prefix, c.value)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "insert ") {
				t.Errorf("error = %v, want insert … %q", err, c.want)
			}
			if table.Len() != 0 || table.Lookup(c.prefix.Addr()) != 0 || table.Delete(c.prefix) {
				t.Error("the refused prefix is in the table")
			}
		})
	}
}

func TestGreatestValue(t *testing.T) {
	t.Parallel()
	var table Table
	for _, s := range []string{"0.0.0.0/0", "10.0.0.0/20", "10.0.0.1/32", "::/0", "2001:db8::/61", "2001:db8::1/128"} {
		p := netip.MustParsePrefix(s)
		mustInsert(t, &table, p, MaxValue)
		if got := table.Lookup(p.Addr()); got != MaxValue {
			t.Errorf("lookup in %s = %d, want %d", p, got, MaxValue)
		}
	}
}

// shapes are tables that strain one part each: a name and the prefixes.
func shapes() map[string][]netip.Prefix {
	rnd := rand.New(rand.NewPCG(1, 2))
	out := map[string][]netip.Prefix{}
	add := func(name string, a netip.Addr, length int) {
		out[name] = append(out[name], netip.PrefixFrom(a, length).Masked())
	}
	for length := range 33 {
		add("chain4", netip.MustParseAddr("10.1.2.3"), length)
		add("chain4 of ones", netip.MustParseAddr("255.255.255.255"), length)
		add("chain4 of zeros", netip.MustParseAddr("0.0.0.0"), length)
	}
	for length := range 129 {
		add("chain6", netip.MustParseAddr("2001:db8:1:2:3:4:5:6"), length)
		add("chain6 of ones", netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), length)
		if length < 81 || length > 96 { // longer ones begin with ::ffff:0:0 or not at all
			add("chain6 of zeros", netip.MustParseAddr("::"), length)
		}
	}
	for i := range 256 {
		add("adjacent4", addr4(0x0a010200+uint32(i)), 24+i%9)
		add("adjacent4", addr4(0x0a010000+uint32(i)<<8), 24)
		add("adjacent6", addr6(0x20010db8<<32|uint64(i), 0), 64)
		add("adjacent6", addr6(0x20010db8<<32, uint64(i)<<56), 72)
	}
	for range 1000 {
		add("hosts of one /16", addr4(0x0a010000|rnd.Uint32N(1<<16)), 32)
		add("hosts of one /64", addr6(0x20010db8<<32, rnd.Uint64N(4000)), 128)
		add("scattered hosts4", addr4(rnd.Uint32()), 32)
		add("scattered hosts6", addr6(rnd.Uint64()|1<<63, rnd.Uint64()), 128)
		add("scattered4", addr4(rnd.Uint32()), rnd.IntN(33))
		add("scattered6", addr6(rnd.Uint64()|1<<62, rnd.Uint64()), rnd.IntN(129))
	}
	// Few distinct bits, so that prefixes nest and share nodes.
	for range 600 {
		add("dense4", addr4(0x0a000000|rnd.Uint32()&0x01030307), 6+rnd.IntN(27))
		add("dense6", addr6(0x20010db8<<32|rnd.Uint64()&0x0103, rnd.Uint64()&0x0300000000000007), 30+rnd.IntN(99))
	}
	for i := range uint64(300) {
		add("zero halves", addr6(i<<44, 0), 128)
		add("zero halves", addr6(0, i<<48), 128)
	}
	out["defaults"] = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	for _, name := range []string{"dense4", "dense6", "adjacent4", "adjacent6", "hosts of one /16"} {
		out["mixed"] = append(out["mixed"], out[name]...)
	}
	return out
}

// probes gives addresses at and just outside both ends of a prefix.
func probes(p netip.Prefix) []netip.Addr {
	last := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(last); i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	return []netip.Addr{p.Addr(), end, p.Addr().Prev(), end.Next()}
}

// TestShapes builds each table, replaces every value and takes everything out
// again in the reverse order, comparing with both oracles on the way.
func TestShapes(t *testing.T) {
	t.Parallel()
	for name, prefixes := range shapes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			slow, tree, table := &slowTable{}, radixTable{radix.New()}, &Table{}
			step := max(1, len(prefixes)/4)
			compare := func(when string) {
				t.Helper()
				if table.Len() != len(*slow) {
					t.Fatalf("%s: Len = %d, want %d", when, table.Len(), len(*slow))
				}
				for _, p := range prefixes {
					for _, a := range probes(p) {
						got, want, second := table.Lookup(a), slow.lookup(a), tree.lookup(a)
						if want != second {
							t.Fatalf("%s: oracles disagree on %s: slice %d, go-radix %d", when, a, want, second)
						}
						if got != want {
							t.Fatalf("%s: lookup %s = %d, want %d", when, a, got, want)
						}
					}
				}
				checkInside(t, table)
			}
			set := func(p netip.Prefix, v uint32) {
				slow.insert(p, v)
				tree.insert(p, v)
				mustInsert(t, table, p, v)
			}
			for i, p := range prefixes {
				set(p, uint32(i)+1)
				if i%step == 0 {
					compare(fmt.Sprintf("insert %d", i))
				}
			}
			compare("full")
			if diff := diffEntries(slow.sorted(), contents(table)); diff != "" {
				t.Fatalf("All (-want +got):\n%s", diff)
			}
			for i, p := range prefixes {
				set(p, uint32(len(prefixes)-i))
			}
			compare("replaced")
			for i := len(prefixes) - 1; i >= 0; i-- {
				p := prefixes[i]
				if got, want := table.Delete(p), slow.remove(p); got != want {
					t.Fatalf("delete %s = %v, want %v", p, got, want)
				}
				tree.remove(p)
				if i%step == 0 {
					compare(fmt.Sprintf("deleted down to %d", i))
				}
			}
			checkEmpty(t, table)
		})
	}
}

// checkInside asserts what must hold between operations.
func checkInside(t testing.TB, table *Table) {
	t.Helper()
	for _, x := range []*prefixes{&table.v4, &table.v6} {
		if x.work == nil {
			continue
		}
		if x.garbage > (x.used-x.garbage)/2+slack || x.garbage < 0 || x.used > len(x.work.blocks) {
			t.Fatalf("image: %d blocks, %d used, %d garbage", len(x.work.blocks), x.used, x.garbage)
		}
		live := 0
		var count func(n *node)
		count = func(n *node) {
			live += x.work.size(n.word)
			if n.stale {
				t.Fatal("a node was not written")
			}
			for _, c := range n.children {
				count(c.node)
			}
		}
		count(x.top)
		if live != x.used-x.garbage {
			t.Fatalf("image: %d blocks live, accounted %d", live, x.used-x.garbage)
		}
	}
}

func checkEmpty(t testing.TB, table *Table) {
	t.Helper()
	if table.Len() != 0 || len(contents(table)) != 0 {
		t.Errorf("%d prefixes left", table.Len())
	}
	if table.v4.image.Load() != nil || table.v6.image.Load() != nil || table.v4.top != nil || table.v6.top != nil ||
		table.crowds.table.Load() != nil || table.hosts4.table.Load() != nil || table.hosts6.table.Load() != nil {
		t.Error("an empty table keeps its memory")
	}
}

// TestMemoryFollowsContents deletes all but a few and asserts on the sizes.
func TestMemoryFollowsContents(t *testing.T) {
	t.Parallel()
	var table Table
	rnd := rand.New(rand.NewPCG(3, 4))
	var all []netip.Prefix
	for range 5000 {
		all = append(all,
			netip.PrefixFrom(addr4(rnd.Uint32()), 32), netip.PrefixFrom(addr6(rnd.Uint64()|1<<63, rnd.Uint64()), 128),
			netip.PrefixFrom(addr4(rnd.Uint32()), 24).Masked(), netip.PrefixFrom(addr6(rnd.Uint64()|1<<63, 0), 56).Masked())
	}
	for i, p := range all {
		mustInsert(t, &table, p, uint32(i)+1)
	}
	for _, p := range all[100:] {
		table.Delete(p)
	}
	checkInside(t, &table)
	for _, h := range []*hosts{&table.hosts4, &table.hosts6} {
		if got := h.table.Load().lines; got > 25 {
			t.Errorf("25 addresses keep %d lines", got)
		}
	}
	for _, x := range []*prefixes{&table.v4, &table.v6} {
		if got := len(x.work.blocks); got > 6*slack {
			t.Errorf("25 prefixes keep %d blocks", got)
		}
	}
	for i, p := range all[:100] {
		if got := table.Lookup(p.Addr()); got != uint32(i)+1 {
			t.Errorf("lookup %s = %d, want %d", p.Addr(), got, i+1)
		}
		table.Delete(p)
	}
	checkEmpty(t, &table)
}

// TestChurnKeepsSize replaces every address many times over: deleted places
// must not pile up.
func TestChurnKeepsSize(t *testing.T) {
	t.Parallel()
	var table Table
	const window = 1000
	at := func(i int) []netip.Prefix {
		return []netip.Prefix{
			netip.PrefixFrom(addr4(0x0a000000+uint32(i)), 32),
			netip.PrefixFrom(addr6(0x20010db8<<32, uint64(i)*0x9e3779b97f4a7c15), 128),
			netip.PrefixFrom(addr4(0xac000000+uint32(i)<<8), 24),
		}
	}
	for i := range 8 * window {
		for _, p := range at(i) {
			mustInsert(t, &table, p, uint32(i)+1)
		}
		if i >= window {
			for _, p := range at(i - window) {
				if !table.Delete(p) {
					t.Fatalf("delete %s: not there", p)
				}
			}
		}
	}
	checkInside(t, &table)
	for _, h := range []*hosts{&table.hosts4, &table.hosts6} {
		if got := h.table.Load().lines; got > 4*window/lineSlots {
			t.Errorf("%d addresses take %d lines", window, got)
		}
	}
	if table.Len() != 3*window {
		t.Errorf("Len = %d, want %d", table.Len(), 3*window)
	}
}

// TestCollisions fills the last line of every table there is, and those that it
// wraps around to, under a seed that is known: the table must move to another.
func TestCollisions(t *testing.T) {
	t.Parallel()
	const net = 0x20010db8 << 32
	for _, six := range []bool{false, true} {
		var table Table
		h, bits := &table.hosts4, 32
		of := func(a uint32) (key, netip.Addr) { return key{0, uint64(a)}, addr4(a) }
		if six {
			h, bits = &table.hosts6, 128
			of = func(a uint32) (key, netip.Addr) { return key{net, uint64(a)}, addr6(net, uint64(a)) }
		}
		const seed1, seed2 = 0x243f6a8885a308d3, 0x13198a2e03707345
		used := 0
		h.seed = func() (uint64, uint64) {
			if used++; used <= 6 {
				return seed1, seed2
			}
			return rand.Uint64(), rand.Uint64() | 1
		}
		bad := newHostTable(1024, six, seed1, seed2)
		var addrs []netip.Addr
		for a := uint32(0); len(addrs) < 2*lineSlots*maxLines; a++ {
			k, addr := of(a)
			if home, _ := bad.place(k); home == 1023 {
				addrs = append(addrs, addr)
			}
		}
		for i, a := range addrs {
			mustInsert(t, &table, netip.PrefixFrom(a, bits), uint32(i)+1)
		}
		for i, a := range addrs {
			if got := table.Lookup(a); got != uint32(i)+1 {
				t.Errorf("lookup %s = %d, want %d", a, got, i+1)
			}
		}
		if now := h.table.Load(); now.seed1 == seed1 || now.lines*lineSlots > 16*len(addrs) {
			t.Errorf("seed %d, %d lines: the table did not move to another seed", now.seed1, now.lines)
		}
		for _, a := range addrs {
			table.Delete(netip.PrefixFrom(a, bits))
		}
		checkEmpty(t, &table)
	}
}

// TestEqualTags gives IPv6 addresses of one line the same tag, which chance does
// once in a hundred million look-ups: the address beside the tag must tell.
func TestEqualTags(t *testing.T) {
	t.Parallel()
	// Multiplied by one the lower half is the hash, so that the upper bits of lo
	// choose the line and the lower ones are the tag.
	h := hosts{six: true, seed: func() (uint64, uint64) { return 0, 0 }}
	at := func(i int) key { return key{1, uint64(i) << 32} }
	const n = 3 * lineSlots
	for i := range n {
		if !h.put(at(i), uint32(i)+1) {
			t.Errorf("address %d is not new", i)
		}
	}
	table := h.table.Load()
	_, word := table.place(at(0))
	for i := range n {
		if _, w := table.place(at(i)); w != word {
			t.Fatalf("tags %x and %x differ", w, word)
		}
	}
	for i := range n {
		if got := table.get6(1, uint64(i)<<32); got != uint32(i)+1 {
			t.Errorf("address %d has %d", i, got)
		}
	}
	for i := range n {
		if i%2 == 0 && !h.remove(at(i)) {
			t.Errorf("address %d was not there", i)
		}
	}
	for i := range n {
		want := uint32(i) + 1
		if i%2 == 0 {
			want = 0
		}
		if got := h.table.Load().get6(1, uint64(i)<<32); got != want {
			t.Errorf("after half of them went: address %d has %d, want %d", i, got, want)
		}
	}
	if got := table.get6(1, n<<32); got != 0 {
		t.Errorf("an address that is not there has %d", got)
	}
}

// TestLoopMayChangeTable: All yields the table as it was when the loop began.
func TestLoopMayChangeTable(t *testing.T) {
	t.Parallel()
	var table Table
	for _, e := range goldenRoutes {
		mustInsert(t, &table, e.Prefix, e.Value)
	}
	var got []slowEntry
	for p, v := range table.All() {
		got = append(got, slowEntry{p, v})
		table.Delete(p)
	}
	if diff := diffEntries(goldenRoutes, got); diff != "" {
		t.Errorf("All (-want +got):\n%s", diff)
	}
	checkEmpty(t, &table)
	mustInsert(t, &table, goldenRoutes[0].Prefix, 1)
	mustInsert(t, &table, goldenRoutes[1].Prefix, 1)
	for range table.All() {
		break
	}
}

func TestLookupDoesNotAllocate(t *testing.T) { // not parallel: AllocsPerRun counts all goroutines
	var table Table
	for _, e := range goldenRoutes {
		mustInsert(t, &table, e.Prefix, e.Value)
	}
	sum := uint32(0)
	for _, c := range goldenLookups {
		a := netip.MustParseAddr(c.addr)
		if n := testing.AllocsPerRun(100, func() { sum += table.Lookup(a) }); n != 0 {
			t.Errorf("lookup %s allocates %v times", a, n)
		}
	}
	if sum == 0 {
		t.Error("nothing was found")
	}
}

// drawPrefix draws from few distinct bits, so that prefixes nest, meet again
// and share nodes.
func drawPrefix(t *rapid.T) netip.Prefix {
	if rapid.Bool().Draw(t, "v4") {
		a := addr4(0x0a000000 | rapid.Uint32().Draw(t, "addr")&0x01030381)
		return netip.PrefixFrom(a, rapid.IntRange(0, 32).Draw(t, "length")).Masked()
	}
	a := addr6(0x20010db8<<32|rapid.Uint64().Draw(t, "hi")&0x0101000000010081, rapid.Uint64().Draw(t, "lo")&0x8000000000000103)
	return netip.PrefixFrom(a, rapid.IntRange(0, 128).Draw(t, "length")).Masked()
}

func TestTableLikeSlice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var table Table
		var slow slowTable
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				p, v := drawPrefix(t), rapid.Uint32Range(1, 5).Draw(t, "value")
				if err := table.Insert(p, v); err != nil {
					t.Fatal(err)
				}
				slow.insert(p, v)
			},
			"delete": func(t *rapid.T) {
				p := drawPrefix(t)
				if len(slow) > 0 && rapid.Bool().Draw(t, "present") {
					p = slow[rapid.IntRange(0, len(slow)-1).Draw(t, "which")].Prefix
				}
				if got, want := table.Delete(p), slow.remove(p); got != want {
					t.Fatalf("delete %s = %v, want %v", p, got, want)
				}
			},
			"lookup": func(t *rapid.T) {
				for _, a := range probes(drawPrefix(t)) {
					if got, want := table.Lookup(a), slow.lookup(a); got != want {
						t.Fatalf("lookup %s = %d, want %d", a, got, want)
					}
				}
			},
			"": func(t *rapid.T) {
				if table.Len() != len(slow) {
					t.Fatalf("Len = %d, want %d", table.Len(), len(slow))
				}
				for _, e := range slow {
					for _, a := range probes(e.Prefix) {
						if got, want := table.Lookup(a), slow.lookup(a); got != want {
							t.Fatalf("lookup %s = %d, want %d", a, got, want)
						}
					}
				}
			},
		})
		if got, want := contents(&table), slow.sorted(); len(got)+len(want) > 0 {
			if diff := diffEntries(want, got); diff != "" {
				t.Fatalf("All (-want +got):\n%s", diff)
			}
		}
	})
}

// FuzzTable reads operations of 19 bytes: kind, value, length, address.
func FuzzTable(f *testing.F) {
	op := func(kind byte, v byte, p netip.Prefix) []byte {
		b := p.Addr().As16()
		length := p.Bits()
		if p.Addr().Is4() {
			kind |= 2
			copy(b[:], p.Addr().AsSlice())
		}
		return append([]byte{kind, v, byte(length)}, b[:]...)
	}
	var build, undo []byte
	for _, e := range goldenRoutes {
		build = append(build, op(0, byte(e.Value), e.Prefix)...)
		undo = append(undo, op(1, 0, e.Prefix)...)
	}
	f.Add(build)
	f.Add(append(build, undo...))
	for _, name := range []string{"chain4", "chain6", "dense6"} {
		var b []byte
		for i, p := range shapes()[name] {
			b = append(b, op(byte(i%3/2), byte(i), p)...)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var table Table
		var slow slowTable
		var seen []netip.Prefix
		for ; len(data) >= 19 && len(seen) < 100; data = data[19:] {
			kind, v, length := data[0], uint32(data[1])+1, int(data[2])
			a := netip.AddrFrom16([16]byte(data[3:19]))
			if kind&2 != 0 {
				a = addr4(binary.BigEndian.Uint32(data[3:]))
			}
			p := netip.PrefixFrom(a, length)
			if kind&4 == 0 {
				p = p.Masked()
			}
			if kind&1 != 0 {
				if got, want := table.Delete(p), slow.remove(p); got != want {
					t.Fatalf("delete %s = %v, want %v", p, got, want)
				}
			} else if err := table.Insert(p, v); err == nil {
				slow.insert(p, v)
			} else if p.IsValid() && p == p.Masked() && !a.Is4In6() {
				t.Fatal(err)
			}
			if p.IsValid() {
				seen = append(seen, p)
			}
		}
		for _, p := range seen {
			for _, a := range probes(p) {
				if got, want := table.Lookup(a), slow.lookup(a); got != want {
					t.Fatalf("lookup %s = %d, want %d", a, got, want)
				}
			}
		}
		checkInside(t, &table)
	})
}
