package kube

import (
	"cmp"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
)

// State is how well a feed follows its resource.
type State string

// States of a feed.
const (
	// Syncing: the first complete list is not there yet.
	Syncing State = "syncing"
	// Live: a watch is open.
	Live State = "live"
	// Unreachable: the API server does not answer, or is too busy to. The kind is
	// frozen.
	Unreachable State = "unreachable"
	// Refused: the API server answers and refuses, as after a change of RBAC. The
	// kind is frozen.
	Refused State = "refused"
	// Silent: a watch is open and nothing came for longer than a watch lives.
	Silent State = "silent"
)

// silence is longer than a server lets a watch live (at most 10 minutes) and much
// longer than it is without a bookmark.
const silence = 12 * time.Minute

// health is what a feed knows of itself.
type health struct {
	synced  bool
	failing error // nil if the last request was answered
	since   time.Time
	contact time.Time // last time anything came from the API server
	relists uint64
	errors  uint64
}

// heard notes a sign of life.
func (f *feed) heard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.health.contact = time.Now()
	if f.health.failing != nil {
		f.health.failing, f.health.since = nil, f.health.contact
	}
}

// listed notes a complete list.
func (f *feed) listed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.health.contact = time.Now()
	if !f.health.synced || f.health.failing != nil {
		f.health.since = f.health.contact
	}
	f.health.synced, f.health.failing = true, nil
	f.health.relists++
}

// failed notes that a request failed and will be repeated.
func (f *feed) failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.health.errors++
	if f.health.failing == nil {
		f.health.since = time.Now()
	}
	f.health.failing = err
}

// interrupted notes an answer after which the Reflector lists again.
func (f *feed) interrupted() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.health.errors++
	f.health.contact = time.Now()
}

// Kind is what Status tells of one feed.
type Kind struct {
	// Resource is "plural.group/version".
	Resource string
	State    State
	// Since is when State began.
	Since time.Time
	// Contact is when the API server was last heard on this feed; zero if never.
	Contact time.Time
	// Error is why it is not live.
	Error string
	// Lists counts complete lists: 1 after the start, more after each time that
	// the feed could not go on where it was. Errors counts failed requests.
	Lists, Errors uint64

	// Of is the kind of its objects, and Count how many there are. Pods without an
	// address of their own, or that have ended, are not counted.
	Of policy.Kind
	k8ssync.Count
	// Refuted are objects that are well by themselves and that the compiler found
	// something wrong with, such as a pod that claims the address of another.
	Refuted int
}

func (f *feed) status(now time.Time) Kind {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.health
	k := Kind{Resource: f.of.String(), Of: f.of.kind, State: Live, Since: h.since, Contact: h.contact, Lists: h.relists, Errors: h.errors}
	switch {
	case h.failing != nil && refused(h.failing):
		k.State, k.Error = Refused, h.failing.Error()
	case h.failing != nil:
		k.State, k.Error = Unreachable, h.failing.Error()
	case !h.synced:
		k.State = Syncing
	case now.Sub(h.contact) > silence:
		k.State, k.Since, k.Error = Silent, h.contact, "nothing came from the API server"
	}
	return k
}

// refused tells whether the API server is well and says no.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) ||
		apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)
}

func sortKinds(kinds []Kind) {
	slices.SortFunc(kinds, func(a, b Kind) int { return cmp.Compare(a.Resource, b.Resource) })
}
