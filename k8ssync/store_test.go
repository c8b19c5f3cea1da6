package k8ssync

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter/policy"
)

// namespaceOf gives an object whose label tells the version.
func namespaceOf(name, version string) Object {
	return Object{Key: policy.Key{Kind: policy.NamespaceKind, Name: name}, Value: &policy.Namespace{Name: name, Labels: map[string]string{"v": version}}}
}

// policyOf gives a policy whose tier tells the version.
func policyOf(kind policy.Kind, namespace, name, tier string) Object {
	return Object{Key: policy.Key{Kind: kind, Namespace: namespace, Name: name},
		Value: &policy.Policy{Kind: kind, Namespace: namespace, Name: name, Tier: tier, AppliesIngress: true}}
}

// invalid gives the object with a problem.
func invalid(o Object) Object {
	o.Problems = []policy.Problem{{Object: o.Key, Field: "spec", Message: "bad"}}
	return o
}

// withoutNumber compares states, not the road there.
var withoutNumber = cmp.Options{cmpopts.IgnoreFields(policy.Snapshot{}, "Generation"), cmpopts.EquateEmpty()}

func TestEmptySnapshot(t *testing.T) {
	t.Parallel()
	s := NewStore().Snapshot()
	want := &policy.Snapshot{Generation: 1,
		Tiers: []policy.Tier{
			{Name: "default", Order: 1e6, DefaultAction: policy.Deny},
			{Name: "kube-admin", Order: 1e3, DefaultAction: policy.Pass},
			{Name: "kube-baseline", Order: 1e7, DefaultAction: policy.Pass},
		},
		Profiles: []*policy.Profile{{Name: "projectcalico-default-allow", Ingress: []policy.Rule{{Action: policy.Allow}}, Egress: []policy.Rule{{Action: policy.Allow}}}},
	}
	if d := cmp.Diff(want, s); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestBuiltInsCannotBeChanged(t *testing.T) {
	t.Parallel()
	s := NewStore()
	empty := s.Snapshot()
	s.Upsert(Object{Key: policy.Key{Kind: policy.TierKind, Name: "default"}, Value: &policy.Tier{Name: "default", DefaultAction: policy.Allow}})
	s.Upsert(Object{Key: policy.Key{Kind: policy.ProfileKind, Name: policy.DefaultAllowProfile}, Value: &policy.Profile{Name: policy.DefaultAllowProfile}})
	if s.Snapshot() != empty {
		t.Error("objects with the names of built-in ones changed the snapshot")
	}
}

func TestSnapshotOrder(t *testing.T) {
	t.Parallel()
	s := NewStore()
	s.Replace([]Object{
		policyOf(policy.NetworkPolicy, "b", "a", "t"),
		policyOf(policy.NetworkPolicy, "a-b", "a", "t"),
		policyOf(policy.NetworkPolicy, "a", "b", "t"),
		policyOf(policy.NetworkPolicy, "a", "a.b", "t"),
		policyOf(policy.NetworkPolicy, "a", "a", "t"),
		policyOf(policy.KubernetesNetworkPolicy, "a", "a", "t"),
		policyOf(policy.GlobalNetworkPolicy, "", "z", "t"),
	})
	var got []string
	for _, p := range s.Snapshot().Policies {
		got = append(got, p.Key().String())
	}
	want := []string{"GlobalNetworkPolicy z", "KubernetesNetworkPolicy a/a", "NetworkPolicy a/a", "NetworkPolicy a/a.b", "NetworkPolicy a/b", "NetworkPolicy a-b/a", "NetworkPolicy b/a"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// Every kind has its slice.
func TestEveryKind(t *testing.T) {
	t.Parallel()
	s := NewStore()
	object := func(k policy.Kind, v any) { s.Upsert(Object{Key: policy.Key{Kind: k, Name: "x"}, Value: v}) }
	object(policy.TierKind, &policy.Tier{Name: "x"})
	object(policy.ProfileKind, &policy.Profile{Name: "x"})
	object(policy.NamespaceKind, &policy.Namespace{Name: "x"})
	object(policy.ServiceAccountKind, &policy.ServiceAccount{Name: "x"})
	object(policy.PodKind, &policy.Endpoint{Name: "x"})
	object(policy.HostEndpointKind, &policy.HostEndpoint{Name: "x"})
	object(policy.NetworkSetKind, &policy.NetworkSet{Name: "x", Kind: policy.NetworkSetKind})
	object(policy.GlobalNetworkSet, &policy.NetworkSet{Name: "x", Kind: policy.GlobalNetworkSet})
	object(policy.EndpointSliceKind, &policy.EndpointSlice{Name: "x"})
	kinds := []policy.Kind{policy.NetworkPolicy, policy.GlobalNetworkPolicy, policy.KubernetesNetworkPolicy, policy.KubernetesClusterNetworkPolicy,
		policy.StagedNetworkPolicy, policy.StagedGlobalNetworkPolicy, policy.StagedKubernetesNetworkPolicy}
	for _, k := range kinds {
		object(k, &policy.Policy{Kind: k, Name: "x"})
	}
	object("Unheard", &policy.Policy{Name: "x"})
	n := s.Snapshot()
	got := []int{len(n.Tiers), len(n.Profiles), len(n.Namespaces), len(n.ServiceAccounts), len(n.Endpoints), len(n.HostEndpoints), len(n.NetworkSets), len(n.EndpointSlices), len(n.Policies)}
	if d := cmp.Diff([]int{4, 2, 1, 1, 1, 1, 2, 1, len(kinds)}, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestSnapshotStaysWhileNothingDiffers(t *testing.T) {
	t.Parallel()
	s := NewStore()
	objects := []Object{namespaceOf("a", "1"), policyOf(policy.GlobalNetworkPolicy, "", "g", "t")}
	s.Replace(objects)
	first := s.Snapshot()
	same := func(what string) {
		t.Helper()
		if s.Snapshot() != first {
			t.Errorf("%s: another snapshot", what)
		}
	}
	s.Replace([]Object{namespaceOf("a", "1"), policyOf(policy.GlobalNetworkPolicy, "", "g", "t")})
	same("equal objects")
	s.Upsert(Object{Key: policy.Key{Kind: policy.PodKind, Name: "done"}})
	same("an object that contributes nothing")
	s.Delete(policy.Key{Kind: policy.PodKind, Name: "done"})
	same("and its deletion")
	s.Upsert(namespaceOf("a", "2"))
	s.Upsert(namespaceOf("a", "1"))
	same("there and back between two snapshots")
	s.Upsert(invalid(policyOf(policy.GlobalNetworkPolicy, "", "g", "other")))
	same("an invalid version of a valid object")

	s.Upsert(namespaceOf("b", "1"))
	next := s.Snapshot()
	if next.Generation != first.Generation+1 {
		t.Errorf("generation %d after %d", next.Generation, first.Generation)
	}
	if len(first.Namespaces) != 1 {
		t.Error("an old snapshot changed")
	}
}

func TestLastValidVersionStays(t *testing.T) {
	t.Parallel()
	tier := func(s *Store) string {
		var got string
		for _, p := range s.Snapshot().Policies {
			got += p.Tier
		}
		return got
	}
	at := func(tier string) Object { return policyOf(policy.NetworkPolicy, "a", "p", tier) }
	s := NewStore()
	steps := []struct {
		do   func()
		want string
		held int
	}{
		{func() { s.Upsert(invalid(at("closed1"))) }, "closed1", 0},
		{func() { s.Upsert(invalid(at("closed2"))) }, "closed2", 0},
		{func() { s.Upsert(at("good1")) }, "good1", 0},
		{func() { s.Upsert(invalid(at("closed3"))) }, "good1", 1},
		{func() { s.Replace([]Object{invalid(at("closed4"))}) }, "good1", 1},
		{func() { s.Upsert(at("good2")) }, "good2", 0},
		{func() { s.Replace(nil) }, "", 0},
		{func() { s.Upsert(invalid(at("closed5"))) }, "closed5", 0},
		{func() { s.Upsert(at("good3")) }, "good3", 0},
		{func() { s.Delete(at("").Key) }, "", 0},
		{func() { s.Replace([]Object{invalid(at("closed6"))}) }, "closed6", 0},
	}
	for i, step := range steps {
		step.do()
		if got := tier(s); got != step.want || len(s.Held()) != step.held {
			t.Errorf("step %d: in force %q, held %v; want %q, %d held", i, got, s.Held(), step.want, step.held)
		}
		want := Count{Objects: len(s.keys()), Unusable: len(s.Problems()), Held: step.held}
		if got := s.Counts()[policy.NetworkPolicy]; got != want {
			t.Errorf("step %d: %+v are counted, want %+v", i, got, want)
		}
	}
}

// What was observed is not kept: an address may be another pod's by now.
func TestObservationsAreNotHeld(t *testing.T) {
	t.Parallel()
	s := NewStore()
	key := policy.Key{Kind: policy.PodKind, Namespace: "a", Name: "p"}
	s.Upsert(Object{Key: key, Value: &policy.Endpoint{Namespace: "a", Name: "p"}})
	s.Upsert(invalid(Object{Key: key}))
	if n := len(s.Snapshot().Endpoints); n != 0 {
		t.Errorf("%d endpoints, want none", n)
	}
	if len(s.Problems()) != 1 || len(s.Held()) != 0 {
		t.Errorf("problems %v, held %v", s.Problems(), s.Held())
	}
}

func TestProblemsAndWarnings(t *testing.T) {
	t.Parallel()
	s := NewStore()
	a, b := invalid(policyOf(policy.NetworkPolicy, "b", "p", "t")), invalid(policyOf(policy.NetworkPolicy, "a", "p", "t"))
	w := namespaceOf("n", "1")
	w.Warnings = []policy.Problem{{Object: w.Key, Message: "hm"}}
	s.Replace([]Object{a, b, w})
	if d := cmp.Diff([]policy.Problem{b.Problems[0], a.Problems[0]}, s.Problems()); d != "" {
		t.Errorf("problems: -want +got:\n%s", d)
	}
	if d := cmp.Diff(w.Warnings, s.Warnings()); d != "" {
		t.Errorf("warnings: -want +got:\n%s", d)
	}
}

func TestChanged(t *testing.T) {
	t.Parallel()
	s := NewStore()
	signalled := func() bool {
		select {
		case <-s.Changed():
			return true
		default:
			return false
		}
	}
	steps := []struct {
		title string
		do    func()
		want  bool
	}{
		{"nothing", func() {}, false},
		{"several at once", func() { s.Upsert(namespaceOf("a", "1")); s.Upsert(namespaceOf("b", "1")) }, true},
		{"drained", func() {}, false},
		{"equal", func() { s.Upsert(namespaceOf("a", "1")) }, false},
		{"problem only", func() { s.Upsert(invalid(namespaceOf("a", "1"))) }, true},
		{"delete", func() { s.Delete(namespaceOf("a", "").Key) }, true},
		{"delete again", func() { s.Delete(namespaceOf("a", "").Key) }, false},
		{"replace with the same", func() { s.Replace([]Object{namespaceOf("b", "1")}) }, false},
	}
	for _, step := range steps {
		step.do()
		if got := signalled(); got != step.want {
			t.Errorf("%s: signalled %v, want %v", step.title, got, step.want)
		}
	}
}

// states is a list of complete states; the tests below go through it in ways
// that must all end the same.
func states() [][]Object {
	return [][]Object{
		{},
		{namespaceOf("a", "1")},
		{namespaceOf("a", "1"), namespaceOf("b", "1"), policyOf(policy.NetworkPolicy, "a", "p", "t1")},
		{namespaceOf("a", "2"), policyOf(policy.NetworkPolicy, "a", "p", "t2"), policyOf(policy.KubernetesNetworkPolicy, "a", "p", "t2")},
		{policyOf(policy.NetworkPolicy, "a", "p", "t2"), {Key: policy.Key{Kind: policy.PodKind, Namespace: "a", Name: "done"}}},
		{namespaceOf("a", "1"), namespaceOf("b", "3"), policyOf(policy.GlobalNetworkPolicy, "", "g", "t1")},
	}
}

func TestStateNotRoad(t *testing.T) {
	t.Parallel()
	all := states()
	backwards := slices.Clone(all)
	slices.Reverse(backwards)
	var twice [][]Object
	for _, s := range all {
		twice = append(twice, s, s)
	}
	for title, road := range map[string][][]Object{"forwards": all, "backwards": backwards, "twice": twice, "squashed": all[len(all)-1:]} {
		byReplace, byEvent := NewStore(), NewStore()
		var previous []Object
		for i, state := range road {
			fresh := NewStore()
			fresh.Replace(state)
			want := fresh.Snapshot()

			byReplace.Replace(state)
			if d := cmp.Diff(want, byReplace.Snapshot(), withoutNumber); d != "" {
				t.Errorf("%s, state %d by Replace: -fresh +got:\n%s", title, i, d)
			}
			step(byEvent, previous, state)
			if d := cmp.Diff(want, byEvent.Snapshot(), withoutNumber); d != "" {
				t.Errorf("%s, state %d by Upsert and Delete: -fresh +got:\n%s", title, i, d)
			}
			previous = state
		}
	}
}

// step goes from one state to the next with single events.
func step(s *Store, from, to []Object) {
	for _, o := range slices.Backward(to) {
		s.Upsert(o)
	}
	for _, o := range from {
		if !slices.ContainsFunc(to, func(p Object) bool { return p.Key == o.Key }) {
			s.Delete(o.Key)
		}
	}
}

// Any order of events leads to what a map of the last values holds.
func TestStoreAgainstMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := NewStore()
		model := map[policy.Key]Object{}
		var generation uint64
		past := []*policy.Snapshot{s.Snapshot()}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			name := rapid.SampledFrom([]string{"a", "a-b", "b"}).Draw(rt, "name")
			version := fmt.Sprint(rapid.IntRange(1, 3).Draw(rt, "version"))
			o := rapid.SampledFrom([]Object{namespaceOf(name, version), policyOf(policy.NetworkPolicy, name, name, version), policyOf(policy.GlobalNetworkPolicy, "", name, version)}).Draw(rt, "object")
			switch rapid.IntRange(0, 3).Draw(rt, "do") {
			case 0:
				s.Delete(o.Key)
				delete(model, o.Key)
			case 1:
				s.Replace([]Object{o})
				model = map[policy.Key]Object{o.Key: o}
			default:
				s.Upsert(o)
				model[o.Key] = o
			}
			got := s.Snapshot()
			if got.Generation < generation {
				rt.Fatalf("generation went from %d to %d", generation, got.Generation)
			}
			generation = got.Generation
			from := rapid.SampledFrom(past).Draw(rt, "from")
			changes, ok := s.Changes(from, got)
			if !ok {
				rt.Fatal("a change is forgotten")
			}
			checkChanges(rt, from, got, changes)
			past = append(past, got)
		}
		want := &policy.Snapshot{}
		counts := s.Counts()
		for _, o := range model {
			c := counts[o.Key.Kind]
			c.Objects--
			counts[o.Key.Kind] = c
		}
		for kind, c := range counts {
			if c != (Count{}) {
				rt.Fatalf("%s: %+v objects are counted over what there is", kind, c)
			}
		}
		for _, o := range model {
			switch v := o.Value.(type) {
			case *policy.Namespace:
				want.Namespaces = append(want.Namespaces, v)
			case *policy.Policy:
				want.Policies = append(want.Policies, v)
			}
		}
		slices.SortFunc(want.Namespaces, func(a, b *policy.Namespace) int { return cmpStrings(a.Name, b.Name) })
		slices.SortFunc(want.Policies, func(a, b *policy.Policy) int {
			return cmpStrings(a.Namespace, b.Namespace, a.Name, b.Name)
		})
		got := s.Snapshot()
		if d := cmp.Diff(want.Namespaces, got.Namespaces, cmpopts.EquateEmpty()) + cmp.Diff(want.Policies, got.Policies, cmpopts.EquateEmpty()); d != "" {
			rt.Fatalf("-want +got:\n%s", d)
		}
	})
}

// checkChanges holds that changes lead from one snapshot to another.
func checkChanges(t rapid.TB, from, to *policy.Snapshot, changes []policy.Change) {
	t.Helper()
	objects := func(s *policy.Snapshot) map[any]bool {
		all := make(map[any]bool)
		for _, n := range s.Namespaces {
			all[n] = true
		}
		for _, p := range s.Policies {
			all[p] = true
		}
		return all
	}
	have := objects(from)
	for _, ch := range changes {
		if ch.Old == ch.New || ch.Old != nil && !have[ch.Old] {
			t.Fatalf("change %v", ch)
		}
		delete(have, ch.Old)
		if ch.New != nil {
			have[ch.New] = true
		}
	}
	if want := objects(to); !maps.Equal(want, have) {
		t.Fatalf("changes lead to %v, want %v", have, want)
	}
}

// A journal has an end, and knows only the snapshots of its own store.
func TestChangesForgets(t *testing.T) {
	t.Parallel()
	s, other := NewStore(), NewStore()
	first := s.Snapshot()
	other.Upsert(namespaceOf("a", "1"))
	s.Upsert(namespaceOf("a", "1"))
	second := s.Snapshot()
	for _, c := range []struct {
		title    string
		from, to *policy.Snapshot
		want     int // -1 if not known
	}{
		{"none", first, first, 0},
		{"one", first, second, 1},
		{"back", second, first, -1},
		{"another store", other.Snapshot(), second, -1},
		{"no snapshot", nil, second, -1},
	} {
		changes, ok := s.Changes(c.from, c.to)
		if ok != (c.want >= 0) || ok && len(changes) != c.want {
			t.Errorf("%s: %v, %v", c.title, changes, ok)
		}
	}
	for i := range maxJournal {
		s.Upsert(namespaceOf("a", fmt.Sprint(i)))
		s.Snapshot()
	}
	last := s.Snapshot()
	if _, ok := s.Changes(first, last); ok {
		t.Error("the first of many changes is remembered")
	}
	changes, ok := s.Changes(second, last)
	if !ok || len(changes) != 1 || changes[0].Old != any(second.Namespaces[0]) || changes[0].New != any(last.Namespaces[0]) {
		t.Errorf("changes of one object: %v, %v", changes, ok)
	}
}

// cmpStrings compares pairs of strings, the first difference counts.
func cmpStrings(pairs ...string) int {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] != pairs[i+1] {
			if pairs[i] < pairs[i+1] {
				return -1
			}
			return 1
		}
	}
	return 0
}

