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
	i, before, moved := 0, 0, false // the piece, and elements in front of it
	for rest := changes; len(rest) > 0; i++ {
		// The piece of the first change, whose keys are among 100,000 others: it is looked
		// for, and pieces in front of it are not looked at.
		at, found := slices.BinarySearch((*keys)[before:], rest[0].key)
		if at += before; !found && at > before {
			at-- // behind that one
		}
		for ; before+len(old[i]) <= at; i++ {
			out, before = append(out, old[i]), before+len(old[i])
		}
		list, end := old[i], before+len(old[i])
		n := len(rest) // of them belong to the piece: those in front of the next one
		if i+1 < len(old) {
			n, _ = slices.BinarySearchFunc(rest, (*keys)[end], func(ch change, key string) int { return strings.Compare(ch.key, key) })
		}
		moved = mergeList(&list, (*keys)[before:end], rest[:n]) || moved
		out = append(out, cut(list)...)
		rest, before = rest[n:], end
	}
	out = append(out, old[i:]...)
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
