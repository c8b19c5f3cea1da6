package filter

import (
	"encoding/binary"
	"net/netip"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/trie"
)

// Ruleset is the compiled form of one policy snapshot. It is immutable and its
// methods may be called by any number of goroutines at once.
type Ruleset struct {
	generation uint64
	table      trie.View // address to ClassID
	classes    []class   // by ClassID
	ends       [][2]program
	signatures []*signature // by number; read for rare rules and for logs only
	rules      []*rule      // by RuleID; nil for those that name nothing

	byAddr    trie.View // address to index of endpoints + 1
	endpoints []EndpointInfo
	protected [2][]netip.Addr // by flow.Direction, sorted
	hosted    []netip.Addr    // sorted
	hosts     map[string][HostChains][2]*program
	accounts  *accounts // of certificates
	sizes     Sizes
}

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
	rs.decide(&t, &d)
	return d
}

// decide fills a zero Decision in place: it is made of bytes, and to copy it as
// words right after would wait for each of them to be stored.
func (rs *Ruleset) decide(t *flow.Tuple, d *Decision) {
	q := query{tuple: t}
	if !rs.resolve(&q) {
		d.Reason = InvalidTuple
		return
	}
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
	rs.side(&q, flow.Egress, &d.Egress)
	if d.Egress.Verdict == Accept {
		rs.side(&q, flow.Ingress, &d.Ingress)
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
	q := query{tuple: &t}
	if !rs.resolve(&q) {
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

// resolve looks both addresses of q.tuple up. It is false for a tuple that is not Valid, or
// with an IPv4-mapped address: a packet can carry one on the wire, and such a
// packet must not slip past the rules of either family.
func (rs *Ruleset) resolve(q *query) bool {
	t := q.tuple
	switch {
	case t.Src.Is4() && t.Dst.Is4():
		src, dst := t.Src.As4(), t.Dst.As4()
		q.src = rs.classes[rs.table.Lookup4(binary.BigEndian.Uint32(src[:]))]
		q.dst = rs.classes[rs.table.Lookup4(binary.BigEndian.Uint32(dst[:]))]
		q.group, q.x = point(t, flow.ICMP, 0)
	case t.Src.Is6() && t.Dst.Is6() && !t.Src.Is4In6() && !t.Dst.Is4In6():
		q.src = rs.classes[rs.table.Lookup(t.Src)]
		q.dst = rs.classes[rs.table.Lookup(t.Dst)]
		q.group, q.x = point(t, flow.ICMPv6, familyGroups)
	default:
		return false
	}
	return true
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
	rs.run(&rs.ends[self][dir], dir, q, o)
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
		answer, logged := seg.match(rs, q, peer)
		o.Logged = o.Logged || logged
		o.BySource = o.BySource || seg.aside != nil && seg.aside.bySource
		if answer == noAnswer {
			if seg.end != 0 {
				o.Rule, o.Reason = seg.end, EndOfTier
				return false
			}
		} else if a := Action(answer & (1<<actionBits - 1)); a != Pass {
			if a == Allow {
				o.Verdict = Accept
			}
			o.Rule, o.Reason = seg.rules[answer>>actionBits], ByRule
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
	q := query{tuple: &t}
	rs.resolve(&q)
	s := rs.subject(&q)
	if d.Egress.Logged {
		dst = rs.logRules(&rs.ends[q.src.end][flow.Egress], &s, dst)
	}
	if d.Ingress.Logged {
		dst = rs.logRules(&rs.ends[q.dst.end][flow.Ingress], &s, dst)
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
