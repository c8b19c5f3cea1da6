package live

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/postern-project/postern/conntrack"
	"github.com/postern-project/postern/filter"
)

// Ends writes a line to the log for each flow that ends. The kernel reports them;
// what it reports faster than lines are written waits in a buffer of fixed size, and what
// does not fit is lost, counted and said.
type Ends struct {
	Log zerolog.Logger
	// View is what is in force, nil before anything is. Past has the names of before.
	View func() *View
	Past *History
	// PerSecond bounds the lines; what is over is counted. 0 is without bound.
	PerSecond int

	stats EndStats
	rate  rate
}

// EndStats count. Anybody may read at any time.
type EndStats struct {
	// Lines were written, and Suppressed were over the limit.
	Lines, Suppressed atomic.Uint64
	// Overruns are how often the kernel lost reports, it does not say how many.
	Overruns atomic.Uint64
}

// Stats gives the counters.
func (e *Ends) Stats() *EndStats { return &e.stats }

// Run writes what a watcher of ends reports, until ctx ends.
func (e *Ends) Run(ctx context.Context, w *conntrack.Watcher) error {
	// Marks are taken off flows that are idle for long (nft.Wheel), so the mark alone does not
	// tell whose end is worth a line.
	return w.Run(ctx, 0, func(_ conntrack.Kind, entry *conntrack.Entry) { e.ended(entry, time.Now()) }, func() {
		e.stats.Overruns.Add(1)
		if n := e.rate.missed(time.Now()); n > 0 {
			e.Log.Warn().Uint64("times", n).Msg("flow log: the kernel lost reports of flows that ended; they came faster than they could be written")
		}
	})
}

func (e *Ends) ended(entry *conntrack.Entry, now time.Time) {
	v := e.View()
	if v == nil {
		return
	}
	epoch, _, judged := v.Marks.Judged(entry.Mark)
	names := e.Past.Names(epoch, judged)
	if names == nil || !judged && !concerns(names, entry) {
		return
	}
	if n := e.rate.over(now); n > 0 {
		e.Log.Warn().Uint64("records", n).Int("per_second", e.PerSecond).Msg("flow log: suppressed ends of flows over the rate limit")
	}
	if !e.rate.take(e.PerSecond) {
		e.stats.Suppressed.Add(1)
		return
	}
	e.stats.Lines.Add(1)
	f := v.Describe(entry, names, now)
	e.line(&f, entry, names)
}

// concerns tells whether policy has anything to say of a flow, and not only that its pods
// are open.
func concerns(rs *filter.Ruleset, entry *conntrack.Entry) bool {
	switch rs.Decide(entry.Tuple()).Reason {
	case filter.NoLocalEndpoint, filter.ByProfile:
		return false
	}
	return true
}

func (e *Ends) line(f *Flow, entry *conntrack.Entry, names *filter.Ruleset) {
	l := e.Log.Info().Str("verdict", f.Verdict).Str("proto", f.Proto)
	t := entry.Tuple()
	l = endFields(l, "src", names, t.Src)
	l = endFields(l, "dst", names, t.Dst)
	switch {
	case t.Ported:
		l = l.Uint16("sport", t.SrcPort).Uint16("dport", t.DstPort)
	case f.ICMPType != nil:
		l = l.Uint8("icmp_type", *f.ICMPType).Uint8("icmp_code", *f.ICMPCode)
	}
	if f.Translated != nil && f.Translated.Destination {
		l = l.Stringer("service", f.Translated.Original.Dst)
	}
	if f.Reason != "" {
		l = l.Str("reason", f.Reason)
	}
	if f.Tier != "" {
		l = l.Str("tier", f.Tier)
	}
	if f.Policy != "" {
		l = l.Str("policy", f.Policy).Int("rule", *f.Rule)
	}
	if f.AgeSeconds != nil {
		l = l.Float64("seconds", *f.AgeSeconds)
	}
	if f.Sent != nil {
		l = l.Uint64("sent_packets", f.Sent.Packets).Uint64("sent_bytes", f.Sent.Bytes).
			Uint64("answered_packets", f.Answered.Packets).Uint64("answered_bytes", f.Answered.Bytes)
	}
	l.Uint64("generation", names.Generation()).Msg("flow end")
}
