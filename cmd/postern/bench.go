package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/postern-project/postern/filter/capture"
	"github.com/postern-project/postern/filter/speed"
)

func newBenchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast postern is, here",
		Long: `Measure how fast postern is on this machine, with its own traffic or with yours.

Each benchmark prints a table and, with --save, keeps the numbers as JSON; --against
compares with such a file, and "postern bench report" makes a page with plots of
several. docs/replay.md says what is measured and how.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBenchDecideCommand(), newBenchKernelCommand(), newBenchConnectCommand(), newBenchReportCommand())
	for _, c := range cmd.Commands() {
		if c.Args == nil {
			c.Args = noArguments
		}
	}
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError("bench: unknown benchmark %q: want decide, kernel, connect or report", args[0])
		}
		return nil
	}
	return cmd
}

// benchFlags are those of every benchmark.
type benchFlags struct {
	save, against string
	failBelow     float64
	lasts         time.Duration
}

func (f *benchFlags) register(flags *pflag.FlagSet, lasts time.Duration) {
	flags.StringVar(&f.save, "save", "", "write the result to this file, as JSON")
	flags.StringVar(&f.against, "against", "", "compare with the result in this file")
	flags.Float64Var(&f.failBelow, "fail-below", 0, "with --against: exit code 1 if a rate is less than this part of what it was, such as 0.9")
	flags.DurationVar(&f.lasts, "duration", lasts, "how long each measurement takes")
}

func (f *benchFlags) check() error {
	switch {
	case f.lasts < time.Millisecond || f.lasts > time.Hour:
		return usageError("--duration %s: want 1ms to 1h", f.lasts)
	case f.failBelow < 0:
		return usageError("--fail-below %g: want 0 or more", f.failBelow)
	case f.failBelow > 0 && f.against == "":
		return usageError("--fail-below needs --against")
	}
	return nil
}

// checkTraffic checks the choice between captures, which a policy is to judge, and
// generated traffic.
func checkTraffic(captures []string, c replayConfig) error {
	switch {
	case len(captures) > 0 && c.policy == "":
		return usageError("bench: captures need --policy, the manifests to judge by")
	case len(captures) == 0 && (c.policy != "" || c.world != ""):
		return usageError("bench: --policy and --world are for captures")
	}
	return nil
}

// eachPacket reads captures until they end or do says that it has enough.
func eachPacket(names []string, stdin io.Reader, do func(*capture.Packet) (more bool)) error {
	for _, name := range names {
		in := stdin
		if name != "-" {
			file, err := os.Open(name)
			if err != nil {
				return usageError("%w", err)
			}
			defer file.Close()
			in = file
		}
		r, err := capture.NewReader(name, in)
		for err == nil {
			var p *capture.Packet
			if p, err = r.Next(); err == nil && !do(p) {
				return nil
			}
		}
		if err != io.EOF {
			return exitError{exitUsage, err}
		}
	}
	return nil
}

// earlier reads what to compare with; nil if that is nothing.
func (f *benchFlags) earlier(bench string) (*speed.Result, error) {
	if f.against == "" {
		return nil, nil
	}
	r, err := readResult(f.against)
	if err != nil {
		return nil, usageError("--against: %w", err)
	}
	if r.Bench != bench {
		return nil, usageError("--against %s: a result of bench %s, not of %s", f.against, oneLine(r.Bench), bench)
	}
	return r, nil
}

func readResult(path string) (*speed.Result, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r, err := speed.ReadResult(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// finish prints and saves a result.
func (f *benchFlags) finish(r, earlier *speed.Result, stdout io.Writer) error {
	r.Done()
	fmt.Fprintf(stdout, "%s\n\n", oneLine(r.Machine.String()))
	lowest, err := r.Table(stdout, earlier)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if f.save != "" {
		if err := saveResult(f.save, r); err != nil {
			return usageError("--save: %w", err)
		}
	}
	if earlier != nil && lowest == 0 {
		return usageError("--against %s: measured nothing that was measured now", f.against)
	}
	if f.failBelow > 0 && lowest < f.failBelow {
		return exitError{code: exitNo}
	}
	return nil
}

func saveResult(path string, r *speed.Result) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(r.Write(file), file.Close())
}
