package filter

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/trie"
)

// Builder makes a sequence of Rulesets, each from the one before and what was
// changed since. It does not check what it is told as New does, except that
// numbers it did not give make it panic.
//
// What two Rulesets have in common they share. Nothing that a published Ruleset
// can reach is ever changed: slices that readers index are appended to beyond the
// length that readers have, or copied before an element changes (see cow).
//
// A Builder belongs to one goroutine. In its rules a *ClassSet and a *ClassPorts
// are names only, compared by address: signatures say who is a member.
type Builder struct {
	bounds bounds

	addresses trie.Table // to class
	byAddr    trie.Table // endpoints: to index of endpoints + 1
	endpoints cow[EndpointInfo]
	hosted    map[netip.Addr]bool // addresses of endpoints hosted here
	hosting   *hosting            // another one after each change of them
	accountBook

	classes    cow[class]
	signatures cow[*signature]
	rules      cow[*rule]
	ends       cow[program] // two for each end
	quick      cow[quick]   // the same
	hosts      map[string][HostChains][2]*plan
	hostChains map[string][HostChains][2]*program

	numbers   map[string]uint32    // of signatures, by their keys
	asked     signature            // scratch of signature
	used      []int                // classes by signature
	terms     [][]uint32           // signatures by term, rising
	sets      [][]uint32           // signatures by offer set, rising
	termUsers []map[*compiled]bool // segments whose rows depend on the term
	setUsers  []map[*compiled]bool
	termOf    map[*ClassSet]term
	setOf     map[*ClassPorts]offerSet

	endOf    map[endKey]uint32
	endPlans []endPlan // by index of ends
	freeEnds []uint32
	plans    map[string]*plan
	segments map[string]*compiled
	stale    map[*compiled]bool // to be compiled by Publish
	numberOf map[*Segment]uint64
	lastSeg  uint64

	seenSignatures int // by the last Publish
	changedEnds    bool
	changedGuard   bool // what Protected gives may have changed
	protected      [2][]netip.Addr
	hostedAddrs    []netip.Addr
	liveClasses    int
	liveRules      int
	liveEndpoints  int
	freeRules      []RuleID

	painter  *painter
	interned map[page]*page
	swept    int // pages that the last sweep left

	// Scratch of lane.
	lists     [][]int32 // parts by signature
	isTouched []bool    // by signature
	touched   []uint32
	found     []uint32 // rows, by index of touched
	wild      []int32
	merged    []int32
	memo      map[string]uint32
	memoKey   []byte
}

// NewBuilder makes a Builder whose Rulesets know nothing yet but class 0.
func NewBuilder() *Builder {
	b := &Builder{
		bounds:     usualBounds,
		hosted:     make(map[netip.Addr]bool),
		hosting:    new(hosting),
		hosts:      make(map[string][HostChains][2]*plan),
		hostChains: make(map[string][HostChains][2]*program),
		numbers:    make(map[string]uint32),
		terms:      make([][]uint32, 1),
		sets:       make([][]uint32, 1),
		termUsers:  make([]map[*compiled]bool, 1),
		setUsers:   make([]map[*compiled]bool, 1),
		termOf:     make(map[*ClassSet]term),
		setOf:      make(map[*ClassPorts]offerSet),
		endOf:      make(map[endKey]uint32),
		endPlans:   make([]endPlan, firstEnd),
		plans:      make(map[string]*plan),
		segments:   make(map[string]*compiled),
		stale:      make(map[*compiled]bool),
		numberOf:   make(map[*Segment]uint64),
		painter:    newPainter(),
		interned:   make(map[page]*page),
		memo:       make(map[string]uint32),
	}
	b.rules.add(nil)
	for range firstEnd {
		b.addEnd()
	}
	b.AddClass(ClassSpec{})
	return b
}

// Expect makes room for the endpoints of so many addresses.
func (b *Builder) Expect(addresses int) {
	b.endpoints.list = slices.Grow(b.endpoints.list, addresses)
}

// cow is a slice that readers share. The zero cow is empty.
type cow[T any] struct {
	list   []T
	shared int // length that some reader may have
}

func (c *cow[T]) add(v T) int {
	c.list = append(c.list, v)
	return len(c.list) - 1
}

// set changes an element, in a copy if a reader may have it.
func (c *cow[T]) set(i int, v T) {
	if i < c.shared {
		c.list = slices.Clone(c.list)
		c.shared = 0
	}
	c.list[i] = v
}

// share gives the slice to readers.
func (c *cow[T]) share() []T {
	c.shared = len(c.list)
	return c.list[:len(c.list):len(c.list)]
}

