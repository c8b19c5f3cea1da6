package k8ssync

import (
	"strings"

	"github.com/postern-project/postern/filter/policy"
)

// Batch reads and changes a Store within one Update. It is not valid after that,
// and not for concurrent use.
type Batch struct {
	store   *Store
	changed bool
}

// Update makes several changes as one: no snapshot shows some of them without the
// others. change must not call the Store.
func (s *Store) Update(change func(*Batch)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := Batch{store: s}
	change(&b)
	if b.changed {
		s.signal()
	}
}

// Upsert is Store.Upsert.
func (b *Batch) Upsert(o Object) { b.changed = b.store.upsert(o) || b.changed }

// Delete is Store.Delete.
func (b *Batch) Delete(k policy.Key) { b.changed = b.store.delete(k) || b.changed }

// InForce gives an object with the value that stands for it: its own, or that of
// its last valid version.
func (b *Batch) InForce(k policy.Key) (Object, bool) {
	e := b.store.get(indexKey(k))
	if e == nil {
		return Object{}, false
	}
	o := e.object
	o.Value = e.value
	return o, true
}

// Keys lists the objects of a kind, in one namespace or, if that is empty, in all.
func (b *Batch) Keys(kind policy.Kind, namespace string) []policy.Key {
	prefix := indexPrefix(kind)
	if namespace != "" {
		prefix += namespace + "\x00"
	}
	var keys []policy.Key
	for key := range b.store.objects.WalkPrefix(prefix) {
		if k := keyOfIndex(key); k.Kind == kind {
			keys = append(keys, k)
		}
	}
	return keys
}

// Any tells whether an object of the kind is in the namespace and contributes
// something.
func (b *Batch) Any(kind policy.Kind, namespace string) bool {
	for key, held := range b.store.objects.WalkPrefix(indexPrefix(kind) + namespace + "\x00") {
		if keyOfIndex(key).Kind == kind && entryOf(key, held).value != nil {
			return true
		}
	}
	return false
}

func indexPrefix(kind policy.Kind) string {
	index := indexKey(policy.Key{Kind: kind})
	return index[:strings.IndexByte(index, 0)+1]
}
