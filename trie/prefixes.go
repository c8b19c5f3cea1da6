package trie

import "sync/atomic"

// prefixes holds the prefixes of one family, except single addresses. It has the
// image for readers and, because the image has lost which prefix a word came
// from, a trie of nodes for the writer. All methods are the writer's.
type prefixes struct {
	image   atomic.Pointer[image]
	changes atomic.Uint64 // finished changes of prefixes
	_       [48]byte      // keeps what follows out of the readers' cache line

	work    *image // the one in image, or the next one while it is written
	top     *node  // nil as long as image is
	length  int
	used    int  // blocks of work written so far
	garbage int  // of these, blocks that nothing leads to
	rewrite bool // write every node, changed or not
	frozen  bool // a View has work: its root must not change

	hosts   int               // single addresses in the hash of this family
	hostsIn [256]*[256]uint32 // of these, by first and second octet
}

// slack is a number of spare or garbage blocks (32 KiB) not worth a copy.
const slack = 512

// A prefix shorter than wideLength is of more root words than are worth storing one
// by one: an atomic store takes as long as copying some thirty words.
const wideLength = 4

// insert gives a prefix its value and tells whether the prefix is new.
func (x *prefixes) insert(hi, lo uint64, length int, v uint32) bool {
	x.ensureImage()
	n, depth := x.top, depthOf(length)
	n.stale = true
	for d := range depth {
		n = n.makeChild(octetOf(hi, lo, d))
		n.stale = true
	}
	fresh := n.put(indexOf(octetOf(hi, lo, depth), length-8*depth), v)
	if fresh {
		x.length++
	}
	x.publish(octetOf(hi, lo, 0), length)
	return fresh
}

// remove takes a prefix out and tells whether it was there.
func (x *prefixes) remove(hi, lo uint64, length int) bool {
	var way [16]*node
	n, depth := x.top, depthOf(length)
	for d := 0; d < depth && n != nil; d++ {
		way[d] = n
		n = n.child(octetOf(hi, lo, d))
	}
	if n == nil || !n.drop(indexOf(octetOf(hi, lo, depth), length-8*depth)) {
		return false
	}
	way[depth] = n
	for _, n := range way[:depth+1] {
		n.stale = true
	}
	for d := depth; d > 0 && way[d].empty(); d-- {
		x.release(way[d].word)
		way[d-1].dropChild(octetOf(hi, lo, d-1))
	}
	x.length--
	x.publish(octetOf(hi, lo, 0), length)
	x.dropImageIfEmpty()
	return true
}

// each calls f for every prefix, in no order worth relying on.
func (x *prefixes) each(f func(hi, lo uint64, length int, v uint32)) {
	if x.top != nil {
		x.top.each(0, 0, 0, f)
	}
}

// publish shows readers the change of a prefix with that first octet.
func (x *prefixes) publish(octet uint8, length int) {
	x.thaw()
	if length < wideLength {
		x.fork()
	}
	x.paint(int(octet), 1<<(8-min(length, 8)))
	x.show()
	x.changes.Add(1)
	if live := x.used - x.garbage; x.garbage > live/2+slack {
		x.compact(live)
	}
}

// paint stores the root words of count first octets, as far as they changed.
func (x *prefixes) paint(first, count int) {
	shown := x.shown()
	var values, row nodeWords
	x.top.fringe(0, &values)
	x.top.stale = false
	for octet := first; octet < first+count; octet++ {
		n := x.top.child(uint8(octet))
		switch {
		case n == nil:
			fill(row[:], values[octet])
		case x.rewrite || n.stale || n.inherited != values[octet]:
			x.expand(n, values[octet], &row)
		default:
			continue
		}
		if hosts := x.hostsIn[octet]; hosts != nil {
			for i, n := range hosts {
				if n > 0 {
					row[i] |= hostsHere
				}
			}
		}
		root := x.work.root[octet<<8 : octet<<8+256] // expand may have moved work
		if !shown {
			copy(root, row[:])
			continue
		}
		for i, w := range row {
			if w != root[i] {
				atomic.StoreUint32(&root[i], w)
			}
		}
	}
}

// expand gives the word of every octet of n and writes the nodes below that
// changed. inherited is the value of octets that n says nothing of.
func (x *prefixes) expand(n *node, inherited uint32, to *nodeWords) {
	n.fringe(inherited, to)
	n.inherited, n.stale = inherited, false
	for i := range n.children {
		c, octet := n.children[i].node, n.children[i].octet
		if x.rewrite || c.stale || c.inherited != to[octet] {
			var below nodeWords
			x.expand(c, to[octet], &below)
			if !x.rewrite { // else the word is of the image before
				x.release(c.word)
			}
			c.word = x.encode(c, &below)
		}
		to[octet] = c.word
	}
}

