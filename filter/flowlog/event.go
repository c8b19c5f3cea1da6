package flowlog

import (
	"strings"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
)

// Event is one decision with the names of all that it was about. It is a plain
// value, without the ruleset that decided, so it may be kept.
type Event struct {
	UnixNano int64
	Tuple    flow.Tuple
	Verdict  filter.Verdict
	Reason   filter.Reason
	Side     flow.Direction
	// Src and Dst are the pods at the two addresses; without a Name there is none.
	Src, Dst filter.EndpointInfo
	// Rule is the rule, or the end of a tier, that decided; the zero value if none did.
	Rule filter.RuleInfo
	// Decided: a ruleset was in force. Generation and Epoch are its, and the epoch of
	// the kernel's rules is 0 for a request.
	Decided    bool
	Generation uint64
	Epoch      uint32
	// Pending is what would be decided if staged policies were enforced, where that
	// differs; otherwise nil.
	Pending *Pending
	// Request is nil for a packet.
	Request *Asked
}

// Pending is what a decision would be if staged policies were enforced.
type Pending struct {
	Verdict filter.Verdict
	Reason  filter.Reason
	Rule    filter.RuleInfo
}

// Asked is what a request was, each text bounded in length. The query of the path is
// left out: secrets are put there.
type Asked struct {
	// Source and Destination are the principals as reported; empty for plain text.
	Source, Destination string
	Method, Path        string // empty if it is not HTTP
	Problem             string // what could not be understood
}

// Denied tells whether it was denied, or would be if staged policies were enforced.
func (e *Event) Denied() bool {
	return e.Verdict == filter.Drop || e.Pending != nil && e.Pending.Verdict == filter.Drop
}

// Kind is "flow" or "request".
func (e *Event) Kind() string {
	if e.Request != nil {
		return "request"
	}
	return "flow"
}

// PolicyName is "namespace/name", or "name" of a global object.
func PolicyName(i filter.RuleInfo) string {
	if i.Namespace == "" {
		return i.Name
	}
	return i.Namespace + "/" + i.Name
}

// event finds the names that belong to a record.
func (w *Writer) event(r *Record) (e Event) {
	e = Event{
		UnixNano: r.UnixNano, Tuple: r.Tuple, Epoch: r.Epoch,
		Verdict: r.Decision.Verdict, Reason: r.Decision.Reason, Side: r.Decision.Side,
	}
	if rs := r.Ruleset; rs != nil {
		e.Decided, e.Generation = true, rs.Generation()
		e.Src, _ = rs.Endpoint(r.Tuple.Src)
		e.Dst, _ = rs.Endpoint(r.Tuple.Dst)
		if id := r.Decision.Outcome().Rule; id != 0 {
			e.Rule = rs.RuleInfo(id)
		}
		e.Pending = w.would(r)
	}
	if r.Request != nil {
		e.Request = r.Request.short()
	}
	return e
}

// would decides a record as if staged policies were enforced; nil if that makes no
// difference.
func (w *Writer) would(r *Record) *Pending {
	pending := w.pending.Load()
	if pending == nil || pending.Generation() != r.Ruleset.Generation() {
		return nil
	}
	var d filter.Decision
	if q := r.Request; q == nil {
		d = pending.Decide(r.Tuple)
	} else if q.Problem == "" {
		d.Ingress = pending.DecideRequest(&q.Asked, q.Options)
		d.Verdict, d.Reason = d.Ingress.Verdict, d.Ingress.Reason
	}
	if d.Verdict == r.Decision.Verdict {
		return nil
	}
	return &Pending{d.Verdict, d.Reason, pending.RuleInfo(d.Outcome().Rule)}
}

// longest is how much of a text that a client chose is kept.
const longest = 256

func (r *Request) short() *Asked {
	a := &Asked{Source: short(r.Source), Destination: short(r.Destination), Problem: short(r.Problem)}
	if r.Asked.HTTP {
		path, _, _ := strings.Cut(r.Asked.Path, "?")
		a.Method, a.Path = short(r.Asked.Method), short(path)
	}
	return a
}

// short gives a text of its own, so that a long one does not live on in part.
func short(s string) string {
	if len(s) > longest {
		return s[:longest] + "…"
	}
	return strings.Clone(s)
}
