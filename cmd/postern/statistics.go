package main

import (
	"fmt"
	"time"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/filter/nfq"
	"github.com/postern-project/postern/filter/nft"
	"github.com/postern-project/postern/filter/packet"
	"github.com/postern-project/postern/internal/latency"
)

// packets is what became of packets: the one source of status, metrics and the log's
// last line.
func (d *daemon) packets() (p control.Packets) {
	if err := d.readKernel(&p); err != nil {
		p.KernelError = err.Error()
	}
	var decided verdicts
	var undecodable [packet.Statuses]uint64
	now := time.Now()
	for _, q := range d.queues {
		s := q.Stats()
		decided.add(&s.Decided)
		for i := range undecodable {
			undecodable[i] += s.Undecodable[i].Load()
		}
		p.Queues = append(p.Queues, queue(q, now))
		p.Holds.Now += s.Holding.Load()
		p.Holds.Held += s.Held.Load()
		p.Holds.Decided += s.HoldsDecided.Load()
		p.Holds.Expired += s.HoldsExpired.Load()
		p.Holds.Refused += s.HoldsRefused.Load()
		join(&p.Answers, &s.Answered)
	}
	l := d.flows.Stats()
	p.Log = control.FlowLog{Lines: l.Lines.Load(), Repeated: l.Repeated.Load(), SampledOut: l.SampledOut.Load(), Suppressed: l.Suppressed.Load(), Lost: l.Lost.Load()}
	p.Decided = decided.list()
	p.Undecodable = make(map[string]uint64)
	for i, n := range undecodable {
		if n > 0 {
			p.Undecodable[packet.Status(i).String()] = n
		}
	}
	return p
}

// readKernel fills in what the kernel counts.
func (d *daemon) readKernel(p *control.Packets) error {
	rules, drops, err := d.counts.Read()
	if err != nil {
		return err
	}
	p.Kernel = make(map[string]uint64, len(rules))
	for name, n := range rules {
		p.Kernel[string(name)] = n
	}
	p.Dropped = make(map[string]uint64, len(drops))
	for cause, n := range drops {
		p.Dropped[string(cause)] = n
	}
	p.FailedOpen = map[string]uint64{}
	if antiSpoofChoices[d.cfg.sources.antiSpoof] == nft.SourcesCounted {
		p.FailedOpen["spoofed"] = p.Dropped["spoofed"]
		p.Dropped["spoofed"] = 0
	}
	if x := &d.cfg.exceptions; x.undecodable == "accept" {
		p.FailedOpen["undecodable"] = p.Dropped["undecodable"]
		p.Dropped["undecodable"] = 0
	}
	// Whether for want of room or of a daemon the kernel does not tell.
	if d.cfg.exceptions.failsOpen() {
		p.FailedOpen["unanswered"] = rules[nft.CounterUnanswered]
	}
	if d.cfg.exceptions.stale == "accept" {
		p.FailedOpen["stale"] = 0
		for _, q := range d.queues {
			p.FailedOpen["stale"] += q.Stats().Decided[filter.Accept][filter.Stale].Load()
		}
	}
	return nil
}

// requests is the same for requests of proxies.
func (d *daemon) requests() (r control.Requests) {
	if d.authz == nil {
		return r
	}
	s := d.authz.Stats()
	var decided verdicts
	decided.add(&s.Decided)
	r.Decided, r.Faults = decided.list(), s.Panics.Load()
	join(&r.Answers, &s.Took)
	return r
}

func queue(q *nfq.Queue, now time.Time) control.Queue {
	s := q.Stats()
	c := control.Queue{
		Number: q.Number(), Batches: s.Batches.Load(), Malformed: s.Malformed.Load(),
		Refused: s.Refused.Load(), Retries: s.Retries.Load(), SinceAlive: -1,
	}
	if alive := s.Alive.Load(); alive != 0 {
		c.SinceAlive = max(0, now.Sub(time.Unix(0, alive)).Seconds())
	}
	// An error is as good as an unbound queue: both are loud.
	k, bound, _ := nfq.ReadKernelStats(q.Number())
	c.Bound, c.Waiting, c.Full, c.Unread = bound, uint64(k.Waiting), uint64(k.QueueDropped), uint64(k.UserDropped)
	return c
}

// verdicts counts by verdict and reason.
type verdicts [filter.Accept + 1][filter.Reasons]uint64

func (v *verdicts) add(s *filter.Decided) {
	for verdict := range s {
		for reason := range s[verdict] {
			v[verdict][reason] += s[verdict][reason].Load()
		}
	}
}

func (v *verdicts) list() (l []control.Decided) {
	for verdict := range v {
		for reason, n := range v[verdict] {
			if n > 0 {
				l = append(l, control.Decided{Verdict: filter.Verdict(verdict).String(), Reason: filter.Reason(reason).String(), Count: n})
			}
		}
	}
	return l
}

// join adds one histogram to another.
func join(to *control.Latency, h *latency.Histogram) {
	buckets, sum := h.Read()
	if to.Within == nil {
		to.Within = make([]uint64, len(buckets))
		for i := range latency.Bounds {
			to.Bounds = append(to.Bounds, latency.Bound(i).Seconds())
		}
	}
	for i, n := range buckets {
		to.Within[i] += n
	}
	to.Sum += sum.Seconds()
}

// notLive says why the daemon should be started anew; empty if it should not.
func (d *daemon) notLive() string {
	select {
	case <-d.first:
	default:
		return "" // loops wait for a first state, and a cluster may take its time
	}
	for _, q := range d.queues {
		if alive := q.Stats().Alive.Load(); alive != 0 && time.Since(time.Unix(0, alive)) > livePatience {
			return fmt.Sprintf("the verdict loop of queue %d has not come round since %s", q.Number(), time.Unix(0, alive).Format(time.RFC3339))
		}
	}
	return ""
}

// livePatience is how long a verdict loop may take to come round before somebody is told.
// It does five times a second.
const livePatience = 10 * time.Second

// notReady says why this host is not protected as it should be; empty if it is. An old
// state that is in force is not a reason: it protects.
func (d *daemon) notReady() string {
	if d.inForce.Load() == nil {
		return "nothing is in force yet"
	}
	return d.notLive()
}

// notStarted says what the start still waits for.
func (d *daemon) notStarted() string {
	if d.inForce.Load() == nil {
		return "nothing is in force yet"
	}
	return ""
}
