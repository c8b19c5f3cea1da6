// Package measure times things beside each other, so that whatever else the
// machine does meets all of them alike. It reports medians over rounds, in
// processor time of the thread: what other processes took away is left out, what
// they did to the caches is not.
package measure

import (
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// ThreadTime is the processor time this thread has used. The goroutine must be
// locked to it for differences to mean anything.
func ThreadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// Contestant is one thing to be timed.
type Contestant struct {
	// Run does Ops operations. It is called twice in every round, with the number
	// of the round: once so that the caches are its own, and once for the clock.
	Run func(round int)
	Ops int
}

// Turns runs the contestants in turn, for so many rounds, and gives for each the
// median of nanoseconds per operation.
func Turns(rounds int, contestants []Contestant) []float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runtime.GC() // none of it in the rounds, unless a contestant allocates
	spent := make([][]float64, len(contestants))
	for round := range rounds {
		for i, c := range contestants {
			c.Run(round)
			start := ThreadTime()
			c.Run(round)
			spent[i] = append(spent[i], float64(ThreadTime()-start)/float64(c.Ops))
		}
	}
	medians := make([]float64, len(contestants))
	for i := range spent {
		medians[i] = Median(spent[i])
	}
	return medians
}

// Median gives the middle value, the upper one of two.
func Median(values []float64) float64 { return slices.Sorted(slices.Values(values))[len(values)/2] }

// MedianRatio gives the middle one of the ratios of two contestants' values round by round,
// so that what the machine does besides meets both sides of each.
func MedianRatio(us, them []float64) float64 {
	ratios := make([]float64, len(us))
	for i := range us {
		ratios[i] = us[i] / them[i]
	}
	return Median(ratios)
}
