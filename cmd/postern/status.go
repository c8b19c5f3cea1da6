package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/filter/nft"
)

func newStatusCommand() *cobra.Command {
	var socket, output string
	var strict bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell whether the daemon enforces, and how well it follows its source",
		Long: `Tell whether the running daemon enforces and since when, how well it follows its
source, and which objects it cannot use.

The exit code is 0 if policy is in force, also if it is an old one, and 1 if it is
not. With --strict it is 1 as well if anything is degraded.`,
		Example: `  postern status
  postern status --strict --output json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return usageError("--output %q: want text or json", output)
			}
			st, err := control.NewClient(socket).Status(cmd.Context())
			if errors.Is(err, control.ErrUnreachable) {
				return unreachable(err, "; is postern running?"+leftBehind())
			}
			if err != nil {
				return err
			}
			if output == "json" {
				err = writeJSON(cmd.OutOrStdout(), st)
			} else {
				err = printStatus(cmd.OutOrStdout(), &st, time.Now())
			}
			if err == nil && (!st.Enforcing || strict && len(st.Degraded) > 0) {
				err = exitError{code: exitNo}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&socket, "socket", control.DefaultSocket, "Unix socket of the daemon")
	f.StringVarP(&output, "output", "o", "text", "text or json")
	f.BoolVar(&strict, "strict", false, "exit with 1 if anything is degraded")
	return cmd
}

// leftBehind is a sentence about what holds on this host while no daemon answers; empty
// for who may not look into the kernel.
func leftBehind() string {
	exists, err := tableExists()
	switch {
	case err != nil:
		return ""
	case exists:
		return " Its rules are in the kernel: while it does not run, new flows of protected pods are dropped"
	}
	return " It has no rules in the kernel: nothing is enforced"
}

// tableExists tells whether postern's table is in the kernel.
func tableExists() (bool, error) {
	c, err := nft.Dial()
	if err != nil {
		return false, err
	}
	defer c.CloseLasting()
	return nft.Exists(c)
}

// printStatus writes for people. What came from the API server or a file may hold
// anything, so it is sanitized.
func printStatus(w io.Writer, st *control.Status, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	switch {
	case st.Enforcing:
		fmt.Fprintf(t, "enforcing\tsince %s (%s), generation %d of %s ago\n", st.Since.Format(time.RFC3339), age(now, st.Since), st.Generation, age(now, st.Applied))
	default:
		fmt.Fprintf(t, "NOT enforcing\tnothing was put in force yet\n")
	}
	if st.Node != "" {
		fmt.Fprintf(t, "node\t%s\n", sanitize(st.Node))
	}
	synced := "synced"
	if !st.Synced {
		synced = "not synced"
	}
	fmt.Fprintf(t, "source\t%s, %s\n", sanitize(st.Source), synced)
	fmt.Fprintf(t, "state\t%d pods, %d policies\n", st.Pods, st.Policies)
	if st.Kept > 0 {
		fmt.Fprintf(t, "kept\t%d deleted objects, until the pods of their namespaces are gone\n", st.Kept)
	}
	printPackets(t, &st.Packets)
	if n := len(st.Requests.Decided); n > 0 {
		fmt.Fprintf(t, "requests\t%s, %d denied by a fault\n", counts(st.Requests.Decided), st.Requests.Faults)
	}
	for _, d := range st.Degraded {
		fmt.Fprintf(t, "DEGRADED\t%s\n", sanitize(d))
	}
	if len(st.Kinds) > 0 {
		fmt.Fprintf(t, "\nRESOURCE\tSTATE\tFOR\tLAST HEARD\tLISTS\tERRORS\n")
		for _, k := range st.Kinds {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\n", sanitize(k.Resource), sanitize(k.State), age(now, k.Since), age(now, k.Contact), k.Lists, k.Errors)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if st.UnusableTotal == 0 {
		return nil
	}
	fmt.Fprintf(w, "\n%s of objects that cannot be used as they are:\n", plural(st.UnusableTotal, "problem"))
	for _, u := range st.Unusable {
		held := ""
		if u.Held {
			held = " (its last valid version is in force)"
		}
		fmt.Fprintf(w, "  %s%s\n", sanitize(u.Problem.Error()), held)
	}
	if n := st.UnusableTotal - len(st.Unusable); n > 0 {
		fmt.Fprintf(w, "  and %d more\n", n)
	}
	return nil
}

func printPackets(w io.Writer, p *control.Packets) {
	if len(p.Decided) > 0 {
		fmt.Fprintf(w, "decided\t%s\n", counts(p.Decided))
	}
	for _, list := range []struct {
		name string
		n    map[string]uint64
	}{{"dropped", p.Dropped}, {"FAILED OPEN", p.FailedOpen}} {
		var texts []string
		for _, cause := range slices.Sorted(maps.Keys(list.n)) {
			if n := list.n[cause]; n > 0 {
				texts = append(texts, fmt.Sprintf("%d %s", n, cause))
			}
		}
		if len(texts) > 0 {
			fmt.Fprintf(w, "%s\t%s\n", list.name, strings.Join(texts, ", "))
		}
	}
	if p.KernelError != "" {
		fmt.Fprintf(w, "DEGRADED\tthe kernel's counters cannot be read: %s\n", sanitize(p.KernelError))
	}
	for _, q := range p.Queues {
		if !q.Bound {
			fmt.Fprintf(w, "DEGRADED\tqueue %d is not bound\n", q.Number)
			continue
		}
		fmt.Fprintf(w, "queue %d\t%d waiting\n", q.Number, q.Waiting)
	}
	if p.Holds.Now > 0 {
		fmt.Fprintf(w, "held\t%d packets wait for their pod\n", p.Holds.Now)
	}
}

// counts words how often each verdict was given for each reason.
func counts(ds []control.Decided) string {
	texts := make([]string, len(ds))
	for i, d := range ds {
		texts[i] = fmt.Sprintf("%d %s (%s)", d.Count, d.Verdict, d.Reason)
	}
	return strings.Join(texts, ", ")
}

// age words the time that has passed; a zero time is never.
func age(now, then time.Time) string {
	if then.IsZero() {
		return "never"
	}
	d := now.Sub(then)
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
