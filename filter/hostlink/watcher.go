package hostlink

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	// settle is how long a watcher waits for more news before it looks: a pod that
	// starts brings several.
	settle = 20 * time.Millisecond
	// look again at least so often, in case the kernel's news were lost, or the last
	// change could not be made.
	lookAgain = 10 * time.Second
)

// Watcher keeps up with the links that lead to a set of pods.
type Watcher struct {
	apply func(links []int) error
	news  chan struct{}

	mu    sync.Mutex
	pods  []netip.Addr
	known bool // pods were told
	again bool // what was applied does not count
}

// New returns a Watcher that tells apply, on its own goroutine, the indexes of the
// links in order, whenever they change, and again after an error.
func New(apply func(links []int) error) *Watcher {
	return &Watcher{apply: apply, news: make(chan struct{}, 1)}
}

// Pods tells the addresses of the pods that are here; the caller may not change them
// afterwards. Before the first call nothing is applied. Any goroutine may call.
func (w *Watcher) Pods(addrs []netip.Addr) {
	w.mu.Lock()
	w.pods, w.known = addrs, true
	w.mu.Unlock()
	w.poke()
}

// Again makes the watcher apply what it finds, also if it has not changed: what was
// applied is gone. Any goroutine may call.
func (w *Watcher) Again() {
	w.mu.Lock()
	w.again = true
	w.mu.Unlock()
	w.poke()
}

func (w *Watcher) poke() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// Run works in the calling process's network namespace until ctx ends, and then
// returns nil. What fails is handed to failed and tried again.
func (w *Watcher) Run(ctx context.Context, failed func(error)) error {
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	var routes chan netlink.RouteUpdate
	var links chan netlink.LinkUpdate
	var applied []int
	valid := false
	for {
		if routes == nil || links == nil {
			// The library ends a subscription at the first overrun, so it is made anew.
			r, l, err := subscribe(ctx)
			if err != nil {
				failed(err)
			} else {
				routes, links = r, l
			}
			w.poke()
		}
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-routes:
			if !ok {
				routes = nil
				continue
			}
			w.poke()
			continue
		case _, ok := <-links:
			if !ok {
				links = nil
				continue
			}
			w.poke()
			continue
		case <-again.C:
			w.poke()
			continue
		case <-w.news:
		}
		if !w.pause(ctx, routes, links) {
			return nil
		}
		w.mu.Lock()
		valid, w.again = valid && !w.again, false
		w.mu.Unlock()
		want, ok, err := w.look()
		switch {
		case err != nil:
			failed(err)
		case !ok || valid && slices.Equal(want, applied):
		default:
			if err := w.apply(want); err != nil {
				failed(err)
				valid = false
			} else {
				applied, valid = want, true
			}
		}
	}
}

// pause lets news come together; they need no look of their own. It tells whether ctx lives.
func (w *Watcher) pause(ctx context.Context, routes chan netlink.RouteUpdate, links chan netlink.LinkUpdate) bool {
	t := time.NewTimer(settle)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case _, ok := <-routes:
			if !ok {
				routes = nil // Run finds it closed too
			}
		case _, ok := <-links:
			if !ok {
				links = nil
			}
		case <-t.C:
			return true
		}
	}
}

func (w *Watcher) look() (links []int, ok bool, err error) {
	w.mu.Lock()
	pods, known := w.pods, w.known
	w.mu.Unlock()
	if !known {
		return nil, false, nil
	}
	routes, err := read()
	if err != nil {
		return nil, false, err
	}
	return lead(routes, pods), true, nil
}

func subscribe(ctx context.Context) (chan netlink.RouteUpdate, chan netlink.LinkUpdate, error) {
	routes, links := make(chan netlink.RouteUpdate, 64), make(chan netlink.LinkUpdate, 64)
	// What goes wrong later closes the channel, which says enough.
	if err := netlink.RouteSubscribeWithOptions(routes, ctx.Done(), netlink.RouteSubscribeOptions{ErrorCallback: func(error) {}}); err != nil {
		return nil, nil, fmt.Errorf("watch routes: %w", err)
	}
	if err := netlink.LinkSubscribeWithOptions(links, ctx.Done(), netlink.LinkSubscribeOptions{ErrorCallback: func(error) {}}); err != nil {
		return nil, nil, fmt.Errorf("watch links: %w", err)
	}
	return routes, links, nil
}
