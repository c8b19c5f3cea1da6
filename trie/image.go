package trie

import "math/bits"

// A word is a leaf with a value, or leads to a block:
//
//	31 30   29          28 ... 0
//	kind    hostsHere   payload: value, or number of the block
const (
	kindShift = 30
	payload   = MaxValue

	leaf   = 0 // payload is the value, 0 for no match
	path   = 1 // one block: several octets, one way on
	dense  = 2 // sixteen blocks: a word per octet
	sparse = 3 // one to four blocks: at most maxRuns runs of equal words

	// hostsHere is set in root words only: the hash holds an address whose first
	// 16 bits are those of the word.
	hostsHere = 1 << 29
)

// block is one cache line.
//
// A dense node is 16 of them: the word of octet o is blocks[n+o/16][o%16].
//
// A sparse node: words 0 to 7 are a bitmap of the octets at which a run of equal
// words begins (octet 0 always does); byte i of words 8 and 9 counts the bits set
// in bitmap words before i; the words of the runs follow from word 10 on, across
// as many blocks as they need.
//
// A path: word 0 is the leaf of whatever leaves the path; word 1 is the word at
// its end; word 2 is its length in octets, 1 to 8; words 3 and 4 are those
// octets, left-aligned in 64 bits, upper half first.
type block [16]uint32

const (
	denseBlocks = 16
	maxRuns     = 4*16 - sparseRuns
	maxPath     = 8

	sparseCounts = 8
	sparseRuns   = 10

	pathLeaf   = 0
	pathNext   = 1
	pathOctets = 2
	pathHigh   = 3
	pathLow    = 4
)

// image is what readers of the prefixes of one family see. Root words change in
// place, atomically; blocks a root word leads to do not change.
type image struct {
	blocks []block
	root   [1 << 16]uint32
}

// walk follows w to a leaf. hi and lo are the address without the bits already
// used, left-aligned. Every word in a block leads to deeper nodes only, so the
// loop ends after at most 14 steps.
func (img *image) walk(w uint32, hi, lo uint64) uint32 {
	for w>>kindShift != leaf {
		n := w & payload
		switch w >> kindShift {
		case sparse:
			b := &img.blocks[n]
			octet := uint32(hi >> 56)
			i := octet >> 5
			before := b[sparseCounts+i>>2] >> (i & 3 * 8) & 255
			at := sparseRuns - 1 + before + uint32(bits.OnesCount32(b[i]&(2<<(octet&31)-1)))
			w = img.blocks[n+at>>4][at&15]
		case dense:
			octet := uint32(hi >> 56)
			w = img.blocks[n+octet>>4][octet&15]
		default:
			b := &img.blocks[n]
			used := b[pathOctets] * 8
			if (hi^(uint64(b[pathHigh])<<32|uint64(b[pathLow])))>>(64-used) != 0 {
				return b[pathLeaf]
			}
			w = b[pathNext]
			hi = hi<<used | lo>>(64-used)
			lo <<= used
			continue
		}
		hi = hi<<8 | lo>>56
		lo <<= 8
	}
	return w & payload
}

// sparseBlocks is the number of blocks of a sparse node with that many runs.
func sparseBlocks(runs int) int { return (sparseRuns + runs + 15) / 16 }

// size is the number of blocks the node of w takes.
func (img *image) size(w uint32) int {
	switch w >> kindShift {
	case leaf:
		return 0
	case path:
		return 1
	case dense:
		return denseBlocks
	default:
		runs := 0
		for _, m := range img.blocks[w&payload][:sparseCounts] {
			runs += bits.OnesCount32(m)
		}
		return sparseBlocks(runs)
	}
}
