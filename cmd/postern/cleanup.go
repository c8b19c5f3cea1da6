package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/conntrack"
	"github.com/postern-project/postern/filter/nfq"
	"github.com/postern-project/postern/filter/nft"
	"github.com/postern-project/postern/internal/settings"
)

func newCleanupCommand() *cobra.Command {
	var c runConfig
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove from the kernel what a daemon that has ended left there",
		Long: `Remove postern's table, and its bits of the marks of all flows. Nothing is enforced
from then on, and the host is as it was before postern ran. Packets that wait in
a queue of the host, whoever's it is, are dropped by the kernel.

A daemon that ends leaves its rules in force, so that a restart opens nothing. This
is for hosts that postern leaves for good: the packages call it when they are
removed. It refuses while the daemon runs.

It takes the flags of "postern run" and goes by --queue, --queues and --mark-mask.`,
		Example: `  systemctl stop postern
  postern cleanup --config /etc/postern/postern.yaml`,
	}
	addRunFlags(cmd.Flags(), &c)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := settings.New(cmd.Flags()).Load(os.Environ()); err != nil {
			return exitError{exitUsage, err}
		}
		marks, err := nft.NewMarks(c.markMask)
		if err != nil {
			return exitError{exitUsage, fmt.Errorf("--mark-mask: %w", err)}
		}
		there, cleared, err := cleanup(c.queueFirst, c.queues, marks.Mask())
		if err != nil {
			return err
		}
		removed := "there was no table inet " + nft.TableName + "; removed"
		if there {
			removed = "removed the table inet " + nft.TableName + ", and"
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s the marks of %s: nothing is enforced\n", removed, plural(cleared, "flow"))
		return nil
	}
	return cmd
}

// cleanup tells whether the table was there, and how many flows carried a mark.
func cleanup(first, count uint16, mask uint32) (there bool, cleared int, err error) {
	// Whatever queues it has, a daemon that runs has that of the lock.
	queues := []uint16{nfq.LockQueue}
	for i := range count {
		queues = append(queues, first+i)
	}
	for _, n := range queues {
		_, bound, err := nfq.ReadKernelStats(n)
		switch {
		case err != nil && !errors.Is(err, os.ErrNotExist): // no such file: no queue at all
			return false, 0, err
		case bound:
			what := fmt.Sprintf("queue %d is in use", n)
			if n == nfq.LockQueue {
				what = "a postern runs here"
			}
			return false, 0, exitError{exitNo, fmt.Errorf("%s%s; stop it first", what, nfq.OwnerText(n))}
		}
	}
	c, err := nft.Dial()
	if err != nil {
		return false, 0, err
	}
	defer c.CloseLasting()
	if there, err = nft.Exists(c); err != nil {
		return false, 0, err
	}
	if err := nft.Remove(c); err != nil {
		return false, 0, err
	}
	flows, err := conntrack.Dial()
	if err != nil {
		return false, 0, err
	}
	defer flows.Close()
	r, err := flows.Sweep(conntrack.Filter{}, func(e *conntrack.Entry) conntrack.Action {
		if e.Mark&mask == 0 {
			return conntrack.Keep()
		}
		return conntrack.SetMark(0, mask)
	})
	return there, r.Marked, err
}
