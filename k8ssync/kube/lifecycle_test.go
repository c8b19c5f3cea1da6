package kube

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
)

type labels = map[string]string

// states are worlds that follow each other, with everything that may happen to an
// object: it comes, changes, goes, comes again as another.
func states() []world {
	web := podOf("a", "web", "1", "web", labels{"app": "web"}, "10.0.0.1", "fd00::1")
	base := world{}.put(namespaceOf("a", labels{"env": "x"}), accountOf("a", "web", labels{"role": "r"}))
	withWeb := base.put(web, isolate("a", "deny"))
	return []world{
		{},
		base,
		base.put(podOf("a", "web", "1", "web", labels{"app": "web"})), // not scheduled to an address yet
		withWeb,
		withWeb.put(web.but(func(p *core.Pod) { p.Labels = labels{"app": "other"} })),
		withWeb.put(accountOf("a", "web", labels{"role": "other"})),
		withWeb.put(accountOf("a", "web", nil).gone()),
		withWeb.put(accountAs("9", "a", "web", labels{"role": "other"})), // made again
		withWeb.put(web.but(func(p *core.Pod) { now := metav1.Unix(1e9, 0); p.DeletionTimestamp = &now })),
		withWeb.put(namespaceOf("a", labels{"env": "y"}), admit("allow", `role == "r"`)),
		withWeb.put(web.but(func(p *core.Pod) { p.Status.Phase = core.PodSucceeded })),
		// The address goes to a pod of another account, then the name does.
		withWeb.put(web.gone(), podOf("a", "db", "2", "db", labels{"app": "db"}, "10.0.0.1")),
		withWeb.put(podOf("a", "web", "3", "db", labels{"app": "web"}, "10.0.0.1")),
		withWeb.put(podOf("a", "db", "2", "db", labels{"app": "db"}, "10.0.0.1")), // two claimants
		withWeb.put(web.but(func(p *core.Pod) { p.Spec.HostNetwork = true })),
		withWeb.put(web.but(func(p *core.Pod) {
			p.Annotations = labels{"kubernetes.io/config.mirror": "x"}
			p.Spec.ServiceAccountName = ""
		})),
		withWeb.put(web.gone(), isolate("a", "deny").gone()),
		base.put(namespaceOf("a", nil).gone(), accountOf("a", "web", nil).gone()),
		{},
	}
}

// TestStates runs lists of worlds forwards, backwards and shuffled, one event at a
// time and all at once, with events doubled, and with events lost and then a new
// list. What the store holds in the end follows from the last world alone.
func TestStates(t *testing.T) {
	t.Parallel()
	forwards := states()
	backwards := slices.Clone(forwards)
	slices.Reverse(backwards)
	orders := map[string][]world{"forwards": forwards, "backwards": backwards}
	for seed := range uint64(20) {
		shuffled := slices.Clone(forwards)
		rng := rand.New(rand.NewPCG(seed, 0))
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		orders[fmt.Sprintf("shuffled %d", seed)] = shuffled
	}
	for name, list := range orders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(1, uint64(len(name))))
			single, batched, doubled, lossy := newReplica(t), newReplica(t), newReplica(t), newReplica(t)
			last := world{}
			for i, w := range list {
				events := last.eventsTo(w)
				for _, e := range events {
					single.play(e)
					doubled.play(e, e)
				}
				batched.play(events...)
				// A watch that loses events ends, and the kind is listed again.
				for _, kind := range kinds {
					kept := slices.DeleteFunc(slices.Clone(events), func(e event) bool { return e.kind != kind || rng.IntN(2) == 0 })
					lossy.play(kept...)
					lossy.list(kind, w)
				}
				want := w.read(t)
				for how, r := range map[string]*replica{"single": single, "batched": batched, "doubled": doubled, "lossy": lossy} {
					if d := cmp.Diff(want, r.store.Snapshot(), sameState); d != "" {
						t.Fatalf("state %d, events %v, %s (-listed +followed):\n%s", i, events, how, d)
					}
				}
				last = w
			}
		})
	}
}

// TestLateDeletion: the end of an earlier pod of a name says nothing about the pod
// that has the name now.
func TestLateDeletion(t *testing.T) {
	t.Parallel()
	r := newReplica(t)
	old := podOf("a", "web", "1", "web", nil, "10.0.0.1")
	r.play(old)
	r.play(podOf("a", "web", "2", "web", nil, "10.0.0.2"))
	r.play(old.gone())
	if got := r.store.Snapshot().Endpoints; len(got) != 1 || got[0].UID != "2" {
		t.Errorf("endpoints %v, want that of UID 2", got)
	}
	r.play(podOf("a", "web", "2", "web", nil, "10.0.0.2").gone())
	if got := r.store.Snapshot().Endpoints; len(got) != 0 {
		t.Errorf("endpoints %v, want none", got)
	}
}

// has tells whether a kind has an object of the name in the snapshot.
func (r *replica) has(kind policy.Kind, namespace, name string) bool {
	s := r.store.Snapshot()
	switch kind {
	case policy.ServiceAccountKind:
		return slices.ContainsFunc(s.ServiceAccounts, func(a *policy.ServiceAccount) bool { return a.Namespace == namespace && a.Name == name })
	default:
		return slices.ContainsFunc(s.Policies, func(p *policy.Policy) bool { return p.Kind == kind && p.Namespace == namespace && p.Name == name })
	}
}

