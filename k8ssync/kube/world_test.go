package kube

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
	"github.com/postern-project/postern/k8ssync"
)

// worldFeeds are the feeds of these tests, without an API server.
var worldFeeds = sync.OnceValue(func() map[policy.Kind]*feed {
	out := make(map[policy.Kind]*feed)
	for _, r := range append(slices.Clone(required), optional...) {
		if out[r.kind] == nil {
			out[r.kind] = &feed{of: r}
		}
	}
	return out
})

// replica is a lifecycle and its store, to which events are played.
type replica struct {
	*testing.T
	store *k8ssync.Store
	life  lifecycle
	feeds map[policy.Kind]*feed
	now   time.Time
}

func newReplica(t *testing.T) *replica {
	return &replica{T: t, store: k8ssync.NewStore(), life: newLifecycle(), feeds: worldFeeds(), now: time.Unix(1e9, 0)}
}

// item converts an object as a feed does.
func (r *replica) item(kind policy.Kind, obj runtime.Object) *item {
	r.Helper()
	i, err := newItem(r.feeds[kind].of, obj, &r.feeds[kind].compact)
	if err != nil {
		r.Fatal(err)
	}
	return i
}

// play applies events as one batch.
func (r *replica) play(events ...event) {
	r.Helper()
	var ops []op
	for _, e := range events {
		ops = append(ops, op{from: r.feeds[e.kind], item: r.item(e.kind, e.object), deleted: e.deleted})
	}
	r.apply(ops)
}

func (r *replica) apply(ops []op) {
	r.store.Update(func(b *k8ssync.Batch) { r.life.apply(b, ops, r.now) })
}

// list plays a complete list of one kind.
func (r *replica) list(kind policy.Kind, s world) {
	r.Helper()
	all := []*item{}
	for _, name := range slices.Sorted(maps.Keys(s[kind])) {
		all = append(all, r.item(kind, s[kind][name]))
	}
	r.apply([]op{{from: r.feeds[kind], all: all}})
}

// world is what an API server holds, by kind and "namespace/name".
type world map[policy.Kind]map[string]runtime.Object

// kinds are those that the worlds of these tests have.
var kinds = []policy.Kind{policy.NamespaceKind, policy.ServiceAccountKind, policy.PodKind, policy.KubernetesNetworkPolicy, policy.GlobalNetworkPolicy}

type event struct {
	kind    policy.Kind
	object  runtime.Object
	deleted bool
}

func (e event) String() string {
	verb := "put"
	if e.deleted {
		verb = "delete"
	}
	return fmt.Sprintf("%s %s %s", verb, e.kind, nameOf(e.object))
}

func nameOf(obj runtime.Object) string {
	if r, ok := obj.(*raw); ok {
		return r.metadata.Namespace + "/" + r.metadata.Name
	}
	m := obj.(metav1.Object)
	return m.GetNamespace() + "/" + m.GetName()
}

// put adds or changes objects.
func (s world) put(events ...event) world {
	next := make(world)
	for k, objects := range s {
		next[k] = maps.Clone(objects)
	}
	for _, e := range events {
		if next[e.kind] == nil {
			next[e.kind] = make(map[string]runtime.Object)
		}
		if e.deleted {
			delete(next[e.kind], nameOf(e.object))
		} else {
			next[e.kind][nameOf(e.object)] = e.object
		}
	}
	return next
}

// eventsTo gives the events from one world to another, as watches would. A pod of
// the same name and another UID goes and comes.
func (s world) eventsTo(next world) (events []event) {
	for _, kind := range kinds {
		for _, name := range slices.Sorted(maps.Keys(s[kind])) {
			old := s[kind][name]
			now, ok := next[kind][name]
			if !ok || uidOf(old) != uidOf(now) {
				events = append(events, event{kind, old, true})
			}
		}
		for _, name := range slices.Sorted(maps.Keys(next[kind])) {
			if now := next[kind][name]; s[kind][name] != now {
				events = append(events, event{kind, now, false})
			}
		}
	}
	return events
}

func uidOf(obj runtime.Object) string {
	if m, ok := obj.(metav1.Object); ok {
		return string(m.GetUID())
	}
	return ""
}

// read gives the snapshot of a replica that has just listed a world.
func (s world) read(t *testing.T) *policy.Snapshot {
	t.Helper()
	r := newReplica(t)
	for _, k := range kinds {
		r.list(k, s)
	}
	return r.store.Snapshot()
}

var sameState = cmp.Options{
	cmpopts.IgnoreFields(policy.Snapshot{}, "Generation"), cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
	cmp.Comparer(func(a, b *selector.Selector) bool {
		return (a == nil) == (b == nil) && (a == nil || a.String() == b.String())
	}),
}

// Objects.

func namespaceOf(name string, labels map[string]string) event {
	return event{kind: policy.NamespaceKind, object: &core.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}}
}

func terminating(name string, labels map[string]string) event {
	now := metav1.Unix(1e9, 0)
	return event{kind: policy.NamespaceKind, object: &core.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, DeletionTimestamp: &now}}}
}

func accountOf(namespace, name string, labels map[string]string) event {
	return event{kind: policy.ServiceAccountKind, object: &core.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}}}
}

// accountAs is an account that was made again under its name.
func accountAs(uid, namespace, name string, labels map[string]string) event {
	e := accountOf(namespace, name, labels)
	e.object.(*core.ServiceAccount).UID = types.UID(uid)
	return e
}

func podOf(namespace, name, uid, account string, labels map[string]string, addrs ...string) event {
	p := &core.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(uid), Labels: labels},
		Spec:       core.PodSpec{NodeName: "n1", ServiceAccountName: account},
		Status:     core.PodStatus{Phase: core.PodRunning},
	}
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, core.PodIP{IP: a})
	}
	return event{kind: policy.PodKind, object: p}
}

// but gives the pod with a change.
func (e event) but(change func(*core.Pod)) event {
	p := e.object.(*core.Pod).DeepCopy()
	change(p)
	e.object = p
	return e
}

func (e event) gone() event {
	e.deleted = true
	return e
}

func rawOf(kind policy.Kind, namespace, name, text string) event {
	return event{kind: kind, object: &raw{metadata: rawMeta{Name: name, Namespace: namespace}, text: []byte(text)}}
}

func isolate(namespace, name string) event {
	return rawOf(policy.KubernetesNetworkPolicy, namespace, name, fmt.Sprintf(`{"metadata":{"namespace":%q,"name":%q},"spec":{"podSelector":{},"policyTypes":["Ingress"]}}`, namespace, name))
}

// admit gives a policy for all pods: from accounts with a label, into everything.
func admit(name, account string) event {
	return rawOf(policy.GlobalNetworkPolicy, "", name, fmt.Sprintf(
		`{"metadata":{"name":%q},"spec":{"order":1,"types":["Ingress"],"ingress":[{"action":"Allow","source":{"serviceAccounts":{"selector":%q}}}]}}`, name, account))
}
