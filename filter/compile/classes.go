package compile

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/policy"
)

// classify gives every touched prefix its class, and names the endpoints.
func (c *Compiler) classify() error {
	if len(c.wide) > 0 && len(c.dirty) < c.single.Len()+len(c.wide) {
		for _, a := range slices.Clone(c.dirty) {
			if !a.prefix.IsSingleIP() {
				c.touchInside(a.prefix)
			}
		}
	}
	c.was = slices.Grow(c.was[:0], len(c.dirty))
	for _, a := range c.dirty {
		was := a.class
		if was == nil {
			was = c.cover(a.prefix)
		}
		c.was = append(c.was, was)
	}
	for _, a := range c.dirty {
		if !a.owned() {
			c.drop(a)
			continue
		}
		old := a.class
		a.class = c.classOf(a)
		if a.class != old {
			a.class.prefixes++
			c.leave(old)
			if err := c.out.SetAddresses(a.prefix, a.class.id); err != nil {
				return fmt.Errorf("address %s: %w", a.prefix, err)
			}
		}
		if err := c.name(a); err != nil {
			return fmt.Errorf("endpoint of %s: %w", a.prefix, err)
		}
	}
	return nil
}

func (c *Compiler) drop(a *address) {
	p := a.prefix
	delete(c.clash, a)
	if p.IsSingleIP() {
		c.dismiss(a)
	} else {
		delete(c.wide, p)
		c.lengths[family(p)][p.Bits()]--
	}
	c.out.RemoveAddresses(p)
	if a.named {
		c.out.RemoveEndpoint(p.Addr())
		c.garbage++
	}
	c.leave(a.class)
	a.class = nil
}

func (b *book) leave(old *class) {
	if old == nil {
		return
	}
	if old.prefixes--; old.prefixes == 0 {
		b.unused = append(b.unused, old)
	}
}

// classOf gives the class of a prefix from its owners and those of the prefixes
// that cover it.
func (c *Compiler) classOf(a *address) *class {
	atoms := c.scratch[:0]
	pods, hosted := 0, false
	for o := range a.owners {
		atoms = append(atoms, o.atom)
		if o.pod != nil {
			pods++
			hosted = hosted || o.pod.hosted
		}
	}
	atoms = c.covering(a.prefix, atoms)
	if hosted {
		atoms = append(atoms, atomHosted)
	}
	if pods > 1 && a.contested() {
		atoms = append(atoms, atomConflict)
		c.clash[a] = true
	} else if len(c.clash) > 0 {
		delete(c.clash, a)
	}
	atoms = c.sorted(atoms)
	if known := c.classes[string(c.key)]; known != nil {
		return known
	}
	return c.newClass(string(c.key), atoms)
}

// sorted gives the atoms of a class in order, each once, and makes key that of the class.
func (b *book) sorted(atoms []atom) []atom {
	slices.Sort(atoms)
	atoms = slices.Compact(atoms)
	b.scratch = atoms
	b.key = b.key[:0]
	for _, n := range atoms {
		b.key = binary.NativeEndian.AppendUint32(b.key, uint32(n))
	}
	return atoms
}

// contested tells whether two pods are among the owners: one may list an address
// twice.
func (a *address) contested() bool {
	var first *pod
	for o := range a.owners {
		if o.pod != nil && first != nil && o.pod != first {
			return true
		}
		if o.pod != nil {
			first = o.pod
		}
	}
	return false
}

// covering appends the atoms of the owners of the prefixes that cover p. A mark
// of an address is none of them.
func (b *book) covering(p netip.Prefix, atoms []atom) []atom {
	lengths := &b.lengths[family(p)]
	for bits := p.Bits() - 1; bits >= 0; bits-- {
		if lengths[bits] == 0 {
			continue
		}
		if a := b.wide[netip.PrefixFrom(p.Addr(), bits).Masked()]; a != nil {
			for o := range a.owners {
				atoms = append(atoms, o.atom)
			}
		}
	}
	return atoms
}

// cover gives the class of the longest prefix around p that has one.
func (b *book) cover(p netip.Prefix) *class {
	lengths := &b.lengths[family(p)]
	for bits := p.Bits() - 1; bits >= 0; bits-- {
		if lengths[bits] == 0 {
			continue
		}
		if a := b.wide[netip.PrefixFrom(p.Addr(), bits).Masked()]; a != nil && a.class != nil {
			return a.class
		}
	}
	return b.none
}

