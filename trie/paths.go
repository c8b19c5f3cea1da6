package trie

import "github.com/armon/go-radix"

// Paths maps absolute paths to numbers, and finds the numbers of a path and of the
// paths above it. Paths are compared on whole segments: every path ends in a
// slash, so "/v1/" is above "/v1/users/" and not above "/v10/". The zero Paths is
// empty and usable. It is not safe for concurrent use: reads may run together, a
// write excludes everything else.
type Paths struct {
	tree *radix.Tree
}

// pathEntry has the numbers of a path: those that count for the path alone, and
// those that count for everything below as well.
type pathEntry struct{ exact, below []int32 }

// Put adds a number to a path, which begins and ends in a slash. Without below the
// number is found for the very path only.
func (p *Paths) Put(path string, below bool, n int32) {
	if p.tree == nil {
		p.tree = radix.New()
	}
	e, _ := p.tree.Get(path)
	entry, _ := e.(*pathEntry)
	if entry == nil {
		entry = new(pathEntry)
		p.tree.Insert(path, entry)
	}
	if below {
		entry.below = append(entry.below, n)
	} else {
		entry.exact = append(entry.exact, n)
	}
}

// Find appends the numbers that count for a path, which begins and ends in a
// slash: from the shortest path on, one number more than once if it was put so.
func (p *Paths) Find(path string, dst []int32) []int32 {
	if p.tree == nil {
		return dst
	}
	p.tree.WalkPath(path, func(key string, e any) (stop bool) {
		entry := e.(*pathEntry)
		// What the tree calls a prefix is one in bytes. All keys end in a slash,
		// and so it is one in segments too.
		dst = append(dst, entry.below...)
		if len(key) == len(path) {
			dst = append(dst, entry.exact...)
		}
		return false
	})
	return dst
}

// Len is the number of paths.
func (p *Paths) Len() int {
	if p.tree == nil {
		return 0
	}
	return p.tree.Len()
}
