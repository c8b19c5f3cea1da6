package main

import (
	"bytes"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter/speed"
)

func newBenchReportCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "report RESULT...",
		Short: "Make a page with plots of saved results",
		Long: `Make one HTML page of results that --save wrote: plots of rates, of latency and of how
they scale, the tables, and the machines they were measured on. The page holds all it
needs and loads nothing.`,
		Example: `  postern bench decide --save decide.json
  postern bench connect --save connect.json
  postern bench report decide.json connect.json --output report.html`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("bench report: want the results to show")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var results []*speed.Result
			for _, path := range args {
				r, err := readResult(path)
				if err != nil {
					return usageError("%w", err)
				}
				results = append(results, r)
			}
			var page bytes.Buffer
			if err := speed.Page(&page, results); err != nil {
				return err
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
	cmd.Flags().StringVar(&output, "output", "report.html", "the file to write; - is the standard output")
	return cmd
}
