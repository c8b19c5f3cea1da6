// Command postern decides, by service account, which new flows may pass.
//
// Exit codes are the same for all subcommands: 0 done, or the answer is yes; 1 the
// answer is no; 2 usage, or what the command line names cannot be read; 3 the daemon cannot
// be reached; 4 postern failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
	return exitError{exitUsage, usage{fmt.Errorf(format, args...)}}
}

// usage is an error of the command line, of which --help tells more. That something
// it names cannot be read has the same exit code, and is none.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

// unreachable is the end where no daemon answers.
func unreachable(err error, hint string) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		hint = "; only root and the daemon's own user and group may ask"
	case hint == "":
		hint = "; is postern running?"
	}
	return exitError{exitUnreachable, fmt.Errorf("%w%s", err, hint)}
}

// flagError says what is wrong with a flag's value without the words of Go's parsers.
func flagError(err error) error {
	var value *pflag.InvalidValueError
	var number *strconv.NumError
	if errors.As(err, &value) {
		cause := value.Unwrap()
		if errors.As(cause, &number) {
			cause = number.Err
		}
		err = fmt.Errorf("--%s %q: %w", value.GetFlag().Name, value.GetValue(), cause)
	}
	return usageError("%w", err)
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
	if errors.As(exit.err, new(usage)) {
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
		Version:       versionText(),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	root.SetVersionTemplate("{{.Version}}")
	root.SetHelpCommand(newHelpCommand())
	for _, g := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Enforce:", []*cobra.Command{newRunCommand(), newKeepCommand(), newCleanupCommand(), newConfigCommand()}},
		{"See what happens, and why:", []*cobra.Command{
			newStatusCommand(), newObserveCommand(), newExplainCommand(), newGetCommand(), newFlowsCommand(), newSnapshotCommand(),
			newDoctorCommand(), newAuthzCommand(), newBundleCommand(),
		}},
		{"Check policy before it is in force:", []*cobra.Command{newLintCommand(), newTestCommand(), newDiffCommand(), newReplayCommand(), newAccessCommand()}},
		{"And:", []*cobra.Command{newBenchCommand(), newVersionCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.title
		}
		root.AddCommand(g.commands...)
	}
	root.SetHelpCommandGroupID("And:")
	root.SetCompletionCommandGroupID("And:")
	root.InitDefaultCompletionCmd()
	refuseArguments(root)
	return root
}

// refuseArguments is for commands that say nothing of arguments, cobra's own among them,
// and those below.
func refuseArguments(cmd *cobra.Command) {
	if cmd.Args == nil || cmd.Name() == "completion" || cmd.HasParent() && cmd.Parent().Name() == "completion" {
		cmd.Args = noArguments
	}
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	for _, c := range cmd.Commands() {
		refuseArguments(c)
	}
}

func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasSubCommands():
		return unknownCommand(cmd, args[0])
	}
	return usageError("%s takes flags only, not %q", cmd.Name(), args[0])
}

func unknownCommand(parent *cobra.Command, name string) error {
	maybe := ""
	parent.SuggestionsMinimumDistance = 2
	if near := parent.SuggestionsFor(name); len(near) > 0 {
		maybe = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError("unknown command %q%s", name, maybe)
}

// newHelpCommand is like cobra's, which knows no error.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Tell about a command",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if len(rest) > 0 {
				return unknownCommand(of, rest[0])
			}
			if err != nil {
				return err
			}
			return of.Help()
		},
	}
}
