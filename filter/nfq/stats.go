package nfq

import (
	"sync/atomic"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/packet"
	"github.com/postern-project/postern/internal/latency"
)

// Stats are a queue's counters since Open. The loop alone writes them; anybody may
// read at any time.
type Stats struct {
	// Alive is when the loop last came round, in nanoseconds since 1970; 0 before
	// Run. A loop that has nothing to do comes round five times a second.
	Alive   atomic.Int64
	Batches atomic.Uint64
	// Decided counts packets that were decided, by verdict and reason.
	Decided filter.Decided
	// Dropped counts those of Decided that were dropped here, by reason. The other
	// denied ones went back to the rules, which drop them, and count them too.
	Dropped [filter.Reasons]atomic.Uint64
	// Answered is how long packets waited in the process: from when the kernel gave them,
	// in a batch, until their answers were with the kernel. Those that were held for a pod
	// do not count.
	Answered latency.Histogram
	// Undecodable counts packets that were dropped because they could not be
	// decoded, by cause.
	Undecodable [packet.Statuses]atomic.Uint64
	// Held counts packets that were held for their pod. HoldsDecided, HoldsExpired and
	// those of Holding are what became of them.
	Held, HoldsDecided, HoldsExpired atomic.Uint64
	// Holding is how many are held now.
	Holding atomic.Uint64
	// HoldsRefused counts packets that were dropped because too many were held. With
	// those of HoldsExpired they are among Decided, as UnknownPod.
	HoldsRefused atomic.Uint64
	// Malformed counts messages of the kernel that could not be read. Their
	// packets, if any, wait in the kernel without a verdict.
	Malformed atomic.Uint64
	// Refused counts verdicts that the kernel did not take, because the packet
	// was gone.
	Refused atomic.Uint64
	// Retries counts sends that had to be repeated for want of kernel memory.
	Retries atomic.Uint64
}

// Total sums the counters of one verdict over all reasons, with the undecodable
// among the drops.
func (s *Stats) Total(v filter.Verdict) (n uint64) {
	n = s.Decided.Total(v)
	if v == filter.Drop {
		for i := range s.Undecodable {
			n += s.Undecodable[i].Load()
		}
	}
	return n
}
