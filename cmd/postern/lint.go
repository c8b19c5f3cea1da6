package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter/lint"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
)

func newLintCommand() *cobra.Command {
	var output, failOn string
	cmd := &cobra.Command{
		Use:   "lint PATH...",
		Short: "Find mistakes in manifests before they are applied",
		Long: `Find mistakes in manifests before they are applied: what admission would refuse,
and what is valid but very probably not what was meant, such as a service account
that nobody runs as, a rule that an earlier one decides for, or an egress policy
that cuts its pods off from DNS. Each finding says what to write instead.

A PATH is a manifest or a directory of them; all are looked at together. Findings
about the cluster ("no pod is selected") need its objects among the manifests and
are left out where these are not there: add the output of kubectl get
pods,serviceaccounts,namespaces -A -o yaml to have them. Nothing on the host is
read or changed. docs/policy.md, section Lint, lists all findings.

Exit code: 0 nothing as severe as --fail-on was found, 1 something was, 2 usage.`,
		Example: `  postern lint ./manifests
  postern lint policy.yaml cluster/ --fail-on warning
  kubectl get pods,serviceaccounts,namespaces -A -o yaml > cluster.yaml
  postern lint policy.yaml cluster.yaml -o json`,
		RunE: func(cmd *cobra.Command, paths []string) error {
			return runLint(paths, output, lint.Severity(failOn), cmd.OutOrStdout())
		},
		Args: cobra.ArbitraryArgs,
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.Flags().StringVar(&failOn, "fail-on", string(lint.Error), "least severe finding that makes the exit code 1: error or warning")
	return cmd
}

func runLint(paths []string, output string, failOn lint.Severity, stdout io.Writer) error {
	if len(paths) == 0 {
		return usageError("lint needs a manifest or a directory of manifests")
	}
	if output != "text" && output != "json" {
		return usageError("--output %q: want text or json", output)
	}
	if failOn != lint.Error && failOn != lint.Warning {
		return usageError("--fail-on %q: want error or warning", failOn)
	}
	r, err := file.Read(paths...)
	if err != nil {
		return exitError{exitUsage, err}
	}
	if r.Files == 0 && len(r.Errors) == 0 {
		return usageError("no manifest (.yaml, .yml or .json) in %s", strings.Join(paths, ", "))
	}
	findings := lintReading(r)
	if output == "json" {
		err = writeFindingsJSON(stdout, findings)
	} else {
		err = writeFindings(stdout, findings, r)
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if slices.ContainsFunc(findings, func(f lint.Finding) bool { return f.Severity.AtLeast(failOn) }) {
		return exitError{code: exitNo}
	}
	return nil
}

// lintReading gives all findings, by file and object; those of one object are in
// the order in which they were found, refusals first.
func lintReading(r file.Reading) []lint.Finding {
	var findings []lint.Finding
	for _, e := range r.Errors {
		message := strings.TrimPrefix(e.Err.Error(), "parse "+e.Path+": ")
		findings = append(findings, lint.Finding{ID: lint.Unreadable, Severity: lint.SeverityOf(lint.Unreadable), Origin: e.Path, Message: message})
	}
	var objects []k8ssync.Object
	for _, o := range r.Objects {
		findings = append(findings, fromProblems(lint.Invalid, o.Problems)...)
		findings = append(findings, fromProblems(lint.ConversionWarning, o.Warnings)...)
		// What stands for a refused policy is not what its author wrote.
		if _, isPolicy := o.Value.(*policy.Policy); !isPolicy || len(o.Problems) == 0 {
			objects = append(objects, o)
		}
	}
	store := k8ssync.NewStore()
	store.Replace(objects)
	for _, f := range lint.Check(store.Snapshot()) {
		f.Origin = r.Origins[f.Object]
		findings = append(findings, f)
	}
	slices.SortStableFunc(findings, func(a, b lint.Finding) int {
		return cmp.Or(cmp.Compare(a.Origin, b.Origin), cmp.Compare(a.Object.Kind, b.Object.Kind),
			cmp.Compare(a.Object.Namespace, b.Object.Namespace), cmp.Compare(a.Object.Name, b.Object.Name))
	})
	return findings
}

func fromProblems(id string, problems []policy.Problem) []lint.Finding {
	var out []lint.Finding
	for _, p := range problems {
		out = append(out, lint.Finding{
			ID: id, Severity: lint.SeverityOf(id), Object: p.Object, Origin: p.Origin, Field: p.Field, Message: p.Message,
		})
	}
	return out
}

// findingJSON is a finding with its object spelt out.
type findingJSON struct {
	Kind      policy.Kind `json:"kind,omitempty"`
	Namespace string      `json:"namespace,omitempty"`
	Name      string      `json:"name,omitempty"`
	lint.Finding
}

func writeFindingsJSON(w io.Writer, findings []lint.Finding) error {
	list := []findingJSON{} // never null
	for _, f := range findings {
		list = append(list, findingJSON{f.Object.Kind, f.Object.Namespace, f.Object.Name, f})
	}
	return writeJSON(w, list)
}

func writeFindings(w io.Writer, findings []lint.Finding, r file.Reading) error {
	var b strings.Builder
	count := map[lint.Severity]int{}
	for _, f := range findings {
		count[f.Severity]++
		fmt.Fprintln(&b, oneLine(f.String()))
		if f.Advice == "" {
			fmt.Fprintf(&b, "    %s\n", f.Severity)
		} else {
			fmt.Fprintf(&b, "    %s: %s\n", f.Severity, oneLine(f.Advice))
		}
	}
	fmt.Fprintf(&b, "%s, %s, %s in %s of %s", plural(count[lint.Error], "error"), plural(count[lint.Warning], "warning"), plural(count[lint.Info], "note"),
		plural(len(r.Objects), "object"), plural(r.Files, "file"))
	if r.Ignored > 0 {
		fmt.Fprintf(&b, "; %s of other kinds skipped", plural(r.Ignored, "object"))
	}
	_, err := fmt.Fprintln(w, b.String())
	return err
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
