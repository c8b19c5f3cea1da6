package filter

import (
	"net/netip"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/trie"
)

// Ruleset is the compiled form of one policy snapshot. It is immutable and its
// methods may be called by any number of goroutines at once.
type Ruleset struct {
	generation uint64
	serial     uint64    // no other Ruleset of this process has it
	table      trie.View // address to ClassID
	classes    []class   // by ClassID
	quick      []quick   // two for each end, by flow.Direction
	ends       []program // the same

	signatures []*signature // by number; read for rare rules and for logs only
	rules      []*rule      // by RuleID; nil for those that name nothing

	byAddr    trie.View // address to index of endpoints + 1
	endpoints []EndpointInfo
	protected [2][]netip.Addr // by flow.Direction, sorted
	hosted    []netip.Addr    // sorted
	hosting   *hosting
	hosts     map[string][HostChains][2]*program
	accounts  *accounts // of certificates
	sizes     Sizes
}

// hosting stands for the endpoints hosted here and their addresses: where it is the
// same, so are they.
type hosting struct{ _ byte } // not of size 0, all of which may be one

// class is what is known of an address.
type class struct {
	signature uint32 // number
	end       uint32 // index into ends, or one of the two below
}

const (
	endNotHosted = iota
	endConflict
	firstEnd // of those that have programs
)

// program decides for an endpoint and a direction.
type program struct {
	first *segment // nil if there is none; most have one or two
	more  []*segment
	final Final
}

// quick is what most decisions read of a program, in one cache line: a part of the
// lane of its first segment.
type quick struct {
	index []uint8
	lines []line
	rows  uint32
	plane [groups]uint8
	// none is set if the lane does not have the outcomes of the segment, and an
	// index.
	none bool
}

func newQuick(p *program) quick {
	if p.first == nil || !p.first.direct || p.first.pages != nil {
		return quick{none: true}
	}
	l := &p.first.lane
	return quick{index: l.index, lines: l.lines, rows: l.rows, plane: l.plane}
}

// segments yields them in order.
func (p *program) segments(yield func(*segment) bool) {
	if p.first == nil || !yield(p.first) {
		return
	}
	for _, seg := range p.more {
		if !yield(seg) {
			return
		}
	}
}

// subject is a flow with both ends resolved, for matching one rule by itself.
type subject struct {
	flow.Tuple
	src, dst *signature
}

func (rs *Ruleset) subject(q *query) subject {
	return subject{*q.tuple, rs.signatures[q.src.signature], rs.signatures[q.dst.signature]}
}

// Decide decides one flow. It allocates nothing.
func (rs *Ruleset) Decide(t flow.Tuple) (d Decision) {
	rs.DecideInto(&t, &d)
	return d
}

// DecideInto is Decide without copies of the tuple, which it only reads, and of the
// decision: a copy of what was just written in smaller pieces waits for all of them.
func (rs *Ruleset) DecideInto(t *flow.Tuple, d *Decision) {
	group, x := point(t)
	if t.Src.Is4() && t.Dst.Is4() { // lookup, without a call on the way
		rs.decideClasses(t, rs.table.Lookup4(trie.Bits4(&t.Src)), rs.table.Lookup4(trie.Bits4(&t.Dst)), group, x, d)
		return
	}
	src, dst, ok := rs.lookup(t)
	if !ok {
		*d = Decision{Reason: InvalidTuple}
		return
	}
	rs.decideClasses(t, src, dst, group, x, d)
}

