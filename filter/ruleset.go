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
	table      *trie.Table // address to ClassID
	classes    []class
	programs   []program
	rules      []rule     // by RuleID; rules[0] matches nothing
	infos      []RuleInfo // by RuleID

	endpoints []EndpointInfo
	byAddr    map[netip.Addr]uint32 // index into endpoints
	protected [2][]netip.Addr       // by flow.Direction, sorted
	hosts     map[string][HostChains][2]uint32
	prefixes  int
}

type class struct {
	conflict, hosted bool
	programs         [2]uint32
}

type program struct {
	segments []*segment
	final    Final
}

type segment struct {
	rules []RuleID
	end   RuleID
}

// subject is a flow with both ends resolved.
type subject struct {
	flow.Tuple
	src, dst ClassID
}

// Decide decides one flow. It allocates nothing.
func (rs *Ruleset) Decide(t flow.Tuple) Decision {
	if !decidable(t) {
		return Decision{Reason: InvalidTuple}
	}
	s := rs.resolve(t)
	if rs.classes[s.src].conflict {
		o := Outcome{Reason: AddressConflict}
		return Decision{Reason: o.Reason, Side: flow.Egress, Egress: o}
	}
	if rs.classes[s.dst].conflict {
		o := Outcome{Reason: AddressConflict}
		return Decision{Reason: o.Reason, Side: flow.Ingress, Ingress: o}
	}
	if !rs.classes[s.src].hosted && !rs.classes[s.dst].hosted {
		return Decision{Reason: NoLocalEndpoint}
	}

	d := Decision{Side: flow.Egress}
	d.Egress = rs.side(&s, flow.Egress)
	if d.Egress.Verdict == Accept {
		d.Ingress = rs.side(&s, flow.Ingress)
		if d.Ingress.Reason != NotHosted {
			d.Side = flow.Ingress
		}
	}
	o := d.Outcome()
	d.Verdict, d.Reason = o.Verdict, o.Reason
	return d
}

// DecideSide decides one end alone: the sender's egress or the receiver's
// ingress. Decide is both, egress first.
func (rs *Ruleset) DecideSide(t flow.Tuple, dir flow.Direction) Outcome {
	if !decidable(t) {
		return Outcome{Reason: InvalidTuple}
	}
	s := rs.resolve(t)
	if rs.classes[s.src].conflict || rs.classes[s.dst].conflict {
		return Outcome{Reason: AddressConflict}
	}
	return rs.side(&s, dir)
}

// decidable is Valid, and neither address IPv4-mapped. A packet can carry a
// mapped address on the wire, and such a packet must not slip past the rules of
// either family.
func decidable(t flow.Tuple) bool {
	return t.Valid() && !t.Src.Is4In6() && !t.Dst.Is4In6()
}

func (rs *Ruleset) resolve(t flow.Tuple) subject {
	return subject{t, ClassID(rs.table.Lookup(t.Src)), ClassID(rs.table.Lookup(t.Dst))}
}

// side runs the program of the end that dir names.
func (rs *Ruleset) side(s *subject, dir flow.Direction) Outcome {
	c := &rs.classes[s.dst]
	if dir == flow.Egress {
		c = &rs.classes[s.src]
	}
	if !c.hosted {
		return Outcome{Verdict: Accept, Reason: NotHosted}
	}
	o, _ := rs.run(&rs.programs[c.programs[dir&1]], s)
	return o
}

// run walks a program (spec section 5.2). undecided is true only where a host
// chain leaves the flow to the next.
func (rs *Ruleset) run(p *program, s *subject) (o Outcome, undecided bool) {
	for _, seg := range p.segments {
		id, logged := rs.match(seg, s)
		o.Logged = o.Logged || logged
		if id == 0 {
			continue
		}
		switch rs.rules[id].action {
		case Pass:
			continue
		case Allow:
			o.Verdict = Accept
		}
		o.Rule, o.Reason = id, ByRule
		if id == seg.end {
			o.Reason = EndOfTier
		}
		return o, false
	}
	switch p.final {
	case FinalAllow:
		o.Verdict, o.Reason = Accept, ByProfile
	case FinalOpen:
		o.Verdict, o.Reason = Accept, NotHosted
	case FinalUndecided:
		return o, true
	default:
		o.Reason = NoProfile
	}
	return o, false
}

// match gives the first rule of the segment that matches and does not merely
// log; the segment's end if none does.
func (rs *Ruleset) match(seg *segment, s *subject) (id RuleID, logged bool) {
	for _, id := range seg.rules {
		r := &rs.rules[id]
		if !r.matches(s) {
			continue
		}
		if r.action != Log {
			return id, logged
		}
		logged = true
	}
	return seg.end, logged
}

// LogRules appends the rules with action Log that the flow matches on its way to
// a decision, egress first, and returns the extended slice. It repeats the work
// of Decide and is meant for flows whose outcome says Logged.
func (rs *Ruleset) LogRules(t flow.Tuple, dst []RuleID) []RuleID {
	d := rs.Decide(t)
	if !d.Egress.Logged && !d.Ingress.Logged {
		return dst
	}
	s := rs.resolve(t)
	if d.Egress.Logged {
		dst = rs.logRules(&rs.programs[rs.classes[s.src].programs[flow.Egress]], &s, dst)
	}
	if d.Ingress.Logged {
		dst = rs.logRules(&rs.programs[rs.classes[s.dst].programs[flow.Ingress]], &s, dst)
	}
	return dst
}

func (rs *Ruleset) logRules(p *program, s *subject, dst []RuleID) []RuleID {
	for _, seg := range p.segments {
		last := seg.end
	segment:
		for _, id := range seg.rules {
			r := &rs.rules[id]
			switch {
			case !r.matches(s):
			case r.action == Log:
				dst = append(dst, id)
			default:
				last = id
				break segment
			}
		}
		if last != 0 && rs.rules[last].action != Pass {
			return dst
		}
	}
	return dst
}
