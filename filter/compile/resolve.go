package compile

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/policy"
)

// resolver turns predicates into sets of classes and remembers them.
type resolver struct {
	matches map[string][]int // identities, sorted, by predicate
	sets    map[string]*filter.ClassSet
	named   map[string]*filter.ClassPorts
	served  map[policy.ServiceRef]*filter.ClassPorts
	ports   map[string][]int // identities that declare the port, by name
	bitmap  []uint64         // scratch: the set being built
	other   []uint64         // scratch: a set to be combined with it
}

// side resolves one side of a rule of a policy in the namespace; ok is false if
// no address can match it. The service of a destination is left to the caller.
func (c *compiler) side(e *policy.EntityRule, namespace string) (out filter.Side, ok bool) {
	p := scope(e, namespace)
	key := p.key()
	out.Classes = c.classSet(e, &p, key)
	out.Ports = c.portMatch(e.Ports, &p, key)
	out.NotPorts = c.portMatch(e.NotPorts, &p, key)
	return out, !out.Classes.Empty()
}

// classSet resolves what one side says about the address.
func (c *compiler) classSet(e *policy.EntityRule, p *predicate, key string) *filter.ClassSet {
	if p.pos == nil && p.neg == nil && len(e.Nets) == 0 && len(e.NotNets) == 0 && e.Service == nil {
		return nil
	}
	for _, n := range e.Nets {
		key += " " + n.String()
	}
	key += " !"
	for _, n := range e.NotNets {
		key += " " + n.String()
	}
	if e.Service != nil {
		key += " service " + strconv.Quote(e.Service.Namespace) + strconv.Quote(e.Service.Name)
	}
	if set, known := c.sets[key]; known {
		return set
	}
	switch {
	case p.pos != nil:
		clear(c.bitmap)
		c.markIdentities(c.bitmap, c.matching(p))
	case p.neg != nil:
		clear(c.other)
		c.markIdentities(c.other, c.matching(p))
		for i := range c.bitmap {
			c.bitmap[i] = ^c.other[i]
		}
	default:
		for i := range c.bitmap {
			c.bitmap[i] = ^uint64(0)
		}
	}
	if len(e.Nets) > 0 {
		c.markNets(e.Nets)
		for i := range c.bitmap {
			c.bitmap[i] &= c.other[i]
		}
	}
	if len(e.NotNets) > 0 {
		c.markNets(e.NotNets)
		for i := range c.bitmap {
			c.bitmap[i] &^= c.other[i]
		}
	}
	if e.Service != nil {
		clear(c.other)
		for _, s := range c.services[*e.Service] {
			mark(c.other, c.atomClasses[s.atom])
		}
		for i := range c.bitmap {
			c.bitmap[i] &= c.other[i]
		}
	}
	set := filter.NewClassSet(c.bitmap, len(c.spec.Classes))
	c.sets[key] = set
	return set
}

func (c *compiler) markIdentities(bitmap []uint64, ids []int) {
	for _, id := range ids {
		mark(bitmap, c.atomClasses[id])
	}
}

// markNets sets c.other to the classes inside any of the prefixes.
func (c *compiler) markNets(nets []netip.Prefix) {
	clear(c.other)
	for _, n := range nets {
		if a, known := c.nets[n.Masked()]; known {
			mark(c.other, c.atomClasses[a])
		}
	}
}

func mark(bitmap []uint64, classes []filter.ClassID) {
	for _, id := range classes {
		bitmap[id/64] |= 1 << (id % 64)
	}
}

// matching gives the identities that satisfy pos and not neg; without pos, those
// that satisfy neg.
func (c *compiler) matching(p *predicate) []int {
	key := p.key()
	ids, known := c.matches[key]
	if known {
		return ids
	}
	holds := func(id *identity) bool {
		if p.pos == nil {
			return p.neg.Matches(id.labels)
		}
		return p.pos.Matches(id.labels) && (p.neg == nil || !p.neg.Matches(id.labels))
	}
	if p.namespace != "" {
		ids = c.filter(c.byNamespace[p.namespace], holds)
	} else {
		for id := range c.identities {
			if holds(&c.identities[id]) {
				ids = append(ids, id)
			}
		}
	}
	c.matches[key] = ids
	return ids
}

// portMatch resolves a list of ports of one side. Names are looked up among the
// objects that the side's own predicate lets through (spec section 6).
func (c *compiler) portMatch(ports []policy.Port, p *predicate, key string) *filter.PortMatch {
	if len(ports) == 0 {
		return nil
	}
	out := new(filter.PortMatch)
	var names []string
	for _, port := range ports {
		if port.Name == "" {
			out.Ranges = append(out.Ranges, port.PortRange)
		} else {
			names = append(names, port.Name)
		}
	}
	if len(names) > 0 {
		out.Named = c.namedPorts(names, p, key)
	}
	return out
}

func (c *compiler) namedPorts(names []string, p *predicate, key string) *filter.ClassPorts {
	for _, n := range names {
		key += " " + strconv.Quote(n)
	}
	if ports, known := c.named[key]; known {
		return ports
	}
	lets := func(int) bool { return true }
	if p.pos != nil || p.neg != nil {
		ids := c.matching(p)
		lets = func(id int) bool {
			_, found := slices.BinarySearch(ids, id)
			return found == (p.pos != nil)
		}
	}
	var out []filter.ClassPort
	for _, name := range names {
		for _, id := range c.ports[name] {
			if !lets(id) {
				continue
			}
			for _, port := range c.identities[id].ports {
				if port.Name != name {
					continue
				}
				for _, class := range c.atomClasses[id] {
					out = append(out, filter.ClassPort{Class: class, Proto: port.Proto, Port: port.Port})
				}
			}
		}
	}
	ports := filter.NewClassPorts(out)
	c.named[key] = ports
	return ports
}

// servicePorts gives what a service offers where.
func (c *compiler) servicePorts(ref policy.ServiceRef) *filter.ClassPorts {
	if ports, known := c.served[ref]; known {
		return ports
	}
	var out []filter.ClassPort
	for _, s := range c.services[ref] {
		for _, class := range c.atomClasses[s.atom] {
			for _, p := range s.Ports {
				out = append(out, filter.ClassPort{Class: class, Proto: p.Proto, Port: p.Port})
			}
		}
	}
	ports := filter.NewClassPorts(out)
	c.served[ref] = ports
	return ports
}
