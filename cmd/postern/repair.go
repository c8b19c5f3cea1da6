package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/postern-project/postern/filter/nft"
)

// What concerns other programs that change postern's table, or remove it.

const (
	// betweenRepairs keeps a program that changes the table again and again from taking a
	// processor, and epochs, for itself.
	betweenRepairs = 200 * time.Millisecond
	// damageTold is how long the status speaks of a damage that was repaired.
	damageTold = 10 * time.Minute
)

// tableGuard notices damage and remembers it. Any goroutine may ask.
type tableGuard struct {
	watcher *nft.Watcher
	news    chan struct{} // there is damage

	mu      sync.Mutex
	since   time.Time // of the damage that is not repaired yet; zero if there is none
	by      string    // who made the last one
	lost    bool      // nobody knows whether there is one
	repairs uint64
	last    time.Time // of the last repair
}

// Repairs counts how often the table was put in again because another program had
// changed it or removed it, or might have.
func (g *tableGuard) Repairs() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.repairs
}

func (d *daemon) openGuard() (err error) {
	d.guard.news = make(chan struct{}, 1)
	d.guard.watcher, err = nft.NewWatcher(d.nft, d.sourcesConn)
	return err
}

// watchTable tells the loop that applies policy of damage.
func (d *daemon) watchTable(ctx context.Context) error {
	return d.guard.watcher.Run(ctx, d.guard.damaged)
}

func (g *tableGuard) damaged(dmg nft.Damage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.since.IsZero() {
		g.since, g.lost = time.Now(), true
	}
	if g.lost = g.lost && dmg.Lost; dmg.By != "" {
		g.by = dmg.By
	}
	g.announce()
}

// remind announces what was found out before there was anything to repair. The first state
// may have put it right or not.
func (g *tableGuard) remind() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.since.IsZero() {
		g.announce()
	}
}

// announce does not wait: one piece of news is as good as two.
func (g *tableGuard) announce() {
	select {
	case g.news <- struct{}{}:
	default:
	}
}

// repair puts the table in again. The loop that applies policy calls it.
func (d *daemon) repair(ctx context.Context) {
	g := &d.guard
	g.mu.Lock()
	since, wait := g.since, betweenRepairs-time.Since(g.last)
	g.mu.Unlock()
	if since.IsZero() || d.inForce.Load() == nil {
		return // before a first state is in force the table is an earlier process's
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(max(wait, 0)):
	}
	g.mu.Lock()
	// What is found out from here on may not be repaired by this.
	since, by, lost := g.since, g.by, g.lost
	g.since, g.by = time.Time{}, ""
	g.mu.Unlock()
	err := d.applier.Repair()
	d.links.Again()
	g.mu.Lock()
	g.last = time.Now()
	if err != nil {
		if g.since.IsZero() {
			g.since, g.by, g.lost = since, by, lost
		}
		g.announce()
	} else {
		g.repairs++
	}
	if g.by == "" {
		g.by = by
	}
	g.mu.Unlock()
	switch {
	case err != nil:
		d.log.Error().Err(err).Str("by", by).Msg("another program changed or removed the table in the kernel, and it could not be put in again yet: flows pass unjudged")
	case lost:
		d.log.Warn().Dur("took", time.Since(since)).Msg("news of nftables got lost: put the table in again, in case it was changed")
	default:
		d.log.Error().Str("by", by).Dur("took", time.Since(since)).Msg("another program changed or removed the table in the kernel: put it in again; flows that passed meanwhile are judged at their next packet")
	}
}

// degraded tells the status of damage.
func (g *tableGuard) degraded(now time.Time) (lines []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	by := "another program"
	if g.by != "" {
		by += ", " + g.by + ","
	}
	switch {
	case !g.since.IsZero() && !g.lost:
		lines = append(lines, fmt.Sprintf("%s has changed or removed postern's table: flows pass unjudged until it is repaired", by))
	case g.repairs > 0 && now.Sub(g.last) < damageTold:
		lines = append(lines, fmt.Sprintf("%s changed or removed postern's table, or may have; repaired %d times, last at %s", by, g.repairs, g.last.Format(time.RFC3339)))
	}
	return lines
}
