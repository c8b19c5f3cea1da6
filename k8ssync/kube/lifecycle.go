package kube

import (
	"slices"
	"time"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
)

// lifecycle applies events to the store. It knows which deletions do not count:
// those of an earlier pod of the same name, and those of what protects the pods of
// a namespace that is itself being deleted.
//
// A namespace's deletion is an update of the namespace, then deletions of what is
// in it in any order, pods among the last to go since they may take their time.
// The update comes over another watch than the deletions and may come after them,
// so deletions are remembered for a while.
type lifecycle struct {
	terminating map[string]bool // namespaces
	// kept are deleted on the API server and in force, by namespace.
	kept map[string]map[policy.Key]bool
	// graves are of what was deleted lately, oldest first.
	graves []grave
}

type grave struct {
	object k8ssync.Object
	at     time.Time
}

// How much is remembered of deletions: far longer than two watches of one API
// server are apart.
const (
	graveLife = 10 * time.Second
	maxGraves = 10_000
)

func newLifecycle() lifecycle {
	return lifecycle{terminating: make(map[string]bool), kept: make(map[string]map[policy.Key]bool)}
}

// outlives tells of which kinds objects stay in force as long as their namespace
// has pods.
func outlives(k policy.Kind) bool {
	switch k {
	case policy.NetworkPolicy, policy.KubernetesNetworkPolicy, policy.NetworkSetKind, policy.ServiceAccountKind:
		return true
	}
	return false
}

// apply changes the store. Namespaces go first: what follows depends on whether
// they are being deleted.
func (l *lifecycle) apply(b *k8ssync.Batch, ops []op, now time.Time) {
	l.forget(now)
	for _, o := range ops {
		if o.from.of.kind == policy.NamespaceKind {
			l.one(b, o, now)
		}
	}
	for _, o := range ops {
		if o.from.of.kind != policy.NamespaceKind {
			l.one(b, o, now)
		}
	}
	l.release(b)
}

func (l *lifecycle) one(b *k8ssync.Batch, o op, now time.Time) {
	switch {
	case o.all != nil:
		l.replace(b, o, now)
	case o.deleted:
		if !replaced(b, o.item) {
			l.remove(b, o.item.key(), now)
		}
	default:
		l.put(b, o.item)
	}
}

// replaced tells whether another pod has the name of the one deleted.
func replaced(b *k8ssync.Batch, i *item) bool {
	if i.key().Kind != policy.PodKind || i.uid == "" {
		return false
	}
	o, _ := b.InForce(i.key())
	e, _ := o.Value.(*policy.Endpoint)
	return e != nil && e.UID != i.uid
}

// replace makes a kind's objects those listed.
func (l *lifecycle) replace(b *k8ssync.Batch, o op, now time.Time) {
	if had := b.Keys(o.from.of.kind, ""); len(had) > 0 {
		listed := make(map[policy.Key]bool, len(o.all))
		for _, i := range o.all {
			listed[i.key()] = true
		}
		for _, k := range had {
			if !listed[k] {
				l.remove(b, k, now)
			}
		}
	}
	for _, i := range o.all {
		l.put(b, i)
	}
}

func (l *lifecycle) put(b *k8ssync.Batch, i *item) {
	k := i.key()
	delete(l.kept[k.Namespace], k) // it exists again
	if k.Kind == policy.NamespaceKind {
		l.namespace(b, k.Name, i.terminating)
	}
	if i.contributes() {
		b.Upsert(i.object)
	} else {
		b.Delete(k)
	}
}

func (l *lifecycle) remove(b *k8ssync.Batch, k policy.Key, now time.Time) {
	if k.Kind == policy.NamespaceKind {
		l.namespace(b, k.Name, false)
	}
	if outlives(k.Kind) {
		if l.terminating[k.Namespace] {
			l.keep(k)
			return
		}
		if o, ok := b.InForce(k); ok {
			l.graves = append(l.graves, grave{o, now})
		}
	}
	b.Delete(k)
}

// namespace notes whether a namespace is being deleted. One that is gone, or that
// came again under the same name, keeps nothing.
func (l *lifecycle) namespace(b *k8ssync.Batch, name string, terminating bool) {
	if !terminating {
		for k := range l.kept[name] {
			b.Delete(k)
		}
		delete(l.kept, name)
		delete(l.terminating, name)
		return
	}
	if l.terminating[name] {
		return
	}
	l.terminating[name] = true
	for _, g := range l.graves {
		if k := g.object.Key; k.Namespace == name {
			if _, exists := b.InForce(k); !exists {
				b.Upsert(g.object)
				l.keep(k)
			}
		}
	}
}

func (l *lifecycle) keep(k policy.Key) {
	if l.kept[k.Namespace] == nil {
		l.kept[k.Namespace] = make(map[policy.Key]bool)
	}
	l.kept[k.Namespace][k] = true
}

// count tells how many objects are kept.
func (l *lifecycle) count() (n int) {
	for _, keys := range l.kept {
		n += len(keys)
	}
	return n
}

// release deletes what is kept for namespaces without pods.
func (l *lifecycle) release(b *k8ssync.Batch) {
	for ns, keys := range l.kept {
		if b.Any(policy.PodKind, ns) {
			continue
		}
		for k := range keys {
			b.Delete(k)
		}
		delete(l.kept, ns)
	}
}

// forget drops the graves that are old, or too many.
func (l *lifecycle) forget(now time.Time) {
	n := 0
	for n < len(l.graves) && (len(l.graves)-n > maxGraves || now.Sub(l.graves[n].at) > graveLife) {
		n++
	}
	l.graves = slices.Delete(l.graves, 0, n)
}

// anyTerminating tells whether a namespace with pods is being deleted.
func (l *lifecycle) anyTerminating(b *k8ssync.Batch) bool {
	for ns := range l.terminating {
		if b.Any(policy.PodKind, ns) {
			return true
		}
	}
	return false
}

// seed keeps what namespaces that are being deleted had in an earlier state and
// have lost since.
func (l *lifecycle) seed(b *k8ssync.Batch, saved *policy.Snapshot) {
	add := func(k policy.Key, value any) {
		if !outlives(k.Kind) || !l.terminating[k.Namespace] || !b.Any(policy.PodKind, k.Namespace) {
			return
		}
		if _, exists := b.InForce(k); !exists {
			b.Upsert(k8ssync.Object{Key: k, Value: value})
			l.keep(k)
		}
	}
	for _, p := range saved.Policies {
		add(p.Key(), p)
	}
	for _, n := range saved.NetworkSets {
		add(policy.Key{Kind: n.Kind, Namespace: n.Namespace, Name: n.Name}, n)
	}
	for _, a := range saved.ServiceAccounts {
		add(policy.Key{Kind: policy.ServiceAccountKind, Namespace: a.Namespace, Name: a.Name}, a)
	}
}
