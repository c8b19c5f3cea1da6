package main

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/filter/nfq"
)

// TestHealth: a daemon is ready once something is in force, and as long as its loops
// come round.
func TestHealth(t *testing.T) {
	q := &nfq.Queue{}
	d := &daemon{queues: []*nfq.Queue{q}, first: make(chan struct{})}
	if d.notLive() != "" || d.notReady() == "" || d.notStarted() == "" {
		t.Errorf("before a first state: live %q, ready %q, started %q", d.notLive(), d.notReady(), d.notStarted())
	}
	close(d.first)
	d.inForce.Store(&control.State{})
	q.Stats().Alive.Store(time.Now().UnixNano())
	if d.notLive() != "" || d.notReady() != "" || d.notStarted() != "" {
		t.Errorf("at work: live %q, ready %q, started %q", d.notLive(), d.notReady(), d.notStarted())
	}
	q.Stats().Alive.Store(time.Now().Add(-2 * livePatience).UnixNano())
	if !strings.Contains(d.notLive(), "has not come round since") || d.notReady() == "" || d.notStarted() != "" {
		t.Errorf("stuck: live %q, ready %q, started %q", d.notLive(), d.notReady(), d.notStarted())
	}
}