// AddRule adds a rule.
func (b *Builder) AddRule(r *Rule) RuleID {
	b.liveRules++
	out := b.newRule(r)
	if n := len(b.freeRules); n > 0 {
		id := b.freeRules[n-1]
		b.freeRules = b.freeRules[:n-1]
		b.rules.set(int(id), out)
		return id
	}
	return RuleID(b.rules.add(out))
}

// RemoveRule removes a rule that no segment has any more. Its ID may be given
// again.
func (b *Builder) RemoveRule(id RuleID) {
	b.liveRules--
	b.rules.set(int(id), nil)
	b.freeRules = append(b.freeRules, id)
}

func (b *Builder) newRule(r *Rule) *rule {
	out := &rule{info: r.Info, action: r.Info.Action, src: b.term(r.Source.Classes), dst: b.term(r.Destination.Classes), request: r.Request}
	if r.IPv4 {
		out.families |= family4
	}
	if r.IPv6 {
		out.families |= family6
	}
	if r.Proto != nil {
		out.states |= stateProto
		out.proto = *r.Proto
	}
	if r.NotProto != nil {
		out.states |= stateNotProto
		out.notProto = *r.NotProto
	}
	more := criteria{src: b.sidePorts(&r.Source), dst: b.sidePorts(&r.Destination), icmp: r.ICMP, notICMP: r.NotICMP}
	if more != (criteria{}) {
		out.more = &more
	}
	out.boxes = boxesOf(out, nil)
	return out
}

func (b *Builder) sidePorts(s *Side) sidePorts {
	return sidePorts{in: b.portMatch(s.Ports), notIn: b.portMatch(s.NotPorts), service: b.set(s.Service)}
}

func (b *Builder) portMatch(m *PortMatch) *portMatch {
	if m == nil {
		return nil
	}
	return &portMatch{ranges: m.Ranges, named: b.set(m.Named)}
}

func (b *Builder) term(s *ClassSet) term {
	if s.full() {
		return 0
	}
	t, known := b.termOf[s]
	if !known {
		t = term(len(b.terms))
		b.termOf[s] = t
		b.terms, b.termUsers = append(b.terms, nil), append(b.termUsers, nil)
	}
	return t
}

func (b *Builder) set(s *ClassPorts) offerSet {
	if s == nil {
		return 0
	}
	n, known := b.setOf[s]
	if !known {
		n = offerSet(len(b.sets))
		b.setOf[s] = n
		b.sets, b.setUsers = append(b.sets, nil), append(b.setUsers, nil)
	}
	return n
}

// RemoveSet and RemovePorts forget a name that no rule has any more.
func (b *Builder) RemoveSet(s *ClassSet) { delete(b.termOf, s) }

// RemovePorts is RemoveSet for ports.
func (b *Builder) RemovePorts(s *ClassPorts) { delete(b.setOf, s) }

// RemoveSegment forgets a segment that no class and no host has any more.
func (b *Builder) RemoveSegment(s *Segment) { delete(b.numberOf, s) }

// ClassSpec is a class as a Builder is told of it.
type ClassSpec struct {
	// Sets are those that the class is a member of, and Ports what it offers, as
	// far as rules name them.
	Sets  []*ClassSet
	Ports []Offer
	// Conflict and Hosted are as in Class. Programs, by flow.Direction, are read
	// only if Hosted is set; their segments' rules must exist.
	Conflict, Hosted bool
	Programs         [2]Program
}

// Offer is a port that a class offers under the name, or for the service, that
// Ports stands for.
type Offer struct {
	Ports *ClassPorts
	Proto flow.Proto
	Port  uint16
}

// AddClass adds a class.
func (b *Builder) AddClass(spec ClassSpec) ClassID {
	b.liveClasses++
	n := b.signature(&spec)
	b.used[n]++
	return ClassID(b.classes.add(class{n, b.end(&spec, n)}))
}

// SetClass changes a class, and with it every address of it.
func (b *Builder) SetClass(id ClassID, spec ClassSpec) {
	n := b.signature(&spec)
	b.used[n]++
	next, old := class{n, b.end(&spec, n)}, b.classes.list[id]
	b.dropEnd(old.end)
	b.used[old.signature]--
	if next == old {
		return
	}
	b.classes.set(int(id), next)
	b.changedGuard = b.changedGuard || next.end != old.end
}

// RemoveClass removes a class that no address has any more. Its number is not
// given again, since older Rulesets share the table that numbers index, and so what
// the table has there can stay.
func (b *Builder) RemoveClass(id ClassID) {
	b.liveClasses--
	c := b.classes.list[id]
	b.dropEnd(c.end)
	b.used[c.signature]--
}

