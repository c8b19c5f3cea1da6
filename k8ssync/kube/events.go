package kube

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
)

// Bounds on Events, for each node.
const (
	// eventEvery is the least time between two Events of one node.
	eventEvery = 500 * time.Millisecond
	// eventSpread is how long a node waits at most before it looks whether another
	// has written the Event already: all nodes see the same broken policy.
	eventSpread = 8 * time.Second
	// maxTold bounds what is remembered of Events; what is over is told again.
	maxTold = 10_000
)

// reporter writes a Kubernetes Event about each object that cannot be used. The
// Event's name follows from the object and what is wrong with it, so that of all
// nodes one writes it. client-go's recorder would write one from every node. What
// is wrong with a pod only its own node tells.
type reporter struct {
	client rest.Interface
	store  *k8ssync.Store
	node   string
	log    zerolog.Logger
	spread time.Duration

	mu      sync.Mutex
	extra   []policy.Problem // of the compiler
	uids    map[policy.Key]subject
	told    map[string]bool
	written uint64
	failed  uint64
}

// subject is what an Event has to know of an object.
type subject struct {
	uid string
	of  resource
	// node hosts the pod that it is; empty for all else.
	node string
}

func newReporter(c *clients, node string, store *k8ssync.Store, log zerolog.Logger) (*reporter, error) {
	client, err := c.of(coreV1, false)
	if err != nil {
		return nil, err
	}
	return &reporter{client: client, store: store, node: node, log: log, spread: eventSpread, uids: make(map[policy.Key]subject), told: make(map[string]bool)}, nil
}

// Report gives what else is wrong with objects, such as what the compiler found:
// all of it, each time.
func (s *Source) Report(problems []policy.Problem) {
	s.report.mu.Lock()
	defer s.report.mu.Unlock()
	s.report.extra = problems
}

// counts gives how many Events were written, and how many attempts failed.
func (r *reporter) counts() (written, failed uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.written, r.failed
}

// refuted counts, by kind, the objects that Report was last told of.
func (r *reporter) refuted() map[policy.Kind]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts, seen := make(map[policy.Kind]int), make(map[policy.Key]bool)
	for _, p := range r.extra {
		if !seen[p.Object] {
			seen[p.Object] = true
			counts[p.Object.Kind]++
		}
	}
	return counts
}

// note keeps what an Event about an object would need.
func (r *reporter) note(o op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := func(i *item, deleted bool) {
		if deleted || len(i.object.Problems) == 0 {
			delete(r.uids, i.key())
			return
		}
		r.uids[i.key()] = subject{i.uid, o.from.of, i.node}
	}
	if o.item != nil {
		one(o.item, o.deleted)
	}
	for _, i := range o.all {
		one(i, false)
	}
}

// run writes Events until ctx ends.
func (r *reporter) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(r.spread/4 + eventEvery):
		}
		for _, p := range r.due() {
			select {
			case <-ctx.Done():
				return
			case <-time.After(eventEvery + rand.N(r.spread/4+1)):
			}
			r.tell(ctx, p)
		}
	}
}

// due gives the problems that were not told yet.
func (r *reporter) due() (due []policy.Problem) {
	r.mu.Lock()
	any := len(r.uids) > 0
	r.mu.Unlock()
	var problems []policy.Problem
	if any {
		problems = r.store.Problems()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.told) > maxTold {
		clear(r.told)
	}
	for _, p := range append(problems, r.extra...) {
		if !r.told[p.Error()] {
			r.told[p.Error()] = true
			due = append(due, p)
		}
	}
	return due
}

// tell writes the Event unless there is one.
func (r *reporter) tell(ctx context.Context, p policy.Problem) {
	e := r.event(p)
	if e == nil {
		return
	}
	events := func(v *rest.Request) *rest.Request { return v.Namespace(e.Namespace).Resource("events") }
	err := events(r.client.Get()).Name(e.Name).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		err = events(r.client.Post()).Body(e).Do(ctx).Error()
	}
	if err == nil || apierrors.IsAlreadyExists(err) {
		r.mu.Lock()
		r.written++
		r.mu.Unlock()
		return
	}
	r.mu.Lock()
	r.failed++
	first := r.failed == 1
	delete(r.told, p.Error()) // tried again
	r.mu.Unlock()
	if first {
		r.log.Warn().Err(err).Stringer("object", p.Object).Msg("cannot write Events about objects that are not usable; the log and postern status tell of them")
	}
}

// event makes the Event, or nil if it is another node's to write.
func (r *reporter) event(p policy.Problem) *core.Event {
	s, ok := r.about(p.Object)
	if !ok || s.node != "" && s.node != r.node {
		return nil
	}
	sum := sha256.Sum256([]byte(s.uid + "\x00" + p.Error()))
	namespace := p.Object.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	now := metav1.Now()
	message := p.Message
	if p.Field != "" {
		message = p.Field + ": " + p.Message
	}
	if len(message) > 1024 {
		message = message[:1021] + "..."
	}
	return &core.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%.200s.%s", p.Object.Name, hex.EncodeToString(sum[:8]))},
		InvolvedObject: core.ObjectReference{
			APIVersion: s.of.gv.String(), Kind: s.of.object, Namespace: p.Object.Namespace, Name: p.Object.Name, UID: types.UID(s.uid),
		},
		Reason: "NotUsable", Message: message, Type: core.EventTypeWarning,
		Source:              core.EventSource{Component: "postern", Host: r.node},
		ReportingController: "postern", ReportingInstance: r.node,
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
}

// about finds what an Event has to know of an object.
func (r *reporter) about(k policy.Key) (subject, bool) {
	r.mu.Lock()
	s, ok := r.uids[k]
	r.mu.Unlock()
	if ok || k.Kind != policy.PodKind {
		return s, ok
	}
	// A pod that is well itself and claims an address of another.
	pods := r.store.Snapshot().Pods()
	at, ok := slices.BinarySearchFunc(pods, k, func(e *policy.Endpoint, k policy.Key) int {
		return cmp.Or(strings.Compare(e.Namespace, k.Namespace), strings.Compare(e.Name, k.Name))
	})
	if !ok {
		return subject{}, false
	}
	return subject{pods[at].UID, required[podsResource], pods[at].Node}, true
}
