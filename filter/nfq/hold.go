package nfq

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
)

// Holds says which packets wait, and how many for how long. A packet with an address
// of Local that no known pod has is held: the kernel keeps it, and it is decided when
// the pod becomes known, or dropped after Time.
type Holds struct {
	// Local are the prefixes of which pods of this host have their addresses.
	Local []netip.Prefix
	Time  time.Duration
	// Max bounds how many packets of the queue wait at once, and MaxOf how many from one
	// source address. What is over is dropped.
	Max, MaxOf int
	// Epochs is how many there are. A packet is dropped after a quarter of them: it
	// must not come back in another turn (see nft.Wheel).
	Epochs uint32
}

// Defaults for Holds.
const (
	DefaultHoldTime = 2 * time.Second
	DefaultHolds    = 1024
	DefaultHoldsOf  = 64
)

// waiting is a packet that is being decided, or held.
type waiting struct {
	id, mark uint32
	tuple    flow.Tuple // in the direction in which the flow began, as far as is known
	taken    bool       // conntrack picked the flow up in its middle
	doubtful bool       // and may have its direction wrong

	deadline int64  // Unix nanoseconds, if held
	epoch    uint32 // in which it came, if held
}

// orient turns the tuple as the kernel says.
func (w *waiting) orient(m *Marks) {
	switch w.mark & m.Mask {
	case m.Reply:
		w.tuple = w.tuple.Reverse()
	case m.Taken:
		// Nobody saw who began, so it goes by the ports: who connects does it from an
		// ephemeral one. Where they do not tell, both directions must be allowed.
		w.taken = true
		from, to := w.tuple.SrcPort >= ephemeral, w.tuple.DstPort >= ephemeral
		if to && !from {
			w.tuple = w.tuple.Reverse()
		}
		w.doubtful = from == to
	case m.Doubt:
		w.doubtful = true
	}
}

// ephemeral is the first port from which Linux connects by default, as package nft has
// it.
const ephemeral = 32768

// hold keeps a packet waiting if its pod is not known. It is false for one that must be
// decided.
func (q *Queue) hold(w *waiting, f *filter.InForce, now int64) bool {
	if len(q.cfg.Holds.Local) == 0 || !q.unknown(w, f) {
		return false
	}
	of := 0
	for i := range q.held {
		if q.held[i].tuple.Src == w.tuple.Src {
			of++
		}
	}
	if len(q.held) >= q.cfg.Holds.Max || of >= q.cfg.Holds.MaxOf {
		q.stats.HoldsRefused.Add(1)
		q.refuse(w, filter.UnknownPod)
		q.count(w, &filter.Decision{Reason: filter.UnknownPod}, f, now)
		return true
	}
	w.deadline = now + int64(q.cfg.Holds.Time)
	if f != nil {
		w.epoch = f.Epoch
	}
	q.held = append(q.held, *w)
	if len(q.held) == 1 {
		q.looked = f
	}
	q.stats.Held.Add(1)
	q.stats.Holding.Store(uint64(len(q.held)))
	return true
}

// unknown tells whether an address of the packet must be a pod's here and is none's. Where
// an override answers, nobody asks whose it is.
func (q *Queue) unknown(w *waiting, f *filter.InForce) bool {
	if Override(q.override.Load()) != NoOverride {
		return false
	}
	for _, a := range [2]netip.Addr{w.tuple.Src, w.tuple.Dst} {
		if !slices.ContainsFunc(q.cfg.Holds.Local, func(p netip.Prefix) bool { return p.Contains(a) }) {
			continue
		}
		if f == nil {
			return true
		}
		if _, known := f.Endpoint(a); !known {
			return true
		}
	}
	return false
}

// release decides what is held and can be decided, in the order in which it came, and
// drops what has waited for too long.
func (q *Queue) release(now int64) error {
	f := q.begin()
	q.looked = f
	kept := q.held[:0]
	for i := range q.held {
		w := &q.held[i]
		late := now >= w.deadline || f != nil && q.cfg.Holds.Epochs > 0 && (f.Epoch-w.epoch)%q.cfg.Holds.Epochs >= q.cfg.Holds.Epochs/4
		switch {
		case !q.unknown(w, f):
			q.stats.HoldsDecided.Add(1)
			q.settle(w, f, now)
		case late:
			q.stats.HoldsExpired.Add(1)
			q.refuse(w, filter.UnknownPod)
			q.count(w, &filter.Decision{Reason: filter.UnknownPod}, f, now)
		default:
			kept = append(kept, *w)
		}
	}
	q.held = kept
	q.stats.Holding.Store(uint64(len(q.held)))
	return q.end()
}

// Wake makes the queue look at what it holds: the engine has another ruleset. Any
// goroutine may call it.
func (q *Queue) Wake() {
	if q.stats.Holding.Load() > 0 {
		// It fails only when the counter is full, and then the loop is about to wake.
		_, _ = unix.Write(q.wake, binary.NativeEndian.AppendUint64(nil, 1))
	}
}

// await waits, while packets are held, until one comes, Wake is called, or a hold ends,
// and then looks at those that are held.
func (q *Queue) await() error {
	now := time.Now().UnixNano()
	// A ruleset that came while a packet was being held may have woken nobody.
	if q.engine.InForce() == q.looked && now < q.held[0].deadline {
		fds := [2]unix.PollFd{{Fd: int32(q.fd), Events: unix.POLLIN}, {Fd: int32(q.wake), Events: unix.POLLIN}}
		left := min(time.Duration(q.held[0].deadline-now), wakeUp)
		if _, err := unix.Poll(fds[:], int((left+time.Millisecond-1)/time.Millisecond)); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait: %w", err)
		}
		if fds[1].Revents != 0 {
			var b [8]byte
			if _, err := unix.Read(q.wake, b[:]); err != nil && err != unix.EAGAIN {
				return fmt.Errorf("read eventfd: %w", err)
			}
		}
		now = time.Now().UnixNano()
	}
	if q.engine.InForce() == q.looked && now < q.held[0].deadline {
		return nil
	}
	if err := q.release(now); err != nil {
		return fmt.Errorf("send verdicts: %w", err)
	}
	return nil
}
