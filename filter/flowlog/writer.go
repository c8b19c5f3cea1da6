package flowlog

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/postern-project/postern/filter"
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
	// Interval: of denials that are alike but for the source port, the first is
	// written at once and those that follow are counted, in a line each Interval. 0
	// means a line for each.
	Interval time.Duration
	// Sample: of so many accepted decisions one is written, chosen at random. 0 and
	// 1 mean all.
	Sample int
	// LogRulePerSecond bounds the lines of each rule with action Log in the same
	// way. Those lines are written whatever Which says.
	LogRulePerSecond int
	// LogPrefix is a field of those lines, in which %t stands for the rule's tier,
	// %k for the kind of its policy, %n for the policy's name, %p for namespace and
	// name, and %% for a percent sign, as in Calico's LogPrefix.
	LogPrefix string
	// Watch is given every decision, whatever Which says; nil for nobody.
	Watch Watcher
}

// Watcher is told of decisions by the goroutine of the Writer, so it must not wait.
type Watcher interface {
	// Decided gives an event, which belongs to the Writer and is valid during the call.
	Decided(e *Event)
	// Missed tells how many decisions more nobody saw.
	Missed(n uint64)
}

// Defaults for Config.
const (
	DefaultLogPrefix        = "calico-packet"
	DefaultLogRulePerSecond = 100
	DefaultInterval         = 10 * time.Second
)

// pause is how long the Writer rests between rounds: a bound on how late a line
// is, and on how often an idle host wakes up. At 20 ms that was a third of what an idle
// daemon takes (190 to 205 ms of processor time in 15 s, 121 to 132 at 50 ms; 2026-11-30).
const pause = 50 * time.Millisecond

// Writer writes the records of its rings to a log.
type Writer struct {
	log   zerolog.Logger
	cfg   Config
	rings []*Ring
	batch []Record
	stats Stats

	second     int64                   // the second that the counts are of, in Unix time
	lines      int                     // written in it
	suppressed uint64                  // not written in it, over a bound
	logLines   map[filter.RuleInfo]int // written in it for rules with action Log
	lost       uint64
	repeats    repeats

	pending atomic.Pointer[filter.Ruleset]
	next    atomic.Pointer[Config] // nil for no other
}

// NewWriter returns a Writer that is the only consumer of its rings.
func NewWriter(log zerolog.Logger, cfg Config, rings ...*Ring) *Writer {
	return &Writer{
		log: log, cfg: cfg, rings: rings, batch: make([]Record, 256), logLines: map[filter.RuleInfo]int{},
		repeats: repeats{byKey: map[alike]*repeat{}},
	}
}

// SetPending gives what would be in force if every staged policy were enforced, nil
// if none is staged. A record that was decided under the same generation gets the
// verdict it would have, where that differs. Any goroutine may call.
func (w *Writer) SetPending(rs *filter.Ruleset) { w.pending.Store(rs) }

// Configure exchanges what the Writer does, from its next round on. Any goroutine may
// call.
func (w *Writer) Configure(cfg Config) { w.next.Store(&cfg) }

// Stats gives the counters, which may be read while Run is at work.
func (w *Writer) Stats() *Stats { return &w.stats }

// Run writes until ctx ends, and then what is left. It returns nil.
func (w *Writer) Run(ctx context.Context) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			w.Drain()
			now := time.Now()
			w.writeRepeats(now.UnixNano(), true)
			w.nextSecond(now.Unix() + 1) // tells what was suppressed
			return nil
		case <-tick.C:
			w.Drain()
		}
	}
}

// Drain writes what waits in the rings. It must not run beside Run.
func (w *Writer) Drain() { w.drain(time.Now()) }

func (w *Writer) drain(now time.Time) {
	if cfg := w.next.Swap(nil); cfg != nil {
		w.writeRepeats(now.UnixNano(), true) // they wait by the interval of before
		w.cfg = *cfg
	}
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
	w.nextSecond(now.Unix())
	w.writeRepeats(now.UnixNano(), false)
	if n := lost - w.lost; n > 0 {
		w.log.Warn().Uint64("records", n).Msg("flow log: lost records, decisions came faster than they could be written")
		w.stats.Lost.Add(n)
		if w.cfg.Watch != nil {
			w.cfg.Watch.Missed(n)
		}
		w.lost = lost
	}
}

// nextSecond renews the budget, and tells what the last one cut off.
func (w *Writer) nextSecond(now int64) {
	if now == w.second {
		return
	}
	if w.suppressed > 0 {
		w.log.Warn().Uint64("records", w.suppressed).Int("per_second", w.cfg.PerSecond).Msg("flow log: suppressed records over the rate limit")
	}
	w.second, w.lines, w.suppressed = now, 0, 0
	clear(w.logLines)
}

// budget takes one line from the second's, and is false if none is left.
func (w *Writer) budget() bool {
	if w.cfg.PerSecond > 0 && w.lines >= w.cfg.PerSecond {
		return false
	}
	w.lines++
	w.stats.Lines.Add(1)
	return true
}

func (w *Writer) suppress(n uint64) {
	w.suppressed += n
	w.stats.Suppressed.Add(n)
}

func (w *Writer) write(r *Record) {
	w.nextSecond(r.UnixNano / int64(time.Second))
	logged := r.Decision.Egress.Logged || r.Decision.Ingress.Logged
	if w.cfg.Which == None && w.cfg.Watch == nil && !logged {
		return
	}
	e := w.event(r)
	if logged {
		w.writeLogRules(r, &e)
	}
	if w.cfg.Watch != nil {
		w.cfg.Watch.Decided(&e)
	}
	denied := e.Denied()
	switch {
	case w.cfg.Which == None || w.cfg.Which == Denied && !denied:
	case denied && w.cfg.Interval > 0:
		w.denied(&e)
	case !denied && w.cfg.Sample > 1 && rand.IntN(w.cfg.Sample) != 0:
		w.stats.SampledOut.Add(1)
	default:
		w.writeDecision(&e)
	}
}

// writeDecision writes a line of its own for an event, or counts it as suppressed.
func (w *Writer) writeDecision(e *Event) {
	if !w.budget() {
		w.suppress(1)
		return
	}
	l := w.decision(e)
	if w.cfg.Sample > 1 && !e.Denied() {
		l = l.Int("sample", w.cfg.Sample) // it stands for so many
	}
	l.Msg(e.Kind())
}

// writeLogRules writes a line for every rule with action Log that the flow met on
// its way.
func (w *Writer) writeLogRules(r *Record, e *Event) {
	for _, id := range r.logRules() {
		i := r.Ruleset.RuleInfo(id)
		if w.cfg.LogRulePerSecond > 0 && w.logLines[i] >= w.cfg.LogRulePerSecond {
			w.suppress(1)
			continue
		}
		w.logLines[i]++
		w.stats.Lines.Add(1)
		rule(w.line(e), i).Str("prefix", prefix(w.cfg.LogPrefix, i)).Msg("log rule")
	}
}

func (r *Record) logRules() []filter.RuleID {
	if q := r.Request; q != nil {
		return r.Ruleset.RequestLogRules(&q.Asked, q.Options, nil)
	}
	return r.Ruleset.LogRules(r.Tuple, nil)
}
