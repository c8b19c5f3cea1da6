package kube

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/postern-project/postern/filter/policy"
)

// absences is how many discoveries in a row must miss a resource that was there.
const absences = 2

// discover starts the feeds and looks for optional kinds until ctx ends.
func (s *Source) discover(ctx context.Context, tasks *errgroup.Group) {
	pause := firstPause
	for {
		o, err := s.served(ctx)
		if err == nil {
			s.watchNode(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		s.found = err
		started, missing := !s.foundAt.IsZero(), s.nodeMissing
		s.mu.Unlock()
		wait := s.rediscoverEvery/2 + rand.N(s.rediscoverEvery)
		if missing {
			wait = min(wait, nodeEvery)
		}
		switch {
		case err == nil:
			s.adopt(ctx, tasks, o)
			pause = firstPause
		case !started:
			// Required resources need no discovery, but a sync without the optional
			// kinds would not be complete.
			wait, pause = pause/2+rand.N(pause), min(2*pause, lastPause)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.again:
			// Not at once: whoever asks may ask again.
			select {
			case <-ctx.Done():
				return
			case <-time.After(firstPause):
			}
		case <-time.After(wait):
		}
	}
}

// offer is what an API server serves of the optional resources.
type offer struct {
	plurals map[schema.GroupVersion]map[string]bool
	// unknown are versions whose server behind the API server does not answer, which
	// says nothing about whether there is one.
	unknown map[schema.GroupVersion]bool
}

// served asks which optional resources there are. One request for each version:
// much less than all that an API server serves. A version that is not served at
// all is no error.
func (s *Source) served(ctx context.Context) (offer, error) {
	o := offer{make(map[schema.GroupVersion]map[string]bool), make(map[schema.GroupVersion]bool)}
	for _, gv := range groups {
		client, err := s.clients.of(gv, true)
		if err != nil {
			return o, err
		}
		var list metav1.APIResourceList
		err = client.Get().AbsPath("/apis", gv.Group, gv.Version).Do(ctx).Into(&list)
		switch {
		case apierrors.IsNotFound(err):
			continue
		case apierrors.IsServiceUnavailable(err):
			o.unknown[gv] = true
			continue
		case err != nil:
			return o, err
		}
		o.plurals[gv] = make(map[string]bool)
		for _, r := range list.APIResources {
			o.plurals[gv][r.Name] = true
		}
	}
	// Calico's API server shows what its storage holds, so storage will do.
	for gv := range o.unknown {
		if gv != calicoV3 || len(o.plurals[calicoCRD]) == 0 {
			return o, fmt.Errorf("discover %s: the API server cannot reach the server behind it", gv)
		}
	}
	return o, nil
}

// adopt starts feeds for what is served, and ends those whose resource is gone.
func (s *Source) adopt(ctx context.Context, tasks *errgroup.Group, o offer) {
	want := make(map[policy.Kind]resource)
	for _, r := range required {
		want[r.kind] = r
	}
	for _, r := range optional {
		if _, taken := want[r.kind]; !taken && o.plurals[r.gv][r.plural] {
			want[r.kind] = r
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for kind, f := range s.current {
		switch _, ok := want[kind]; {
		case o.unknown[f.of.gv]: // no reason to look elsewhere
			want[kind] = f.of
			fallthrough
		case ok:
			delete(s.absent, kind)
		default:
			s.miss(kind, f)
		}
	}
	for kind, f := range s.coming {
		if want[kind] != f.of {
			f.stop()
			delete(s.coming, kind)
			s.signal()
		}
	}
	for kind, r := range want {
		if f := s.current[kind]; f != nil && f.of == r && !f.ended || s.coming[kind] != nil {
			continue
		}
		s.start(ctx, tasks, r)
	}
	s.foundAt = time.Now()
}

// miss counts that a resource is not served, and in the end believes it. The
// caller holds mu.
func (s *Source) miss(kind policy.Kind, f *feed) {
	if s.absent[kind]++; s.absent[kind] < absences || f.ended {
		return
	}
	delete(s.absent, kind)
	s.log.Warn().Stringer("resource", f.of).Msg("the API server does not serve this any more: its objects are gone")
	f.stop()
	f.ended = true
	s.pending = append(s.pending, op{from: f, all: []*item{}}) // after what it delivered so far
	s.signal()
}

// start runs a feed. The caller holds mu.
func (s *Source) start(ctx context.Context, tasks *errgroup.Group, r resource) {
	client, err := s.clients.of(r.gv, r.raw)
	if err != nil {
		s.log.Error().Err(err).Stringer("resource", r).Msg("cannot read this")
		return
	}
	f := &feed{of: r, client: client, deliver: s.deliver, gone: s.rediscover}
	f.health.since = time.Now()
	ctx, f.stop = context.WithCancel(ctx)
	s.coming[r.kind] = f
	tasks.Go(func() error { f.run(ctx); return nil })
}

// rediscover asks for a discovery soon.
func (s *Source) rediscover() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

func (s *Source) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
