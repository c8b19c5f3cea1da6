package k8ssync

import (
	"maps"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/trie"
)

// Store holds the objects of one source and makes Snapshots of them. All methods
// are safe for concurrent use. Objects and what they point to are read-only from
// the moment they are handed over.
type Store struct {
	changed chan time.Time // capacity 1: any number of changes are one signal, of the first's time

	mu sync.Mutex
	// objects is ordered by class, namespace, name and kind (see indexKey), which
	// is the order of a Snapshot's slices. Of a plain object it has the value alone,
	// else an *entry (see get and put): of 100,000 pods, 14 MB.
	objects  trie.Names[any]
	snapshot *policy.Snapshot
	// pending has what snapshot holds of each object that was changed since, by
	// index key; nil for nothing.
	pending map[string]any
	// sorted are the index keys of the elements of snapshot's slices; tiers and
	// profiles are those of objects, without what is built in.
	sorted   [classes][]string
	tiers    []*policy.Tier
	profiles []*policy.Profile
	journal  journal
	large    bool
	counts   map[policy.Kind]Count
}

// Count tells how the objects of a kind are.
type Count struct {
	// Objects is how many there are, also of those that contribute nothing.
	Objects int
	// Unusable have problems. Held are those of them of which an earlier, valid
	// version is in force.
	Unusable, Held int
}

func (c *Count) add(e *entry, n int) {
	c.Objects += n
	if len(e.object.Problems) > 0 {
		c.Unusable += n
		if e.valid {
			c.Held += n
		}
	}
}

// entry is an object and the value that stands for it.
type entry struct {
	object Object
	// value is in force. It is object.Value, or the one of the last valid version.
	value any
	// valid: value comes from a version without problems.
	valid bool
}

// plain: there is nothing to say of the object but its value, which is in force.
func (e *entry) plain() bool {
	return e.valid && e.value != nil && e.value == e.object.Value && len(e.object.Problems) == 0 && len(e.object.Warnings) == 0
}

// entryOf gives back what put was given.
func entryOf(key string, held any) *entry {
	if e, ok := held.(*entry); ok {
		return e
	}
	return &entry{object: Object{Key: keyOfIndex(key), Value: held}, value: held, valid: true}
}

// get finds the entry of an index key; nil if there is none. It may be a copy.
func (s *Store) get(key string) *entry {
	held, known := s.objects.Get(key)
	if !known {
		return nil
	}
	return entryOf(key, held)
}

func (s *Store) put(key string, e *entry) {
	if e.plain() {
		s.objects.Put(key, e.value)
	} else {
		s.objects.Put(key, e)
	}
}

// NewStore gives an empty store, whose Snapshot holds what is built in.
func NewStore() *Store {
	return &Store{
		changed:  make(chan time.Time, 1),
		snapshot: &policy.Snapshot{Tiers: withBuiltIn(nil), Profiles: withDefaultAllow(nil)},
		pending:  make(map[string]any),
		counts:   make(map[policy.Kind]Count),
	}
}

// NewLargeStore gives an empty store whose snapshots have their long lists in pieces: for
// a cluster's pods, accounts and policies, of which some change all the time.
func NewLargeStore() *Store {
	s := NewStore()
	s.large = true
	return s
}

// Changed receives after the snapshot or the problems may have changed, once for
// any number of changes: the time of the first. It is for one reader and is never
// closed.
func (s *Store) Changed() <-chan time.Time { return s.changed }

// Upsert adds an object or replaces the one of the same key. Of an invalid
// object (one with problems) the last valid version stays in force, or, if there
// was none, its Value, which is then the fail-closed reading. Pods, endpoint
// slices, namespaces and service accounts count with their newest version even
// so: an identity must not outlive what it was read from.
func (s *Store) Upsert(o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.upsert(o) {
		s.signal()
	}
}

// Delete removes an object, and with it the memory of its last valid version.
// Deleting what is not there does nothing.
func (s *Store) Delete(k policy.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.delete(k) {
		s.signal()
	}
}

// Replace makes the objects given the whole state, at once: what is not among
// them is deleted, the others are upserted. Of two with the same key the later
// counts.
func (s *Store) Replace(objects []Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	listed := make(map[policy.Key]int, len(objects))
	for i, o := range objects {
		listed[o.Key] = i
	}
	changed := false
	for _, k := range s.keys() {
		if _, ok := listed[k]; !ok {
			changed = s.delete(k) || changed
		}
	}
	for i, o := range objects {
		if listed[o.Key] == i {
			changed = s.upsert(o) || changed
		}
	}
	if changed {
		s.signal()
	}
}

