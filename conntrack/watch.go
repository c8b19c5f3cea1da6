package conntrack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/netfilter"
	"golang.org/x/sys/unix"
)

// Kind is what happened to an entry.
type Kind uint8

const (
	// Changed: something else than the following.
	Changed Kind = iota
	// Began: its first packet passed all rules.
	Began
	// Ended: it timed out, was closed, or was deleted.
	Ended
)

// Watcher is told by the kernel of entries that begin and end.
//
// What the kernel reports and nobody has read yet waits in the socket's buffer, which is the
// only queue and bounded; the packet path never waits for a reader. When the buffer
// overruns, the kernel drops reports and says that it did.
//
// Where net.netfilter.nf_conntrack_events is 2, which is the default of recent kernels,
// only entries that began while somebody watched are reported.
type Watcher struct {
	conn     *netlink.Conn
	overruns atomic.Uint64
}

// WatchBuffer is the size in bytes that Watch takes for 0: some 10,000 reports.
const WatchBuffer = 8 << 20

// Watch begins to listen in the caller's network namespace for entries of the given
// kinds, with a buffer of so many bytes. What happens from its return on is reported
// by Run.
func Watch(buffer int, kinds ...Kind) (*Watcher, error) {
	if buffer == 0 {
		buffer = WatchBuffer
	}
	c, err := dial(buffer)
	if err != nil {
		return nil, err
	}
	for _, k := range kinds {
		group := [...]netfilter.NetlinkGroup{Changed: netfilter.GroupCTUpdate, Began: netfilter.GroupCTNew, Ended: netfilter.GroupCTDestroy}[k]
		if err := c.JoinGroup(uint32(group)); err != nil {
			c.Close()
			return nil, fmt.Errorf("watch conntrack: %w", err)
		}
	}
	return &Watcher{conn: c}, nil
}

// Run hands every report about an entry with mark & mask != 0 to event, or every report
// if mask is 0, until ctx ends; then it returns nil. After each overrun it calls missed:
// an unknown number of reports is lost, and who keeps a picture of the table must
// look at the table again. Both are called on Run's goroutine, and the entry is
// theirs until they return.
func (w *Watcher) Run(ctx context.Context, mask uint32, event func(Kind, *Entry), missed func()) error {
	stop := context.AfterFunc(ctx, func() { w.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		for m, err := range w.conn.ReceiveIter() {
			switch {
			case errors.Is(err, unix.ENOBUFS):
				w.lost(missed)
				continue
			case ctx.Err() != nil && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)):
				return nil
			case err != nil:
				return fmt.Errorf("watch conntrack: %w", err)
			}
			if mark, _ := peek(m.Data); mask != 0 && mark&mask == 0 {
				continue
			}
			if e, kind, err := decode(m); err == nil {
				event(kind, &e)
			} else { // as good as lost
				w.lost(missed)
			}
		}
	}
}

func (w *Watcher) lost(missed func()) {
	w.overruns.Add(1)
	missed()
}

// Overruns counts how often reports were lost. Any goroutine may call.
func (w *Watcher) Overruns() uint64 { return w.overruns.Load() }

// Close ends the watch; not while Run runs.
func (w *Watcher) Close() error { return w.conn.Close() }
