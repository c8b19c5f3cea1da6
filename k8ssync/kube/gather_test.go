package kube

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// gathered plays signals, at times after the begin, and gives the times of the flushes.
// It runs on the fake clock of synctest.
func gathered(t *testing.T, signals []time.Duration) (flushes []time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		wake := make(chan struct{}, 1)
		begin := time.Now()
		var done sync.WaitGroup
		done.Go(func() {
			gather(ctx, wake, func(now time.Time) { flushes = append(flushes, now.Sub(begin)) })
		})
		for _, at := range signals {
			time.Sleep(time.Until(begin.Add(at)))
			wake <- struct{}{}
			synctest.Wait()
		}
		time.Sleep(time.Second)
		cancel()
		done.Wait()
	})
	return flushes
}

// every gives signals at an interval.
func every(interval, end time.Duration) (signals []time.Duration) {
	for at := time.Duration(0); at < end; at += interval {
		signals = append(signals, at)
	}
	return signals
}

func TestGather(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for name, c := range map[string]struct{ signals, flushes []time.Duration }{
		"nothing":                      {nil, nil},
		"one":                          {[]time.Duration{0}, []time.Duration{quiet}},
		"two that come together":       {[]time.Duration{0, quiet - 1}, []time.Duration{2*quiet - 1}},
		"two that do not":              {[]time.Duration{0, quiet + 1}, []time.Duration{quiet, 2*quiet + 1}},
		"the first after others":       {[]time.Duration{0, 100 * ms}, []time.Duration{quiet, 100*ms + quiet}},
		"one each hundredth of second": {every(10*ms, 40*ms), []time.Duration{quiet, 10*ms + quiet, 20*ms + quiet, 30*ms + quiet}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := gathered(t, c.signals); !slices.Equal(got, c.flushes) {
				t.Errorf("flushes at %v, want %v", got, c.flushes)
			}
		})
	}
}

// Under events that never pause each waits for patience at most, and there is one
// flush for many of them.
func TestGatherIsPatientOnlySoLong(t *testing.T) {
	t.Parallel()
	const interval = time.Millisecond
	signals := every(interval, 10*patience)
	flushes := gathered(t, signals)
	for _, at := range signals {
		i, _ := slices.BinarySearch(flushes, at)
		if i == len(flushes) || flushes[i]-at > patience {
			t.Fatalf("the event at %v: flushes at %v", at, flushes)
		}
	}
	if n := len(flushes); n > 11 {
		t.Errorf("%d flushes within %v of events", n, 10*patience)
	}
}