// decideClasses is DecideInto for a flow of which the classes of both addresses and
// the point are known.
func (rs *Ruleset) decideClasses(t *flow.Tuple, a, b, group, x uint32, d *Decision) {
	*d = Decision{}
	src, dst := rs.classes[a], rs.classes[b]
	// Most flows have one end here, and which one is a coin the processor cannot
	// predict: so all that depends on it is selected without a branch.
	fromHere, toHere := -src.end>>31, -dst.end>>31 // 1 or 0: an end is below 1<<31
	if end := src.end | dst.end; fromHere^toHere != 0 && end >= firstEnd {
		if p := &rs.quick[end<<1|fromHere]; !p.none {
			peer := src.signature ^ (src.signature^dst.signature)&-fromHere
			row := uint32(0) // as lane.find has it
			if peer < uint32(len(p.index)) {
				row = uint32(p.index[peer])
			}
			l := &p.lines[uint32(p.plane[group])*p.rows+row]
			w, w1, w2, w3, w4 := l.words[0], l.words[1], l.words[2], l.words[3], l.words[4]
			if x >= uint32(l.starts[0]) {
				w = w1
			}
			if x >= uint32(l.starts[1]) {
				w = w2
			}
			if x >= uint32(l.starts[2]) {
				w = w3
			}
			if x >= uint32(l.starts[3]) {
				w = w4
			}
			for w&deeper != 0 {
				w = p.lines[w&^deeper].word(x)
			}
			if Action(w&(1<<actionBits-1)) <= Allow {
				d.set(fromHere, w)
				return
			}
		}
	}
	rs.decide(&query{t, src, dst, group, x}, d)
}

// set fills in the outcome of the only end that is here.
func (d *Decision) set(dir, outcome uint32) {
	verdict, reason, rule := Verdict(outcome&1), ByRule+Reason(outcome>>actionBits&1), RuleID(outcome>>outcomeRule)
	d.Verdict, d.Reason, d.Side = verdict, reason, flow.Direction(dir)
	egress, reached := uint8(-dir), Verdict(1^dir)|verdict // is the receiver asked?
	d.Egress.Verdict = verdict | Verdict(1^dir)
	d.Egress.Reason = reason&Reason(egress) | NotHosted&^Reason(egress)
	d.Egress.Rule = rule & RuleID(-dir)
	d.Ingress.Verdict = verdict
	d.Ingress.Reason = (reason&^Reason(egress) | NotHosted&Reason(egress)) & Reason(-reached)
	d.Ingress.Rule = rule &^ RuleID(-dir)
}

// decide fills in a zero Decision, whatever the ends are.
func (rs *Ruleset) decide(q *query, d *Decision) {
	switch {
	case q.src.end|q.dst.end == endNotHosted:
		d.Reason = NoLocalEndpoint
		return
	case q.src.end == endConflict:
		d.Side = flow.Egress
		d.Reason, d.Egress.Reason = AddressConflict, AddressConflict
		return
	case q.dst.end == endConflict:
		d.Reason, d.Ingress.Reason = AddressConflict, AddressConflict
		return
	}
	rs.side(q, flow.Egress, &d.Egress)
	if d.Egress.Verdict == Accept {
		rs.side(q, flow.Ingress, &d.Ingress)
		if d.Ingress.Reason != NotHosted {
			d.Verdict, d.Reason = d.Ingress.Verdict, d.Ingress.Reason
			return
		}
	}
	d.Side = flow.Egress
	d.Verdict, d.Reason = d.Egress.Verdict, d.Egress.Reason
}

// DecideSide decides one end alone: the sender's egress or the receiver's
// ingress. Decide is both, egress first.
func (rs *Ruleset) DecideSide(t flow.Tuple, dir flow.Direction) (o Outcome) {
	q, ok := rs.query(&t)
	if !ok {
		o.Reason = InvalidTuple
		return o
	}
	if q.src.end == endConflict || q.dst.end == endConflict {
		o.Reason = AddressConflict
		return o
	}
	rs.side(&q, dir&1, &o)
	return o
}

// lookup finds the classes of both addresses. ok is false for a tuple that is not
// Valid, or with an IPv4-mapped address: a packet can carry one on the wire, and such
// a packet must not slip past the rules of either family.
func (rs *Ruleset) lookup(t *flow.Tuple) (src, dst uint32, ok bool) {
	switch {
	case t.Src.Is4() && t.Dst.Is4():
		return rs.table.Lookup4(trie.Bits4(&t.Src)), rs.table.Lookup4(trie.Bits4(&t.Dst)), true
	case t.Src.Is6() && t.Dst.Is6() && !t.Src.Is4In6() && !t.Dst.Is4In6():
		return rs.table.Lookup(t.Src), rs.table.Lookup(t.Dst), true
	}
	return 0, 0, false
}