// Snapshot gives the present state. It is immutable, and the same pointer as
// long as no value differs.
func (s *Store) Snapshot() *policy.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) > 0 || s.snapshot.Generation == 0 {
		s.build()
	}
	return s.snapshot
}

// Changes gives what leads from one snapshot of this store to a later one, each
// object once, in the order of classes, namespaces and names. ok is false if the
// store does not know any more: it remembers the last few thousand changes.
func (s *Store) Changes(from, to *policy.Snapshot) (changes []policy.Change, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal.between(from, to)
}

// Problems gives what is wrong with the newest version of each object, in the
// order of classes, namespaces and names.
func (s *Store) Problems() []policy.Problem {
	return s.collect(func(o *Object) []policy.Problem { return o.Problems })
}

// Warnings gives what objects do not do although they seem to say it.
func (s *Store) Warnings() []policy.Problem {
	return s.collect(func(o *Object) []policy.Problem { return o.Warnings })
}

// Held names the invalid objects of which an earlier, valid version is in force.
func (s *Store) Held() []policy.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	var held []policy.Key
	for _, v := range s.objects.WalkPrefix("") {
		if e, ok := v.(*entry); ok && e.valid && len(e.object.Problems) > 0 {
			held = append(held, e.object.Key)
		}
	}
	return held
}

// Counts gives the numbers of each kind of which there are objects, or were.
func (s *Store) Counts() map[policy.Kind]Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.counts)
}

// count notes that an entry takes the place of another; nil is none.
func (s *Store) count(kind policy.Kind, old, now *entry) {
	c := s.counts[kind]
	if old != nil {
		c.add(old, -1)
	}
	if now != nil {
		c.add(now, 1)
	}
	s.counts[kind] = c
}

func (s *Store) collect(of func(*Object) []policy.Problem) []policy.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []policy.Problem
	for _, v := range s.objects.WalkPrefix("") {
		if e, ok := v.(*entry); ok {
			out = append(out, of(&e.object)...)
		}
	}
	return out
}

func (s *Store) keys() []policy.Key {
	keys := make([]policy.Key, 0, s.objects.Len())
	for key := range s.objects.WalkPrefix("") {
		keys = append(keys, keyOfIndex(key))
	}
	return keys
}

// upsert tells whether anything changed. The caller holds mu, as for all below.
func (s *Store) upsert(o Object) bool {
	key := indexKey(o.Key)
	old := s.get(key)
	e := &entry{object: o, value: o.Value, valid: len(o.Problems) == 0}
	if old != nil && !e.valid && old.valid && holdsLastValid(o.Key.Kind) {
		e.value, e.valid = old.value, true
	}
	if old != nil && reflect.DeepEqual(old, e) {
		return false
	}
	s.touch(key, old)
	s.count(o.Key.Kind, old, e)
	s.put(key, e)
	return true
}

func (s *Store) delete(k policy.Key) bool {
	key := indexKey(k)
	old := s.get(key)
	if old == nil {
		return false
	}
	s.touch(key, old)
	s.count(k.Kind, old, nil)
	s.objects.Delete(key)
	return true
}

// touch notes that the object of a key is about to change. old is nil if there is
// none.
func (s *Store) touch(key string, old *entry) {
	if _, noted := s.pending[key]; noted {
		return
	}
	s.pending[key] = nil
	if old != nil {
		s.pending[key] = inForce(key, old.value)
	}
}

func (s *Store) signal() {
	select {
	case s.changed <- time.Now():
	default:
	}
}

// holdsLastValid tells declarations, which somebody wrote and will mend, from
// observations.
func holdsLastValid(k policy.Kind) bool {
	switch k {
	case policy.PodKind, policy.EndpointSliceKind, policy.NamespaceKind, policy.ServiceAccountKind:
		return false
	}
	return true
}

// indexKey orders by class, namespace, name, kind. NUL sorts before every
// character of a name, so that "a" precedes "a-b" as a namespace too; names hold
// none.
func indexKey(k policy.Key) string {
	return strings.Join([]string{string(rune('A' + classOf(k.Kind))), k.Namespace, k.Name, string(k.Kind)}, "\x00")
}

// keyOfIndex is the key of an index key. It shares its memory.
func keyOfIndex(key string) policy.Key {
	_, rest, _ := strings.Cut(key, "\x00")
	namespace, rest, _ := strings.Cut(rest, "\x00")
	name, kind, _ := strings.Cut(rest, "\x00")
	return policy.Key{Kind: policy.Kind(kind), Namespace: namespace, Name: name}
}

// classOfIndex gives the class of an index key.
func classOfIndex(key string) class { return class(key[0] - 'A') }
