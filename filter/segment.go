package filter

import "github.com/postern-project/postern/filter/flow"

// segment is one tier as the endpoints of one direction see it for which the same
// rules are left once everything is resolved that the rules say of the endpoint
// itself. What is left depends on the peer's signature and the point of the
// packet, and lane has the answer to that ready. Segments are immutable.
type segment struct {
	lane
	// direct is set if the lane has all rules. Its words are outcomes then.
	direct bool
	rules  []RuleID // by position
	end    RuleID   // of the tier; 0 goes on with the next segment
	aside  *aside   // nil for most
	// request is nil if rules ask of requests what they ask of packets.
	request *requestTable
}

// lane has the answers of some rules of a segment: the first of them that
// matches, for every signature and point.
//
// The signature gives a row, the group of the point a plane, and the two a line.
// Groups that no row tells apart are of one plane.
type lane struct {
	rows  uint32        // of each plane
	plane [groups]uint8 // by group
	// index has the row of each signature there was when the lane was made. A byte
	// each keeps a node's lanes within the processor's own cache. It is nil for a
	// lane of more rows than a byte counts, or of few signatures with a row of their
	// own among very many; such a one has pages.
	index []uint8
	lines []line  // those of the rows of plane 0, 1 and so on, then those they lead to
	pages []*page // by signature number / pageSize
	least uint32  // no answer is less
}

// page has the rows of neighbouring signatures. Pages are immutable and interned.
type page [pageSize]uint32

const (
	pageBits = 6
	pageSize = 1 << pageBits
)

// aside is what does not fit in the one lane of a segment.
type aside struct {
	lanes []lane // more of them, by least
	logs  []lane // of rules with action Log
	rules []kept // by position
	// bySource is set if one of rules states source ports.
	bySource bool
}

// kept is a rule that is matched as it is: one that states source ports, one that
// asks something of an endpoint that is not known beforehand (host endpoints), or
// one of a segment whose lanes would take too much memory.
type kept struct {
	answer uint32
	rule   *rule
}

// row gives the row of a signature; 0 is that of signatures without one.
func (l *lane) row(signature uint32) uint32 {
	if signature < uint32(len(l.index)) {
		return uint32(l.index[signature])
	}
	if i := signature >> pageBits; i < uint32(len(l.pages)) {
		return l.pages[i][signature&(pageSize-1)]
	}
	return 0
}

// find gives the answer for a signature and a point.
func (l *lane) find(signature, group, x uint32) uint32 {
	w := l.lines[uint32(l.plane[group])*l.rows+l.row(signature)].word(x)
	for w&deeper != 0 {
		w = l.lines[w&^deeper].word(x)
	}
	return w
}

// query is a flow, resolved as far as the walk over segments needs it.
type query struct {
	tuple    *flow.Tuple
	src, dst class
	group, x uint32
}

// match gives the outcome of the first rule that matches and does not merely log,
// of the tier's end if none does, or goOn.
func (seg *segment) match(rs *Ruleset, q *query, peer uint32) (outcome uint32, logged bool) {
	answer := seg.find(peer, q.group, q.x)
	if seg.direct {
		return answer, false
	}
	if seg.aside != nil {
		answer, logged = seg.aside.match(rs, q, peer, answer)
	}
	return seg.outcome(answer), logged
}

func (a *aside) match(rs *Ruleset, q *query, peer, answer uint32) (uint32, bool) {
	for i := range a.lanes {
		l := &a.lanes[i]
		if l.least >= answer {
			break
		}
		answer = min(answer, l.find(peer, q.group, q.x))
	}
	logged := uint32(noAnswer) // the first rule that logs
	if len(a.rules) > 0 {
		s := rs.subject(q)
		for _, k := range a.rules {
			if k.answer >= answer {
				break
			}
			if !k.rule.matches(&s) {
				continue
			}
			if k.rule.action != Log {
				answer = k.answer
				break
			}
			logged = min(logged, k.answer)
		}
	}
	for i := range a.logs {
		logged = min(logged, a.logs[i].find(peer, q.group, q.x))
	}
	return answer, logged < answer
}

// An outcome is what a segment says of a flow:
//
//	31   30 ... 3   2             1 0
//	0    RuleID     end of tier   action
//
// goOn is that of a segment that leaves the flow to the next; Pass does too.
const (
	goOn        = noAnswer
	outcomeEnd  = 1 << actionBits
	outcomeRule = actionBits + 1
	maxRules    = 1 << (31 - outcomeRule)
)

// outcome turns an answer into an outcome.
func (seg *segment) outcome(answer uint32) uint32 {
	switch {
	case answer != noAnswer:
		return uint32(seg.rules[answer>>actionBits])<<outcomeRule | answer&(1<<actionBits-1)
	case seg.end != 0:
		return uint32(seg.end)<<outcomeRule | outcomeEnd | uint32(Deny)
	}
	return goOn
}