// A snapshot holds all of a Replace or nothing of it.
func TestReplaceIsAtomic(t *testing.T) {
	t.Parallel()
	s := NewStore()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 200 {
			v := fmt.Sprint(i % 2)
			s.Replace([]Object{namespaceOf("a", v), namespaceOf("b", v)})
		}
	})
	for range 200 {
		n := s.Snapshot().Namespaces
		if len(n) != 0 && (len(n) != 2 || n[0].Labels["v"] != n[1].Labels["v"]) {
			t.Errorf("half a state: %v", n)
		}
	}
	wg.Wait()
}

// Few changes at a time and many at a time lead to the same.
func TestManyChanges(t *testing.T) {
	t.Parallel()
	few, many := NewStore(), NewStore()
	for round := range 4 {
		var batch []Object
		for i := range 60 {
			if (i+round)%3 == 0 {
				k := namespaceOf(fmt.Sprint("n", i), "").Key
				few.Delete(k)
				many.Delete(k)
			} else {
				batch = append(batch, namespaceOf(fmt.Sprint("n", i), fmt.Sprint(round)))
			}
		}
		many.Update(func(b *Batch) {
			for _, o := range batch {
				b.Upsert(o)
			}
		})
		for _, o := range batch {
			few.Upsert(o)
			few.Snapshot()
		}
		want := NewStore()
		want.Replace(batch)
		for name, s := range map[string]*Store{"few": few, "many": many} {
			if d := cmp.Diff(want.Snapshot(), s.Snapshot(), withoutNumber); d != "" {
				t.Fatalf("round %d, %s at a time (-want +got):\n%s", round, name, d)
			}
		}
	}
}
