package filter

import "github.com/postern-project/postern/filter/flow"

// segment is one tier as the endpoints of one direction see it for which the same
// rules are left once everything is resolved that the rules say of the endpoint
// itself. What is left depends on the peer's signature and the point of the
// packet, and lane has the answer to that ready. Segments are immutable.
type segment struct {
	lane
	rules []RuleID // by position
	end   RuleID   // of the tier; 0 goes on with the next segment
	aside *aside   // nil for most
	// request is nil if rules ask of requests what they ask of packets.
	request *requestTable
}

// lane has the answers of some rules of a segment: the first of them that
// matches, for every signature and point.
type lane struct {
	least uint32 // no answer is less
	// index has the rows of the signatures from low on, by index of rows. A byte
	// each keeps a node's lanes within the processor's own cache, which pointers
	// did not: 1.3 MB of them at 10,000 rules. It is nil for a lane of more rows
	// than a byte counts, or whose signatures are far apart; such a one has pages.
	low   uint32
	index []uint8
	rows  []*row
	pages []*page // by signature number / pageSize
	rest  *row    // of all other signatures
}

// page has the rows of neighbouring signatures. Pages are immutable and interned.
type page [pageSize]*row

const (
	pageBits = 6
	pageSize = 1 << pageBits // pointers of 8 bytes: 8 cache lines, of which a look-up reads one
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

func (l *lane) find(signature, group, x uint32) uint32 {
	r := l.rest
	if i := signature - l.low; i < uint32(len(l.index)) { // wraps around below low
		r = l.rows[l.index[i]]
	} else if i := signature >> pageBits; i < uint32(len(l.pages)) {
		r = l.pages[i][signature&(pageSize-1)]
	}
	return r.find(group, x)
}

// query is a flow, resolved as far as the walk over segments needs it.
type query struct {
	tuple    *flow.Tuple
	src, dst class
	group, x uint32
}

// match gives the answer of the first rule that matches and does not merely log,
// or noAnswer.
func (seg *segment) match(rs *Ruleset, q *query, peer uint32) (answer uint32, logged bool) {
	answer = seg.find(peer, q.group, q.x)
	if seg.aside == nil {
		return answer, false
	}
	return seg.aside.match(rs, q, peer, answer)
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