// resolve is lookup with what is known of the classes.
func (rs *Ruleset) resolve(t *flow.Tuple) (src, dst class, ok bool) {
	a, b, ok := rs.lookup(t)
	if ok {
		src, dst = rs.classes[a], rs.classes[b]
	}
	return src, dst, ok
}

// query is resolve and point in one, for a walk over segments.
func (rs *Ruleset) query(t *flow.Tuple) (q query, ok bool) {
	q.tuple = t
	q.src, q.dst, ok = rs.resolve(t)
	q.group, q.x = point(t)
	return q, ok
}

// side runs the program of the end that dir names.
func (rs *Ruleset) side(q *query, dir flow.Direction, o *Outcome) {
	self := q.dst.end
	if dir == flow.Egress {
		self = q.src.end
	}
	if self < firstEnd {
		o.Verdict, o.Reason = Accept, NotHosted
		return
	}
	rs.run(&rs.ends[self<<1|uint32(dir)], dir, q, o)
}

// run walks a program (spec section 5.2). undecided is true only where a host
// chain leaves the flow to the next.
func (rs *Ruleset) run(p *program, dir flow.Direction, q *query, o *Outcome) (undecided bool) {
	peer := q.src.signature
	if dir == flow.Egress {
		peer = q.dst.signature
	}
	seg := p.first
	for i := 0; seg != nil; i++ {
		outcome, logged := seg.match(rs, q, peer)
		o.Logged = o.Logged || logged
		o.BySource = o.BySource || seg.aside != nil && seg.aside.bySource
		if a := Action(outcome & (1<<actionBits - 1)); a <= Allow {
			o.Verdict, o.Reason, o.Rule = Verdict(a), ByRule+Reason(outcome>>actionBits&1), RuleID(outcome>>outcomeRule)
			return false
		}
		if i >= len(p.more) {
			break
		}
		seg = p.more[i]
	}
	switch p.final {
	case FinalAllow:
		o.Verdict, o.Reason = Accept, ByProfile
	case FinalOpen:
		o.Verdict, o.Reason = Accept, NotHosted
	case FinalUndecided:
		return true
	default:
		o.Reason = NoProfile
	}
	return false
}

// LogRules appends the rules with action Log that the flow matches on its way to
// a decision, egress first, and returns the extended slice. It repeats the work
// of Decide, rule by rule, and is meant for flows whose outcome says Logged.
func (rs *Ruleset) LogRules(t flow.Tuple, dst []RuleID) []RuleID {
	d := rs.Decide(t)
	if !d.Egress.Logged && !d.Ingress.Logged {
		return dst
	}
	q, _ := rs.query(&t)
	s := rs.subject(&q)
	if d.Egress.Logged {
		dst = rs.logRules(&rs.ends[q.src.end<<1|uint32(flow.Egress)], &s, dst)
	}
	if d.Ingress.Logged {
		dst = rs.logRules(&rs.ends[q.dst.end<<1|uint32(flow.Ingress)], &s, dst)
	}
	return dst
}

func (rs *Ruleset) logRules(p *program, s *subject, dst []RuleID) []RuleID {
	for seg := range p.segments {
		id := rs.firstMatch(seg, s, func(log RuleID) { dst = append(dst, log) })
		if id != 0 && (id == seg.end || rs.rules[id].action != Pass) {
			return dst
		}
	}
	return dst
}

// firstMatch gives the first rule of the segment that matches and does not merely
// log, the segment's end if none does, by asking one rule after the other. It
// calls log for those that log on the way.
func (rs *Ruleset) firstMatch(seg *segment, s *subject, log func(RuleID)) RuleID {
	for _, id := range seg.rules {
		r := rs.rules[id]
		switch {
		case !r.matches(s):
		case r.action == Log:
			log(id)
		default:
			return id
		}
	}
	return seg.end
}
