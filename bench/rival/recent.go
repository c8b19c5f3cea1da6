package rival

import (
	"encoding/binary"
	"math/bits"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
)

// Recent remembers decisions by flow, so that a flow which comes again need not be
// decided again: what a verdict loop could keep beside the engine. It is bounded,
// for one goroutine, and allocates nothing after NewRecent.
//
// An entry counts only under the ruleset that it was decided by, so Recent never
// changes an answer. A full pair of slots loses the entry that was not used last.
type Recent struct {
	entries []entry
	mask    uint64
	// Hits counts decisions that were remembered.
	Hits uint64
}

type entry struct {
	key        [5]uint64
	generation uint64 // of the ruleset; 0 in an empty slot
	decision   filter.Decision
}

// NewRecent makes room for at least size flows.
func NewRecent(size int) *Recent {
	n := 2
	for n < size {
		n <<= 1
	}
	return &Recent{entries: make([]entry, n), mask: uint64(n - 1)}
}

// Decide decides a flow by rs, whose generation is not 0, or remembers.
func (c *Recent) Decide(rs *filter.Ruleset, t *flow.Tuple) filter.Decision {
	k := key(t)
	pair := c.pair(&k)
	for i := range pair {
		if e := &pair[i]; e.key == k && e.generation == rs.Generation() {
			c.Hits++
			if i > 0 {
				pair[0], pair[1] = pair[1], pair[0]
				return pair[0].decision
			}
			return e.decision
		}
	}
	pair[1] = pair[0]
	pair[0] = entry{k, rs.Generation(), rs.Decide(*t)}
	return pair[0].decision
}

// Forget drops a flow, as when conntrack says that it ended.
func (c *Recent) Forget(t *flow.Tuple) {
	k := key(t)
	for i, e := range c.pair(&k) {
		if e.key == k {
			c.pair(&k)[i] = entry{}
		}
	}
}

func key(t *flow.Tuple) (k [5]uint64) {
	src, dst := t.Src.As16(), t.Dst.As16()
	k[0], k[1] = binary.BigEndian.Uint64(src[:]), binary.BigEndian.Uint64(src[8:])
	k[2], k[3] = binary.BigEndian.Uint64(dst[:]), binary.BigEndian.Uint64(dst[8:])
	ported := uint64(0)
	if t.Ported {
		ported = 1
	}
	k[4] = uint64(t.SrcPort)<<48 | uint64(t.DstPort)<<32 | uint64(t.Proto)<<24 | uint64(t.ICMPType)<<16 | uint64(t.ICMPCode)<<8 | ported
	return k
}

// pair gives the two slots that a flow may stand in.
func (c *Recent) pair(k *[5]uint64) []entry {
	h := uint64(0x9e3779b97f4a7c15)
	for _, v := range k {
		hi, lo := bits.Mul64(h^v, 0xa0761d6478bd642f)
		h = hi ^ lo
	}
	i := h & c.mask &^ 1
	return c.entries[i : i+2]
}
