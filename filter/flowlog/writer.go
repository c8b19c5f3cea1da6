package flowlog

import (
	"context"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
)

// Which says which decisions get a line.
type Which uint8

const (
	None Which = iota
	// Denied means also what would be denied if staged policies were enforced.
	Denied
	All
)

// Config is what a Writer does.
type Config struct {
	Which Which
	// PerSecond bounds the lines per second. What is over is counted, and the
	// count is written once the second is over. 0 means no bound.
	PerSecond int
	// LogRulePerSecond bounds the lines of each rule with action Log in the same
	// way. Those lines are written whatever Which says.
	LogRulePerSecond int
	// LogPrefix is a field of those lines, in which %t stands for the rule's tier,
	// %k for the kind of its policy, %n for the policy's name, %p for namespace and
	// name, and %% for a percent sign, as in Calico's LogPrefix.
	LogPrefix string
}

// Defaults for Config.
const (
	DefaultLogPrefix        = "calico-packet"
	DefaultLogRulePerSecond = 100
)

// pause is how long the Writer rests between rounds: a bound on how late a line
// is, and on how often an idle host wakes up.
const pause = 20 * time.Millisecond

// Writer writes the records of its rings to a log.
type Writer struct {
	log   zerolog.Logger
	cfg   Config
	rings []*Ring
	batch []Record

	second     int64                   // the second that the counts are of, in Unix time
	lines      int                     // written in it
	suppressed int                     // not written in it, over a bound
	logLines   map[filter.RuleInfo]int // written in it for rules with action Log
	lost       uint64

	pending atomic.Pointer[filter.Ruleset]
}

// NewWriter returns a Writer that is the only consumer of its rings.
func NewWriter(log zerolog.Logger, cfg Config, rings ...*Ring) *Writer {
	return &Writer{log: log, cfg: cfg, rings: rings, batch: make([]Record, 256), logLines: map[filter.RuleInfo]int{}}
}

// SetPending gives what would be in force if every staged policy were enforced, nil
// if none is staged. A record that was decided under the same generation gets the
// verdict it would have, where that differs. Any goroutine may call.
func (w *Writer) SetPending(rs *filter.Ruleset) { w.pending.Store(rs) }

// Run writes until ctx ends, and then what is left. It returns nil.
func (w *Writer) Run(ctx context.Context) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			w.Drain()
			return nil
		case <-tick.C:
			w.Drain()
		}
	}
}

// Drain writes what waits in the rings. It must not run beside Run.
func (w *Writer) Drain() {
	lost := uint64(0)
	for _, r := range w.rings {
		for n := len(w.batch); n == len(w.batch); {
			n = r.Take(w.batch)
			for i := range w.batch[:n] {
				w.write(&w.batch[i])
				w.batch[i].Ruleset, w.batch[i].Request = nil, nil
			}
		}
		lost += r.Lost()
	}
	w.nextSecond(time.Now().Unix())
	if lost > w.lost {
		w.log.Warn().Uint64("records", lost-w.lost).Msg("flow log: lost records, decisions came faster than they could be written")
		w.lost = lost
	}
}

// nextSecond renews the budget, and tells what the last one cut off.
func (w *Writer) nextSecond(now int64) {
	if now == w.second {
		return
	}
	if w.suppressed > 0 {
		w.log.Warn().Int("records", w.suppressed).Int("per_second", w.cfg.PerSecond).Msg("flow log: suppressed records over the rate limit")
	}
	w.second, w.lines, w.suppressed = now, 0, 0
	clear(w.logLines)
}

func (w *Writer) write(r *Record) {
	w.nextSecond(r.UnixNano / int64(time.Second))
	if r.Decision.Egress.Logged || r.Decision.Ingress.Logged {
		w.writeLogRules(r)
	}
	would, differs := w.would(r)
	denied := r.Decision.Verdict == filter.Drop || differs && would.Verdict == filter.Drop
	if w.cfg.Which == None || w.cfg.Which == Denied && !denied {
		return
	}
	if w.cfg.PerSecond > 0 && w.lines >= w.cfg.PerSecond {
		w.suppressed++
		return
	}
	w.lines++
	e := w.flow(r)
	if id := r.Decision.Outcome().Rule; r.Ruleset != nil && id != 0 {
		e = rule(e, r.Ruleset.RuleInfo(id))
	}
	if differs {
		e = e.Stringer("pending", would.Verdict).Stringer("pending_reason", would.Reason)
		if i := w.pending.Load().RuleInfo(would.Outcome().Rule); i.Kind != "" {
			e = e.Str("pending_policy_kind", i.Kind).Str("pending_policy", policyName(i)).Int("pending_rule", i.Index)
		}
	}
	e.Msg(r.kind())
}

