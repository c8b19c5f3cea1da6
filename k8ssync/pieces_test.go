package k8ssync

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter/policy"
)

func pods(n int, version string) (objects []Object) {
	for i := range n {
		name := fmt.Sprintf("pod-%d", i)
		objects = append(objects, Object{Key: policy.Key{Kind: policy.PodKind, Namespace: "a", Name: name}, Value: &policy.Endpoint{Namespace: "a", Name: name, UID: version}})
	}
	return objects
}

// TestPieces does the same to a store with pieces and to one without.
func TestPieces(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		large, flat := NewLargeStore(), NewStore()
		both := func(change func(*Batch)) { large.Update(change); flat.Update(change) }
		n := rapid.SampledFrom([]int{0, 1, pieceSize, 2*pieceSize - 1, 2 * pieceSize, 3 * pieceSize}).Draw(rt, "pods")
		objects := pods(n, "first")
		both(func(b *Batch) {
			for _, o := range objects {
				b.Upsert(o)
			}
		})
		old, was := large.Snapshot(), slices.Clone(large.Snapshot().Pods())
		last, lastFlat := old, flat.Snapshot()
		for step := range rapid.IntRange(1, 6).Draw(rt, "steps") {
			from, many := rapid.IntRange(0, n).Draw(rt, "from"), rapid.SampledFrom([]int{1, 2, 20, pieceSize + 1}).Draw(rt, "many")
			gone := rapid.Bool().Draw(rt, "gone")
			objects := pods(from+many, fmt.Sprint(step))
			both(func(b *Batch) {
				for i := from; i < from+many; i++ {
					if gone {
						b.Delete(objects[i].Key)
					} else {
						b.Upsert(objects[i])
					}
				}
			})
			got, want := large.Snapshot(), flat.Snapshot()
			if !slices.Equal(got.Complete().Endpoints, want.Endpoints) {
				rt.Fatal("the pods differ with pieces and without")
			}
			if got.NumPods() != len(want.Endpoints) || got.Endpoints != nil {
				rt.Fatalf("%d pods, want %d; %d of them in a list", got.NumPods(), len(want.Endpoints), len(got.Endpoints))
			}
			for _, p := range got.Pieces {
				if len(p) == 0 || len(p) >= 2*pieceSize {
					rt.Fatalf("a piece of %d", len(p))
				}
			}
			changes, ok := large.Changes(last, got)
			if !ok {
				rt.Fatal("a change is forgotten")
			}
			if others, _ := flat.Changes(lastFlat, want); !slices.Equal(others, changes) {
				rt.Fatalf("%d changes, want %d", len(changes), len(others))
			}
			last, lastFlat = got, want
		}
		if !slices.Equal(old.Pods(), was) {
			rt.Fatal("an old snapshot was written to")
		}
	})
}

// TestPiecesAreShared: a change of one pod makes one new piece.
func TestPiecesAreShared(t *testing.T) {
	t.Parallel()
	s := NewLargeStore()
	s.Replace(pods(10*pieceSize, "first"))
	before := s.Snapshot()
	s.Upsert(pods(4322, "second")[4321])
	after, fresh := s.Snapshot(), 0
	for i := range after.Pieces {
		if &before.Pieces[i][0] != &after.Pieces[i][0] {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d pieces of %d are new, want one", fresh, len(after.Pieces))
	}
}
