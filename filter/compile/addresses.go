package compile

import (
	"math"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/trie"
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
	number uint32 // of a single address, in book.numbered
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
	hosted     bool
	conflict   bool
	dirty      bool // the Builder has to be told
	prefixes   int  // that have it
	identities []*identity
	first      [1]*identity // memory for it: most have one
	nets       []*net
	slices     []*slice
	terms      []*term
	key        string
	made       uint64 // number of the commit that made it and knew all terms; 0 of another
}

// book has every prefix that something has.
type book struct {
	none *class // of addresses that nothing covers
	// wide are the prefixes that are no single address, and lengths counts them, by
	// family and length. The others have numbers, which single gives, and are in
	// pages, by their /24 or /64.
	wide     map[netip.Prefix]*address
	lengths  [2][129]int
	single   trie.Table // to place in numbered
	numbered []*address // 0 is none; nil for numbers in free
	free     []uint32
	pages    map[netip.Prefix][]*address
	dirty    []*address
	was      []*class // what the addresses in dirty were before this commit
	// narrowed are addresses of relabelled pods of which accepted flows may be denied.
	narrowed []netip.Addr
	clash    map[*address]bool // claimed by two pods

	// byAtom has the *identity, *net or *slice of each atom; nil of one that is no more.
	byAtom  []any
	dead    int // of these
	classes map[string]*class
	changed []*class // dirty ones
	unused  []*class // had no prefix when they were noted here
	commits uint64
	scratch []atom
	key     []byte
}

func newBook() book {
	// Class 0, of addresses that nothing covers, is always there.
	none := &class{prefixes: 1}
	return book{
		commits:  1,
		none:     none,
		wide:     make(map[netip.Prefix]*address),
		numbered: make([]*address, 1),
		pages:    make(map[netip.Prefix][]*address),
		clash:    make(map[*address]bool),
		byAtom:   make([]any, 1),
		classes:  map[string]*class{none.key: none},
	}
}

// newAtom gives the atom of an identity, net or slice; enter and leaveBook say when there
// is one for a slice.
func (b *book) newAtom(of any) atom {
	b.byAtom = append(b.byAtom, of)
	return atom(len(b.byAtom) - 1)
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
		return b.at(p.Addr())
	}
	return b.wide[p]
}

// at gives the entry of a single address, or nil.
func (b *book) at(a netip.Addr) *address { return b.numbered[b.single.Lookup(a)] }

// own gives a prefix an owner.
func (b *book) own(p netip.Prefix, o owner) {
	a := b.find(p)
	if a == nil {
		a = &address{prefix: p}
		b.admit(a)
	}
	a.add(o)
	b.touch(a)
}

func (b *book) admit(a *address) {
	p := a.prefix
	if !p.IsSingleIP() {
		b.wide[p] = a
		b.lengths[family(p)][p.Bits()]++
		return
	}
	if last := len(b.free) - 1; last >= 0 {
		a.number, b.free = b.free[last], b.free[:last]
		b.numbered[a.number] = a
	} else {
		a.number = uint32(len(b.numbered))
		b.numbered = append(b.numbered, a)
	}
	_ = b.single.Insert(p, a.number) // what it refuses, the Builder's table refuses too: see classify
	page := pageOf(p)
	a.place = uint32(len(b.pages[page]))
	b.pages[page] = append(b.pages[page], a)
}

// dismiss is the reverse for a single address. In its page the last takes its place.
func (b *book) dismiss(a *address) {
	b.single.Delete(a.prefix)
	b.numbered[a.number] = nil
	b.free = append(b.free, a.number)
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
