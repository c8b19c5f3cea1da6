package k8ssync

import (
	"slices"
	"strings"
)

// pieceSize is how many elements a piece has when it is cut. One that grew to twice
// that is cut in two, and one without any is dropped.
const pieceSize = 512

// mergePieces puts changes, in the order of their keys, into a list in pieces whose
// elements have the keys given. Pieces without a change are shared with the old
// list, and no piece of that is written to.
func mergePieces[T any](old [][]*T, keys *[]string, changes []change) [][]*T {
	if len(old) == 0 || len(changes) > pieceSize {
		flat := slices.Concat(old...)
		merge(&flat, keys, changes)
		return cut(flat)
	}
	out := make([][]*T, 0, len(old)+1)
	before, moved := 0, false // elements in front of the piece
	rest := changes
	for i, piece := range old {
		n := len(rest) // of them belong to the piece: those in front of the next one
		if i+1 < len(old) {
			next := (*keys)[before+len(piece)]
			n, _ = slices.BinarySearchFunc(rest, next, func(ch change, key string) int { return strings.Compare(ch.key, key) })
		}
		if n == 0 {
			out = append(out, piece)
		} else {
			list := piece
			moved = mergeList(&list, (*keys)[before:before+len(piece)], rest[:n]) || moved
			out = append(out, cut(list)...)
		}
		rest, before = rest[n:], before+len(piece)
	}
	if moved {
		mergeKeys[T](keys, changes)
	}
	return out
}

// cut cuts a list into pieces, unless it is short enough to be one.
func cut[T any](list []*T) [][]*T {
	switch {
	case len(list) == 0:
		return nil
	case len(list) < 2*pieceSize:
		return [][]*T{list}
	}
	var pieces [][]*T
	for piece := range slices.Chunk(list, pieceSize) {
		pieces = append(pieces, slices.Clone(piece)) // else one would keep them all alive
	}
	return pieces
}
