package compile

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/policy"
)

// term is what one side of some rule says about the address (spec section 4.3):
// predicate, prefixes and service, all of which must hold.
type term struct {
	predicate
	key     string
	set     *filter.ClassSet // its name
	nets    []*net           // nil if none are stated
	notNets []*net
	service *service
	users   int
	// What its rules may do: see term.note.
	allows, denies bool
	fresh          bool // nothing was decided by it before this commit
}

// note notes the action of a rule of the term.
func (t *term) note(a filter.Action) {
	switch {
	case t == nil || a == filter.Log:
	case a == filter.Allow:
		t.allows = true
	case a == filter.Deny:
		t.denies = true
	default:
		t.allows, t.denies = true, true
	}
}

// net is a prefix that terms name.
type net struct {
	prefix netip.Prefix
	atom   atom
	users  int
	terms  []*term // that state it among their nets
}

// service is a service that rules name, or that has slices.
type service struct {
	ref    policy.ServiceRef
	slices map[*policy.EndpointSlice]*slice
	users  int // terms and ports; its slices have addresses if there are any
	terms  []*term
	ports  *filter.ClassPorts // name of what it serves, while some rule asks
	asks   int
	fresh  bool // ports is
}

type slice struct {
	*policy.EndpointSlice
	service *service
	atom    atom
}

// named is a list of named ports as one side of some rule sees it.
type named struct {
	predicate
	key   string
	names []string
	ports *filter.ClassPorts // its name
	users int
	fresh bool
}

// label is a label and one of its values.
type label struct{ name, value string }

// terms has what the rules in use ask of addresses, each once, and indexes that
// find those worth asking for a class.
type terms struct {
	byKey    map[string]*term
	byLabel  map[label][]*term // that only hold for what has the label
	others   []*term           // that no index has
	nets     map[netip.Prefix]*net
	services map[policy.ServiceRef]*service
	named    map[string]*named
	byName   map[string][]*named

	found    []*term // scratch of termsOf
	newTerms []*term // classes that are not new do not have them yet
	newNamed []*named
	newPorts []*service
}

func newTerms() terms {
	return terms{
		byKey:    make(map[string]*term),
		byLabel:  make(map[label][]*term),
		nets:     make(map[netip.Prefix]*net),
		services: make(map[policy.ServiceRef]*service),
		named:    make(map[string]*named),
		byName:   make(map[string][]*named),
	}
}

// holds tells whether the selectors hold for what covers an address: some object
// satisfies pos and not neg; without pos, none satisfies neg.
func (p *predicate) holds(identities []*identity) bool {
	if p.pos == nil {
		return p.neg == nil || !slices.ContainsFunc(identities, func(id *identity) bool { return p.neg.Matches(id) })
	}
	return slices.ContainsFunc(identities, p.lets)
}

// lets tells whether the selectors hold for one object.
func (p *predicate) lets(id *identity) bool {
	return p.pos.Matches(id) && (p.neg == nil || !p.neg.Matches(id))
}

// holds tells whether the term holds for a class.
func (t *term) holds(cl *class) bool {
	in := func(n *net) bool { return slices.Contains(cl.nets, n) }
	switch {
	case len(t.nets) > 0 && !slices.ContainsFunc(t.nets, in):
	case slices.ContainsFunc(t.notNets, in):
	case t.service != nil && !slices.ContainsFunc(cl.slices, func(s *slice) bool { return s.service == t.service }):
	default:
		return t.predicate.holds(cl.identities)
	}
	return false
}

