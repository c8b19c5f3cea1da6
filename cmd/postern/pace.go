package main

import "time"

// Bounds of what putting states of a source in force may cost.
const (
	// workShare is the part of the time that it may take in the long run, one in so many.
	workShare = 5
	// workBurst is the work that may be done at once after a time of rest.
	workBurst = 50 * time.Millisecond
	// longestPause is what a change waits at most for the work before it. It bounds how
	// late policy may be where applying it takes longer than its share.
	longestPause = 50 * time.Millisecond
)

// pacer makes who works pause, so that the work takes its share of the time: a bucket
// of working time that fills as time goes by. A change that comes alone never waits;
// those that come all the time are put in force together, the more of them the more it
// costs. The zero value is a full bucket.
type pacer struct {
	// full is when the bucket is full again.
	full time.Time
}

// worked notes work that has ended now.
func (p *pacer) worked(now time.Time, took time.Duration) {
	if p.full.Before(now) {
		p.full = now
	}
	p.full = p.full.Add(workShare * took)
	// What is owed beyond the longest pause is forgotten: one long piece of work, such
	// as the first, is not paid for by all that follow.
	if most := now.Add(workShare*workBurst + longestPause); p.full.After(most) {
		p.full = most
	}
}

// pause is how long to wait before the next work.
func (p *pacer) pause(now time.Time) time.Duration {
	return max(0, p.full.Add(-workShare*workBurst).Sub(now))
}
