package trie

import (
	"fmt"
	"net/netip"
)

// Covers calls visit for each prefix with the prefixes that cover it: indexes
// into prefixes, shortest prefix first, without i itself. The slice is valid
// during the call only. An address whose longest match is prefix i lies in i and
// in those, and in no other prefix of the list.
//
// The list must be in the order of netip.Prefix.Compare (address, then shorter
// first), without duplicates or bits beyond the length; Covers returns an error
// at the first prefix that is not, after the calls for those before it.
func Covers(prefixes []netip.Prefix, visit func(i int, covers []int)) error {
	var open []int
	for i, p := range prefixes {
		if err := check(p); err != nil {
			return fmt.Errorf("covers of prefix %d, %s: %w", i, p, err)
		}
		if i > 0 && prefixes[i-1].Compare(p) >= 0 {
			return fmt.Errorf("covers of prefix %d, %s: not sorted after %s", i, p, prefixes[i-1])
		}
		for len(open) > 0 && !prefixes[open[len(open)-1]].Contains(p.Addr()) {
			open = open[:len(open)-1]
		}
		visit(i, open)
		open = append(open, i)
	}
	return nil
}
