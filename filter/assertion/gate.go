package assertion

import (
	"errors"
	"fmt"
	"strings"

	"github.com/postern-project/postern/filter/policy"
)

// Bounds of a Gate's error: it goes to a log.
const (
	maxListed   = 5    // assertions
	maxFlowText = 1000 // bytes about one of them
)

// Gate refuses snapshots that break a promise. The zero Gate refuses none. Check
// may be called by any number of goroutines at once if Unchecked may.
type Gate struct {
	Sets []Set
	// Unchecked, if set, is called with each flow that cannot be judged on a
	// snapshot. Such a flow is no reason to refuse: what does not exist cannot be
	// reached, and holding on to an older state would keep pods that are gone.
	Unchecked func(Result)
}

// Check returns nil if policy decides as promised on the snapshot. The error names
// the assertions that it breaks, a flow of each, and how many more there are.
func (g *Gate) Check(s *policy.Snapshot) error {
	return g.refusal(Check(s, g.Sets...))
}

func (g *Gate) refusal(results []Result) error {
	type broken struct {
		first Result
		flows int
	}
	var list []*broken
	last := map[string]*broken{} // by path and name
	for _, r := range results {
		switch r.Status {
		case Holds:
			continue
		case Unchecked:
			if g.Unchecked != nil {
				g.Unchecked(r)
			}
			continue
		}
		key := r.Path + "\x00" + r.Assertion
		b := last[key]
		if b == nil {
			b = &broken{first: r}
			last[key], list = b, append(list, b)
		}
		b.flows++
	}
	if len(list) == 0 {
		return nil
	}
	var texts []string
	for _, b := range list[:min(len(list), maxListed)] {
		texts = append(texts, describe(b.first, b.flows))
	}
	if more := len(list) - maxListed; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more assertions", more))
	}
	return errors.New(strings.Join(texts, "; "))
}

// describe tells about a broken assertion by its first broken flow.
func describe(r Result, flows int) string {
	text := fmt.Sprintf("%s:%d: assertion %q: %s: %s", r.Path, r.Line, r.Assertion, r.Flow(), r.Outcome())
	if r.Status == Broken {
		text += ": " + r.Why
	}
	if len(text) > maxFlowText {
		text = strings.ToValidUTF8(text[:maxFlowText], "") + "…"
	}
	if flows > 1 {
		text += fmt.Sprintf(" (and %d more flows)", flows-1)
	}
	return text
}
