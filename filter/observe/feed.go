package observe

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/postern-project/postern/filter/flowlog"
)

const (
	// MaxWatches is how many may watch at once.
	MaxWatches = 8
	// Kept is how many events of each verdict are kept, half a kilobyte each.
	Kept = 1024
	// buffer is how many events may wait for one watcher.
	buffer = 1024
)

// ErrBusy: as many watch as may.
var ErrBusy = fmt.Errorf("%d clients observe, and no more may at once: end one of them", MaxWatches)

// Feed takes events from one Writer and gives them to Watches. Its methods may be
// called by any number of goroutines. The zero Feed is ready.
type Feed struct {
	// reading is for those who want the last events: only one of them at a time
	// competes with the Writer. It is taken before mu.
	reading sync.Mutex

	mu      sync.Mutex
	kept    [2]kept // accepted, denied
	watches []*Watch
}

// kept is a ring of the last events; it grows to its size as they come.
type kept struct {
	events []flowlog.Event
	oldest int
}

func (k *kept) add(e *flowlog.Event) {
	if len(k.events) < Kept {
		k.events = append(k.events, *e)
		return
	}
	k.events[k.oldest] = *e
	k.oldest = (k.oldest + 1) % Kept
}

// Decided implements flowlog.Watcher.
func (f *Feed) Decided(e *flowlog.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	of := 0
	if e.Denied() {
		of = 1
	}
	f.kept[of].add(e)
	for _, w := range f.watches {
		if w.filter.Matches(e) {
			w.offer(e)
		}
	}
}

// Missed implements flowlog.Watcher.
func (f *Feed) Missed(n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.watches {
		w.missed += n
		w.wake()
	}
}

// Last gives the last n events that were kept and that match, oldest first.
func (f *Feed) Last(n int, filter *Filter) []flowlog.Event {
	f.reading.Lock()
	defer f.reading.Unlock()
	f.mu.Lock()
	found := f.matching(filter)
	f.mu.Unlock()
	return last(n, found)
}

// Watch begins to watch: it gives the last n events that match, and a Watch of all
// that match after them. It fails with ErrBusy. The caller closes the Watch.
func (f *Feed) Watch(n int, filter Filter) (*Watch, []flowlog.Event, error) {
	f.reading.Lock()
	defer f.reading.Unlock()
	f.mu.Lock()
	if len(f.watches) >= MaxWatches {
		f.mu.Unlock()
		return nil, nil, ErrBusy
	}
	w := &Watch{feed: f, filter: filter, more: make(chan struct{}, 1)}
	f.watches = append(f.watches, w)
	found := f.matching(&w.filter)
	f.mu.Unlock()
	return w, last(n, found), nil
}

// matching copies the kept events that match. The caller holds mu.
func (f *Feed) matching(filter *Filter) (found []flowlog.Event) {
	for i := range f.kept {
		k := &f.kept[i]
		for j := range k.events {
			if e := &k.events[(k.oldest+j)%len(k.events)]; filter.Matches(e) {
				found = append(found, *e)
			}
		}
	}
	return found
}

func last(n int, found []flowlog.Event) []flowlog.Event {
	slices.SortStableFunc(found, func(a, b flowlog.Event) int { return cmp.Compare(a.UnixNano, b.UnixNano) })
	return found[max(0, len(found)-n):]
}

// Watch is one watcher's place. One goroutine calls Next, and then Close.
type Watch struct {
	feed   *Feed
	filter Filter
	more   chan struct{} // of one: something waits

	// Under feed.mu.
	waiting []flowlog.Event
	missed  uint64
}

// offer puts an event in, or counts it as missed. The caller holds feed.mu.
func (w *Watch) offer(e *flowlog.Event) {
	if len(w.waiting) >= buffer {
		w.missed++
		return
	}
	w.waiting = append(w.waiting, *e)
	w.wake()
}

func (w *Watch) wake() {
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// Next waits for events and gives them, oldest first, and how many were missed since
// the last call; those came after the events. It reuses the slice into, which must not
// be in use any more. It fails only when ctx ends.
func (w *Watch) Next(ctx context.Context, into []flowlog.Event) (events []flowlog.Event, missed uint64, err error) {
	select {
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	case <-w.more:
	}
	clear(into[:cap(into)]) // the names in it need not live on
	w.feed.mu.Lock()
	defer w.feed.mu.Unlock()
	events, w.waiting = w.waiting, into[:0]
	missed, w.missed = w.missed, 0
	return events, missed, nil
}

// Close ends watching.
func (w *Watch) Close() {
	w.feed.mu.Lock()
	defer w.feed.mu.Unlock()
	w.feed.watches = slices.DeleteFunc(w.feed.watches, func(o *Watch) bool { return o == w })
}
