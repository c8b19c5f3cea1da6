package filter

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/postern-project/postern/filter/flow"
)

type endKey struct {
	programs  [2]string // keys of plans
	signature uint32
}

// endPlan is what an element of ends is made from.
type endPlan struct {
	key   endKey
	plans [2]*plan
	in    [2]*program // of plans, as ends has them
	users int         // classes
}

// plan is a program in the making, for one direction and one kind of endpoint.
type plan struct {
	key      string
	segments []*compiled
	final    Final
	out      *program
	users    int
}

// compiled is a segment and what it is compiled from.
type compiled struct {
	key   string
	rules []RuleID
	end   RuleID
	dir   flow.Direction
	self  *signature // nil if the endpoint is not known
	terms []term     // whose users it is among
	sets  []offerSet
	out   *segment
	users int // plans
}

// end gives the end of a class: its index of ends, used once more.
func (b *Builder) end(spec *ClassSpec, number uint32) uint32 {
	switch {
	case spec.Conflict:
		return endConflict
	case !spec.Hosted:
		return endNotHosted
	}
	self := b.signatures.list[number]
	key := endKey{signature: number}
	for dir := range key.programs {
		key.programs[dir] = b.planKey(&spec.Programs[dir], flow.Direction(dir), self)
	}
	n, known := b.endOf[key]
	if !known {
		made := endPlan{key: key}
		for dir := range made.plans {
			made.plans[dir] = b.plan(key.programs[dir], &spec.Programs[dir], flow.Direction(dir), self)
		}
		if free := len(b.freeEnds); free > 0 {
			n, b.freeEnds = b.freeEnds[free-1], b.freeEnds[:free-1]
			b.endPlans[n] = made
			b.clearEnd(n)
		} else {
			n = b.addEnd()
			b.endPlans = append(b.endPlans, made)
		}
		b.endOf[key] = n
		b.changedEnds = true
	}
	b.endPlans[n].users++
	return n
}

func (b *Builder) dropEnd(n uint32) {
	if n < firstEnd {
		return
	}
	e := &b.endPlans[n]
	if e.users--; e.users > 0 {
		return
	}
	delete(b.endOf, e.key)
	b.dropPlan(e.plans[0])
	b.dropPlan(e.plans[1])
	*e = endPlan{}
	b.clearEnd(n)
	b.freeEnds = append(b.freeEnds, n)
}

func (b *Builder) addEnd() uint32 {
	for range 2 {
		b.ends.add(program{})
		b.quick.add(quick{none: true})
	}
	return uint32(len(b.ends.list)/2 - 1)
}

func (b *Builder) clearEnd(n uint32) {
	b.setEnd(int(2*n), program{})
	b.setEnd(int(2*n+1), program{})
}

func (b *Builder) setEnd(i int, p program) {
	b.ends.set(i, p)
	b.quick.set(i, newQuick(&p))
}

// planKey tells apart what a program becomes for endpoints that its rules tell
// apart.
func (b *Builder) planKey(p *Program, dir flow.Direction, self *signature) string {
	key := binary.AppendUvarint([]byte{byte(p.Final)}, uint64(dir))
	for _, seg := range p.Segments {
		s := b.segmentKey(seg, dir, self)
		key = append(binary.AppendUvarint(key, uint64(len(s))), s...)
	}
	return string(key)
}

// plan gives the plan of a key, used once more.
func (b *Builder) plan(key string, p *Program, dir flow.Direction, self *signature) *plan {
	out := b.plans[key]
	if out == nil {
		out = &plan{key: key, final: p.Final}
		for _, seg := range p.Segments {
			c := b.compiled(b.segmentKey(seg, dir, self), seg, dir, self)
			c.users++
			out.segments = append(out.segments, c)
		}
		b.plans[key] = out
		b.changedEnds = true
	}
	out.users++
	return out
}

func (b *Builder) dropPlan(p *plan) {
	if p.users--; p.users > 0 {
		return
	}
	delete(b.plans, p.key)
	for _, c := range p.segments {
		if c.users--; c.users > 0 {
			continue
		}
		delete(b.segments, c.key)
		delete(b.stale, c)
		for _, t := range c.terms {
			delete(b.termUsers[t], c)
		}
		for _, s := range c.sets {
			delete(b.setUsers[s], c)
		}
	}
}

// segmentKey tells apart what a segment becomes for endpoints that its rules tell
// apart.
func (b *Builder) segmentKey(seg *Segment, dir flow.Direction, self *signature) string {
	n, known := b.numberOf[seg]
	if !known {
		b.lastSeg++
		n = b.lastSeg
		b.numberOf[seg] = n
	}
	key := binary.AppendUvarint([]byte{byte(dir)}, n)
	if self == nil {
		return string(append(key, math.MaxUint8))
	}
	for i, id := range seg.Rules {
		r := b.rules.list[id]
		own, _ := r.ends(dir)
		if own != 0 && self.holds(own) {
			key = binary.AppendUvarint(append(key, 1), uint64(i))
		}
		if dir != flow.Ingress || r.more == nil || !r.more.dst.named() {
			continue
		}
		for _, set := range r.more.dst.sets(nil) {
			for _, o := range self.offer {
				if offerSet(o>>24) == set {
					key = binary.AppendUvarint(append(key, 2), uint64(i))
					key = binary.AppendUvarint(key, o)
				}
			}
		}
	}
	return string(key)
}

// compiled gives the segment of a key. Publish compiles it.
func (b *Builder) compiled(key string, seg *Segment, dir flow.Direction, self *signature) *compiled {
	if c := b.segments[key]; c != nil {
		return c
	}
	c := &compiled{key: key, rules: slices.Clone(seg.Rules), end: seg.End, dir: dir, self: self}
	for _, id := range c.rules {
		r := b.rules.list[id]
		if _, peer := r.ends(dir); peer != 0 {
			c.terms = append(c.terms, peer)
		}
		if dir == flow.Egress && r.more != nil {
			c.sets = r.more.dst.sets(c.sets)
		}
	}
	slices.Sort(c.terms)
	c.terms = slices.Compact(c.terms)
	for _, t := range c.terms {
		join(&b.termUsers[t], c)
	}
	for _, s := range c.sets {
		join(&b.setUsers[s], c)
	}
	b.segments[key] = c
	b.stale[c] = true
	return c
}

func join(users *map[*compiled]bool, c *compiled) {
	if *users == nil {
		*users = make(map[*compiled]bool)
	}
	(*users)[c] = true
}
