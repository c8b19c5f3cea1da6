package main

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// apply puts each settled state of the source in force, unless it breaks an
// assertion.
func (d *daemon) apply(ctx context.Context) error {
	d.log.Info().Str("source", d.sourceName()).Stringer("queue_via", d.via).Uint16("queue", d.cfg.queueFirst).Uint16("queues", d.cfg.queues).
		Msg("waiting for the source; the kernel is not touched before")
	// Nil once it has happened. What was saved last is for a cluster that is out of reach.
	synced, cut := d.source.Synced(), (<-chan struct{})(nil)
	if d.cluster != nil {
		cut = d.cluster.Cut()
	}
	// wanted is the last state that keeps the assertions. After a failure it must
	// be applied again, also when what came later is refused.
	var wanted, inForce, refused *policy.Snapshot
	var saved, arrived time.Time // of wanted; zero if it was not saved, and if that is not known
	age := time.NewTicker(staleTick)
	defer age.Stop()
	var pace pacer
	for {
		var retry <-chan time.Time
		begin := time.Now()
		var changed <-chan time.Time
		if synced == nil {
			changed = d.store.Changed()
			if s := d.store.Snapshot(); d.gate.admits(s) {
				wanted, saved = s, time.Time{}
			} else if s != refused {
				refused = s
				d.metrics.Refused()
			}
		}
		if wanted != inForce {
			if err := d.enforce(wanted, saved, arrived); err != nil {
				d.metrics.Failed()
				d.log.Error().Err(err).Dur("retry_after", retryAfter).Msg("could not put policy in force")
				retry = time.After(retryAfter)
			} else {
				inForce = wanted
			}
		}
		pace.worked(time.Now(), time.Since(begin))
		select {
		case <-ctx.Done():
			return nil
		case <-synced:
			synced, cut = nil, nil
		case <-cut:
			cut = nil
			wanted, saved = d.loadSaved()
		case arrived = <-changed:
			d.gather(ctx, pace.pause(time.Now()))
		case r := <-d.reloads.wanted:
			d.adopt(r)
		case now := <-age.C:
			d.judgeStaleness(now)
		case <-d.guard.news:
			d.repair(ctx)
		case <-retry:
		}
	}
}

// gather lets changes come together for a while; the snapshot that is taken then has
// all of them.
func (d *daemon) gather(ctx context.Context, pause time.Duration) {
	if pause <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
	select {
	case <-d.store.Changed():
	default:
	}
}

// enforce puts a snapshot in force. saved is when it was saved, if it comes from the
// state file; arrived is when it began to differ from what was in force, if that is known.
func (d *daemon) enforce(s *policy.Snapshot, saved, arrived time.Time) error {
	start := time.Now()
	rs, problems, err := d.applier.Apply(s)
	d.tell(problems)
	if err != nil {
		return err
	}
	d.inForce.Store(&control.State{Snapshot: s, Ruleset: rs, Node: d.cfg.node})
	d.see(rs)
	d.progress.enforced(problems, saved)
	took := time.Since(start)
	age := time.Duration(-1)
	if !arrived.IsZero() {
		age = time.Since(arrived)
	}
	d.metrics.Applied(took, age)
	d.flows.SetPending(d.pending(s)) // before the log says that all is in force
	d.logInForce(rs, took)
	d.began.Do(d.begin)
	d.warnOfHosts(len(s.HostEndpoints))
	return nil
}

// tell logs what the compiler found and had not found before.
func (d *daemon) tell(problems []policy.Problem) {
	said := make(map[string]bool, len(problems))
	for _, p := range problems {
		said[p.Error()] = true
		if !d.said[p.Error()] {
			d.log.Warn().Stringer("object", p.Object).Str("field", p.Field).Msg(p.Message)
		}
	}
	d.said = said
	if d.cluster != nil {
		d.cluster.Report(problems)
	}
}

// current is what clients of the socket are told.
func (d *daemon) current() (control.State, bool) {
	s := d.inForce.Load()
	if s == nil {
		return control.State{}, false
	}
	now := *s
	now.Snapshot = now.Snapshot.Complete()
	return now, true
}

// logInForce logs every change of a directory, which somebody made by hand; those of
// a cluster, which may be a hundred a second, now and then.
func (d *daemon) logInForce(rs *filter.Ruleset, took time.Duration) {
	n := rs.Sizes()
	level := zerolog.InfoLevel
	if d.cluster != nil && time.Since(d.saidInForce) < quietFor {
		level = zerolog.DebugLevel
	} else {
		d.saidInForce = time.Now()
	}
	d.log.WithLevel(level).Uint64("generation", rs.Generation()).
		Int("endpoints", n.Endpoints).Int("rules", n.Rules).
		Int("protected_ingress", len(rs.Protected(flow.Ingress))).Int("protected_egress", len(rs.Protected(flow.Egress))).
		Dur("took", took).Msg("enforcing")
}

// pending is what would be in force if the staged policies were enforced, for the
// flow log; nil if none is staged.
func (d *daemon) pending(s *policy.Snapshot) *filter.Ruleset {
	if d.stagedIn.count(s, d.store.Changes) == 0 {
		d.staged = nil
		return nil
	}
	if d.staged == nil {
		d.staged = compile.New(compile.Options{Node: d.cfg.node, Pending: true, Changes: d.store.Changes})
	}
	rs, _ := d.staged.Apply(s)
	return rs
}

// stagedCount is how many policies of a snapshot are staged, kept up to date by what
// changes: there may be thousands that are not.
type stagedCount struct {
	of *policy.Snapshot
	n  int
}

func (c *stagedCount) count(s *policy.Snapshot, between func(from, to *policy.Snapshot) ([]policy.Change, bool)) int {
	if changes, ok := between(c.of, s); ok {
		for _, ch := range changes {
			c.n += staged(ch.New) - staged(ch.Old)
		}
	} else {
		c.n = 0
		for _, p := range s.Complete().Policies {
			c.n += staged(p)
		}
	}
	c.of = s
	return c.n
}

// staged is 1 for a policy that is staged, and 0 for anything else.
func staged(object any) int {
	if p, _ := object.(*policy.Policy); p != nil && p.Staged != policy.Enforced {
		return 1
	}
	return 0
}

// warnOfHosts says, once for each number of them, that host endpoints are not
// enforced.
func (d *daemon) warnOfHosts(n int) {
	if n > 0 && n != d.hosts {
		d.log.Warn().Int("host_endpoints", n).Msg("host endpoints are not enforced: they count as peers in rules, and policies that select them have no effect on this host's own traffic")
	}
	d.hosts = n
}
