package diff

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// roots are the prefixes that hold every address of a family, with an address that
// reads well in examples (RFC 5737, RFC 3849).
var roots = []struct {
	prefix  netip.Prefix
	example netip.Addr
}{
	{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("198.51.100.1")},
	{netip.MustParsePrefix("::/0"), netip.MustParseAddr("2001:db8::1")},
}

// mapped holds the IPv4-mapped addresses, which no engine decides for.
var mapped = netip.MustParsePrefix("::ffff:0:0/96")

// node is a prefix and the prefixes right below it, sorted.
type node struct {
	prefix   netip.Prefix
	children []netip.Prefix
}

// regions cuts the addresses that are no pod's on either side where any policy,
// set, host endpoint or service of either side does. A family that no pod has is
// left out: nobody could meet its addresses.
func regions(worlds [2]*world, pods []*Identity) []*Identity {
	var out []*Identity
	index := make(map[string]*Identity)
	holes := holes(worlds)
	for fam, root := range roots {
		if !slices.ContainsFunc(pods, func(id *Identity) bool { return id.addrs[fam][0].IsValid() }) {
			continue
		}
		for _, n := range tree(worlds, holes, fam) {
			if holes[n.prefix] {
				continue
			}
			a, ok := n.free(root.example)
			if !ok {
				continue
			}
			sigs := [2]string{worlds[0].address(a), worlds[1].address(a)}
			key := root.prefix.String() + sigs[0] + "\n" + sigs[1]
			id := index[key]
			if id == nil {
				id = &Identity{changed: sigs[0] != sigs[1]}
				id.addrs[fam] = [2]netip.Addr{a, a}
				index[key] = id
				out = append(out, id)
			}
			id.Regions = append(id.Regions, Region{n.prefix, slices.DeleteFunc(n.children, func(p netip.Prefix) bool { return holes[p] })})
		}
	}
	return out
}

// holes are the addresses of pods, and those that cannot be decided for.
func holes(worlds [2]*world) map[netip.Prefix]bool {
	out := map[netip.Prefix]bool{mapped: true}
	for _, w := range worlds {
		for a := range w.claims {
			if a.IsValid() && a.Zone() == "" && !a.Is4In6() {
				out[netip.PrefixFrom(a, a.BitLen())] = true
			}
		}
	}
	return out
}

// tree gives every prefix of a family that anything names.
func tree(worlds [2]*world, holes map[netip.Prefix]bool, fam int) []*node {
	all := map[netip.Prefix]bool{roots[fam].prefix: true}
	add := func(p netip.Prefix) {
		if family(p.Addr()) == fam {
			all[p] = true
		}
	}
	for p := range holes {
		add(p)
	}
	for _, w := range worlds {
		for p := range w.covers {
			add(p)
		}
	}
	sorted := slices.SortedFunc(maps.Keys(all), func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var nodes, stack []*node
	for _, p := range sorted {
		for len(stack) > 0 && !stack[len(stack)-1].prefix.Overlaps(p) {
			stack = stack[:len(stack)-1]
		}
		n := &node{prefix: p}
		if len(stack) > 0 {
			parent := stack[len(stack)-1]
			parent.children = append(parent.children, p)
		}
		nodes, stack = append(nodes, n), append(stack, n)
	}
	return nodes
}

// free finds an address of the prefix that is in none below it: the example if it
// is one, else the lowest but the prefix's own address, if there is another.
func (n *node) free(example netip.Addr) (netip.Addr, bool) {
	outside := func(a netip.Addr) bool {
		return n.prefix.Contains(a) && !slices.ContainsFunc(n.children, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	first := n.prefix.Addr()
	for _, a := range []netip.Addr{example, first.Next()} {
		if a.IsValid() && outside(a) {
			return a, true
		}
	}
	a := first
	for _, child := range n.children {
		if a.Less(child.Addr()) {
			return a, true
		}
		if a = highest(child).Next(); !a.IsValid() {
			return a, false
		}
	}
	return a, n.prefix.Contains(a)
}

// highest gives the last address of a prefix.
func highest(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
