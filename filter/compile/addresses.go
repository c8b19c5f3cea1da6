package compile

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/policy"
)

// atom is one thing that can cover an address: an identity, a prefix that a rule
// names, or an EndpointSlice of a service that a rule names. Addresses covered by
// the same atoms are one class.
type atom uint32

// Marks of an address, after every other atom.
const (
	atomHosted   atom = math.MaxUint32 - 1 // an endpoint of this node has it
	atomConflict atom = math.MaxUint32     // two endpoints claim it
)

// owner is something that has a prefix.
type owner struct {
	of   any  // the object, for disown
	pod  *pod // nil if it is not a pod
	atom atom
}

// address is a prefix that something has. There may be hundreds of thousands, nearly
// all of one pod each: 80 bytes.
type address struct {
	prefix netip.Prefix
	pod    *pod    // an owner; nil if there is none that is a pod, or only among others
	others []owner // all but pod
	class  *class
	place  uint32 // in its page
	dirty  bool
	named  bool // the Builder has an endpoint for it
}

// owners yields who has the address, in no order.
func (a *address) owners(yield func(owner) bool) {
	if a.pod != nil && !yield(owner{a.pod.endpoint, a.pod, a.pod.identity.atom}) {
		return
	}
	for _, o := range a.others {
		if !yield(o) {
			return
		}
	}
}

func (a *address) owned() bool { return a.pod != nil || len(a.others) > 0 }

func (a *address) add(o owner) {
	if o.pod != nil && a.pod == nil {
		a.pod = o.pod
	} else {
		a.others = append(a.others, o)
	}
}

func (a *address) remove(of any) {
	if a.pod != nil && any(a.pod.endpoint) == of {
		a.pod = nil
	}
	if a.others = slices.DeleteFunc(a.others, func(o owner) bool { return o.of == of }); len(a.others) == 0 {
		a.others = nil
	}
}

// class is the addresses that the same atoms cover.
type class struct {
	id         filter.ClassID
	key        string
	prefixes   int // that have it
	identities []*identity
	nets       []*net
	slices     []*slice
	terms      []*term
	hosted     bool
	conflict   bool
	dirty      bool // the Builder has to be told
}

// book has every prefix that something has.
type book struct {
	none *class // of addresses that nothing covers
	// wide are the prefixes that are no single address, and lengths counts them, by
	// family and length. The others are by their bytes, since a plain address and its
	// mapped form cannot both be there, and in pages, by their /24 or /64.
	wide    map[netip.Prefix]*address
	lengths [2][129]int
	single  map[[16]byte]*address
	pages   map[netip.Prefix][]*address
	dirty   []*address
	was     []*class          // what the addresses in dirty were before this commit
	clash   map[*address]bool // claimed by two pods

	lastAtom   atom
	identityOf map[atom]*identity
	netOf      map[atom]*net
	sliceOf    map[atom]*slice
	classes    map[string]*class
	changed    []*class // dirty ones
	unused     []*class // had no prefix when they were noted here
	fresh      map[*class]bool
	scratch    []atom
	key        []byte
}

func newBook() book {
	// Class 0, of addresses that nothing covers, is always there.
	none := &class{prefixes: 1}
	return book{
		none:       none,
		wide:       make(map[netip.Prefix]*address),
		single:     make(map[[16]byte]*address),
		pages:      make(map[netip.Prefix][]*address),
		clash:      make(map[*address]bool),
		identityOf: make(map[atom]*identity),
		netOf:      make(map[atom]*net),
		sliceOf:    make(map[atom]*slice),
		classes:    map[string]*class{none.key: none},
		fresh:      make(map[*class]bool),
	}
}

func (b *book) newAtom() atom {
	b.lastAtom++
	return b.lastAtom
}

// addAddress notes an address of an object's field.
func (c *Compiler) addAddress(object any, key policy.Key, field string, a netip.Addr, o owner) {
	if !plain(a) {
		c.note(object, problem(key, field, "address %s is not a plain IPv4 or IPv6 address: ignored", a))
		return
	}
	c.own(netip.PrefixFrom(a, a.BitLen()), o)
}

