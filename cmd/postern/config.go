package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/internal/settings"
)

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the settings of the daemon, and where each comes from",
		Long: `Every setting of "postern run" can be given in a YAML file (--config), as an
environment variable and as a flag; a flag is stronger than the environment, and
the environment stronger than the file. The names follow from each other:

  flag      --flow-log-rate 100
  variable  POSTERN_FLOW_LOG_RATE=100
  key       flowLogRate: 100

A key or a variable that does not exist is an error.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigShowCommand(), newConfigReferenceCommand())
	for _, c := range cmd.Commands() {
		c.Args = noArguments
	}
	return cmd
}

func newConfigShowCommand() *cobra.Command {
	var c runConfig
	var origin bool
	var output string
	cmd := &cobra.Command{
		Use:   "show",
		Short: `Print what "postern run" would go by`,
		Long: `Takes the flags of "postern run" and prints the settings that it would go by, with
the same file and environment. Exit code 2, and why, if it would refuse them.`,
		Example: `  postern config show --origin --config /etc/postern/postern.yaml
  POSTERN_FLOW_LOG=all postern config show --origin`,
	}
	addRunFlags(cmd.Flags(), &c)
	cmd.Flags().BoolVar(&origin, "origin", false, "print where each value comes from")
	cmd.Flags().StringVarP(&output, "output", "o", "yaml", "yaml or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if output != "yaml" && output != "json" {
			return usageError("--output %q: want yaml or json", output)
		}
		s := settings.New(cmd.Flags(), "origin", "output")
		if err := s.Load(os.Environ()); err != nil {
			return exitError{exitUsage, err}
		}
		if err := printSettings(cmd.OutOrStdout(), s.List(), output, origin); err != nil {
			return err
		}
		return c.check()
	}
	return cmd
}

func printSettings(out io.Writer, list []settings.Setting, output string, origin bool) error {
	if output == "json" {
		return writeJSON(out, list)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, one := range list {
		fmt.Fprintf(w, "%s: %s", one.Key, oneLine(one.YAML))
		if origin {
			fmt.Fprintf(w, "\t# %s", one.Origin)
			if one.Where != "" {
				fmt.Fprintf(w, " %s", oneLine(one.Where))
			}
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func newConfigReferenceCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reference",
		Short: "Print a configuration file with every key, its default and what it means",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(reference())
			return err
		},
	}
}

// reference is the configuration file that the packages install.
func reference() []byte {
	return append([]byte(referenceHead), settings.New(newRunCommand().Flags()).Reference()...)
}

const referenceHead = `# Settings of "postern run --config". What is commented out is the default. Environment variables are
# stronger than this file, and flags stronger than these: "postern config show --origin" tells what holds.

`