func (r *replica) expect(step string, want bool) {
	r.Helper()
	for kind, name := range map[policy.Kind]string{policy.KubernetesNetworkPolicy: "deny", policy.ServiceAccountKind: "web"} {
		if got := r.has(kind, "a", name); got != want {
			r.Errorf("%s: %s %s is there: %v, want %v", step, kind, name, got, want)
		}
	}
}

// TestTerminatingNamespace: policies and accounts of a namespace that is being
// deleted stay until its last pod is gone, whatever of the deletions is seen first.
func TestTerminatingNamespace(t *testing.T) {
	t.Parallel()
	deny, web, pod := isolate("a", "deny"), accountOf("a", "web", labels{"role": "r"}), podOf("a", "web", "1", "web", nil, "10.0.0.1")
	other := isolate("b", "deny")
	start := func(t *testing.T) *replica {
		r := newReplica(t)
		r.play(namespaceOf("a", nil), namespaceOf("b", nil), web, pod, deny, other)
		r.expect("at first", true)
		return r
	}
	end := func(r *replica) {
		r.Helper()
		if r.life.count() != 2 {
			r.Errorf("%d objects are kept, want 2", r.life.count())
		}
		r.play(other.gone())
		if r.has(policy.KubernetesNetworkPolicy, "b", "deny") {
			r.Error("another namespace's policy is kept too")
		}
		r.play(pod.but(func(p *core.Pod) { now := metav1.Now(); p.DeletionTimestamp = &now }))
		r.expect("its pod is terminating and has its address", true)
		r.play(pod.gone())
		r.expect("its pod is gone", false)
		if r.life.count() != 0 {
			r.Errorf("%d objects are kept", r.life.count())
		}
	}
	for name, f := range map[string]func(*replica){
		"in order":       func(r *replica) { r.play(terminating("a", nil)); r.play(deny.gone()); r.play(web.gone()) },
		"at once":        func(r *replica) { r.play(deny.gone(), web.gone(), terminating("a", nil)) },
		"deletion first": func(r *replica) { r.play(deny.gone()); r.play(web.gone()); r.play(terminating("a", nil)) },
		"seen in new lists": func(r *replica) {
			r.list(policy.KubernetesNetworkPolicy, world{}.put(other))
			r.list(policy.ServiceAccountKind, world{})
			r.list(policy.NamespaceKind, world{}.put(terminating("a", nil), namespaceOf("b", nil)))
			r.list(policy.KubernetesNetworkPolicy, world{}.put(other))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t)
			f(r)
			r.expect("deleted", true)
			end(r)
		})
	}
	t.Run("its pod ends", func(t *testing.T) {
		t.Parallel()
		r := start(t)
		r.play(terminating("a", nil))
		r.play(deny.gone(), web.gone())
		r.play(pod.but(func(p *core.Pod) { p.Status.Phase = core.PodFailed }))
		r.expect("the pod failed", false)
	})
	t.Run("a namespace of the same name", func(t *testing.T) {
		t.Parallel()
		r := start(t)
		r.play(terminating("a", nil), deny.gone(), web.gone())
		r.play(terminating("a", nil).gone())
		r.play(namespaceOf("a", nil))
		r.expect("the namespace came again", false)
	})
	t.Run("long ago", func(t *testing.T) {
		t.Parallel()
		r := start(t)
		r.play(deny.gone(), web.gone())
		r.expect("deleted by hand", false)
		r.now = r.now.Add(2 * graveLife)
		r.play(terminating("a", nil))
		r.expect("the namespace is deleted later", false)
	})
	t.Run("it is written again", func(t *testing.T) {
		t.Parallel()
		r := start(t)
		r.play(terminating("a", nil), deny.gone(), web.gone())
		r.play(deny, web)
		if r.life.count() != 0 {
			t.Errorf("%d objects are kept that exist", r.life.count())
		}
		r.expect("written again", true)
	})
	t.Run("from an earlier process", func(t *testing.T) {
		t.Parallel()
		old := start(t)
		saved := old.store.Snapshot()
		r := newReplica(t)
		r.play(terminating("a", nil), namespaceOf("b", nil), pod)
		r.expect("a new process", false)
		r.store.Update(func(b *k8ssync.Batch) {
			if !r.life.anyTerminating(b) {
				t.Error("no namespace is terminating")
			}
			r.life.seed(b, saved)
		})
		r.expect("with the saved state", true)
		if r.has(policy.KubernetesNetworkPolicy, "b", "deny") {
			t.Error("another namespace's policy came from the saved state")
		}
		r.play(other)
		end(r)
	})
}

func TestGravesAreBounded(t *testing.T) {
	t.Parallel()
	r := newReplica(t)
	for i := range 3 {
		deny := isolate("a", fmt.Sprint("p", i))
		r.play(deny)
		r.play(deny.gone())
		r.now = r.now.Add(graveLife * 2 / 3)
	}
	r.play()
	if n := len(r.life.graves); n != 1 {
		t.Errorf("%d graves, want the last", n)
	}
}
