package main

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-project/postern/filter/nfq"
	"github.com/postern-project/postern/k8ssync/kube"
)

// exceptionConfig is what run's flags say about packets that cannot be judged as they
// should be. More of the table in docs/operate.md is among the other flags:
// conntrack-invalid, start-wait, hold-time, anti-spoof.
type exceptionConfig struct {
	noDaemon, queueFull, undecodable, stale string
	staleAfter                              time.Duration
}

func (c *exceptionConfig) flags(f *pflag.FlagSet) {
	f.StringVar(&c.noDaemon, "no-daemon", "drop", "what becomes of packets that would be asked about while no postern runs: drop, or accept them unjudged")
	f.StringVar(&c.queueFull, "queue-full", "drop", "what becomes of packets for which the queue or its socket has no room: drop, or accept them unjudged")
	f.StringVar(&c.undecodable, "undecodable", "drop", "what becomes of packets whose headers are broken, cut off or more than are read: drop, or accept them unjudged")
	f.StringVar(&c.stale, "stale", "keep", "what becomes of new flows once the cluster has been out of reach for --stale-after: keep judges them by what was known last, drop denies them, accept lets them pass unjudged")
	f.DurationVar(&c.staleAfter, "stale-after", 0, "how long the cluster may be out of reach before --stale is done; 0 for never")
}

func (c *exceptionConfig) check() error {
	for flag, action := range map[string]string{"no-daemon": c.noDaemon, "queue-full": c.queueFull, "undecodable": c.undecodable} {
		if action != "drop" && action != "accept" {
			return usageError("--%s %q: want drop or accept", flag, action)
		}
	}
	switch {
	case c.stale != "keep" && c.stale != "drop" && c.stale != "accept":
		return usageError("--stale %q: want keep, drop or accept", c.stale)
	case c.staleAfter < 0:
		return usageError("--stale-after %v: want 0 or more", c.staleAfter)
	case c.stale != "keep" && c.staleAfter == 0:
		return usageError("--stale %s: --stale-after is required with it", c.stale)
	}
	return nil
}

// failsOpen tells whether the kernel may let packets pass that nobody has answered.
func (c *exceptionConfig) failsOpen() bool { return c.noDaemon == "accept" || c.queueFull == "accept" }

var staleOverrides = map[string]nfq.Override{"keep": nfq.NoOverride, "drop": nfq.DenyAll, "accept": nfq.AllowAll}

// staleness is whether the state in force is too old to go by.
type staleness struct {
	began time.Time // of the daemon
	stale atomic.Bool
}

// beyond tells whether the cluster has been out of reach for longer than a time.
func (s *staleness) beyond(after time.Duration, kinds []kube.Kind, now time.Time) bool {
	if len(kinds) == 0 { // it was never reached
		return now.Sub(s.began) > after
	}
	return slices.ContainsFunc(kinds, func(k kube.Kind) bool { return k.State != kube.Live && now.Sub(k.Since) > after })
}

func (s *staleness) degraded(action string) []string {
	if !s.stale.Load() {
		return nil
	}
	return []string{fmt.Sprintf("the cluster has been out of reach for longer than --stale-after; new flows: %s", action)}
}

// judgeStaleness does what the settings say about an old state, and undoes it. The loop
// that applies policy calls it.
func (d *daemon) judgeStaleness(now time.Time) {
	c := &d.cfg.exceptions
	if d.cluster == nil || c.staleAfter == 0 || d.inForce.Load() == nil {
		return
	}
	stale := d.staleness.beyond(c.staleAfter, d.cluster.Status().Kinds, now)
	if stale == d.staleness.stale.Load() {
		return
	}
	d.staleness.stale.Store(stale)
	if !stale {
		for _, q := range d.queues {
			q.Override(nfq.NoOverride)
		}
		d.log.Info().Msg("the cluster is followed again: new flows are judged")
		return
	}
	if c.stale != "keep" {
		for _, q := range d.queues {
			q.Override(staleOverrides[c.stale])
		}
	}
	if c.stale == "drop" {
		// What the kernel remembers would go on passing.
		if err := d.applier.ForgetWays(); err != nil {
			d.log.Error().Err(err).Msg("could not make the kernel forget what was allowed; repeated flows may pass for a minute")
		}
	}
	// Said when it is so: whoever reads it relies on it.
	d.log.Error().Dur("after", c.staleAfter).Str("new_flows", c.stale).Msg("the cluster has been out of reach for too long")
}

// staleTick is how often the age of the state is looked at.
const staleTick = time.Second