// termsOf gives the terms that hold for a class.
func (s *terms) termsOf(cl *class) []*term {
	out := s.found[:0]
	ask := func(list []*term) {
		for _, t := range list {
			if t.holds(cl) && !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	ask(s.others)
	for _, n := range cl.nets {
		ask(n.terms)
	}
	for _, sl := range cl.slices {
		ask(sl.service.terms)
	}
	for _, id := range cl.identities {
		for _, l := range id.labels {
			if list := s.byLabel[l]; list != nil {
				ask(list)
			}
		}
	}
	s.found = out
	return slices.Clone(out)
}

// offers gives the ports that a class offers under names that rules know.
func (s *terms) offers(cl *class) []filter.Offer { return s.offersTo(cl, false) }

// lastingOffers is offers to rules that were there before this commit.
func (s *terms) lastingOffers(cl *class) []filter.Offer { return s.offersTo(cl, true) }

func (s *terms) offersTo(cl *class, lasting bool) []filter.Offer {
	var out []filter.Offer
	for _, id := range cl.identities {
		for _, port := range id.ports {
			for _, n := range s.byName[port.Name] {
				if n.lets(id) && !(lasting && n.fresh) {
					out = append(out, filter.Offer{Ports: n.ports, Proto: port.Proto, Port: port.Port})
				}
			}
		}
	}
	for _, sl := range cl.slices {
		if sl.service.ports == nil || lasting && sl.service.fresh {
			continue
		}
		for _, p := range sl.Ports {
			out = append(out, filter.Offer{Ports: sl.service.ports, Proto: p.Proto, Port: p.Port})
		}
	}
	return out
}

// term gives the term of one side of a rule, used once more; nil if the side says
// nothing of the address.
func (c *Compiler) term(e *policy.EntityRule, p predicate, key string) *term {
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
	t := c.byKey[key]
	if t == nil {
		t = &term{predicate: p, key: key, set: filter.NewClassSet(nil, 0), fresh: true}
		t.nets, t.notNets = c.useNets(e.Nets), c.useNets(e.NotNets)
		if e.Service != nil {
			t.service = c.useService(*e.Service)
		}
		c.byKey[key] = t
		c.index(t, func(list *[]*term) { *list = append(*list, t) })
		c.newTerms = append(c.newTerms, t)
	}
	t.users++
	return t
}

func (c *Compiler) dropTerm(t *term) {
	if t == nil {
		return
	}
	if t.users--; t.users > 0 {
		return
	}
	c.garbage++
	delete(c.byKey, t.key)
	c.index(t, func(list *[]*term) { *list = without(*list, t) })
	for _, n := range slices.Concat(t.nets, t.notNets) {
		if n.users--; n.users == 0 {
			delete(c.nets, n.prefix)
			c.byAtom[n.atom] = nil
			c.dead++
			c.disown(n.prefix, n)
		}
	}
	if t.service != nil {
		c.dropService(t.service)
	}
	c.out.RemoveSet(t.set)
}

// without takes an element out of a list whose order does not matter.
func without[T comparable](list []T, v T) []T {
	if i := slices.Index(list, v); i >= 0 {
		last := len(list) - 1
		list[i] = list[last]
		clear(list[last:])
		list = list[:last]
	}
	return list
}

// index calls f for the lists that a term belongs in.
func (s *terms) index(t *term, f func(*[]*term)) {
	name, values, needs := t.pos.Needs()
	if t.namespace != "" {
		name, values, needs = namespaceLabel, []string{t.namespace}, true
	}
	switch {
	case len(t.nets) > 0:
		for i, n := range t.nets {
			if !slices.Contains(t.nets[:i], n) {
				f(&n.terms)
			}
		}
	case t.service != nil:
		f(&t.service.terms)
	case needs:
		for _, v := range values {
			list := s.byLabel[label{name, v}]
			if f(&list); len(list) > 0 {
				s.byLabel[label{name, v}] = list
			} else {
				delete(s.byLabel, label{name, v})
			}
		}
	default:
		f(&s.others)
	}
}

func (c *Compiler) useNets(prefixes []netip.Prefix) (out []*net) {
	for _, p := range prefixes {
		n := &net{prefix: p.Masked()}
		if known := c.nets[n.prefix]; known != nil {
			n = known
		} else if n.prefix.IsValid() && !n.prefix.Addr().Is4In6() {
			n.atom = c.newAtom(n)
			c.nets[n.prefix] = n
			c.own(n.prefix, owner{of: n, atom: n.atom})
		} // else it stands for itself and no address is in it
		n.users++
		out = append(out, n)
	}
	return out
}

// serviceOf gives the service of a name.
func (c *Compiler) serviceOf(ref policy.ServiceRef) *service {
	s := c.services[ref]
	if s == nil {
		s = &service{ref: ref, slices: make(map[*policy.EndpointSlice]*slice)}
		c.services[ref] = s
	}
	return s
}

// useService gives a service whose slices have their addresses.
func (c *Compiler) useService(ref policy.ServiceRef) *service {
	s := c.serviceOf(ref)
	if s.users++; s.users == 1 {
		for _, sl := range s.slices {
			c.enter(sl)
		}
	}
	return s
}

func (c *Compiler) dropService(s *service) {
	if s.users--; s.users == 0 {
		for _, sl := range s.slices {
			c.leaveBook(sl)
		}
	}
	c.forgetService(s)
}

func (c *Compiler) forgetService(s *service) {
	if s.users == 0 && len(s.slices) == 0 {
		delete(c.services, s.ref)
	}
}

func (c *Compiler) addSlice(e *policy.EndpointSlice) {
	s := c.serviceOf(policy.ServiceRef{Namespace: e.Namespace, Name: e.Service})
	if s.slices[e] != nil {
		return
	}
	sl := &slice{EndpointSlice: e, service: s, atom: c.newAtom(nil)}
	s.slices[e] = sl
	if s.users > 0 {
		c.enter(sl)
	}
}

func (c *Compiler) removeSlice(e *policy.EndpointSlice) {
	s := c.services[policy.ServiceRef{Namespace: e.Namespace, Name: e.Service}]
	if s == nil || s.slices[e] == nil {
		return
	}
	if s.users > 0 {
		c.leaveBook(s.slices[e])
	}
	delete(s.slices, e)
	c.dead++
	c.forgetService(s)
}

func (c *Compiler) enter(sl *slice) {
	c.byAtom[sl.atom] = sl
	for _, a := range sl.Addrs {
		c.addAddress(sl, sliceKey(sl.EndpointSlice), "endpoints", a, owner{of: sl, atom: sl.atom})
	}
}

func (c *Compiler) leaveBook(sl *slice) {
	c.byAtom[sl.atom] = nil
	delete(c.notes, any(sl))
	for _, a := range sl.Addrs {
		if plain(a) {
			c.disown(netip.PrefixFrom(a, a.BitLen()), sl)
		}
	}
}

// servicePorts gives the name of what a service serves where, used once more.
func (c *Compiler) servicePorts(ref policy.ServiceRef) *service {
	s := c.useService(ref)
	if s.asks++; s.asks == 1 {
		s.ports, s.fresh = filter.NewClassPorts(nil), true
		c.newPorts = append(c.newPorts, s)
	}
	return s
}

func (c *Compiler) dropServicePorts(s *service) {
	if s.asks--; s.asks == 0 {
		c.garbage++
		c.out.RemovePorts(s.ports)
		s.ports = nil
	}
	c.dropService(s)
}

// namedPorts gives the named ports of one side, used once more. Names are looked
// up among the objects that the side's own predicate lets through (spec section
// 6).
func (c *Compiler) namedPorts(names []string, p predicate, key string) *named {
	for _, n := range names {
		key += " " + strconv.Quote(n)
	}
	n := c.named[key]
	if n == nil {
		n = &named{predicate: p, key: key, names: names, ports: filter.NewClassPorts(nil), fresh: true}
		c.named[key] = n
		for _, name := range names {
			if !slices.Contains(c.byName[name], n) {
				c.byName[name] = append(c.byName[name], n)
			}
		}
		c.newNamed = append(c.newNamed, n)
	}
	n.users++
	return n
}

func (c *Compiler) dropNamed(n *named) {
	if n.users--; n.users > 0 {
		return
	}
	c.garbage++
	delete(c.named, n.key)
	for _, name := range n.names {
		if c.byName[name] = without(c.byName[name], n); len(c.byName[name]) == 0 {
			delete(c.byName, name)
		}
	}
	c.out.RemovePorts(n.ports)
}

// spreadTerms finds the classes for which new terms hold and that offer new
// ports. Classes made in this commit know them already.
func (c *Compiler) spreadTerms() {
	for _, t := range c.newTerms {
		t.fresh = false
		if t.users == 0 {
			continue
		}
		if t.namespace != "" && len(t.nets) == 0 {
			for _, id := range c.identitiesIn[t.namespace] {
				for _, cl := range id.classes {
					c.spread(t, cl)
				}
			}
			continue
		}
		for _, cl := range c.classes {
			c.spread(t, cl)
		}
	}
	c.newTerms = nil
	if len(c.newNamed)+len(c.newPorts) == 0 {
		return
	}
	newName := make(map[string]bool)
	for _, n := range c.newNamed {
		for _, name := range n.names {
			newName[name] = true
		}
		n.fresh = false
	}
	for _, cl := range c.classes {
		for _, id := range cl.identities {
			if slices.ContainsFunc(id.ports, func(p policy.NamedPort) bool { return newName[p.Name] }) {
				c.change(cl)
			}
		}
		if slices.ContainsFunc(cl.slices, func(s *slice) bool { return slices.Contains(c.newPorts, s.service) }) {
			c.change(cl)
		}
	}
	for _, s := range c.newPorts {
		s.fresh = false
	}
	c.newNamed, c.newPorts = nil, nil
}

func (c *Compiler) spread(t *term, cl *class) {
	if cl.made != c.commits && t.holds(cl) && !slices.Contains(cl.terms, t) {
		cl.terms = append(cl.terms, t)
		c.change(cl)
	}
}
