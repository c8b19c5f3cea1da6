package kube

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// feed keeps one resource in sync. It is the store and the ListerWatcher of a
// Reflector: what goes between the two are items.
type feed struct {
	of      resource
	client  rest.Interface
	compact compactor
	// deliver takes changes in their order; it does not block for long.
	deliver func(op)
	// gone is called when the API server does not serve the resource.
	gone  func()
	stop  context.CancelFunc
	ended bool // its resource is gone; of Source.mu

	mu     sync.Mutex
	health health
}

// op is one change of one resource's objects.
type op struct {
	from    *feed
	item    *item // added or changed, or, if deleted, how it was last
	deleted bool
	all     []*item // if not nil, the whole state, and item is nil
}

// Pauses between attempts while the API server cannot be reached or refuses. The
// Reflector's own go up to a minute.
const (
	firstPause = 200 * time.Millisecond
	lastPause  = 5 * time.Second
)

// run keeps the resource in sync until ctx ends.
func (f *feed) run(ctx context.Context) {
	lw := &cache.ListWatch{ListWithContextFunc: f.list, WatchFuncWithContext: f.watch}
	r := cache.NewReflectorWithOptions(lw, &item{}, f, cache.ReflectorOptions{Name: f.of.String(), TypeDescription: f.of.String()})
	// As r.Run does, which pauses for up to a minute.
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, lastPause) {
		begin := time.Now()
		err := r.ListAndWatchWithContext(ctx)
		if err != nil && !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) && ctx.Err() == nil {
			f.failed(err)
		}
		if time.Since(begin) > time.Minute {
			pause = firstPause
		}
		wait(ctx, pause)
	}
}

// wait pauses for about that long.
func wait(ctx context.Context, pause time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(pause/2 + rand.N(pause)):
	}
}

// pageSize is how many objects are asked for at once, where the API server has no
// watch lists (they need etcd 3.5). It would send all from its cache in one answer
// if it were asked for any version: 100,000 pods are half a gigabyte.
const pageSize = 1000

// list reads one page of the objects. The Reflector puts pages together.
func (f *feed) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	o.FieldSelector, o.Limit = f.of.fields, pageSize
	o.ResourceVersion, o.ResourceVersionMatch = "", ""
	var page *itemList
	err := f.persist(ctx, func() error {
		list, err := f.client.Get().Resource(f.of.plural).VersionedParams(&o, metav1.ParameterCodec).Do(ctx).Get()
		if err == nil {
			page, err = f.page(list)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

func (f *feed) page(list runtime.Object) (*itemList, error) {
	m, err := meta.ListAccessor(list)
	if err != nil {
		return nil, fmt.Errorf("read list of %s: %w", f.of, err)
	}
	page := &itemList{ListMeta: metav1.ListMeta{ResourceVersion: m.GetResourceVersion(), Continue: m.GetContinue(), RemainingItemCount: m.GetRemainingItemCount()}}
	add := func(obj runtime.Object) error {
		i, err := newItem(f.of, obj, &f.compact)
		if err == nil {
			page.Items = append(page.Items, i)
		}
		return err
	}
	if l, ok := list.(*rawList); ok {
		for i := range l.Items {
			if err := add(&l.Items[i]); err != nil {
				return nil, err
			}
		}
		return page, nil
	}
	return page, meta.EachListItem(list, add)
}

var errNoAnswer = errors.New("the connection ended without an answer")

// watch opens a watch whose events carry items.
func (f *feed) watch(ctx context.Context, o metav1.ListOptions) (w watch.Interface, err error) {
	o.Watch = true
	o.FieldSelector = f.of.fields
	err = f.persist(ctx, func() error {
		w, err = f.client.Get().Resource(f.of.plural).VersionedParams(&o, metav1.ParameterCodec).Watch(ctx)
		if _, answered := w.(*watch.StreamWatcher); err == nil && !answered {
			// client-go makes an empty watch of a connection that ends without an answer,
			// as those to a load balancer do that has no API server behind it.
			err = errNoAnswer
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return watch.Filter(w, f.event), nil
}

// event converts what an event carries.
func (f *feed) event(e watch.Event) (watch.Event, bool) {
	f.heard()
	var i *item
	var err error
	switch e.Type {
	case watch.Error:
		f.interrupted()
		return e, true
	case watch.Bookmark:
		i, err = newBookmark(e.Object)
	default:
		i, err = newItem(f.of, e.Object, &f.compact)
		recycle(e.Object)
	}
	if err != nil {
		// Ends the watch, so that the next list brings what this event would have.
		status := apierrors.NewInternalError(err).ErrStatus
		return watch.Event{Type: watch.Error, Object: &status}, true
	}
	e.Object = i
	return e, true
}

// persist repeats a request until it succeeds, ctx ends, or the answer is one that
// the Reflector has to act on.
func (f *feed) persist(ctx context.Context, request func() error) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := request()
		if err == nil {
			f.heard()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if relist(err) {
			f.interrupted()
			return err
		}
		f.failed(err)
		if apierrors.IsNotFound(err) {
			f.gone()
		}
		if after, ok := apierrors.SuggestsClientDelay(err); ok {
			pause = max(pause, time.Duration(after)*time.Second)
		}
		wait(ctx, pause)
	}
}

// relist tells whether an error means that the request itself has to be another
// one: the resource version is too old or too new, or the server does not know
// watch lists.
func relist(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) ||
		apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}

// The methods of cache.ReflectorStore: what the Reflector found out.

// Add implements cache.ReflectorStore.
func (f *feed) Add(obj any) error { return f.one(obj, false) }

// Update implements cache.ReflectorStore.
func (f *feed) Update(obj any) error { return f.one(obj, false) }

// Delete implements cache.ReflectorStore.
func (f *feed) Delete(obj any) error { return f.one(obj, true) }

func (f *feed) one(obj any, deleted bool) error {
	i, ok := obj.(*item)
	if !ok {
		return fmt.Errorf("feed of %s: %T", f.of, obj)
	}
	f.deliver(op{from: f, item: i, deleted: deleted})
	return nil
}

// Replace implements cache.ReflectorStore.
func (f *feed) Replace(list []any, _ string) error {
	all := make([]*item, 0, len(list))
	for _, obj := range list {
		i, ok := obj.(*item)
		if !ok {
			return fmt.Errorf("feed of %s: %T", f.of, obj)
		}
		all = append(all, i)
	}
	f.listed()
	f.deliver(op{from: f, all: all})
	return nil
}

// Resync implements cache.ReflectorStore.
func (f *feed) Resync() error { return nil }
