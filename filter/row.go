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

// point gives the group and the number of a packet.
func point(t *flow.Tuple) (group, x uint32) {
	if t.Src.Is6() {
		group = familyGroups
	}
	if t.Ported {
		if g := portGroups[t.Proto]; g != groupOther {
			return group + uint32(g), uint32(t.DstPort)
		}
	}
	if icmp := t.Src.Is4() && t.Proto == flow.ICMP || t.Src.Is6() && t.Proto == flow.ICMPv6; icmp {
		return group + groupICMP, uint32(t.ICMPType)<<8 | uint32(t.ICMPCode)
	}
	return group + groupOther, uint32(t.Proto)
}

// portGroups has the groups of packets with ports, by protocol.
var portGroups = func() (g [256]uint8) {
	for i := range g {
		g[i] = groupOther
	}
	g[flow.TCP], g[flow.UDP], g[flow.SCTP] = groupTCP, groupUDP, groupSCTP
	return g
}()

// An answer is a rule's position in its segment and its action: the smaller of
// two answers is that of the earlier rule.
const (
	actionBits   = 2
	noAnswer     = math.MaxInt32 // after every position; its action is Log's
	maxPositions = 1 << (31 - actionBits)
)

func answerOf(position int, a Action) uint32 { return uint32(position)<<actionBits | uint32(a) }

// span answers for the points from its first to before the next span's.
type span struct{ first, answer uint32 }

// line has the answers for the points of a group: half a cache line, and all there
// is for most. words[i] is for the points from starts[i-1] on; where fewer are
// needed the last is repeated. A list of more spans is a tree: a word with the bit
// deeper set leads to another line.
type line struct {
	words  [fan]uint32
	starts [fan - 1]uint16
	_      uint32
}

const (
	fan       = 5
	deeper    = 1 << 31
	lineWords = 4 // of 8 bytes
)

// word gives the word for a point. It has no branch: which word it is, is a coin
// the processor cannot predict.
func (l *line) word(x uint32) uint32 {
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
	return w
}

// rowLists are the lists of the spans of a row, by group.
type rowLists [groups]uint32

// box is a set of points: the same interval, both ends included, in some groups.
type box struct{ groups, first, last uint16 }

// painter makes the rows of a lane. Its memory is reused from one to the next.
type painter struct {
	of      [groups][]stroke // by group, in the order of answers
	points  []uint32
	spans   []span
	key     []byte
	canvas  []uint32 // answers by point; used for long lists only
	onwards []uint32 // for each point, a point from which on one may be blank

	lists  [][]span // of this lane, distinct
	listOf map[string]uint32
	rows   []rowLists // of this lane, distinct
	rowOf  map[rowLists]uint32
}

// stroke is an interval that a rule answers for.
type stroke struct {
	first, last uint16
	answer      uint32
}

// fewStrokes is up to how many strokes comparing each with each point is quicker
// than clearing a canvas of 65,536 points.
const fewStrokes = 48

func newPainter() *painter {
	return &painter{listOf: make(map[string]uint32), rowOf: make(map[rowLists]uint32)}
}

// beginLane forgets the rows of the lane before.
func (p *painter) beginLane() {
	p.lists, p.rows = p.lists[:0], p.rows[:0]
	clear(p.listOf)
	clear(p.rowOf)
}

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

// row finishes a row and gives its number in the lane. words is what it takes in
// memory that others do not share, in units of 8 bytes: 0 if the lane has a row like it.
func (p *painter) row() (number uint32, words int) {
	var row rowLists
	lines := 0
	for g, strokes := range p.of {
		if same := slices.IndexFunc(p.of[:g], func(s []stroke) bool { return slices.Equal(s, strokes) }); same >= 0 {
			row[g] = row[same]
			continue
		}
		p.spans = p.spans[:0]
		if len(strokes) > fewStrokes {
			p.paintMany(strokes)
		} else {
			p.paintFew(strokes)
		}
		row[g] = p.list()
		lines += linesOf(len(p.spans))
	}
	if n, known := p.rowOf[row]; known {
		return n, 0
	}
	number = uint32(len(p.rows))
	p.rows = append(p.rows, row)
	p.rowOf[row] = number
	return number, lines * lineWords
}

// list gives the number of the list of spans.
func (p *painter) list() uint32 {
	p.key = p.key[:0]
	for _, s := range p.spans {
		p.key = binary.NativeEndian.AppendUint64(p.key, uint64(s.first)<<32|uint64(s.answer))
	}
	n, known := p.listOf[string(p.key)]
	if !known {
		n = uint32(len(p.lists))
		p.lists = append(p.lists, slices.Clone(p.spans))
		p.listOf[string(p.key)] = n
	}
	return n
}

// linesOf is how many lines a list takes.
func linesOf(spans int) int {
	lines := 1
	for n := spans; n > fan; {
		n = (n + fan - 1) / fan
		lines += n
	}
	return lines
}

// lines gives the lines of the lane's rows, by plane, and the planes of its groups.
func (p *painter) lines() (lines []line, plane [groups]uint8) {
	var of []int // planes: the first group of each
	for g := range plane {
		k := slices.IndexFunc(of, func(h int) bool {
			return !slices.ContainsFunc(p.rows, func(r rowLists) bool { return r[g] != r[h] })
		})
		if k < 0 {
			k = len(of)
			of = append(of, g)
		}
		plane[g] = uint8(k)
	}
	lines = make([]line, len(of)*len(p.rows))
	roots := make([]line, len(p.lists))
	for i, list := range p.lists {
		lines, roots[i] = appendTree(lines, list)
	}
	for k, g := range of {
		for r, row := range p.rows {
			lines[k*len(p.rows)+r] = roots[row[g]]
		}
	}
	return slices.Clip(lines), plane
}

// appendTree appends the lines below the root of a list.
func appendTree(lines []line, list []span) (out []line, root line) {
	for len(list) > fan {
		var above []span
		for i := 0; i < len(list); i += fan {
			above = append(above, span{list[i].first, deeper | uint32(len(lines))})
			lines = append(lines, newLine(list[i:min(i+fan, len(list))]))
		}
		list = above
	}
	return lines, newLine(list)
}

// newLine makes a line of 1 to fan spans, of which the first has every point before
// the second.
func newLine(spans []span) (l line) {
	for i := range l.words {
		s := spans[min(i, len(spans)-1)]
		l.words[i] = s.answer
		if i > 0 {
			l.starts[i-1] = axisEnd
			if i < len(spans) {
				l.starts[i-1] = uint16(s.first)
			}
		}
	}
	return l
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
