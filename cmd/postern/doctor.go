package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/filter/nft"
	"github.com/postern-project/postern/internal/doctor"
	"github.com/postern-project/postern/internal/settings"
)

func newDoctorCommand() *cobra.Command {
	var c runConfig
	var output string
	var all bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look whether this host can enforce, and what works against it",
		Long: `Look whether this host can enforce, and what on it works against that: what the
kernel takes, tables of others and the order in which they are called, marks that
others use, flowtables, conntrack's size, routing, bridges, and the daemon if it runs.
Each finding says what it means and what to do.

It works before postern is installed and beside a running daemon. The host is not
changed: rules are tried in a transaction that removes them again, and a queue that
nobody uses is bound and closed. Run it in the network namespace of the host, as root.

It takes the settings of "postern run", from the same file and environment, since some
findings depend on them (--mark-mask, --queue, --queues, --queue-length, --socket).

Exit code: 0, or 1 if postern cannot enforce here, or not what policy says.`,
		Example: `  postern doctor
  postern doctor --all
  postern doctor --mark-mask 0x00ff0000 -o json`,
	}
	addRunFlags(cmd.Flags(), &c)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.Flags().BoolVar(&all, "all", false, "show also what is as it should be")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if output != "text" && output != "json" {
			return usageError("--output %q: want text or json", output)
		}
		if err := settings.New(cmd.Flags(), "output", "all").Load(os.Environ()); err != nil {
			return exitError{exitUsage, err}
		}
		if c.queues == 0 || int(c.queueFirst)+int(c.queues) > 1<<16 {
			return usageError("--queue %d --queues %d: want 1 or more, and numbers up to 65535", c.queueFirst, c.queues)
		}
		found := examine(cmd.Context(), &c)
		w := cmd.OutOrStdout()
		var err error
		if output == "json" {
			err = writeJSON(w, found)
		} else {
			err = printFindings(w, found, all)
		}
		if err == nil && doctor.Worst(found) == doctor.Fail {
			err = exitError{code: exitNo}
		}
		return err
	}
	return cmd
}

// examine looks at this host and at the daemon.
func examine(ctx context.Context, c *runConfig) []doctor.Finding {
	facts := doctor.Look(doctor.Config{
		Mask: c.markMask, Queues: nft.Queues{First: c.queueFirst, Count: c.queues}, QueueLength: c.queueLen,
	})
	facts.Daemon = askDaemon(ctx, c.socket)
	return doctor.Judge(facts)
}

func askDaemon(ctx context.Context, socket string) (d doctor.Daemon) {
	d.Socket = socket
	if socket == "" {
		return d
	}
	if _, err := os.Stat(socket); errors.Is(err, os.ErrNotExist) {
		return d
	}
	d.Exists = true
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	st, err := control.NewClient(socket).Status(ctx)
	d.Err, d.Enforcing, d.Degraded = err, st.Enforcing, st.Degraded
	return d
}

// printFindings writes for people: the worst first would tear apart what belongs
// together, so the order stays.
func printFindings(w io.Writer, found []doctor.Finding, all bool) error {
	c := paletteOf(w)
	hidden := 0
	for _, f := range found {
		level := fmt.Sprintf("%-4s", f.Level)
		switch f.Level {
		case doctor.OK:
			if !all {
				hidden++
				continue
			}
			level = c.good(level)
		case doctor.Warn:
			level = c.warn(level)
		case doctor.Fail:
			level = c.bad(level)
		}
		fmt.Fprintf(w, "%s  %s: %s\n", level, f.Check, oneLine(f.Found))
		if f.Means != "" {
			fmt.Fprintf(w, "      %s\n", oneLine(f.Means))
		}
		if f.Do != "" {
			fmt.Fprintf(w, "      do: %s\n", oneLine(f.Do))
		}
	}
	ok := ""
	if hidden > 0 {
		ok = fmt.Sprintf(", %d checks are as they should be (--all shows them)", hidden)
	}
	conclusion := c.good("postern can enforce here")
	if doctor.Worst(found) == doctor.Fail {
		conclusion = c.bad("postern cannot enforce here as it should")
	}
	_, err := fmt.Fprintf(w, "%s%s\n", conclusion, ok)
	return err
}
