package compile

import (
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter"
)

// maxNarrowed bounds Effect.Narrowed: more than the addresses of a large node's
// pods, few enough to tell a kernel at every change.
const maxNarrowed = 1024

// Effect tells which decisions of a ruleset may differ from those of the one
// before, so that flows that were accepted are looked at again. It may tell of too
// much and never tells of too little. It is about Decide; programs of host
// endpoints are not in it.
type Effect struct {
	// All is set if any decision may differ. Narrowed is nil then.
	All bool
	// Narrowed are addresses, sorted: a flow that was accepted before and is denied
	// now has one of them at one end at least. They are of endpoints hosted here to
	// which other rules apply, and of peers anywhere that belong to something else.
	Narrowed []netip.Addr
	// Widened is set if a flow that was denied before may be accepted now.
	Widened bool
}

var everything = Effect{All: true, Widened: true}

// Join is the effect of e followed by that of a later change.
func (e Effect) Join(later Effect) Effect {
	out := Effect{All: e.All || later.All, Widened: e.Widened || later.Widened}
	if out.All {
		return out
	}
	out.Narrowed = slices.Concat(e.Narrowed, later.Narrowed)
	slices.SortFunc(out.Narrowed, netip.Addr.Compare)
	if out.Narrowed = slices.Compact(out.Narrowed); len(out.Narrowed) > maxNarrowed {
		out.All, out.Narrowed = true, nil
	}
	return out
}

// Effect gives what the last Apply changed, against the ruleset of the Apply
// before. A caller that has not put that one in force joins the two.
func (c *Compiler) Effect() Effect { return c.effect }

// weigh finds the effect of a commit, after its addresses were classified and
// before new terms are spread.
//
// A decision depends on the rules that apply to an end that is hosted here, and on
// which of their terms hold for either end. What a term says of a class never
// changes. So a decision differs only if other rules apply to the hosted end, or
// an end is of another class, and the two classes differ in a term (or in a port,
// by name or service) that rules used before and use still: terms that are new are
// in rules that are new, and whoever they apply to is found as the first.
func (c *Compiler) weigh() {
	narrowed := c.narrowed // by relabel
	c.narrowed = nil
	for _, id := range c.changedPlans {
		c.effect.Widened = true
		narrowed = id.appendHosted(narrowed)
	}
	c.changedPlans = c.changedPlans[:0]

	var lost map[*term]bool // of which a change on a wide prefix may deny
	for i, a := range c.dirty {
		a.dirty = false
		now, was := a.class, c.was[i]
		if now == nil {
			now = c.cover(a.prefix)
		}
		if was == now || c.effect.All {
			continue
		}
		narrows, widens := c.differ(was, now, nil)
		c.effect.Widened = c.effect.Widened || widens
		switch {
		case !narrows:
		case a.prefix.IsSingleIP():
			narrowed = append(narrowed, a.prefix.Addr())
		default:
			if lost == nil {
				lost = make(map[*term]bool)
			}
			c.differ(was, now, lost)
		}
	}
	clear(c.dirty)
	clear(c.was)
	if c.dirty, c.was = c.dirty[:0], c.was[:0]; cap(c.dirty) > maxNarrowed {
		c.dirty, c.was = nil, nil // of a snapshot that came as a whole
	}
	if len(lost) > 0 {
		narrowed = c.appendUsers(narrowed, lost)
	}
	if !c.effect.All && len(narrowed) > 0 {
		c.effect = c.effect.Join(Effect{Narrowed: narrowed})
	}
}

// appendHosted appends the addresses of this node's pods of an identity.
func (id *identity) appendHosted(addrs []netip.Addr) []netip.Addr {
	for ep := range id.hosted {
		for _, a := range ep.Addrs {
			if plain(a) {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs
}

// differ tells what it may do to decisions that an address leaves one class for
// another. The terms that may deny what was allowed are added to narrowing, if it
// is not nil.
//
// A term that begins to hold makes rules match that did not: if all of them
// allow, the first match can only become one that allows.
func (c *Compiler) differ(was, now *class, narrowing map[*term]bool) (narrows, widens bool) {
	if was.hosted != now.hosted || was.conflict != now.conflict || was.hosted && !slices.Equal(was.identities, now.identities) || !c.sameOffers(was, now) {
		if narrowing != nil { // only single addresses are hosted, or offer ports
			c.effect = everything
		}
		return true, true
	}
	compare := func(a, b *class, gained bool) {
		for _, t := range a.terms {
			if t.users == 0 || t.fresh || slices.Contains(b.terms, t) {
				continue
			}
			deny := gained && t.denies || !gained && t.allows
			if deny && narrowing != nil {
				narrowing[t] = true
			}
			narrows = narrows || deny
			widens = widens || gained && t.allows || !gained && t.denies
		}
	}
	compare(was, now, false)
	compare(now, was, true)
	return narrows, widens
}

// sameOffers tells whether two classes offer the same ports to rules that were
// there before.
func (c *Compiler) sameOffers(a, b *class) bool {
	x, y := c.lastingOffers(a), c.lastingOffers(b)
	in := func(list []filter.Offer) func(filter.Offer) bool {
		return func(o filter.Offer) bool { return !slices.Contains(list, o) }
	}
	return !slices.ContainsFunc(x, in(y)) && !slices.ContainsFunc(y, in(x))
}

// appendUsers appends the addresses of hosted endpoints whose rules use one of the
// terms.
func (c *Compiler) appendUsers(addrs []netip.Addr, terms map[*term]bool) []netip.Addr {
	uses := make(map[*plannedSegment]bool)
	for _, seg := range c.segments {
		uses[seg] = slices.ContainsFunc(seg.lists, func(l *ruleList) bool {
			return slices.ContainsFunc(l.terms, func(t *term) bool { return terms[t] })
		})
	}
	for id := range c.hosted {
		for _, segments := range id.plan.segments {
			if slices.ContainsFunc(segments, func(seg *plannedSegment) bool { return uses[seg] }) {
				addrs = id.appendHosted(addrs)
				break
			}
		}
	}
	return addrs
}
