package main

import (
	"context"
	"errors"
	"time"

	"github.com/postern-project/postern/conntrack"
	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flowlog"
	"github.com/postern-project/postern/filter/live"
	"github.com/postern-project/postern/filter/nft"
)

// What the daemon tells of flows that live.

// see publishes what is in force to whoever looks at flows that live.
func (d *daemon) see(rs *filter.Ruleset) {
	if d.ends != nil {
		d.ends.Past.Add(rs, d.kernelState.Epoch, time.Now())
	}
	d.view.Store(live.NewView(d.marks, rs, &d.kernelState, d.cfg.established == "keep"))
}

func (d *daemon) listFlows(ctx context.Context, f live.Filter, show func(*live.Flow) error) (live.Summary, error) {
	v := d.view.Load()
	if v == nil {
		return live.Summary{}, errors.New("nothing is in force yet")
	}
	return live.List(ctx, v, f, show)
}

// openFlowLog prepares what the log tells besides the decisions of the verdict loops.
func (d *daemon) openFlowLog() (err error) {
	if d.cfg.flowLogEnds {
		events, timed := false, false
		if events, err = conntrack.Events(); err == nil {
			_, timed, err = conntrack.Accounting()
		}
		if err != nil {
			return err
		}
		if !events {
			return errors.New("--flow-log-ends: the kernel reports nothing of flows (sysctl net.netfilter.nf_conntrack_events is 0)")
		}
		if !timed {
			d.log.Warn().Msg("ends of flows are logged without how long they lasted and what they carried: --conntrack-accounting has the kernel count that")
		}
		if d.ended, err = conntrack.Watch(0, conntrack.Ended); err != nil {
			return err
		}
		d.ends = &live.Ends{Log: d.log, View: d.view.Load, Past: live.NewHistory(d.marks.Epochs()), PerSecond: d.cfg.flowLogRate}
	}
	if d.cfg.flowLogCached > 0 {
		if d.cached, err = nft.DialCached(d.marks); err != nil {
			return err
		}
		which := flowLogChoices[d.cfg.flowLog]
		d.hits = &live.Hits{
			Log: d.log, Cached: d.cached, View: d.view.Load, Interval: d.cfg.flowLogCached,
			Allowed: which == flowlog.All, Denied: which != flowlog.None,
		}
	}
	return nil
}

// flowLogTasks are at work until ctx ends.
func (d *daemon) flowLogTasks() (tasks []func(context.Context) error) {
	if d.ends != nil {
		tasks = append(tasks, func(ctx context.Context) error { return d.ends.Run(ctx, d.ended) })
	}
	if d.hits != nil {
		tasks = append(tasks, d.hits.Run)
	}
	return tasks
}

func (d *daemon) closeFlowLog() {
	if d.ended != nil {
		d.ended.Close()
	}
	if d.cached != nil {
		d.cached.Close()
	}
}

// account has the kernel count what flows carry, if that is wanted.
func (d *daemon) account() error {
	if !d.cfg.accounting {
		return nil
	}
	counted, timed, err := conntrack.Accounting()
	if err != nil || counted && timed {
		return err
	}
	if err := conntrack.Account(); err != nil {
		return err
	}
	d.log.Info().Msg("the kernel counts packets and bytes of new flows from now on, and notes when they begin and end (net.netfilter.nf_conntrack_acct and nf_conntrack_timestamp)")
	return nil
}
