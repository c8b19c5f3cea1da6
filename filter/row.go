package filter

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/postern-project/postern/filter/flow"
)

// A packet, as far as protocol and ports go, is one point: a group and a number
// on the group's axis.
//
//	group          of each family      axis
//	TCP UDP SCTP   with ports read     destination port
//	ICMP           the family's own    type<<8 | code
//	other          everything else     protocol number
//
// Fragments without ports are in other, which is where rules that state ports do
// not reach.
const (
	groupTCP = iota
	groupUDP
	groupSCTP
	groupICMP
	groupOther
	familyGroups
	groups = 2 * familyGroups // IPv4, then IPv6

	allGroups = 1<<groups - 1
	axisEnd   = math.MaxUint16
)

// point gives the group and the number of a packet. icmp is the ICMP of the
// packet's family, and first the first group of the family.
func point(t *flow.Tuple, icmp flow.Proto, first uint32) (group, x uint32) {
	group, x = groupOther, uint32(t.Proto)
	switch {
	case t.Proto == icmp:
		group, x = groupICMP, uint32(t.ICMPType)<<8|uint32(t.ICMPCode)
	case !t.Ported:
	case t.Proto == flow.TCP:
		group, x = groupTCP, uint32(t.DstPort)
	case t.Proto == flow.UDP:
		group, x = groupUDP, uint32(t.DstPort)
	case t.Proto == flow.SCTP:
		group, x = groupSCTP, uint32(t.DstPort)
	}
	return first + group, x
}

// An answer is a rule's position in its segment and its action: the smaller of
// two answers is that of the earlier rule.
const (
	actionBits   = 2
	noAnswer     = math.MaxUint32 // after every position; its action is Log's
	maxPositions = 1 << (32 - actionBits)
)

func answerOf(position int, a Action) uint32 { return uint32(position)<<actionBits | uint32(a) }

// span answers for the points from its first to before the next span's.
type span struct{ first, answer uint32 }

// row gives the answer for every point. Rows are immutable and interned, and
// know nothing of who the two ends are.
type row struct {
	spans []span
	// head has a word a group: the number of spans and the first of them, or, if
	// the number is 0, the one answer for the whole group:
	//
	//	63 ... 32   31 ... 0
	//	n > 0       index into spans
	//	0           answer
	head [groups]uint64
}

// find gives the answer for a point.
func (r *row) find(group, x uint32) uint32 {
	h := r.head[group]
	n := uint32(h >> 32)
	if n == 0 {
		return uint32(h)
	}
	s := r.spans[uint32(h):]
	at := uint32(0)
	for n > 1 { // the first span begins at 0
		half := n / 2
		if s[at+half].first <= x {
			at += half
		}
		n -= half
	}
	return s[at].answer
}

// words is what a row takes in memory, in units of 8 bytes.
func (r *row) words() int { return groups + 4 + len(r.spans) }

// box is a set of points: the same interval, both ends included, in some groups.
type box struct{ groups, first, last uint16 }

// painter makes rows. Its memory is reused from one row to the next.
type painter struct {
	of      [groups][]stroke // by group, in the order of answers
	points  []uint32
	spans   []span
	key     []byte
	canvas  []uint32 // answers by point; used for long lists only
	onwards []uint32 // for each point, a point from which on one may be blank
	rows    map[string]*row
}

// stroke is an interval that a rule answers for.
type stroke struct {
	first, last uint16
	answer      uint32
}

// fewStrokes is up to how many strokes comparing each with each point is quicker
// than clearing a canvas of 65,536 points.
const fewStrokes = 48

func newPainter() *painter { return &painter{rows: make(map[string]*row)} }

// begin starts a row.
func (p *painter) begin() {
	for g := range p.of {
		p.of[g] = p.of[g][:0]
	}
}

// add lets a rule answer for its boxes, where no rule before it did. Answers
// rise from call to call.
func (p *painter) add(boxes []box, answer uint32) {
	for _, b := range boxes {
		for g := range p.of {
			if b.groups>>g&1 != 0 {
				p.of[g] = append(p.of[g], stroke{b.first, b.last, answer})
			}
		}
	}
}

// row finishes a row. It gives the one of equal content if there is one.
func (p *painter) row() *row {
	var head [groups]uint64
	p.spans = p.spans[:0]
	for g, strokes := range p.of {
		if same := slices.IndexFunc(p.of[:g], func(s []stroke) bool { return slices.Equal(s, strokes) }); same >= 0 {
			head[g] = head[same]
			continue
		}
		at := len(p.spans)
		if len(strokes) > fewStrokes {
			p.paintMany(strokes)
		} else {
			p.paintFew(strokes)
		}
		n := len(p.spans) - at
		if n == 1 {
			head[g] = uint64(p.spans[at].answer)
			p.spans = p.spans[:at]
		} else {
			head[g] = uint64(n)<<32 | uint64(at)
		}
	}
	p.key = p.key[:0]
	for _, h := range head {
		p.key = binary.NativeEndian.AppendUint64(p.key, h)
	}
	for _, s := range p.spans {
		p.key = binary.NativeEndian.AppendUint64(p.key, uint64(s.first)<<32|uint64(s.answer))
	}
	if r := p.rows[string(p.key)]; r != nil {
		return r
	}
	r := &row{spans: slices.Clone(p.spans), head: head}
	p.rows[string(p.key)] = r
	return r
}

// paintFew appends the spans of a group.
func (p *painter) paintFew(strokes []stroke) {
	p.points = append(p.points[:0], 0)
	for _, s := range strokes {
		p.points = append(p.points, uint32(s.first), uint32(s.last)+1)
		if s.first == 0 && s.last == axisEnd {
			break // nothing after it counts
		}
	}
	slices.Sort(p.points)
	start := len(p.spans)
	for i, x := range p.points {
		if x > axisEnd || i > 0 && x == p.points[i-1] {
			continue
		}
		answer := uint32(noAnswer)
		for _, s := range strokes {
			if uint32(s.first) <= x && x <= uint32(s.last) {
				answer = s.answer
				break
			}
		}
		p.appendSpan(start, x, answer)
	}
}

// paintMany does the same by painting what is blank, each point once.
func (p *painter) paintMany(strokes []stroke) {
	if p.canvas == nil {
		p.canvas, p.onwards = make([]uint32, axisEnd+1), make([]uint32, axisEnd+2)
	}
	for x := range p.onwards {
		p.onwards[x] = uint32(x)
	}
	for x := range p.canvas {
		p.canvas[x] = noAnswer
	}
	for _, s := range strokes {
		for x := p.blank(uint32(s.first)); x <= uint32(s.last); x = p.blank(x) {
			p.canvas[x] = s.answer
			p.onwards[x] = x + 1
		}
	}
	start := len(p.spans)
	for x, answer := range p.canvas {
		p.appendSpan(start, uint32(x), answer)
	}
}

// blank gives the first point from x on that is not painted, and shortens the
// way there for the next time.
func (p *painter) blank(x uint32) uint32 {
	for p.onwards[x] != x {
		p.onwards[x] = p.onwards[p.onwards[x]]
		x = p.onwards[x]
	}
	return x
}

func (p *painter) appendSpan(start int, x, answer uint32) {
	if len(p.spans) == start || p.spans[len(p.spans)-1].answer != answer {
		p.spans = append(p.spans, span{x, answer})
	}
}