// signature gives the number of a class's signature.
func (b *Builder) signature(spec *ClassSpec) uint32 {
	s := &b.asked
	s.terms, s.offer = s.terms[:0], s.offer[:0]
	for _, set := range spec.Sets {
		if t := b.term(set); t != 0 {
			s.terms = append(s.terms, t)
		}
	}
	slices.Sort(s.terms)
	s.terms = slices.Compact(s.terms)
	for _, o := range spec.Ports {
		s.offer = append(s.offer, offerKey(b.set(o.Ports), o.Proto, o.Port))
	}
	slices.Sort(s.offer)
	s.offer = slices.Compact(s.offer)

	b.memoKey = s.appendKey(b.memoKey[:0])
	n, known := b.numbers[string(b.memoKey)]
	if known {
		return n
	}
	s = &signature{slices.Clone(s.terms), slices.Clone(s.offer)}
	n = uint32(b.signatures.add(s))
	b.numbers[string(b.memoKey)] = n
	b.used = append(b.used, 0)
	b.lists = append(b.lists, nil)
	b.isTouched = append(b.isTouched, false)
	for _, t := range s.terms {
		b.terms[t] = append(b.terms[t], n)
	}
	last := offerSet(0)
	for _, o := range s.offer {
		if set := offerSet(o >> 24); set != last {
			b.sets[set] = append(b.sets[set], n)
			last = set
		}
	}
	return n
}

// SetAddresses gives the addresses of a prefix, except those of longer ones, a
// class.
func (b *Builder) SetAddresses(p netip.Prefix, c ClassID) error {
	if c == 0 || int(c) >= len(b.classes.list) {
		return fmt.Errorf("prefix %s: class %d of %d", p, c, len(b.classes.list))
	}
	if err := b.addresses.Insert(p, uint32(c)); err != nil {
		return err
	}
	b.guardChanges(p)
	return nil
}

// MoveAddress is SetAddresses for a single address that has a class already, and is of no
// endpoint hosted here. Most changes of a large cluster are of this kind.
func (b *Builder) MoveAddress(p netip.Prefix, c ClassID) error {
	return b.addresses.Insert(p, uint32(c))
}

// Alike tells whether two classes are one to every rule that there is.
func (b *Builder) Alike(c, d ClassID) bool { return b.classes.list[c] == b.classes.list[d] }

// RemoveAddresses gives them back to the next shorter prefix.
func (b *Builder) RemoveAddresses(p netip.Prefix) {
	b.addresses.Delete(p)
	b.guardChanges(p)
}

func (b *Builder) guardChanges(p netip.Prefix) {
	if p.IsSingleIP() && b.hosted[p.Addr()] {
		b.changedGuard = true
	}
}

// SetEndpoint names the endpoint of an address.
func (b *Builder) SetEndpoint(a netip.Addr, e EndpointInfo) error {
	if old, known := b.endpointOf(a); known && old == e {
		return nil
	}
	i := b.endpoints.add(e)
	if err := b.byAddr.Insert(netip.PrefixFrom(a, a.BitLen()), uint32(i+1)); err != nil {
		return err
	}
	b.host(a, e.Hosted)
	return nil
}

// RemoveEndpoint takes the name of an address away.
func (b *Builder) RemoveEndpoint(a netip.Addr) {
	b.byAddr.Delete(netip.PrefixFrom(a, a.BitLen()))
	b.host(a, false)
}

// endpointOf gives the endpoint of an address.
func (b *Builder) endpointOf(a netip.Addr) (e EndpointInfo, known bool) {
	i := b.byAddr.Lookup(a)
	if i == 0 {
		return e, false
	}
	return b.endpoints.list[i-1], true
}

// host notes whether an address, whose endpoint is another one now or none, is of one
// hosted here.
func (b *Builder) host(a netip.Addr, isHosted bool) {
	if isHosted || b.hosted[a] {
		b.hosting = new(hosting)
	}
	if b.hosted[a] == isHosted {
		return
	}
	b.changedGuard = true
	if isHosted {
		b.hosted[a] = true
	} else {
		delete(b.hosted, a)
	}
}

// SetEndpoints states the number of endpoints, for Sizes.
func (b *Builder) SetEndpoints(n int) { b.liveEndpoints = n }

// SetHost adds a host endpoint, or replaces the one of that name.
func (b *Builder) SetHost(name string, programs [HostChains][2]Program) {
	var plans [HostChains][2]*plan
	for chain := range programs {
		for dir := range programs[chain] {
			p := &programs[chain][dir]
			plans[chain][dir] = b.plan(b.planKey(p, flow.Direction(dir), nil), p, flow.Direction(dir), nil)
		}
	}
	b.RemoveHost(name)
	b.hosts[name] = plans
	b.changedEnds = true
}

// RemoveHost removes a host endpoint.
func (b *Builder) RemoveHost(name string) {
	for _, byDir := range b.hosts[name] {
		if byDir[0] != nil {
			b.dropPlan(byDir[0])
			b.dropPlan(byDir[1])
		}
	}
	delete(b.hosts, name)
	b.changedEnds = true
}
