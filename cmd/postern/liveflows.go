package main

import (
	"context"
	"errors"

	"github.com/postern-project/postern/conntrack"
	"github.com/postern-project/postern/filter/live"
)

// What the daemon tells of flows that live.

// view is what is in force, to look at flows by; nil before anything is.
func (d *daemon) view() *live.View {
	s, kernel := d.inForce.Load(), d.kernelState.Load()
	if s == nil || kernel == nil {
		return nil
	}
	return live.NewView(d.marks, s.Ruleset, kernel, d.cfg.established == "keep")
}

func (d *daemon) listFlows(ctx context.Context, f live.Filter, show func(*live.Flow) error) (live.Summary, error) {
	v := d.view()
	if v == nil {
		return live.Summary{}, errors.New("nothing is in force yet")
	}
	return live.List(ctx, v, f, show)
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
