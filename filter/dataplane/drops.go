package dataplane

import (
	"fmt"
	"sync"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/nfq"
	"github.com/postern-project/postern/filter/nft"
)

// Cause is why packets were dropped. Each dropped packet has one.
type Cause string

const (
	// DropPolicy: policy denied it, now or a packet like it before.
	DropPolicy Cause = "policy"
	// DropNotReady: it had to be decided before a first policy was in force.
	DropNotReady Cause = "not-ready"
	// DropHoldExpired: its pod did not become known in time. DropHoldRefused: too many
	// packets waited for theirs already.
	DropHoldExpired Cause = "hold-expired"
	DropHoldRefused Cause = "hold-refused"
	// DropStale: settings let nothing new pass while the source cannot be heard.
	DropStale Cause = "stale"
	// DropUndecodable: its headers are broken, cut off, or more than are read.
	DropUndecodable Cause = "undecodable"
	// DropQueueFull: as many packets waited for a verdict as may. DropSocketFull: the
	// socket's buffer held no more. Both are counted since the queue was bound.
	DropQueueFull  Cause = "queue-full"
	DropSocketFull Cause = "socket-full"
	// DropFlushed: it waited for a verdict, and was gone when that came: its device went
	// down, or somebody removed a base chain, which empties all queues.
	DropFlushed Cause = "flushed"
	// Over what one source may ask (nft.CounterGuard and so on).
	DropGuard         Cause = "guard"
	DropGuardPortless Cause = "guard-portless"
	DropGuardKnown    Cause = "guard-known"
	// DropInvalid: it fits no flow. DropICMPError: about a flow that is not accepted.
	DropInvalid   Cause = "invalid"
	DropICMPError Cause = "icmp-error"
	// DropSpoofed: with a source address that is not the sender's, or a router's message that
	// is a pod's. With --anti-spoof
	// count these packets passed.
	DropSpoofed Cause = "spoofed"
	// DropTunnel: a tunnel's packet made by a pod. DropToHost: from a pod to its host,
	// where that is refused whatever policy says.
	DropTunnel Cause = "tunnel"
	DropToHost Cause = "to-host"
)

// Causes lists all of them.
var Causes = []Cause{
	DropPolicy, DropNotReady, DropHoldExpired, DropHoldRefused, DropStale, DropUndecodable, DropQueueFull, DropSocketFull, DropFlushed,
	DropGuard, DropGuardPortless, DropGuardKnown, DropInvalid, DropICMPError, DropSpoofed, DropTunnel, DropToHost,
}

// byCounter tells what the table's counters of dropped packets count. What the queue
// denied (nft.CounterDenied) is among DropPolicy like the rest of it.
var byCounter = map[nft.Counter]Cause{
	nft.CounterDenied: DropPolicy, nft.CounterDeniedCache: DropPolicy, nft.CounterDeniedFlow: DropPolicy,
	nft.CounterGuard: DropGuard, nft.CounterGuardPortless: DropGuardPortless, nft.CounterGuardKnown: DropGuardKnown,
	nft.CounterInvalid: DropInvalid, nft.CounterError: DropICMPError, nft.CounterSpoofed: DropSpoofed,
	nft.CounterTunnel: DropTunnel, nft.CounterToHost: DropToHost,
}

// Counts reads what is counted of packets, in rules and queues. Any goroutine may use
// it.
type Counts struct {
	queues []*nfq.Queue

	mu   sync.Mutex
	conn *nft.Conn
	last map[nft.Counter]uint64 // as the kernel had them
	lost map[nft.Counter]uint64 // counted by tables that are gone
}

// NewCounts returns a reader, which uses c alone; the caller closes it.
func NewCounts(c *nft.Conn, queues []*nfq.Queue) *Counts {
	return &Counts{conn: c, queues: queues, lost: map[nft.Counter]uint64{}}
}

// Read gives the table's counters, in packets, and the packets that were dropped, by cause;
// every cause is there. They never fall while the process lives, also if the table had to
// be made anew. A table that an earlier process left goes on with its numbers.
func (c *Counts) Read() (map[nft.Counter]uint64, map[Cause]uint64, error) {
	rules, err := c.rules()
	if err != nil {
		return nil, nil, err
	}
	drops := make(map[Cause]uint64, len(Causes))
	for _, cause := range Causes {
		drops[cause] = 0
	}
	for counter, n := range rules {
		if cause, is := byCounter[counter]; is {
			drops[cause] += n
		}
	}
	for _, q := range c.queues {
		if err := addQueue(drops, q); err != nil {
			return nil, nil, err
		}
	}
	return rules, drops, nil
}

func (c *Counts) rules() (map[nft.Counter]uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := nft.ReadCounters(c.conn)
	if err != nil {
		return nil, err
	}
	all := make(map[nft.Counter]uint64, len(now))
	for k, was := range c.last {
		if now[k] < was {
			c.lost[k] += was
		}
	}
	c.last = now
	for k, n := range c.lost {
		all[k] = n
	}
	for k, n := range now {
		all[k] += n
	}
	return all, nil
}

func addQueue(drops map[Cause]uint64, q *nfq.Queue) error {
	s := q.Stats()
	for r := range s.Dropped {
		n := s.Dropped[r].Load()
		switch filter.Reason(r) {
		case filter.NotReady:
			drops[DropNotReady] += n
		case filter.Stale:
			drops[DropStale] += n
		case filter.UnknownPod: // told apart below
		default:
			drops[DropPolicy] += n
		}
	}
	drops[DropHoldExpired] += s.HoldsExpired.Load()
	drops[DropHoldRefused] += s.HoldsRefused.Load()
	for i := range s.Undecodable {
		drops[DropUndecodable] += s.Undecodable[i].Load()
	}
	drops[DropFlushed] += s.Refused.Load()
	k, bound, err := nfq.ReadKernelStats(q.Number())
	if err != nil {
		return fmt.Errorf("count drops: %w", err)
	}
	if bound {
		drops[DropQueueFull] += uint64(k.QueueDropped)
		drops[DropSocketFull] += uint64(k.UserDropped)
	}
	return nil
}
