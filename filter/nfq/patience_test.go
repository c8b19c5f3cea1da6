package nfq

import (
	"testing"
	"time"
)

// packets lets n packets come, each found by the look with that number unless patience ends
// before, and each slept for so long then. It gives how many looks found nothing, and how many
// packets were slept for.
func (p *patience) packets(n, look int, slept time.Duration) (missed, sleeps int) {
	for range n {
		i := 1
		for ; *p > 0 && i < look; i++ {
			p.missed()
			missed++
		}
		switch {
		case *p <= 0:
			sleeps++
			p.waited(slept)
		case i > 1:
			p.found()
		}
	}
	return missed, sleeps
}

func TestPatience(t *testing.T) {
	const many = 10_000
	for _, tc := range []struct {
		name   string
		look   int
		slept  time.Duration
		missed func(int) bool
		sleeps func(int) bool
	}{
		{"seldom", 1000, time.Millisecond, func(n int) bool { return n == 0 }, func(n int) bool { return n == many }},
		{"at the bound", 1000, shortWait, func(n int) bool { return n == 0 }, func(n int) bool { return n == many }},
		{"short waits, and looks in vain", 1000, shortWait - 1, func(n int) bool { return n > 0 && n <= many*fewLooks }, func(n int) bool { return n == many }},
		{"found soon", 3, shortWait - 1, func(n int) bool { return n >= (many-2)*2 }, func(n int) bool { return n == 1 }},
		{"waits already", 1, shortWait - 1, func(n int) bool { return n == 0 }, func(n int) bool { return n == 1 }},
		{"found late", 2 * findWorth, time.Millisecond, func(n int) bool { return n == 0 }, func(n int) bool { return n == many }},
	} {
		var p patience
		if missed, sleeps := p.packets(many, tc.look, tc.slept); !tc.missed(missed) || !tc.sleeps(sleeps) {
			t.Errorf("%s: %d looks in vain and %d sleeps for %d packets", tc.name, missed, sleeps, many)
		}
	}
}

// Where looks find too little for what they cost they end, however patient the loop was; and
// a short wait begins them anew.
func TestPatienceEnds(t *testing.T) {
	var p patience
	p.waited(0)
	p.packets(100, 2, time.Second)
	if p != mostLooks {
		t.Fatalf("%d looks after many finds, want %d", p, mostLooks)
	}
	p.waited(0)
	if p != mostLooks {
		t.Fatalf("%d looks after a short wait, want %d still", p, mostLooks)
	}
	missed, sleeps := p.packets(1000, findWorth+4, time.Second)
	// Each find earns a few looks less than it took.
	if most := mostLooks * (findWorth + 4); missed > most || sleeps < 1000-mostLooks {
		t.Errorf("%d looks in vain and %d sleeps, want at most %d and at least %d", missed, sleeps, most, 1000-mostLooks)
	}
	if _, sleeps := p.packets(1000, 3, 0); sleeps != 1 {
		t.Errorf("%d sleeps once packets come fast again, want 1", sleeps)
	}
}
