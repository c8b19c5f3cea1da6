package filter

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/postern-project/postern/filter/flow"
)

// bounds limit what a segment takes in memory, so that rules, peers and ports are
// added and never multiplied.
type bounds struct {
	// merged is how many intervals of rules for every peer are repeated in the rows
	// of peers that have rules of their own. Above it they get a lane with a single
	// row, which costs one more row to look at.
	merged int
	// A lane may take words (of 8 bytes), plus so many for each interval that its
	// rules state and each signature there is.
	words, perInterval, perSignature int
	// lanes bounds the lanes of a segment. Rules that are left are matched one by
	// one.
	lanes int
}

// usualBounds are far above what policies that people write come near (a few rows
// of a few intervals each), so that those have one lane; they allow some 16 times
// the memory of the rules themselves.
var usualBounds = bounds{merged: 32, words: 4096, perInterval: 16, perSignature: 16, lanes: 16}

// part is a rule in the making of a segment.
type part struct {
	answer uint32
	rule   *rule
	peer   term
	boxes  []box
	// offers is set if the points depend on what the peer offers; boxes are those
	// of a peer that offers nothing.
	offers bool
}

// compile makes a segment.
func (b *Builder) compile(c *compiled) *segment {
	var parts, logs []part
	var rest aside
	dir, self := c.dir, c.self
	for position, id := range c.rules {
		r := b.rules.list[id]
		own, peer := r.ends(dir)
		p := part{answer: answerOf(position, r.action), rule: r, peer: peer, boxes: r.boxes}
		named := r.more != nil && r.more.dst.named()
		switch {
		case self != nil && !self.holds(own):
			continue
		case r.more != nil && r.more.src.stated(), self == nil && own != 0, self == nil && named && dir == flow.Ingress:
			rest.rules = append(rest.rules, kept{p.answer, r})
			rest.bySource = rest.bySource || r.more != nil && r.more.src.stated()
			continue
		case named && dir == flow.Ingress:
			p.boxes = boxesOf(r, self)
		case named:
			p.offers = true
		}
		switch {
		case len(p.boxes) == 0 && !p.offers:
		case r.action == Log:
			logs = append(logs, p)
		default:
			parts = append(parts, p)
		}
	}
	seg := &segment{rules: c.rules, end: c.end}
	if dir == flow.Ingress {
		seg.request = newRequestTable(c.rules, b.rules.list)
	}
	lanes, left := b.lanes(parts)
	moreLogs, leftLogs := b.lanes(logs)
	for _, p := range slices.Concat(left, leftLogs) {
		rest.rules = append(rest.rules, kept{p.answer, p.rule})
	}
	slices.SortFunc(rest.rules, func(a, b kept) int { return cmp.Compare(a.answer, b.answer) })
	seg.lane, rest.lanes, rest.logs = lanes[0], lanes[1:], moreLogs
	if len(logs) == 0 {
		rest.logs = nil
	}
	if len(rest.lanes)+len(rest.logs)+len(rest.rules) > 0 {
		seg.aside = &rest
	}
	if seg.direct = seg.aside == nil; seg.direct {
		for i := range seg.lines {
			for k, w := range seg.lines[i].words {
				if w&deeper == 0 {
					seg.lines[i].words[k] = seg.outcome(w)
				}
			}
		}
	}
	return seg
}

// lanes makes the lanes of some rules, at least one, and gives those that are
// left when there are too many.
func (b *Builder) lanes(parts []part) (lanes []lane, left []part) {
	var wild, some []part
	merged := 0
	for _, p := range parts {
		if p.peer == 0 && !p.offers {
			wild = append(wild, p)
			merged += len(p.boxes)
		} else {
			some = append(some, p)
		}
	}
	if merged > b.bounds.merged && len(some) > 0 {
		l, _ := b.lane(wild, 0)
		lanes = append(lanes, l)
		parts = some
	}
	for len(lanes) == 0 || len(parts) > 0 {
		if len(lanes) == b.bounds.lanes {
			return lanes, parts
		}
		n := len(parts)
		l, ok := b.lane(parts, b.limit(parts))
		for !ok {
			n = (n + 1) / 2
			limit := b.limit(parts[:n])
			if n == 1 {
				limit = 0
			}
			l, ok = b.lane(parts[:n], limit)
		}
		lanes, parts = append(lanes, l), parts[n:]
	}
	slices.SortFunc(lanes, func(a, b lane) int { return cmp.Compare(a.least, b.least) })
	return lanes, nil
}

