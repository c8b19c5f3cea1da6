package k8ssync

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter/policy"
)

// long are the kinds of which a large store has lists in pieces.
var long = map[policy.Kind]func(name, version string) any{
	policy.PodKind: func(name, version string) any {
		return &policy.Endpoint{Namespace: "a", Name: name, UID: version}
	},
	policy.ServiceAccountKind: func(name, version string) any {
		return &policy.ServiceAccount{Namespace: "a", Name: name, Labels: map[string]string{"v": version}}
	},
	policy.NetworkPolicy: func(name, version string) any {
		return &policy.Policy{Kind: policy.NetworkPolicy, Namespace: "a", Name: name, Tier: version}
	},
}

func objectsOf(kind policy.Kind, n int, version string) (objects []Object) {
	for i := range n {
		name := fmt.Sprintf("o-%d", i)
		objects = append(objects, Object{Key: policy.Key{Kind: kind, Namespace: "a", Name: name}, Value: long[kind](name, version)})
	}
	return objects
}

// pieces gives those of all kinds.
func pieces(s *policy.Snapshot) (all [][]any) {
	for _, list := range s.Pieces.Policies {
		all = append(all, anys(list))
	}
	for _, list := range s.Pieces.ServiceAccounts {
		all = append(all, anys(list))
	}
	for _, list := range s.Pieces.Endpoints {
		all = append(all, anys(list))
	}
	return all
}

func anys[T any](list []*T) (out []any) {
	for _, v := range list {
		out = append(out, v)
	}
	return out
}

// TestPieces does the same to a store with pieces and to one without.
func TestPieces(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		large, flat := NewLargeStore(), NewStore()
		both := func(change func(*Batch)) { large.Update(change); flat.Update(change) }
		kind := rapid.SampledFrom(slices.Sorted(maps.Keys(long))).Draw(rt, "kind")
		n := rapid.SampledFrom([]int{0, 1, pieceSize, 2*pieceSize - 1, 2 * pieceSize, 3 * pieceSize}).Draw(rt, "objects")
		objects := objectsOf(kind, n, "first")
		both(func(b *Batch) {
			for _, o := range objects {
				b.Upsert(o)
			}
		})
		old, was := large.Snapshot(), slices.Concat(pieces(large.Snapshot())...)
		last, lastFlat := old, flat.Snapshot()
		for step := range rapid.IntRange(1, 6).Draw(rt, "steps") {
			from, many := rapid.IntRange(0, n).Draw(rt, "from"), rapid.SampledFrom([]int{1, 2, 20, pieceSize + 1}).Draw(rt, "many")
			stride := rapid.SampledFrom([]int{1, pieceSize - 1, pieceSize, 2 * pieceSize}).Draw(rt, "stride")
			gone := rapid.Bool().Draw(rt, "gone")
			if stride > 1 {
				many = min(many, 4)
			}
			objects := objectsOf(kind, from+many*stride, fmt.Sprint(step))
			both(func(b *Batch) {
				for i := from; i < from+many*stride; i += stride {
					if gone {
						b.Delete(objects[i].Key)
					} else {
						b.Upsert(objects[i])
					}
				}
			})
			got, want := large.Snapshot(), flat.Snapshot()
			whole := got.Complete()
			if !slices.Equal(whole.Endpoints, want.Endpoints) || !slices.Equal(whole.ServiceAccounts, want.ServiceAccounts) || !slices.Equal(whole.Policies, want.Policies) {
				rt.Fatal("the objects differ with pieces and without")
			}
			if got.NumPods() != len(want.Endpoints) || got.NumPolicies() != len(want.Policies) || len(got.Endpoints)+len(got.ServiceAccounts)+len(got.Policies) > 0 {
				rt.Fatalf("%d pods, %d policies; %d, %d and %d in a list", got.NumPods(), got.NumPolicies(), len(got.Endpoints), len(got.ServiceAccounts), len(got.Policies))
			}
			for _, p := range pieces(got) {
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
		if !slices.Equal(slices.Concat(pieces(old)...), was) {
			rt.Fatal("an old snapshot was written to")
		}
	})
}

// TestPiecesAreShared: a change of one object makes one new piece.
func TestPiecesAreShared(t *testing.T) {
	t.Parallel()
	for kind := range long {
		t.Run(string(kind), func(t *testing.T) {
			s := NewLargeStore()
			s.Replace(objectsOf(kind, 10*pieceSize, "first"))
			before := s.Snapshot()
			s.Upsert(objectsOf(kind, 4322, "second")[4321])
			after := s.Snapshot()
			if n := fresh(before.Pieces.Policies, after.Pieces.Policies) + fresh(before.Pieces.ServiceAccounts, after.Pieces.ServiceAccounts) + fresh(before.Pieces.Endpoints, after.Pieces.Endpoints); n != 1 {
				t.Errorf("%d pieces are new, want one", n)
			}
		})
	}
}

// fresh counts the pieces that are not where they were.
func fresh[T any](before, after [][]*T) (n int) {
	for i := range after {
		if &before[i][0] != &after[i][0] {
			n++
		}
	}
	return n
}
