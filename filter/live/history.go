package live

import (
	"sync"
	"time"

	"github.com/postern-project/postern/filter"
)

// History remembers for a while who had which address. When a pod goes, the kernel is told
// to forget its flows, and by the time it reports their end the address may be
// another's. A flow's mark has the epoch in which it was judged last, and the ruleset of
// that time has the right names.
//
// Any goroutine may use it.
type History struct {
	epochs uint32

	mu   sync.Mutex
	past []moment // the latest last
}

type moment struct {
	at    time.Time
	epoch uint32
	rs    *filter.Ruleset
}

const (
	// remembered is how long the past is: longer than a sweep of flows takes.
	remembered = 10 * time.Second
	// spacing bounds how many rulesets are kept alive; they share nearly all they hold.
	spacing = 500 * time.Millisecond
)

// NewHistory is for marks with so many epochs.
func NewHistory(epochs uint32) *History { return &History{epochs: epochs} }

// Add is told of what is in force from now on.
func (h *History) Add(rs *filter.Ruleset, epoch uint32, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// The last is always the present; one shortly before it is not kept.
	if n := len(h.past); n > 0 && h.past[n-1].epoch == epoch || n > 1 && h.past[n-1].at.Sub(h.past[n-2].at) < spacing {
		h.past = h.past[:n-1]
	}
	h.past = append(h.past, moment{now, epoch, rs})
	for len(h.past) > 1 && now.Sub(h.past[1].at) > remembered {
		h.past = h.past[1:]
	}
}

// Names gives the ruleset that was in force when a flow was judged in an epoch, or that
// before it, or the oldest that is remembered. judged is false for a flow of which that is
// not known: then it is the present one. It is nil before anything is in force.
func (h *History) Names(epoch uint32, judged bool) *filter.Ruleset {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.past) == 0 {
		return nil
	}
	present := h.past[len(h.past)-1]
	if !judged {
		return present.rs
	}
	ago := func(e uint32) uint32 { return (present.epoch - e) % h.epochs }
	for i := len(h.past) - 1; i > 0; i-- {
		if m := h.past[i]; ago(m.epoch) >= ago(epoch) {
			return m.rs
		}
	}
	return h.past[0].rs
}