// encode writes the blocks of a node and gives the word that leads there, or a
// leaf where no octet differs from another.
func (x *prefixes) encode(n *node, from *nodeWords) uint32 {
	runs := from.runs()
	octet, only := n.only()
	switch {
	case runs == 1:
		return from[0]
	case only:
		return x.encodePath(octet, n.inherited, from[octet])
	case runs <= maxRuns:
		at := x.alloc(sparseBlocks(runs))
		encodeSparse(x.work.blocks[at:], from)
		return sparse<<kindShift | at
	}
	at := x.alloc(denseBlocks)
	for i, w := range from {
		x.work.blocks[int(at)+i/16][i%16] = w
	}
	return dense<<kindShift | at
}

// encodePath writes a path of one octet, put before the path that next may be.
// The block of next stays allocated: its own node may be needed alone later.
func (x *prefixes) encodePath(octet uint8, inherited, next uint32) uint32 {
	octets, length := uint64(octet)<<56, uint32(1)
	if next>>kindShift == path {
		b := &x.work.blocks[next&payload]
		if b[pathLeaf] == inherited && b[pathOctets] < maxPath {
			octets |= (uint64(b[pathHigh])<<32 | uint64(b[pathLow])) >> 8
			length += b[pathOctets]
			next = b[pathNext]
		}
	}
	at := x.alloc(1)
	x.work.blocks[at] = block{
		pathLeaf: inherited, pathNext: next, pathOctets: length,
		pathHigh: uint32(octets >> 32), pathLow: uint32(octets),
	}
	return path<<kindShift | at
}

// encodeSparse writes at most maxRuns runs to blocks that are zero; see block.
func encodeSparse(to []block, from *nodeWords) {
	head, run := &to[0], 0
	for i, w := range from {
		if i%32 == 0 {
			head[sparseCounts+i/128] |= uint32(run) << (i / 32 % 4 * 8)
		}
		if i == 0 || w != from[i-1] {
			head[i/32] |= 1 << (i % 32)
			at := sparseRuns + run
			to[at/16][at%16] = w
			run++
		}
	}
}

// alloc gives the first of count blocks that no reader can reach.
func (x *prefixes) alloc(count int) uint32 {
	if need := x.used + count; need > len(x.work.blocks) {
		x.replaceWork(need + need/4 + slack/8)
	}
	at := x.used
	x.used += count
	return uint32(at)
}

// thaw makes a root that may change.
func (x *prefixes) thaw() {
	if x.frozen {
		x.fork()
	}
}

// fork copies the root into an image that readers do not have before show. Blocks
// stay shared with readers: those that roots lead to never change, and new ones come
// after all of them.
func (x *prefixes) fork() {
	if x.shown() {
		x.work = &image{blocks: x.work.blocks, root: x.work.root}
		x.frozen = false
	}
}

// shown tells whether readers have work.
func (x *prefixes) shown() bool { return x.image.Load() == x.work }

// show gives work to readers, if they do not have it.
func (x *prefixes) show() {
	if !x.shown() {
		x.image.Store(x.work)
	}
}

// replaceWork copies the image as it is into one with room for capacity blocks.
// The words stay true, so readers may use either.
func (x *prefixes) replaceWork(capacity int) {
	old := x.work
	x.work = &image{blocks: make([]block, capacity), root: old.root}
	copy(x.work.blocks, old.blocks[:x.used])
	if x.image.Load() == old {
		x.show()
	}
}

// compact writes a new image without garbage; live is the blocks it will need.
func (x *prefixes) compact(live int) {
	x.work = &image{blocks: make([]block, live+live/4+slack/8)}
	x.used = 0
	x.rewrite = true
	x.paint(0, 256)
	x.rewrite, x.frozen = false, false
	x.garbage = 0
	x.show()
}

func (x *prefixes) release(w uint32) { x.garbage += x.work.size(w) }

// countHost notes a new single address with those first 16 bits, which must be in
// place, and gives how many there are.
func (x *prefixes) countHost(first uint16) uint32 {
	x.ensureImage()
	page := &x.hostsIn[first>>8]
	if *page == nil {
		*page = new([256]uint32)
	}
	x.hosts++
	if (*page)[first&255]++; (*page)[first&255] == 1 {
		x.thaw()
		w := &x.work.root[first]
		atomic.StoreUint32(w, *w|hostsHere)
		x.show()
	}
	return (*page)[first&255]
}

// uncountHost is the reverse, when the address is gone.
func (x *prefixes) uncountHost(first uint16) uint32 {
	count := &x.hostsIn[first>>8][first&255]
	x.hosts--
	if *count--; *count == 0 {
		x.thaw()
		w := &x.work.root[first]
		atomic.StoreUint32(w, *w&^hostsHere)
		x.show()
	}
	left := *count
	x.dropImageIfEmpty()
	return left
}

func (x *prefixes) ensureImage() {
	if x.work == nil {
		x.work = &image{}
		x.top = &node{}
	}
}

func (x *prefixes) dropImageIfEmpty() {
	if x.length > 0 || x.hosts > 0 {
		return
	}
	x.image.Store(nil)
	x.work, x.top, x.frozen = nil, nil, false
	x.used, x.garbage = 0, 0
	x.hostsIn = [256]*[256]uint32{}
}
