package trie

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/armon/go-radix"
	"github.com/google/go-cmp/cmp"
)

// slowTable is the oracle: a slice, searched from one end to the other.
type slowTable []slowEntry

type slowEntry struct {
	Prefix netip.Prefix
	Value  uint32
}

func (s *slowTable) insert(p netip.Prefix, v uint32) {
	s.remove(p)
	*s = append(*s, slowEntry{p, v})
}

func (s *slowTable) remove(p netip.Prefix) bool {
	before := len(*s)
	*s = slices.DeleteFunc(*s, func(e slowEntry) bool { return e.Prefix == p })
	return len(*s) < before
}

func (s slowTable) lookup(a netip.Addr) uint32 {
	best := slowEntry{}
	for _, e := range s {
		// Contains is false for zones, for IPv4-mapped IPv6 in an IPv4 prefix,
		// and for the other family; mapped addresses in IPv6 prefixes are left.
		if !a.Is4In6() && e.Prefix.Contains(a) && (best.Value == 0 || e.Prefix.Bits() > best.Prefix.Bits()) {
			best = e
		}
	}
	return best.Value
}

func (s slowTable) sorted() []slowEntry {
	out := slices.Clone(s)
	slices.SortFunc(out, func(a, b slowEntry) int { return a.Prefix.Compare(b.Prefix) })
	return out
}

// radixTable is the second oracle: go-radix with a key of one character per bit.
type radixTable struct{ tree *radix.Tree }

func radixKey(a netip.Addr, length int) string {
	var b strings.Builder
	b.WriteString(map[bool]string{true: "4", false: "6"}[a.Is4()])
	for i, octet := range a.AsSlice() {
		for bit := range min(8, max(0, length-8*i)) {
			b.WriteByte('0' + octet>>(7-bit)&1)
		}
	}
	return b.String()
}

func (r radixTable) insert(p netip.Prefix, v uint32) {
	r.tree.Insert(radixKey(p.Addr(), p.Bits()), v)
}

func (r radixTable) remove(p netip.Prefix) { r.tree.Delete(radixKey(p.Addr(), p.Bits())) }

func (r radixTable) lookup(a netip.Addr) uint32 {
	if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
		return 0
	}
	_, v, found := r.tree.LongestPrefix(radixKey(a, a.BitLen()))
	if !found {
		return 0
	}
	return v.(uint32)
}

// goldenRoutes and goldenLookups are written by hand; oracles and Table must
// all agree with them.
var goldenRoutes = []slowEntry{
	{netip.MustParsePrefix("0.0.0.0/0"), 1},
	{netip.MustParsePrefix("10.0.0.0/8"), 2},
	{netip.MustParsePrefix("10.1.0.0/16"), 3},
	{netip.MustParsePrefix("10.1.2.0/23"), 4},
	{netip.MustParsePrefix("10.1.2.0/24"), 5},
	{netip.MustParsePrefix("10.1.2.128/25"), 6},
	{netip.MustParsePrefix("10.1.2.254/31"), 7},
	{netip.MustParsePrefix("10.1.2.255/32"), 8},
	{netip.MustParsePrefix("172.16.0.0/12"), 9},
	{netip.MustParsePrefix("::/1"), 11},
	{netip.MustParsePrefix("2001:db8::/32"), 12},
	{netip.MustParsePrefix("2001:db8:0:1::/64"), 13},
	{netip.MustParsePrefix("2001:db8:0:1::/65"), 14},
	{netip.MustParsePrefix("2001:db8:0:1::4/127"), 15},
	{netip.MustParsePrefix("2001:db8:0:1::5/128"), 16},
}

var goldenLookups = []struct {
	addr string
	want uint32
}{
	{"0.0.0.0", 1}, {"9.255.255.255", 1}, {"11.0.0.0", 1}, {"255.255.255.255", 1},
	{"10.0.0.0", 2}, {"10.0.255.255", 2}, {"10.2.0.0", 2}, {"10.255.255.255", 2},
	{"10.1.0.0", 3}, {"10.1.1.255", 3}, {"10.1.4.0", 3},
	{"10.1.3.0", 4}, {"10.1.3.255", 4},
	{"10.1.2.0", 5}, {"10.1.2.127", 5},
	{"10.1.2.128", 6}, {"10.1.2.253", 6},
	{"10.1.2.254", 7}, {"10.1.2.255", 8},
	{"172.15.255.255", 1}, {"172.16.0.0", 9}, {"172.31.255.255", 9}, {"172.32.0.0", 1},
	{"::", 11}, {"7fff::1", 11}, {"8000::", 0}, {"ffff::", 0},
	{"2001:db8::", 12}, {"2001:db8:0:2::", 12}, {"2001:db9::", 11},
	{"2001:db8:0:1:8000::", 13}, {"2001:db8:0:1::", 14}, {"2001:db8:0:1::6", 14},
	{"2001:db8:0:1::4", 15}, {"2001:db8:0:1::5", 16},
	{"::ffff:10.1.2.3", 0}, {"2001:db8::%eth0", 0}, {"::ffff:10.1.2.3%1", 0},
}

func TestGolden(t *testing.T) {
	t.Parallel()
	slow, tree, table := slowTable{}, radixTable{radix.New()}, &Table{}
	for _, e := range goldenRoutes {
		slow.insert(e.Prefix, e.Value)
		tree.insert(e.Prefix, e.Value)
		mustInsert(t, table, e.Prefix, e.Value)
	}
	for _, c := range goldenLookups {
		a := netip.MustParseAddr(c.addr)
		if got := slow.lookup(a); got != c.want {
			t.Errorf("slice: lookup %s = %d, want %d", a, got, c.want)
		}
		if got := tree.lookup(a); got != c.want {
			t.Errorf("go-radix: lookup %s = %d, want %d", a, got, c.want)
		}
		if got := table.Lookup(a); got != c.want {
			t.Errorf("table: lookup %s = %d, want %d", a, got, c.want)
		}
	}
	if got := (slowTable{}).lookup(netip.Addr{}) + table.Lookup(netip.Addr{}); got != 0 {
		t.Errorf("lookup of an invalid address = %d, want 0", got)
	}
	if diff := diffEntries(goldenRoutes, contents(table)); diff != "" {
		t.Errorf("All (-want +got):\n%s", diff)
	}
}

func TestOracleChanges(t *testing.T) {
	t.Parallel()
	wide, narrow := netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16")
	addr := netip.MustParseAddr("10.1.0.1")
	var s slowTable
	s.insert(wide, 1)
	s.insert(narrow, 2)
	s.insert(wide, 3)
	if got := s.lookup(addr); got != 2 {
		t.Errorf("lookup = %d, want 2", got)
	}
	if want := (slowTable{{wide, 3}, {narrow, 2}}); !slices.Equal(s.sorted(), want) {
		t.Errorf("sorted = %v, want %v", s.sorted(), want)
	}
	if !s.remove(narrow) || s.remove(narrow) {
		t.Error("remove does not tell present from absent")
	}
	if got := s.lookup(addr); got != 3 {
		t.Errorf("lookup after remove = %d, want 3", got)
	}
}

func mustInsert(t testing.TB, table *Table, p netip.Prefix, v uint32) {
	t.Helper()
	if err := table.Insert(p, v); err != nil {
		t.Fatal(err)
	}
}

func contents(table *Table) []slowEntry {
	var out []slowEntry
	for p, v := range table.All() {
		out = append(out, slowEntry{p, v})
	}
	return out
}

func diffEntries(want, got []slowEntry) string {
	return cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }))
}