// find gives the entry of a prefix, or nil.
func (b *book) find(p netip.Prefix) *address {
	if p.IsSingleIP() {
		return b.single[p.Addr().As16()]
	}
	return b.wide[p]
}

// own gives a prefix an owner.
func (b *book) own(p netip.Prefix, o owner) {
	a := b.find(p)
	if a == nil {
		a = &address{prefix: p}
		b.enter(a)
	}
	a.add(o)
	b.touch(a)
}

func (b *book) enter(a *address) {
	p := a.prefix
	if !p.IsSingleIP() {
		b.wide[p] = a
		b.lengths[family(p)][p.Bits()]++
		return
	}
	b.single[p.Addr().As16()] = a
	page := pageOf(p)
	a.place = uint32(len(b.pages[page]))
	b.pages[page] = append(b.pages[page], a)
}

// leavePage takes an address out of its page; the last takes its place.
func (b *book) leavePage(a *address) {
	page := pageOf(a.prefix)
	list := b.pages[page]
	last := list[len(list)-1]
	list[a.place], last.place = last, a.place
	list[len(list)-1] = nil
	if list = list[:len(list)-1]; len(list) == 0 {
		delete(b.pages, page)
	} else {
		b.pages[page] = list
	}
}

// disown takes an object from the owners of a prefix.
func (b *book) disown(p netip.Prefix, of any) {
	if a := b.find(p); a != nil {
		a.remove(of)
		b.touch(a)
	}
}

func (b *book) touch(a *address) {
	if !a.dirty {
		a.dirty = true
		b.dirty = append(b.dirty, a)
	}
}

func family(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 0
	}
	return 1
}

func pageOf(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4() {
		return netip.PrefixFrom(p.Addr(), 24).Masked()
	}
	return netip.PrefixFrom(p.Addr(), 64).Masked()
}

// touchInside touches every prefix inside a wide one.
func (b *book) touchInside(p netip.Prefix) {
	for q, a := range b.wide {
		if q.Bits() > p.Bits() && p.Contains(q.Addr()) {
			b.touch(a)
		}
	}
	page := pageOf(p)
	if p.Bits() >= page.Bits() {
		for _, a := range b.pages[page] {
			if p.Contains(a.prefix.Addr()) {
				b.touch(a)
			}
		}
		return
	}
	for q, page := range b.pages {
		if p.Contains(q.Addr()) {
			for _, a := range page {
				b.touch(a)
			}
		}
	}
}

// classify gives every touched prefix its class, and names the endpoints.
func (c *Compiler) classify() error {
	if len(c.wide) > 0 && len(c.dirty) < len(c.single)+len(c.wide) {
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
		delete(c.single, p.Addr().As16())
		c.leavePage(a)
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
	slices.Sort(atoms)
	atoms = slices.Compact(atoms)
	c.scratch = atoms
	c.key = c.key[:0]
	for _, n := range atoms {
		c.key = binary.NativeEndian.AppendUint32(c.key, uint32(n))
	}
	if known := c.classes[string(c.key)]; known != nil {
		return known
	}
	return c.newClass(string(c.key), atoms)
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
	cl := &class{key: key, dirty: true}
	for _, n := range atoms {
		switch {
		case n == atomHosted:
			cl.hosted = true
		case n == atomConflict:
			cl.conflict = true
		case c.identityOf[n] != nil:
			id := c.identityOf[n]
			cl.identities = append(cl.identities, id)
			id.classes = append(id.classes, cl)
		case c.netOf[n] != nil:
			cl.nets = append(cl.nets, c.netOf[n])
		case c.sliceOf[n] != nil:
			cl.slices = append(cl.slices, c.sliceOf[n])
		}
	}
	cl.terms = c.termsOf(cl)
	cl.id = c.out.AddClass(c.describe(cl))
	cl.dirty = false
	c.classes[key] = cl
	c.fresh[cl] = true
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
	clear(c.fresh)
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
