package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter/speed"
)

func newBenchReportCommand() *cobra.Command {
	var output, plots string
	var against []string
	cmd := &cobra.Command{
		Use:   "report RESULT...",
		Short: "Make a page with plots of saved results",
		Long: `Make one HTML page of results that --save wrote: plots of rates, of latency and of how
they scale, the tables, and the machines they were measured on. The page holds all it
needs and loads nothing; it follows the reader's choice of light or dark.

With --against each result is compared with the earlier one of the same benchmark and
traffic. With --plots each plot is also written as an SVG file.`,
		Example: `  postern bench decide --save decide.json
  postern bench connect --save connect.json
  postern bench report decide.json connect.json --output report.html
  postern bench report decide.json --against before.json --plots ./plots`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("bench report: want the results to show")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			results, err := readResults(args)
			if err != nil {
				return err
			}
			earlier, err := readResults(against)
			if err != nil {
				return fmt.Errorf("--against: %w", err)
			}
			for i, e := range earlier {
				if !slices.ContainsFunc(results, e.SameLoad) {
					return usageError("--against %s: none of the results is of its benchmark and traffic (%s, %s)", against[i], e.Bench, e.Settings["traffic"])
				}
			}
			var page strings.Builder
			if err := speed.Page(&page, results, earlier); err != nil {
				return err
			}
			if plots != "" {
				if err := writePlots(plots, speed.Plots(results, earlier)); err != nil {
					return usageError("--plots: %w", err)
				}
			}
			text := sanitize(page.String())
			if output == "-" {
				_, err := io.WriteString(cmd.OutOrStdout(), text)
				return err
			}
			if err := os.WriteFile(output, []byte(text), 0o644); err != nil {
				return usageError("--output: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&output, "output", "report.html", "the file to write; - is the standard output")
	f.StringArrayVar(&against, "against", nil, "an earlier result to compare with (may be repeated)")
	f.StringVar(&plots, "plots", "", "a directory to write each plot to as well, as SVG")
	return cmd
}

func readResults(paths []string) (results []*speed.Result, err error) {
	for _, path := range paths {
		r, err := readResult(path)
		if err != nil {
			return nil, usageError("%w", err)
		}
		results = append(results, r)
	}
	return results, nil
}

func writePlots(dir string, files []speed.File) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.Name), []byte(sanitize(string(f.SVG))), 0o644); err != nil {
			return err
		}
	}
	return nil
}
