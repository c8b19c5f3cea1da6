package gen

import (
	"cmp"
	"reflect"
	"slices"
	"testing"

	"github.com/postern-project/postern/filter/policy"
)

func ruleCount(w *World) (n int) {
	for _, p := range w.Snapshot.Policies {
		n += len(p.Ingress) + len(p.Egress)
	}
	return n
}

func TestCluster(t *testing.T) {
	t.Parallel()
	for _, rules := range []int{11, 103, 1_002, 10_002, 100_008} {
		w := Cluster(rules, false)
		if got := ruleCount(w); got != rules {
			t.Errorf("%d rules, want %d", got, rules)
		}
		local := 0
		for _, ep := range w.Snapshot.Endpoints {
			if ep.Node == LocalNode {
				local++
			}
		}
		if len(w.Snapshot.Endpoints) != 100_000 || local != localPods || len(w.Flows) != distinctFlows {
			t.Errorf("%d rules: %d pods, %d of them local, %d flows", rules, len(w.Snapshot.Endpoints), local, len(w.Flows))
		}
	}
	if got := ruleCount(Cluster(11, true)); got != 11+2*65 {
		t.Errorf("%d rules with the security tier, want %d", got, 11+2*65)
	}
}

// TestSorted holds snapshots to their contract: in the order of namespace and name.
func TestSorted(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]*World{"cluster": Cluster(1_002, true), "one pod": OnePod(1000)} {
		s := w.Snapshot
		if !slices.IsSortedFunc(s.Endpoints, func(a, b *policy.Endpoint) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		}) {
			t.Errorf("%s: endpoints are not sorted", name)
		}
		if !slices.IsSortedFunc(s.Policies, func(a, b *policy.Policy) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		}) {
			t.Errorf("%s: policies are not sorted", name)
		}
	}
}

func TestOnePod(t *testing.T) {
	t.Parallel()
	w := OnePod(1000)
	if got := ruleCount(w); got != 1000 || len(w.Flows) != distinctFlows {
		t.Errorf("%d rules and %d flows, want 1000 and %d", got, len(w.Flows), distinctFlows)
	}
}

// TestSame holds the seeds to giving the same world twice.
func TestSame(t *testing.T) {
	t.Parallel()
	if !reflect.DeepEqual(Cluster(103, true), Cluster(103, true)) {
		t.Error("two clusters differ")
	}
	if !reflect.DeepEqual(OnePod(100), OnePod(100)) {
		t.Error("two worlds of one pod differ")
	}
	w := OnePod(10)
	if !reflect.DeepEqual(Zipf(w.Flows), Zipf(w.Flows)) || !reflect.DeepEqual(Uniform(w.Flows), Uniform(w.Flows)) {
		t.Error("two streams differ")
	}
	if !reflect.DeepEqual(NewRoutes(true, 1000, 100), NewRoutes(true, 1000, 100)) {
		t.Error("two tables differ")
	}
}
