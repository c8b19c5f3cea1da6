package flowlog

import "sync/atomic"

// Stats counts what became of decisions on their way to the log. The Writer alone
// writes them; anybody may read at any time.
type Stats struct {
	// Lines were written, those of rules with action Log among them.
	Lines atomic.Uint64
	// Repeated were counted in a line of their like.
	Repeated atomic.Uint64
	// SampledOut were accepted and not chosen.
	SampledOut atomic.Uint64
	// Suppressed were over the rate limit.
	Suppressed atomic.Uint64
	// Lost found a full ring, so nobody saw them.
	Lost atomic.Uint64
}
