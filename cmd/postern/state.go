package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
)

// stateFlags choose where a command gets the state that it speaks about: a
// directory of manifests, a file that the snapshot command wrote, or, by default,
// the daemon that runs on this host.
type stateFlags struct{ source, state, socket string }

func (f *stateFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.source, "source", "", "directory of Kubernetes manifests")
	flags.StringVar(&f.state, "state", "", "file that the snapshot command wrote")
	flags.StringVar(&f.socket, "socket", control.DefaultSocket, "socket of the running daemon, which is asked if neither --source nor --state is given")
}

// state is a snapshot, and whom to ask what the engine makes of a flow.
type state struct {
	snapshot *policy.Snapshot
	// from names the place for messages.
	from string
	// node is the daemon's, empty if no daemon was asked.
	node string
	live *control.Client
}

// errMoved: the daemon went on to a later state between two questions.
var errMoved = errors.New("the daemon's state changed in between")

// load gets the state. Problems of manifests are written to stderr.
func (f *stateFlags) load(ctx context.Context, stderr io.Writer) (*state, error) {
	switch {
	case f.source != "" && f.state != "":
		return nil, usageError("--source and --state: give one of them")
	case f.source != "":
		objects, err := file.Load(f.source)
		if err != nil {
			return nil, exitError{exitUsage, err}
		}
		store := k8ssync.NewStore()
		store.Replace(objects)
		for _, p := range store.Problems() {
			fmt.Fprintln(stderr, "postern: warning:", sanitize(p.Error()))
		}
		return &state{snapshot: store.Snapshot(), from: f.source}, nil
	case f.state != "":
		r, err := os.Open(f.state)
		if err != nil {
			return nil, exitError{exitUsage, err}
		}
		defer r.Close()
		s, err := policy.ReadJSON(r)
		if err != nil {
			return nil, exitError{exitUsage, fmt.Errorf("%s: %w", f.state, err)}
		}
		return &state{snapshot: s, from: f.state}, nil
	default:
		c := control.NewClient(f.socket)
		s, node, err := c.Snapshot(ctx)
		if errors.Is(err, control.ErrUnreachable) {
			return nil, unreachable(err, "; is postern running? Use --source DIR to ask about a directory of manifests")
		}
		if err != nil {
			return nil, err
		}
		return &state{snapshot: s, from: "the state of the running daemon", node: node, live: c}, nil
	}
}

// decide asks the engine that packets meet: the daemon's own, or one compiled here.
// It returns errMoved if the daemon's is not of this snapshot any more.
func (s *state) decide(ctx context.Context, node string, t flow.Tuple) (control.Decision, error) {
	if s.live == nil {
		rs, _ := compile.Compile(s.snapshot, compile.Options{Node: node})
		if rs == nil {
			return control.Decision{}, errors.New("the engine could not compile what was explained: please report this as a bug")
		}
		return control.Decide(rs, t), nil
	}
	d, err := s.live.Decide(ctx, t)
	if err == nil && d.Generation != s.snapshot.Generation {
		err = errMoved
	}
	return d, err
}

func newSnapshotCommand() *cobra.Command {
	var f stateFlags
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Write down the state that the daemon decides on",
		Long: `Write the state that the running daemon decides on as JSON: pods, accounts,
namespaces, sets and policies as they are in force. "postern explain --state FILE"
answers from it later, or elsewhere. It holds names, labels and addresses, and no
secrets.

With --source it writes what the daemon would make of a directory of manifests.`,
		Example: `  postern snapshot > state.json
  postern explain --state state.json --from prod/web --to prod/db --port tcp/5432`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := f.load(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return policy.WriteJSON(escaper{cmd.OutOrStdout(), `\u%04x`}, s.snapshot)
		},
	}
	f.register(cmd.Flags())
	return cmd
}
