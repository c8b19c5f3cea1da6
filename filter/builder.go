package filter

import (
	"encoding/binary"
	"math"

	"github.com/postern-project/postern/filter/flow"
)

// builder is the writer's side of Rulesets.
type builder struct {
	bounds     bounds
	rules      []*rule
	signatures []*signature
	numbers    map[string]uint32 // of signatures, by their keys
	terms      [][]uint32        // signatures by term, rising
	sets       [][]uint32        // signatures by offer set, rising
	ends       [][2]*program
	endOf      map[endKey]uint32
	programs   map[string]*program
	segments   map[string]*segment
	numberOf   map[*Segment]int

	termOf map[*ClassSet]term
	setOf  map[*ClassPorts]offerSet

	painter  *painter
	interned map[page]*page

	// Scratch of lane.
	lists     [][]int32 // parts by signature
	isTouched []bool    // by signature
	touched   []uint32
	found     []*row // by index of touched
	wild      []int32
	merged    []int32
	memo      map[string]*row
	memoKey   []byte
}

type endKey struct {
	programs  [2]int
	signature uint32
}

func newBuilder() *builder {
	return &builder{
		bounds:   usualBounds,
		numbers:  make(map[string]uint32),
		terms:    make([][]uint32, 1),
		sets:     make([][]uint32, 1),
		ends:     make([][2]*program, firstEnd),
		endOf:    make(map[endKey]uint32),
		programs: make(map[string]*program),
		segments: make(map[string]*segment),
		numberOf: make(map[*Segment]int),
		termOf:   make(map[*ClassSet]term),
		setOf:    make(map[*ClassPorts]offerSet),
		painter:  newPainter(),
		interned: make(map[page]*page),
		memo:     make(map[string]*row),
	}
}

// addRules numbers the sets that rules name and gives the rules by RuleID.
func (b *builder) addRules(rules []Rule) []*rule {
	b.rules = make([]*rule, 1, len(rules)+1)
	all := make([]rule, len(rules))
	for i := range rules {
		all[i] = b.newRule(&rules[i])
		b.rules = append(b.rules, &all[i])
	}
	return b.rules
}

func (b *builder) newRule(r *Rule) rule {
	out := rule{action: r.Info.Action, src: b.term(r.Source.Classes), dst: b.term(r.Destination.Classes)}
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
	out.boxes = boxesOf(&out, nil)
	return out
}

func (b *builder) sidePorts(s *Side) sidePorts {
	return sidePorts{in: b.portMatch(s.Ports), notIn: b.portMatch(s.NotPorts), service: b.set(s.Service)}
}

func (b *builder) portMatch(m *PortMatch) *portMatch {
	if m == nil {
		return nil
	}
	return &portMatch{ranges: m.Ranges, named: b.set(m.Named)}
}

func (b *builder) term(s *ClassSet) term {
	if s.full() {
		return 0
	}
	t, known := b.termOf[s]
	if !known {
		t = term(len(b.terms))
		b.termOf[s] = t
		b.terms = append(b.terms, nil)
	}
	return t
}

func (b *builder) set(s *ClassPorts) offerSet {
	if s == nil {
		return 0
	}
	n, known := b.setOf[s]
	if !known {
		n = offerSet(len(b.sets))
		b.setOf[s] = n
		b.sets = append(b.sets, nil)
	}
	return n
}

// addClasses gives each class its signature and programs.
func (b *builder) addClasses(spec *Spec) []class {
	raw := make([]signature, len(spec.Classes))
	// In the order of terms, so that every class's terms rise.
	sets := make([]*ClassSet, len(b.terms))
	for s, t := range b.termOf {
		sets[t] = s
	}
	for t, s := range sets[1:] {
		for c := range s.members {
			raw[c].terms = append(raw[c].terms, term(t+1))
		}
	}
	ports := make([]*ClassPorts, len(b.sets))
	for s, n := range b.setOf {
		ports[n] = s
	}
	for n, s := range ports[1:] {
		for _, k := range s.keys {
			c := k >> 24
			raw[c].offer = append(raw[c].offer, uint64(n+1)<<24|k&(1<<24-1))
		}
	}
	out := make([]class, len(spec.Classes))
	for i := range raw {
		out[i].signature = b.signature(&raw[i])
	}
	for i, c := range spec.Classes {
		switch {
		case c.Conflict:
			out[i].end = endConflict
		case c.Hosted:
			out[i].end = b.end(spec, c.Programs, out[i].signature)
		}
	}
	return out
}

// signature gives the number of a signature.
func (b *builder) signature(s *signature) uint32 {
	key := s.appendKey(nil)
	n, known := b.numbers[string(key)]
	if known {
		return n
	}
	n = uint32(len(b.signatures))
	b.numbers[string(key)] = n
	b.signatures = append(b.signatures, s)
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

// end gives the number of the programs of an endpoint with that signature.
func (b *builder) end(spec *Spec, programs [2]int, number uint32) uint32 {
	key := endKey{programs, number}
	n, known := b.endOf[key]
	if known {
		return n
	}
	var end [2]*program
	for dir, p := range programs {
		end[dir] = b.program(spec.Programs[p], p, flow.Direction(dir), b.signatures[number])
	}
	n = uint32(len(b.ends))
	b.endOf[key] = n
	b.ends = append(b.ends, end)
	return n
}

// program resolves the program of that number for an endpoint of that signature;
// nil is an endpoint that is not known.
func (b *builder) program(p Program, number int, dir flow.Direction, self *signature) *program {
	key := binary.AppendUvarint([]byte{byte(p.Final)}, uint64(dir))
	segments := make([]string, len(p.Segments))
	for i, seg := range p.Segments {
		segments[i] = b.segmentKey(seg, dir, self)
		key = binary.AppendUvarint(key, uint64(len(segments[i])))
		key = append(key, segments[i]...)
	}
	if out := b.programs[string(key)]; out != nil {
		return out
	}
	out := &program{final: p.Final}
	for i, key := range segments {
		seg := b.segments[key]
		if seg == nil {
			seg = b.compile(p.Segments[i].Rules, p.Segments[i].End, dir, self)
			b.segments[key] = seg
		}
		out.segments = append(out.segments, seg)
	}
	b.programs[string(key)] = out
	return out
}

// segmentKey tells apart what a segment becomes for endpoints that its rules tell
// apart.
func (b *builder) segmentKey(seg *Segment, dir flow.Direction, self *signature) string {
	n, known := b.numberOf[seg]
	if !known {
		n = len(b.numberOf)
		b.numberOf[seg] = n
	}
	key := binary.AppendUvarint([]byte{byte(dir)}, uint64(n))
	if self == nil {
		return string(append(key, math.MaxUint8))
	}
	for i, id := range seg.Rules {
		r := b.rules[id]
		own := r.dst
		if dir == flow.Egress {
			own = r.src
		}
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
