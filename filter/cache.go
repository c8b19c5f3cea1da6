package filter

import (
	"sync/atomic"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/trie"
)

// Cache remembers decisions for a goroutine that takes many, such as a verdict loop.
// It keeps those of one Ruleset, by all that they depend on: the classes of both
// addresses, and the point of the packet. So it never changes an answer. A decision
// that depends on more, a source port, is not kept. It knows neither flows nor
// addresses.
//
// It has one place for a key and a fixed size, 128 KiB, and allocates nothing. While it
// has less than half of what it is asked, it costs more than it saves, and pauses. The
// zero Cache is empty and ready. It must not be used by two goroutines at once.
type Cache struct {
	serial uint64 // of the Ruleset whose decisions these are; 0 in a pause
	hits   uint64
	misses uint64 // since it was judged last
	judged uint64 // hits until then
	pause  int    // decisions to be taken without it
	places [cachePlaces]place
}

// place has a decision, in a quarter of a cache line:
//
//	key    63 ... 43   42 ... 22   21 ... 18     17 ... 2   1 ... 0
//	       class of    class of    group + 1,    number     lives
//	       source      destin.     0 if empty    of the point
//	word   see Decision.word
//
// It outlives as many other decisions that belong here as it has lives, which it gets
// back whenever it is asked for: what comes often is not put out by what came once.
type place struct{ key, word uint64 }

const (
	cacheBits   = 13
	cachePlaces = 1 << cacheBits

	lives      = 3
	numberBits = 2
	groupBits  = numberBits + 16
	dstBits    = groupBits + 4
	srcBits    = dstBits + maxBits
	maxBits    = 21 // of a class

	// trial is after how many misses the Cache is judged: it is no longer new then.
	trial = cachePlaces
	// rest is how many decisions a pause lasts: so many that what a trial costs where
	// the Cache is of no use cannot be measured.
	rest = 64 * trial
)

// serials has the last serial that a Ruleset got.
var serials atomic.Uint64

// DecideInto is rs.DecideInto, sooner if the same was asked before. It does not keep
// rs. Rulesets should not take turns: with each other one the Cache begins anew.
func (c *Cache) DecideInto(rs *Ruleset, t *flow.Tuple, d *Decision) {
	if c.serial != rs.serial {
		c.begin(rs)
		rs.DecideInto(t, d)
		return
	}
	group, x := point(t)
	var src, dst uint32
	if t.Src.Is4() && t.Dst.Is4() { // lookup, without a call on the way
		src, dst = rs.table.Lookup4(trie.Bits4(&t.Src)), rs.table.Lookup4(trie.Bits4(&t.Dst))
	} else {
		var ok bool
		if src, dst, ok = rs.lookup(t); !ok {
			*d = Decision{Reason: InvalidTuple}
			return
		}
	}
	key := uint64(src)<<srcBits | uint64(dst)<<dstBits | uint64((group+1)<<groupBits|x<<numberBits)
	p := &c.places[key*0x9e3779b97f4a7c15>>(64-cacheBits)] // 2^64 over the golden ratio
	if p.key^key <= lives {
		c.hits++
		p.key = key | lives
		d.expand(p.word)
		return
	}
	rs.decideClasses(t, src, dst, group, x, d)
	c.missed(p, key, d)
}

// Hits is how many decisions it had. It is of the goroutine that the Cache belongs to.
func (c *Cache) Hits() uint64 { return c.hits }

// begin empties the Cache for another Ruleset, unless it pauses, or keys have no room
// for classes of such numbers.
func (c *Cache) begin(rs *Ruleset) {
	switch {
	case c.pause > 0:
		c.pause--
	case len(rs.classes) <= 1<<maxBits:
		clear(c.places[:])
		c.serial = rs.serial
	}
}

// missed puts a decision in its place if nothing there is to be kept.
func (c *Cache) missed(p *place, key uint64, d *Decision) {
	if c.misses++; c.misses == trial {
		if c.hits-c.judged < trial {
			c.serial, c.pause = 0, rest
		}
		c.misses, c.judged = 0, c.hits
	}
	if p.key&lives > 0 {
		p.key--
		return
	}
	if w := d.word(); w != 0 {
		*p = place{key, w}
	}
}

// The word of a decision has what each end said, and the rest follows:
//
//	63 ... 36        35 ... 32        31 ... 4          3 ... 0
//	egress RuleID    egress saying    ingress RuleID    ingress saying
const (
	sayingBits = 4
	sayings    = 1 << sayingBits
	logged     = sayings / 2 // added to those below
)

// sayingOf numbers what an end says, but for the rule. 0 is an end that was not
// asked, and what has no number.
var sayingOf = [Accept + 1][Reasons]uint8{
	Drop:   {ByRule: 1, EndOfTier: 2, NoProfile: 3},
	Accept: {ByRule: 4, ByProfile: 5, NotHosted: 6},
}

// outcomeOf has the Outcome of each saying.
var outcomeOf = func() (of [sayings]Outcome) {
	for v := range sayingOf {
		for r, s := range sayingOf[v] {
			if s != 0 {
				of[s] = Outcome{Verdict: Verdict(v), Reason: Reason(r)}
				of[s|logged] = Outcome{Verdict: Verdict(v), Reason: Reason(r), Logged: true}
			}
		}
	}
	return of
}()

// conclusion is what comes of two sayings, by that of egress and that of ingress.
type conclusion struct {
	verdict Verdict
	reason  Reason
	side    flow.Direction
}

var conclusions = func() (of [sayings * sayings]conclusion) {
	for i := range of {
		egress, ingress := &outcomeOf[i/sayings], &outcomeOf[i%sayings]
		of[i] = conclusion{egress.Verdict, egress.Reason, flow.Egress}
		if egress.Verdict == Accept && ingress.Reason != NotHosted {
			of[i] = conclusion{ingress.Verdict, ingress.Reason, flow.Ingress}
		}
	}
	return of
}()

// word gives the word of a decision. There is none, 0, if another source port may be
// decided otherwise, and for what is rare and has no number.
func (d *Decision) word() uint64 {
	egress, ingress := sayingOf[d.Egress.Verdict][d.Egress.Reason], sayingOf[d.Ingress.Verdict][d.Ingress.Reason]
	switch {
	case d.Egress.BySource || d.Ingress.BySource, egress == 0, ingress == 0 && d.Egress.Verdict == Accept:
		return 0
	}
	return uint64(d.Egress.word(egress))<<32 | uint64(d.Ingress.word(ingress))
}

func (o *Outcome) word(saying uint8) uint32 {
	if o.Logged {
		saying |= logged
	}
	return uint32(o.Rule)<<sayingBits | uint32(saying)
}

// expand fills in the decision of a word.
func (d *Decision) expand(w uint64) {
	c := &conclusions[w>>(32-sayingBits)&(sayings*sayings-sayings)|w%sayings]
	egress, ingress := &outcomeOf[w>>32%sayings], &outcomeOf[w%sayings]
	d.Verdict, d.Reason, d.Side = c.verdict, c.reason, c.side
	d.Egress = Outcome{egress.Verdict, egress.Reason, egress.Logged, false, RuleID(w >> (32 + sayingBits))}
	d.Ingress = Outcome{ingress.Verdict, ingress.Reason, ingress.Logged, false, RuleID(uint32(w) >> sayingBits)}
}