// limit is the number of words a lane of these rules may take.
func (b *Builder) limit(parts []part) int {
	intervals := 0
	for _, p := range parts {
		intervals += len(p.boxes)
	}
	return b.bounds.words + b.bounds.perInterval*intervals + b.bounds.perSignature*len(b.signatures.list)
}

// lane makes one lane, unless it would take more words than the limit; 0 is no
// limit.
func (b *Builder) lane(parts []part, limit int) (l lane, ok bool) {
	l.least = noAnswer
	if len(parts) > 0 {
		l.least = parts[0].answer
	}
	wild := b.wild[:0]
	for i, p := range parts {
		if p.peer == 0 {
			wild = append(wild, int32(i))
		} else {
			for _, s := range b.terms[p.peer] {
				b.touch(s)
				b.lists[s] = append(b.lists[s], int32(i))
			}
		}
		if p.peer == 0 && p.offers {
			for _, set := range p.rule.more.dst.sets(nil) {
				for _, s := range b.sets[set] {
					b.touch(s)
				}
			}
		}
	}
	b.wild = wild
	defer b.untouch()

	b.painter.beginLane()
	_, words := b.row(parts, wild, nil) // row 0
	clear(b.memo)
	slices.Sort(b.touched)
	for _, s := range b.touched {
		r, more := b.rowOf(parts, s)
		if words += more; limit > 0 && words > limit {
			return lane{}, false
		}
		b.found = append(b.found, r)
	}
	l.rows = uint32(len(b.painter.rows))
	l.lines, l.plane = b.painter.lines()
	if !b.indexed(&l) {
		l.pages = b.pages()
	}
	return l, true
}

// An index may have this many bytes, and so many more for each signature with a
// row of its own.
const indexBytes, bytesPerSignature = 4096, 16

// indexed gives a lane its index, unless pages suit it better.
func (b *Builder) indexed(l *lane) bool {
	n := len(b.signatures.list)
	if len(b.touched) > 0 && (len(b.painter.rows) > math.MaxUint8+1 || n >= indexBytes+bytesPerSignature*len(b.touched)) {
		return false
	}
	if len(b.touched) == 0 {
		return true
	}
	l.index = make([]uint8, n)
	for i, s := range b.touched {
		l.index[s] = uint8(b.found[i])
	}
	return true
}

func (b *Builder) touch(signature uint32) {
	if !b.isTouched[signature] {
		b.isTouched[signature] = true
		b.touched = append(b.touched, signature)
	}
}

func (b *Builder) untouch() {
	for _, s := range b.touched {
		b.isTouched[s] = false
		b.lists[s] = b.lists[s][:0]
	}
	b.touched, b.found = b.touched[:0], b.found[:0]
}

// rowOf gives the row of a signature, and what it takes beyond what the lane has.
func (b *Builder) rowOf(parts []part, number uint32) (row uint32, words int) {
	s, own := b.signatures.list[number], b.lists[number]
	b.memoKey = b.memoKey[:0]
	for _, i := range own {
		b.memoKey = binary.LittleEndian.AppendUint32(b.memoKey, uint32(i))
	}
	merged := append(append(b.merged[:0], b.wild...), own...)
	if len(b.wild) > 0 {
		slices.Sort(merged)
	}
	b.merged = merged
	if slices.ContainsFunc(merged, func(i int32) bool { return parts[i].offers }) && len(s.offer) > 0 {
		return b.row(parts, merged, s)
	}
	if r, known := b.memo[string(b.memoKey)]; known {
		return r, 0
	}
	row, words = b.row(parts, merged, s)
	b.memo[string(b.memoKey)] = row
	return row, words
}

// row makes the row of some parts for a peer of that signature; nil is one that
// offers nothing.
func (b *Builder) row(parts []part, which []int32, peer *signature) (row uint32, words int) {
	b.painter.begin()
	for _, i := range which {
		p := &parts[i]
		boxes := p.boxes
		if p.offers && peer != nil {
			boxes = boxesOf(p.rule, peer)
		}
		b.painter.add(boxes, p.answer)
	}
	return b.painter.row()
}

// pages puts the rows found for the touched signatures into pages.
func (b *Builder) pages() []*page {
	pages := make([]*page, b.touched[len(b.touched)-1]>>pageBits+1)
	var scratch page
	next := 0
	for i := range pages {
		scratch = page{}
		for next < len(b.touched) && int(b.touched[next]>>pageBits) == i {
			scratch[b.touched[next]&(pageSize-1)] = b.found[next]
			next++
		}
		pages[i] = b.page(&scratch)
	}
	return pages
}

func (b *Builder) page(of *page) *page {
	if p := b.interned[*of]; p != nil {
		return p
	}
	p := new(page)
	*p = *of
	b.interned[*p] = p
	return p
}
