package filter

import (
	"math/bits"
	"slices"

	"github.com/postern-project/postern/filter/flow"
)

// ClassID numbers the classes of one Spec. A class stands for addresses that no
// rule can tell apart. Class 0 is that of the addresses no prefix covers.
type ClassID uint32

// ClassSet is an immutable set of classes, tested once per rule and packet. Only
// the span between its first and its last member is stored, so a set that
// touches one namespace is small if the classes of a namespace are numbered
// together. A nil *ClassSet holds every class.
type ClassSet struct {
	first    uint32 // words[0] holds classes 64*first and up
	words    []uint64
	inverted bool // the members are the classes that words does not name
	classes  int
}

// NewClassSet makes a set from a bitmap: class c is bit c%64 of bitmap[c/64].
// Classes beyond the bitmap are not members; bits from classes on are ignored.
// The bitmap stays the caller's.
func NewClassSet(bitmap []uint64, classes int) *ClassSet {
	first, words := trim(bitmap, classes, 0)
	notFirst, notWords := trim(bitmap, classes, ^uint64(0))
	if len(notWords) < len(words) {
		return &ClassSet{first: notFirst, words: notWords, inverted: true, classes: classes}
	}
	return &ClassSet{first: first, words: words, classes: classes}
}

// trim flips the bitmap and cuts the empty words off both ends.
func trim(bitmap []uint64, classes int, flip uint64) (first uint32, words []uint64) {
	words = make([]uint64, (classes+63)/64)
	copy(words, bitmap)
	for i := range words {
		words[i] ^= flip
	}
	if tail := classes % 64; tail != 0 {
		words[len(words)-1] &= 1<<tail - 1
	}
	for len(words) > 0 && words[len(words)-1] == 0 {
		words = words[:len(words)-1]
	}
	for len(words) > 0 && words[0] == 0 {
		words = words[1:]
		first++
	}
	return first, slices.Clone(words)
}

// Contains tells whether c is a member.
func (s *ClassSet) Contains(c ClassID) bool {
	if s == nil {
		return true
	}
	i := uint32(c)/64 - s.first // wraps around below first, which is beyond len too
	named := i < uint32(len(s.words)) && s.words[i]>>(c%64)&1 != 0
	return named != s.inverted
}

// members calls yield for the members, rising. The nil set has none that it could
// name.
func (s *ClassSet) members(yield func(ClassID) bool) {
	if s == nil {
		return
	}
	word := func(i int) uint64 {
		w := uint64(0)
		if j := i - int(s.first); j >= 0 && j < len(s.words) {
			w = s.words[j]
		}
		if s.inverted {
			w = ^w
		}
		return w
	}
	from, to := int(s.first), int(s.first)+len(s.words)
	if s.inverted {
		from, to = 0, (s.classes+63)/64
	}
	for i := from; i < to; i++ {
		for w := word(i); w != 0; w &= w - 1 {
			c := i*64 + bits.TrailingZeros64(w)
			if c >= s.classes || !yield(ClassID(c)) {
				return
			}
		}
	}
}

// Empty tells whether no class is a member.
func (s *ClassSet) Empty() bool { return s != nil && !s.inverted && len(s.words) == 0 }

// full tells whether every class is a member.
func (s *ClassSet) full() bool { return s == nil || s.inverted && len(s.words) == 0 }

// ClassPort is a port that the addresses of a class offer under the name, or for
// the service, that a ClassPorts stands for.
type ClassPort struct {
	Class ClassID
	Proto flow.Proto
	Port  uint16
}

// ClassPorts is an immutable set of ClassPorts: a named port or a service as one
// side of one rule sees it. A nil *ClassPorts is empty.
type ClassPorts struct{ keys []uint64 }

// NewClassPorts makes a set; the slice stays the caller's.
func NewClassPorts(ports []ClassPort) *ClassPorts {
	keys := make([]uint64, len(ports))
	for i, p := range ports {
		keys[i] = p.key()
	}
	slices.Sort(keys)
	return &ClassPorts{slices.Clip(slices.Compact(keys))}
}

// key packs class<<24 | proto<<16 | port.
func (p ClassPort) key() uint64 {
	return uint64(p.Class)<<24 | uint64(p.Proto)<<16 | uint64(p.Port)
}

// Contains tells whether p is a member.
func (s *ClassPorts) Contains(p ClassPort) bool {
	if s == nil {
		return false
	}
	_, found := slices.BinarySearch(s.keys, p.key())
	return found
}

// lastClass gives the highest class that has a port.
func (s *ClassPorts) lastClass() ClassID {
	if s == nil || len(s.keys) == 0 {
		return 0
	}
	return ClassID(s.keys[len(s.keys)-1] >> 24)
}
