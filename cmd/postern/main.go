// Command postern decides, by service account, which new flows may pass.
//
// Exit codes are the same for all subcommands: 0 done, or the answer is yes; 1 the
// answer is no; 2 usage; 3 the daemon cannot be reached; 4 postern failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/internal/keeper"
)

const (
	exitNo          = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitInternal    = 4
)

// exitError ends the process with a code. A nil err says nothing: the answer has
// been printed.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

func usageError(format string, args ...any) error {
	return exitError{exitUsage, fmt.Errorf(format, args...)}
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == keeper.ExecArgument {
		fmt.Fprintln(os.Stderr, "postern:", keeper.Exec(os.Args[2:]))
		os.Exit(exitInternal)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	exit := exitError{code: exitInternal, err: err}
	errors.As(err, &exit)
	if exit.err != nil {
		fmt.Fprintln(stderr, "postern:", sanitize(exit.Error()))
	}
	if exit.code == exitUsage && exit.err != nil {
		fmt.Fprintln(stderr, "Run with --help for usage.")
	}
	return exit.code
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "postern",
		Short: "Decides, by service account, which new flows may pass",
		Long: `postern enforces Calico v3 network policy on a Linux host. The kernel asks it
about the first packet of each new flow of a protected pod; it maps both
addresses to pods and their service accounts, decides, and the kernel remembers
the answer for the rest of the flow.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitError{exitUsage, err} })
	root.AddCommand(
		newRunCommand(),
		newKeepCommand(),
		newCleanupCommand(),
		newStatusCommand(), newFlowsCommand(), newAccessCommand(),
		newObserveCommand(), newGetCommand(),
		newExplainCommand(),
		newAuthzCommand(),
		newLintCommand(),
		newTestCommand(),
		newDiffCommand(),
		newReplayCommand(),
		newBenchCommand(),
		newSnapshotCommand(),
		newDoctorCommand(), newBundleCommand(),
		newConfigCommand(),
		newVersionCommand(),
	)
	for _, c := range root.Commands() {
		if c.Args == nil {
			c.Args = noArguments
		}
	}
	root.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError("unknown command %q", args[0])
		}
		return nil
	}
	return root
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError("%s takes flags only, not %q", cmd.Name(), args[0])
	}
	return nil
}
