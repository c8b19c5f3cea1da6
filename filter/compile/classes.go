package compile

import (
	"cmp"
	"math"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/policy"
)

// atom is one thing that can cover an address: an identity, by its index, a
// prefix that a rule names, or an EndpointSlice of a service that a rule names.
// Addresses covered by the same atoms are one class.
type atom uint32

// Marks of an address, after every other atom.
const (
	atomHosted   atom = math.MaxUint32 - 1 // an endpoint of this node has it
	atomConflict atom = math.MaxUint32     // two endpoints claim it
)

// serviceSlice is an EndpointSlice that some rule needs.
type serviceSlice struct {
	*policy.EndpointSlice
	atom atom
}

// buildClasses cuts the address space into classes.
func (c *compiler) buildClasses() {
	atoms := atom(len(c.identities))
	c.nets = make(map[netip.Prefix]atom)
	c.services = make(map[policy.ServiceRef][]serviceSlice)
	for _, l := range c.needed {
		rules := l.rules()
		for i := range rules {
			for _, e := range []*policy.EntityRule{&rules[i].Source, &rules[i].Destination} {
				atoms = c.addNets(e.Nets, atoms)
				atoms = c.addNets(e.NotNets, atoms)
				if e.Service != nil {
					c.services[*e.Service] = nil
				}
			}
		}
	}
	for _, s := range c.EndpointSlices {
		ref := policy.ServiceRef{Namespace: s.Namespace, Name: s.Service}
		if _, needed := c.services[ref]; !needed {
			continue
		}
		c.services[ref] = append(c.services[ref], serviceSlice{s, atoms})
		for _, a := range s.Addrs {
			c.addAddress(policy.Key{Kind: policy.EndpointSliceKind, Namespace: s.Namespace, Name: s.Name}, "endpoints", a, atoms)
		}
		atoms++
	}
	slices.SortFunc(c.addresses, func(a, b entry) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()), cmp.Compare(a.atom, b.atom))
	})
	c.addClasses(c.classify(), int(atoms))
}

// addNets gives each prefix that is new an atom.
func (c *compiler) addNets(nets []netip.Prefix, atoms atom) atom {
	for _, p := range nets {
		p = p.Masked()
		if _, known := c.nets[p]; known || !p.IsValid() || p.Addr().Is4In6() {
			continue
		}
		c.nets[p] = atoms
		c.addresses = append(c.addresses, entry{p, atoms})
		atoms++
	}
	return atoms
}

// classify walks the sorted addresses, gives each prefix the atoms that cover it
// and returns the distinct lists of atoms. Classes of c.spec.Prefixes are
// indexes of that list, for now.
func (c *compiler) classify() [][]atom {
	type frame struct {
		prefix netip.Prefix
		atoms  []atom // of the prefix and all that cover it, sorted
	}
	var (
		stack    []frame
		scratch  []atom
		key      []byte
		lists    [][]atom
		interned = make(map[string]filter.ClassID)
	)
	for rest := c.addresses; len(rest) > 0; {
		p, n := rest[0].prefix, 1
		for n < len(rest) && rest[n].prefix == p {
			n++
		}
		for len(stack) > 0 && !stack[len(stack)-1].prefix.Contains(p.Addr()) {
			stack = stack[:len(stack)-1]
		}
		scratch = scratch[:0]
		for _, e := range rest[:n] {
			scratch = append(scratch, e.atom)
		}
		rest = rest[n:]
		if len(stack) > 0 {
			scratch = append(scratch, stack[len(stack)-1].atoms...)
		}
		slices.Sort(scratch)
		scratch = slices.Compact(scratch)

		key = key[:0]
		for _, a := range scratch {
			key = append(key, byte(a>>24), byte(a>>16), byte(a>>8), byte(a))
		}
		id, known := interned[string(key)]
		if !known {
			id = filter.ClassID(len(lists))
			interned[string(key)] = id
			lists = append(lists, slices.Clone(scratch))
		}
		c.spec.Prefixes = append(c.spec.Prefixes, filter.ClassPrefix{Prefix: p, Class: id})
		if !p.IsSingleIP() {
			stack = append(stack, frame{p, lists[id]})
		}
	}
	return lists
}

// addClasses numbers the classes from 1 by their atoms, so that the classes of
// one namespace are neighbours and sets of them are short.
func (c *compiler) addClasses(lists [][]atom, atoms int) {
	order := make([]int, len(lists))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return slices.Compare(lists[a], lists[b]) })
	number := make([]filter.ClassID, len(lists))
	c.spec.Classes = make([]filter.Class, 1, len(lists)+1)
	c.atomClasses = make([][]filter.ClassID, atoms)
	for _, i := range order {
		id := filter.ClassID(len(c.spec.Classes))
		number[i] = id
		c.spec.Classes = append(c.spec.Classes, c.newClass(lists[i]))
		for _, a := range lists[i] {
			if int(a) < atoms {
				c.atomClasses[a] = append(c.atomClasses[a], id)
			}
		}
	}
	for i := range c.spec.Prefixes {
		c.spec.Prefixes[i].Class = number[c.spec.Prefixes[i].Class]
	}
}

func (c *compiler) newClass(atoms []atom) filter.Class {
	var out filter.Class
	for _, a := range atoms {
		switch {
		case a == atomHosted:
			out.Hosted = true
		case a == atomConflict:
			out.Conflict = true
		case int(a) < len(c.identities) && c.identities[a].hosted:
			// One pod identity at most, unless the address is in conflict and
			// programs are not looked at.
			out.Programs = c.identities[a].programs
		}
	}
	return out
}
