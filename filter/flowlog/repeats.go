package flowlog

import (
	"net/netip"
	"time"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
)

// maxRepeats bounds how many kinds of denial are followed at once, some 700 bytes
// each. A denial that finds no room gets a line of its own, within the rate limit.
const maxRepeats = 4096

// alike is what denials have in common that are counted together: all but the source
// port and the policy's generation.
type alike struct {
	src, dst         netip.Addr
	srcPod, dstPod   filter.EndpointInfo
	proto            flow.Proto
	ported           bool
	dport            uint16
	icmpType, code   uint8
	verdict, pending filter.Verdict
	reason           filter.Reason
	side             flow.Direction
	rule, stagedRule filter.RuleInfo
	asked            Asked
}

func alikeOf(e *Event) alike {
	t := &e.Tuple
	k := alike{
		src: t.Src, dst: t.Dst, srcPod: e.Src, dstPod: e.Dst,
		proto: t.Proto, ported: t.Ported, dport: t.DstPort, icmpType: t.ICMPType, code: t.ICMPCode,
		verdict: e.Verdict, reason: e.Reason, side: e.Side, rule: e.Rule,
	}
	if e.Pending != nil {
		k.pending, k.stagedRule = e.Pending.Verdict, e.Pending.Rule
	}
	if e.Request != nil {
		k.asked = *e.Request
	}
	return k
}

// repeat is what is known of denials that are alike.
type repeat struct {
	key   alike
	last  Event
	count uint64 // not written yet, last among them if it is not 0
	since int64  // when the first of those was
	due   int64  // when they are written, or this is forgotten
}

// repeats counts denials that are alike. Since every interval is equally long, what
// is due first is first in the queue, but for what a step of the clock does.
type repeats struct {
	byKey map[alike]*repeat
	queue []*repeat
}

// denied writes a denial, or counts it with those before it.
func (w *Writer) denied(e *Event) {
	k := alikeOf(e)
	r := w.repeats.byKey[k]
	if r == nil {
		if len(w.repeats.byKey) >= maxRepeats {
			w.writeDecision(e)
			return
		}
		r = &repeat{key: k, last: *e, since: e.UnixNano, due: e.UnixNano + int64(w.cfg.Interval)}
		w.repeats.byKey[k] = r
		w.repeats.queue = append(w.repeats.queue, r)
		if w.budget() {
			w.decision(e).Msg(e.Kind())
			return
		}
		r.count = 1 // for the line that comes after the interval
		return
	}
	if r.count == 0 {
		r.since = e.UnixNano
	}
	r.count++
	r.last = *e
	w.stats.Repeated.Add(1)
}

// writeRepeats writes what was counted and is due, as far as the rate limit lets it;
// the rest is written in the seconds to come. With all set everything is written or
// counted as suppressed now.
func (w *Writer) writeRepeats(now int64, all bool) {
	q := w.repeats.queue
	isDue := func(r *repeat) bool {
		return r.due <= now || r.due > now+2*int64(w.cfg.Interval) // the clock went back
	}
	for len(q) > 0 && (all || isDue(q[0])) {
		r := q[0]
		switch {
		case r.count == 0:
			delete(w.repeats.byKey, r.key)
		case w.budget():
			w.decision(&r.last).Uint64("count", r.count).Time("since", time.Unix(0, r.since)).Msg(r.last.Kind())
			r.count, r.due = 0, max(now, r.last.UnixNano)+int64(w.cfg.Interval)
			q = append(q, r)
		case all:
			w.suppress(r.count)
			delete(w.repeats.byKey, r.key)
		default:
			w.repeats.queue = q
			return
		}
		q[0] = nil
		q = q[1:]
	}
	w.repeats.queue = q
}
