package assertion

import (
	"fmt"

	"github.com/postern-project/postern/filter/explain"
)

// Status is what became of one flow. The zero Status is a failure.
type Status uint8

const (
	// Broken: policy decides other than was promised.
	Broken Status = iota
	// Unchecked: nobody can tell, because the flow cannot be had: no such pod,
	// no common address family, no pod at either end.
	Unchecked
	// Bug: the two evaluators differ on the flow.
	Bug
	// Holds: policy decides as was promised.
	Holds
)

func (s Status) String() string {
	switch s {
	case Unchecked:
		return "unchecked"
	case Bug:
		return "bug"
	case Holds:
		return "holds"
	default:
		return "broken"
	}
}

// MarshalText implements encoding.TextMarshaler.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Result is what became of one flow of one assertion.
type Result struct {
	// Path, Set and Assertion are where the flow is promised, at Line.
	Path      string `json:"file"`
	Set       string `json:"set"`
	Assertion string `json:"assertion"`
	Line      int    `json:"line"`

	// From and To are pods by name, addresses or prefixes; or, if the flow is
	// Unchecked, what was written. Family is 4 or 6, or 0 if it is Unchecked.
	From   string `json:"from"`
	To     string `json:"to"`
	Port   string `json:"port"`
	Family int    `json:"family,omitempty"`

	Status Status          `json:"status"`
	Want   explain.Verdict `json:"want"`
	// Got and Tuple are nil if there was no flow to judge. Of a prefix Tuple is
	// the first address that breaks the promise, or else the first of all.
	Got   *explain.Verdict `json:"got,omitempty"`
	Tuple *explain.Tuple   `json:"tuple,omitempty"`
	// Why is one sentence: what decided, or why nothing could.
	Why string `json:"why"`
	// NearestMiss is, of a flow that was to be allowed and is denied, the Allow
	// rule that came closest.
	NearestMiss *explain.NearestMiss `json:"nearestMiss,omitempty"`
}

// Flow prints "from -> to port", and the family where both are possible.
func (r *Result) Flow() string {
	text := fmt.Sprintf("%s -> %s %s", r.From, r.To, r.Port)
	if r.Family != 0 {
		text += fmt.Sprintf(" (IPv%d)", r.Family)
	}
	return text
}

// Outcome prints in a sentence what was wanted and what came out.
func (r *Result) Outcome() string {
	switch {
	case r.Status == Unchecked:
		return fmt.Sprintf("want %s, cannot tell: %s", r.Want, r.Why)
	case r.Status == Bug || r.Got == nil:
		return r.Why
	default:
		return fmt.Sprintf("want %s, got %s", r.Want, *r.Got)
	}
}