// kind is the message of a record's line.
func (r *Record) kind() string {
	if r.Request != nil {
		return "request"
	}
	return "flow"
}

// would decides a record as if staged policies were enforced, and tells whether that
// makes a difference.
func (w *Writer) would(r *Record) (d filter.Decision, differs bool) {
	pending := w.pending.Load()
	if pending == nil || r.Ruleset == nil || pending.Generation() != r.Ruleset.Generation() {
		return d, false
	}
	if q := r.Request; q == nil {
		d = pending.Decide(r.Tuple)
	} else if q.Problem == "" {
		d.Ingress = pending.DecideRequest(&q.Asked, q.Options)
		d.Verdict, d.Reason = d.Ingress.Verdict, d.Ingress.Reason
	}
	return d, d.Verdict != r.Decision.Verdict
}

// writeLogRules writes a line for every rule with action Log that the flow met on
// its way.
func (w *Writer) writeLogRules(r *Record) {
	for _, id := range r.logRules() {
		i := r.Ruleset.RuleInfo(id)
		if w.cfg.LogRulePerSecond > 0 && w.logLines[i] >= w.cfg.LogRulePerSecond {
			w.suppressed++
			continue
		}
		w.logLines[i]++
		rule(w.flow(r), i).Str("prefix", prefix(w.cfg.LogPrefix, i)).Msg("log rule")
	}
}

func (r *Record) logRules() []filter.RuleID {
	if q := r.Request; q != nil {
		return r.Ruleset.RequestLogRules(&q.Asked, q.Options, nil)
	}
	return r.Ruleset.LogRules(r.Tuple, nil)
}

func prefix(template string, i filter.RuleInfo) string {
	return strings.NewReplacer("%t", i.Tier, "%k", i.Kind, "%n", i.Name, "%p", policyName(i), "%%", "%").Replace(template)
}

// flow begins a line with what there is to say of a flow besides the rule.
func (w *Writer) flow(r *Record) *zerolog.Event {
	e := w.log.Info().
		Stringer("verdict", r.Decision.Verdict).
		Stringer("reason", r.Decision.Reason).
		Stringer("direction", r.Decision.Side).
		Stringer("proto", r.Tuple.Proto)
	e = w.end(e, "src", r.Tuple.Src, r)
	e = w.end(e, "dst", r.Tuple.Dst, r)
	switch {
	case r.Tuple.Ported:
		e = e.Uint16("sport", r.Tuple.SrcPort).Uint16("dport", r.Tuple.DstPort)
	case r.Tuple.Proto == flow.ICMP || r.Tuple.Proto == flow.ICMPv6:
		e = e.Uint8("icmp_type", r.Tuple.ICMPType).Uint8("icmp_code", r.Tuple.ICMPCode)
	}
	if r.Ruleset != nil {
		e = e.Uint64("generation", r.Ruleset.Generation())
	}
	if r.Request != nil {
		e = request(e, r.Request)
	}
	return e.Time("decided", time.Unix(0, r.UnixNano))
}

// end names one end of the flow: always by address, and by pod and service
// account where the address is a pod's.
func (w *Writer) end(e *zerolog.Event, side string, a netip.Addr, r *Record) *zerolog.Event {
	e = e.Stringer(side, a)
	if r.Ruleset == nil {
		return e
	}
	if ep, ok := r.Ruleset.Endpoint(a); ok {
		e = e.Str(side+"_pod", ep.Namespace+"/"+ep.Name).Str(side+"_account", ep.ServiceAccount)
	}
	return e
}

// rule names a rule: index counts from 0 in the object's list of
// the direction, and the end of a tier has no policy and no index.
func rule(e *zerolog.Event, i filter.RuleInfo) *zerolog.Event {
	e = e.Str("tier", i.Tier)
	if i.EndOfTier() {
		return e
	}
	e = e.Str("policy_kind", i.Kind).Str("policy", policyName(i)).Int("rule", i.Index)
	if i.Annotations != "" {
		e = e.Str("rule_annotations", i.Annotations)
	}
	return e
}

func policyName(i filter.RuleInfo) string {
	if i.Namespace == "" {
		return i.Name
	}
	return i.Namespace + "/" + i.Name
}