func (c *Compiler) newClass(key string, atoms []atom) *class {
	cl := &class{key: key, dirty: true, made: c.commits}
	cl.identities = cl.first[:0]
	for _, n := range atoms {
		switch {
		case n == atomHosted:
			cl.hosted = true
		case n == atomConflict:
			cl.conflict = true
		default:
			switch of := c.byAtom[n].(type) {
			case *identity:
				cl.identities = append(cl.identities, of)
				of.classes = append(of.classes, cl)
			case *net:
				cl.nets = append(cl.nets, of)
			case *slice:
				cl.slices = append(cl.slices, of)
			}
		}
	}
	cl.terms = c.termsOf(cl)
	cl.id = c.out.AddClass(c.describe(cl))
	cl.dirty = false
	c.classes[key] = cl
	return cl
}

// change notes that the Builder has to be told of a class.
func (b *book) change(cl *class) {
	if !cl.dirty {
		cl.dirty = true
		b.changed = append(b.changed, cl)
	}
}

// describe says what a class is in the Builder's words.
func (c *Compiler) describe(cl *class) filter.ClassSpec {
	spec := filter.ClassSpec{Conflict: cl.conflict, Hosted: cl.hosted && !cl.conflict, Ports: c.offers(cl)}
	live := cl.terms[:0]
	if len(cl.terms) > 0 {
		spec.Sets = make([]*filter.ClassSet, 0, len(cl.terms))
	}
	for _, t := range cl.terms {
		if t.users > 0 {
			live = append(live, t)
			spec.Sets = append(spec.Sets, t.set)
		}
	}
	clear(cl.terms[len(live):])
	cl.terms = live
	if spec.Hosted {
		for _, id := range cl.identities {
			if id.plan != nil { // one pod identity at most, since there is no conflict
				spec.Programs = id.plan.programs
			}
		}
	}
	return spec
}

// describeClasses tells the Builder what changed.
func (c *Compiler) describeClasses() {
	for _, cl := range c.changed {
		cl.dirty = false
		if cl.prefixes > 0 {
			c.out.SetClass(cl.id, c.describe(cl))
		}
	}
	c.changed = c.changed[:0]
	for _, cl := range c.unused {
		if cl.prefixes > 0 || c.classes[cl.key] != cl {
			continue
		}
		c.garbage++
		delete(c.classes, cl.key)
		for _, id := range cl.identities {
			id.classes = slices.DeleteFunc(id.classes, func(of *class) bool { return of == cl })
		}
		c.out.RemoveClass(cl.id)
	}
	c.unused = c.unused[:0]
	c.commits++
}

// name tells the Builder whose address it is: of two that claim it a hosted one,
// or else the first.
func (c *Compiler) name(a *address) error {
	var best *policy.Endpoint
	var bestPod *pod
	for o := range a.owners {
		if o.pod == nil {
			continue
		}
		ep := o.of.(*policy.Endpoint)
		if best == nil || o.pod.hosted && !bestPod.hosted || o.pod.hosted == bestPod.hosted && compareKeys(ep.Key(), best.Key()) < 0 {
			best, bestPod = ep, o.pod
		}
	}
	switch {
	case best != nil:
		a.named = true
		return c.out.SetEndpoint(a.prefix.Addr(), filter.EndpointInfo{
			Namespace: best.Namespace, Name: best.Name, ServiceAccount: best.ServiceAccount, Hosted: bestPod.hosted,
		})
	case a.named:
		a.named = false
		c.garbage++
		c.out.RemoveEndpoint(a.prefix.Addr())
	}
	return nil
}

// conflicts gives a Problem for each pod but the first that claims an address.
func (c *Compiler) conflicts() []policy.Problem {
	var out []policy.Problem
	for a := range c.clash {
		var pods []*policy.Endpoint
		for o := range a.owners {
			if o.pod != nil {
				pods = append(pods, o.of.(*policy.Endpoint))
			}
		}
		slices.SortFunc(pods, func(a, b *policy.Endpoint) int { return compareKeys(a.Key(), b.Key()) })
		for _, ep := range slices.Compact(pods)[1:] {
			out = append(out, problem(ep.Key(), "status.podIPs", "%s claims %s too: the address is denied until one of them is gone", pods[0].Key(), a.prefix.Addr()))
		}
	}
	return out
}
