package trie

import (
	"cmp"
	"math/bits"
	"slices"
)

// node is the writer's record of the prefixes that end in one octet of the
// address: lengths 1 to 8 within it, and at the top also 0.
type node struct {
	entries  []entry // sorted by index
	children []child // sorted by octet

	// As last written to the image: the word that leads to the node, and the
	// value of the longest prefix above it. stale asks for writing it again.
	word      uint32
	inherited uint32
	stale     bool
}

// entry is one prefix. Its index is a one bit followed by the prefix's bits, so
// 1 to 511, and sorts shorter prefixes first (the base index of Knuth's
// allotment routing table).
type entry struct {
	index uint16
	value uint32
}

type child struct {
	octet uint8
	node  *node
}

// nodeWords is the word of each octet.
type nodeWords [256]uint32

// depthOf is the octet a prefix ends in; a prefix of 8 bits ends in octet 0.
func depthOf(length int) int { return max(length-1, 0) / 8 }

func octetOf(hi, lo uint64, depth int) uint8 {
	if depth < 8 {
		return uint8(hi >> (56 - 8*depth))
	}
	return uint8(lo >> (120 - 8*depth))
}

func indexOf(octet uint8, length int) uint16 {
	return 1<<length | uint16(octet)>>(8-length)
}

// span reverses indexOf: the first octet, and the prefix's length.
func (e entry) span() (octet uint8, length int) {
	length = bits.Len16(e.index) - 1
	return uint8(e.index << (8 - length)), length
}

func (n *node) find(index uint16) (int, bool) {
	return slices.BinarySearchFunc(n.entries, index, func(e entry, i uint16) int { return cmp.Compare(e.index, i) })
}

func (n *node) put(index uint16, v uint32) (fresh bool) {
	i, found := n.find(index)
	if found {
		n.entries[i].value = v
		return false
	}
	n.entries = slices.Insert(n.entries, i, entry{index, v})
	return true
}

func (n *node) drop(index uint16) bool {
	i, found := n.find(index)
	if found {
		n.entries = slices.Delete(n.entries, i, i+1)
	}
	return found
}

func (n *node) findChild(octet uint8) (int, bool) {
	return slices.BinarySearchFunc(n.children, octet, func(c child, o uint8) int { return cmp.Compare(c.octet, o) })
}

func (n *node) child(octet uint8) *node {
	if i, found := n.findChild(octet); found {
		return n.children[i].node
	}
	return nil
}

func (n *node) makeChild(octet uint8) *node {
	i, found := n.findChild(octet)
	if !found {
		n.children = slices.Insert(n.children, i, child{octet, &node{}})
	}
	return n.children[i].node
}

func (n *node) dropChild(octet uint8) {
	if i, found := n.findChild(octet); found {
		n.children = slices.Delete(n.children, i, i+1)
	}
}

func (n *node) empty() bool { return len(n.entries) == 0 && len(n.children) == 0 }

// only gives the octet where n differs from what it inherits, if that is a
// single one by construction.
func (n *node) only() (octet uint8, ok bool) {
	switch {
	case len(n.entries) == 0 && len(n.children) == 1:
		return n.children[0].octet, true
	case len(n.entries) == 1 && len(n.children) == 0:
		octet, length := n.entries[0].span()
		return octet, length == 8
	}
	return 0, false
}

// fringe gives for each octet the value of the longest prefix in n.
func (n *node) fringe(inherited uint32, to *nodeWords) {
	fill(to[:], inherited)
	for _, e := range n.entries { // shorter first, so longer ones stay on top
		octet, length := e.span()
		fill(to[octet:][:1<<(8-length)], e.value)
	}
}

func (n *node) each(hi, lo uint64, depth int, f func(hi, lo uint64, length int, v uint32)) {
	for _, e := range n.entries {
		octet, length := e.span()
		h, l := withOctet(hi, lo, depth, octet)
		f(h, l, 8*depth+length, e.value)
	}
	for _, c := range n.children {
		h, l := withOctet(hi, lo, depth, c.octet)
		c.node.each(h, l, depth+1, f)
	}
}

func withOctet(hi, lo uint64, depth int, octet uint8) (uint64, uint64) {
	if depth < 8 {
		return hi | uint64(octet)<<(56-8*depth), lo
	}
	return hi, lo | uint64(octet)<<(120-8*depth)
}

// fill gives all words a value, most of them in copies of what is filled already.
func fill(words []uint32, v uint32) {
	words[0] = v
	for n := 1; n < len(words); n *= 2 {
		copy(words[n:], words[:n])
	}
}

// runs counts the runs of equal words.
func (w *nodeWords) runs() int {
	n := 1
	for i := 1; i < len(w); i++ {
		if w[i] != w[i-1] {
			n++
		}
	}
	return n
}
