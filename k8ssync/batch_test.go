package k8ssync

import (
	"slices"
	"testing"

	"github.com/postern-project/postern/filter/policy"
)

// A batch is one signal and one generation, and reads what it wrote.
func TestUpdate(t *testing.T) {
	t.Parallel()
	s := NewStore()
	s.Replace([]Object{policyOf(policy.NetworkPolicy, "a", "one", "t"), policyOf(policy.KubernetesNetworkPolicy, "a", "two", "t"), policyOf(policy.NetworkPolicy, "a-b", "one", "t")})
	before := s.Snapshot()
	<-s.Changed()
	one := policy.Key{Kind: policy.NetworkPolicy, Namespace: "a", Name: "one"}
	s.Update(func(b *Batch) {
		if got := b.Keys(policy.NetworkPolicy, "a"); !slices.Equal(got, []policy.Key{one}) {
			t.Errorf("in namespace a: %v", got)
		}
		if got := len(b.Keys(policy.NetworkPolicy, "")); got != 2 {
			t.Errorf("in all: %d", got)
		}
		b.Delete(one)
		if _, ok := b.InForce(one); ok || b.Any(policy.NetworkPolicy, "a") || !b.Any(policy.KubernetesNetworkPolicy, "a") {
			t.Error("a batch does not read what it wrote")
		}
		b.Upsert(policyOf(policy.NetworkPolicy, "a", "three", "t"))
		b.Upsert(invalid(policyOf(policy.NetworkPolicy, "a", "three", "other")))
		o, ok := b.InForce(policy.Key{Kind: policy.NetworkPolicy, Namespace: "a", Name: "three"})
		if p, _ := o.Value.(*policy.Policy); !ok || p.Tier != "t" || len(o.Problems) == 0 {
			t.Errorf("in force of an invalid object: %+v", o)
		}
	})
	select {
	case <-s.Changed():
	default:
		t.Error("no signal")
	}
	if got := s.Snapshot().Generation; got != before.Generation+1 {
		t.Errorf("generation %d after %d", got, before.Generation)
	}
	s.Update(func(b *Batch) { b.Delete(one) })
	select {
	case <-s.Changed():
		t.Error("a signal for nothing")
	default:
	}
}
