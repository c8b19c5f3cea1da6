package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter/nfq"
)

// What concerns the supervisor: systemd, a keeper, or nobody.

// queueName is the name of a queue's socket in the supervisor's store.
func queueName(queue uint16) string { return fmt.Sprintf("queue-%d", queue) }

// lockName is the name of the lock's socket there.
const lockName = "lock"

// takeLock keeps other posterns of this network namespace away; also, while a
// supervisor has a copy, between two processes.
func (d *daemon) takeLock() (err error) {
	if fd, ok := d.stored[lockName]; ok {
		delete(d.stored, lockName)
		if d.lock, err = nfq.AdoptLock(fd); err == nil {
			return nil
		}
		d.log.Error().Err(err).Msg("cannot go on with the lock of the process before")
		d.notify(d.supervisor.Forget(lockName))
		unix.Close(fd)
		waitGone(nfq.LockQueue)
	}
	if d.lock, err = nfq.TakeLock(); err != nil {
		return err
	}
	d.notify(d.supervisor.Store(lockName, d.lock.FD()))
	return nil
}

// openQueue goes on with the queue that the process before left with the supervisor,
// whose packets have waited since; or it opens the queue, and leaves it there.
func (d *daemon) openQueue(cfg nfq.Config) (*nfq.Queue, error) {
	name := queueName(cfg.Queue)
	if fd, ok := d.stored[name]; ok {
		delete(d.stored, name)
		q, err := nfq.Adopt(cfg, d.engine, fd)
		if err == nil {
			k, _, _ := nfq.ReadKernelStats(cfg.Queue)
			d.log.Info().Uint16("queue", cfg.Queue).Uint32("waiting", k.Waiting).Msg("going on with the queue of the process before")
			return q, nil
		}
		d.log.Error().Err(err).Msg("cannot go on with the queue of the process before; packets that wait in it are dropped")
		d.notify(d.supervisor.Forget(name))
		unix.Close(fd)
		waitGone(cfg.Queue)
	}
	q, err := nfq.Open(cfg, d.engine)
	if err == nil {
		d.notify(d.supervisor.Store(name, q.FD()))
	}
	return q, err
}

// waitGone waits a moment for the kernel to give a queue number back, after the
// supervisor was asked to close its socket.
func waitGone(queue uint16) {
	for range 100 {
		if _, bound, err := nfq.ReadKernelStats(queue); err != nil || !bound {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// dropStored closes what the process before left and this one has no use for, such as
// queues beyond a smaller --queues.
func (d *daemon) dropStored() {
	for name, fd := range d.stored {
		d.log.Info().Str("name", name).Msg("closed a descriptor that the process before had stored")
		d.notify(d.supervisor.Forget(name))
		unix.Close(fd)
	}
	d.stored = nil
}

// begin is called once a first state is in force.
func (d *daemon) begin() {
	close(d.first)
	d.guard.remind()
	d.notify(d.supervisor.Status("policy is in force"))
	d.notify(d.supervisor.Ready())
}

// awaitFirst waits for a first state, but not for ever: what comes later is denied,
// as anything is that nobody can judge.
func (d *daemon) awaitFirst(ctx context.Context) {
	select {
	case <-d.first:
	case <-ctx.Done():
	case <-time.After(d.cfg.startWait):
	}
}

// feedWatchdog tells the supervisor that packets are being answered, as long as every
// verdict loop comes round. A timer of its own would feed it beside a loop that is
// stuck.
func (d *daemon) feedWatchdog(ctx context.Context) {
	limit := d.supervisor.Watchdog()
	if limit == 0 {
		return
	}
	select {
	case <-d.first:
	case <-ctx.Done():
		return
	}
	for tick := time.NewTicker(limit / 4); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case now := <-tick.C:
			if d.loopsAlive(now.Add(-limit / 2)) {
				d.notify(d.supervisor.Alive())
			}
		}
	}
}

// loopsAlive tells whether every loop came round since then.
func (d *daemon) loopsAlive(since time.Time) bool {
	for _, q := range d.queues {
		if q.Stats().Alive.Load() < since.UnixNano() {
			return false
		}
	}
	return true
}

// notify logs what could not be told to the supervisor.
func (d *daemon) notify(err error) {
	if err != nil {
		d.log.Error().Err(err).Msg("supervisor")
	}
}

// retire makes the kernel forget which ways it may allow by itself, unless a next process
// is to be expected: then packets of other ways wait for it in the queue, and those need not.
func (d *daemon) retire() {
	if d.cfg.cleanup || d.cfg.cacheAtStop == "keep" || d.cfg.cacheAtStop == "auto" && d.supervisor.Present() {
		return
	}
	if err := d.applier.Retire(); err != nil {
		d.log.Error().Err(err).Msg("could not make the kernel forget what it allowed: flows like those of the last minute pass until that is over")
	}
}
