package trie

import (
	"iter"

	"github.com/armon/go-radix"
)

// Names maps strings to values and walks those that begin with a prefix, in
// byte order, such as "networkpolicy/shop/" for the policies of namespace shop.
// The zero Names is empty and usable. It is not safe for concurrent use: reads
// may run together, a write excludes everything else.
type Names[V any] struct {
	tree *radix.Tree
}

// Put gives key the value v, in place of any it had, and tells whether the key
// is new.
func (n *Names[V]) Put(key string, v V) (fresh bool) {
	if n.tree == nil {
		n.tree = radix.New()
	}
	_, replaced := n.tree.Insert(key, v)
	return !replaced
}

// Get gives the value of key and whether there is one.
func (n *Names[V]) Get(key string) (v V, found bool) {
	if n.tree == nil {
		return v, false
	}
	got, found := n.tree.Get(key)
	if !found {
		return v, false
	}
	return valueOf[V](got), true
}

// Delete takes key out and tells whether it was there.
func (n *Names[V]) Delete(key string) bool {
	if n.tree == nil {
		return false
	}
	_, found := n.tree.Delete(key)
	return found
}

// WalkPrefix yields, in byte order, the keys that begin with prefix; an empty
// prefix yields all. The loop must not change the index.
func (n *Names[V]) WalkPrefix(prefix string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if n.tree == nil {
			return
		}
		n.tree.WalkPrefix(prefix, func(key string, v any) (stop bool) {
			return !yield(key, valueOf[V](v))
		})
	}
}

// Len is the number of keys.
func (n *Names[V]) Len() int {
	if n.tree == nil {
		return 0
	}
	return n.tree.Len()
}

// valueOf unboxes a value of the tree. Put stores nothing but V, so the only
// value that is no V is the nil of an interface type, which boxing has lost.
func valueOf[V any](boxed any) V {
	v, _ := boxed.(V)
	return v
}
