package main

import (
	"testing"
	"time"
)

// paced lets changes come at an interval, each of which takes as long to put in force as
// work says, and gives how long each waited until then and how much of the time was work.
func paced(n int, interval time.Duration, work func(i int) time.Duration) (waits []time.Duration, busy float64) {
	var p pacer
	begin := time.Unix(1e9, 0)
	now, total := begin, time.Duration(0)
	for next := 0; next < n; {
		// A change came, or will; then the pause, and all that came until its end.
		if at := begin.Add(time.Duration(next) * interval); now.Before(at) {
			now = at
		}
		now = now.Add(p.pause(now))
		took := work(next)
		now = now.Add(took)
		total += took
		p.worked(now, took)
		for ; next < n && !begin.Add(time.Duration(next)*interval).After(now.Add(-took)); next++ {
			waits = append(waits, now.Sub(begin.Add(time.Duration(next)*interval)))
		}
	}
	return waits, float64(total) / float64(now.Sub(begin))
}

func TestPace(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	always := func(took time.Duration) func(int) time.Duration { return func(int) time.Duration { return took } }
	for name, c := range map[string]struct {
		n        int
		interval time.Duration
		work     func(i int) time.Duration
		// longest that a change waits until it is in force, and the largest part of the
		// time that is work.
		longest time.Duration
		busy    float64
	}{
		"cheap work never waits":           {10_000, 10 * ms, always(ms), ms, 0.11},
		"rare work never waits":            {100, time.Second, always(50 * ms), 50 * ms, 0.06},
		"work that costs more is gathered": {10_000, 10 * ms, always(8 * ms), 8*ms + workShare*8*ms, 0.21},
		"a change waits only so long":      {10_000, 10 * ms, always(60 * ms), 60*ms + longestPause + 60*ms, 1},
		"one long piece is not paid for by all that follow": {1000, 10 * ms, func(i int) time.Duration {
			if i == 0 {
				return 3 * time.Second
			}
			return ms
		}, 3*time.Second + longestPause, 1},
	} {
		t.Run(name, func(t *testing.T) {
			waits, busy := paced(c.n, c.interval, c.work)
			if len(waits) != c.n {
				t.Fatalf("%d of %d changes are in force", len(waits), c.n)
			}
			for i, w := range waits {
				if w > c.longest {
					t.Fatalf("change %d waited %v, want %v at most", i, w, c.longest)
				}
			}
			if busy > c.busy {
				t.Errorf("%.2f of the time is work, want %.2f at most", busy, c.busy)
			}
		})
	}
}

// After a rest there is room for work at once, and no more of it than after a longer one.
func TestPaceAfterRest(t *testing.T) {
	t.Parallel()
	for _, rest := range []time.Duration{time.Second, time.Hour} {
		var p pacer
		now := time.Unix(1e9, 0)
		p.worked(now, time.Second)
		if got := p.pause(now); got != longestPause {
			t.Errorf("after much work a pause of %v, want %v", got, longestPause)
		}
		now = now.Add(rest)
		for done := time.Duration(0); done < workBurst; done += workBurst / 10 {
			if got := p.pause(now); got != 0 {
				t.Errorf("%v after the work and %v of it: a pause of %v", rest, done, got)
			}
			p.worked(now, workBurst/10)
		}
		p.worked(now, workBurst/10)
		if got := p.pause(now); got <= 0 {
			t.Errorf("%v after the work: no pause after a burst", rest)
		}
	}
}
