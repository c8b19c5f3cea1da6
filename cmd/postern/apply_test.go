package main

import (
	"fmt"
	"testing"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
)

// The count of staged policies follows changes, and is right of a snapshot that does not
// come of the one before.
func TestStagedCount(t *testing.T) {
	t.Parallel()
	key := func(kind policy.Kind, i int) policy.Key {
		return policy.Key{Kind: kind, Namespace: "a", Name: fmt.Sprint(i)}
	}
	put := func(s *k8ssync.Store, i int, as policy.StagedAction) {
		kind := policy.NetworkPolicy
		if as != policy.Enforced {
			kind = policy.StagedNetworkPolicy
		}
		k := key(kind, i)
		s.Upsert(k8ssync.Object{Key: k, Value: &policy.Policy{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name, Staged: as}})
	}
	var c stagedCount
	of := func(s *k8ssync.Store, want int) {
		t.Helper()
		if got := c.count(s.Snapshot(), s.Changes); got != want {
			t.Errorf("%d staged policies, want %d", got, want)
		}
	}
	s := k8ssync.NewLargeStore()
	of(s, 0)
	put(s, 1, policy.Enforced)
	put(s, 2, policy.StagedSet)
	put(s, 3, policy.StagedDelete)
	of(s, 2)
	s.Upsert(k8ssync.Object{Key: policy.Key{Kind: policy.NamespaceKind, Name: "a"}, Value: &policy.Namespace{Name: "a"}})
	of(s, 2)
	put(s, 2, policy.StagedDelete) // another kind of change, as staged as before
	of(s, 2)
	s.Delete(key(policy.StagedNetworkPolicy, 3))
	of(s, 1)
	other := k8ssync.NewLargeStore()
	for i := range 3 {
		put(other, i, policy.StagedSet)
	}
	of(other, 3)
	of(s, 1)
}
