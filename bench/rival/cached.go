package rival

import (
	"fmt"

	"github.com/postern-project/postern/filter/flow"
)

// Cached is a Linear with a cache of decisions before it that is built as filter.Cache
// is: as many places, as large, and what comes often stays. It shows what the cache
// saves whoever decides behind it. It is for one goroutine, and never pauses.
type Cached struct {
	linear *Linear
	places [cachedPlaces]cachedPlace
}

type cachedPlace struct{ key, word uint64 }

const (
	cachedBits   = 13
	cachedPlaces = 1 << cachedBits
	cachedLives  = 3
	// A key is two classes of classBits, protocol, port and lives; a word is two rules
	// of 31 bits, and whether the flow is accepted.
	classBits = 19
)

// NewCached puts an empty cache before a Linear.
func NewCached(l *Linear) (*Cached, error) {
	if n := len(l.programs); n > 1<<classBits {
		return nil, fmt.Errorf("%d classes, and keys have room for %d", n, 1<<classBits)
	}
	return &Cached{linear: l}, nil
}

// Decide is Linear.Decide for flows with ports.
func (c *Cached) Decide(t *flow.Tuple) (v Verdict) {
	l := c.linear
	if !t.Valid() || t.Src.Is4In6() || t.Dst.Is4In6() {
		return v
	}
	src, dst := l.table.Lookup(t.Src), l.table.Lookup(t.Dst)
	key := uint64(src)<<(26+classBits) | uint64(dst)<<26 | uint64(t.Proto)<<18 | uint64(t.DstPort)<<2
	p := &c.places[key*0x9e3779b97f4a7c15>>(64-cachedBits)]
	if key != 0 && p.key^key <= cachedLives {
		p.key = key | cachedLives
		return Verdict{p.word&1 != 0, uint32(p.word >> 32), uint32(p.word) >> 1}
	}
	from, to := l.programs[src][flow.Egress], l.programs[dst][flow.Ingress]
	if from == nil && to == nil {
		return v
	}
	v.Accept = true
	if from != nil {
		v.Accept, v.Egress = from.run(dst, t.Proto, t.DstPort)
	}
	if v.Accept && to != nil {
		v.Accept, v.Ingress = to.run(src, t.Proto, t.DstPort)
	}
	if p.key&cachedLives > 0 {
		p.key--
		return v
	}
	*p = cachedPlace{key, uint64(v.Egress)<<32 | uint64(v.Ingress)<<1}
	if v.Accept {
		p.word |= 1
	}
	return v
}
