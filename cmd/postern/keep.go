package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/internal/keeper"
)

func newKeepCommand() *cobra.Command {
	var cfg keeper.Config
	var format, level string
	cmd := &cobra.Command{
		Use:   "keep [flags] -- run [flags of run]",
		Short: "Keep the daemon running where there is no systemd, without losing packets",
		Long: `Start "postern run" and start it again when it ends unasked: in a container, or on
a shell. Under systemd the unit does this.

The keeper holds the sockets of the queues. While one process is gone and the next
is not ready, packets wait in the kernel, and are then decided under the policy
that is in force. A process that stops answering packets is ended. After --grace
without a ready process the sockets are closed: what waits is dropped, and so are new
flows until a process is ready again.

To change to another version, replace the program and end the process that answers
packets (SIGTERM to the child): the keeper starts the new one. SIGTERM to the keeper
ends both. It ends by itself, with the same exit code, when the process refuses its
command line.`,
		Example: `  postern keep -- run --kubeconfig in-cluster`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] != "run" {
				return usageError("keep: want what to keep: postern keep -- run ...")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for name, d := range map[string]time.Duration{"watchdog": cfg.Watchdog, "grace": cfg.Grace, "stop": cfg.Stop} {
				if d <= 0 {
					return usageError("--%s %v: want more than 0", name, d)
				}
			}
			log, err := newLogger(cmd.ErrOrStderr(), format, level)
			if err != nil {
				return err
			}
			path, err := os.Executable()
			if err != nil {
				return err
			}
			cfg.Command, cfg.Refused = append([]string{path}, args...), []int{exitUsage}
			signals := make(chan os.Signal, 1)
			signal.Notify(signals, syscall.SIGHUP)
			defer signal.Stop(signals)
			code, err := keeper.Run(cmd.Context(), cfg, signals, log.With().Str("process", "keeper").Logger())
			if err != nil {
				return fmt.Errorf("keep: %w", err)
			}
			if code != 0 {
				return exitError{code: code}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.DurationVar(&cfg.Watchdog, "watchdog", 10*time.Second, "end a process that has not answered packets for so long")
	f.DurationVar(&cfg.Grace, "grace", 5*time.Second, "how long packets wait while no process is ready")
	f.DurationVar(&cfg.Stop, "stop", 10*time.Second, "how long the process may take to end")
	f.StringVar(&format, "log-format", "auto", "json, console, or auto: console on a terminal")
	f.StringVar(&level, "log-level", "info", "trace, debug, info, warn or error")
	return cmd
}
