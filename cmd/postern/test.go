package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter/assertion"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
)

// testConfig is what the flags of test say.
type testConfig struct {
	source, output, junit, run string
	verbose                    bool
}

func newTestCommand() *cobra.Command {
	var c testConfig
	cmd := &cobra.Command{
		Use:   "test FILE... --source DIR",
		Short: "Hold the policy in a directory to what was promised about it",
		Long: `Judge assertions: flows that must stay allowed, and flows that must stay denied,
whatever else changes in a directory of manifests. A broken one is shown with the
rule that decided and the one that came closest. Nothing on the host is read or
changed, so a policy repository can run this on every change.

  apiVersion: postern.dev/v1alpha1
  kind: Assertions
  metadata: {name: db-access}
  spec:
    assertions:
    - name: only the API reaches the database
      allow:
      - {from: prod/api, to: prod/db, port: tcp/5432}
      deny:
      - {from: [prod/web, 203.0.113.0/24], to: prod/db, ports: [tcp/5432, icmp:8]}
      - {from: {serviceAccountSelector: 'role == "intern"'}, to: prod/db, port: tcp/5432}

An end is a pod as namespace/name, an address, every address of a prefix, or every
pod that a selection matches. Pods are tried over IPv4 and IPv6 where both ends
have both. docs/assertions.md tells the rest.

Exit code: 0 all hold, 1 some do not, 2 usage, or a file or manifest that is not
valid, 4 the two evaluators differ on a flow, which is a bug.`,
		Example: `  postern test assertions/*.yaml --source ./manifests
  postern test assertions/*.yaml --source ./manifests --junit report.xml
  postern test assertions/db.yaml --source ./manifests --run 'database' -v`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("test: want the files of assertions to judge")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runTest(c, args, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.source, "source", "", "directory of Kubernetes manifests (required)")
	f.StringVarP(&c.output, "output", "o", "text", "text, json or junit")
	f.StringVar(&c.junit, "junit", "", "write a JUnit report to this file as well")
	f.StringVar(&c.run, "run", "", "judge only assertions whose set/name this regular expression matches")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "list the flows that hold too")
	return cmd
}

func runTest(c testConfig, files []string, stdout io.Writer) error {
	if c.source == "" {
		return usageError("--source is required")
	}
	write, ok := map[string]func(io.Writer, report) error{"text": c.text, "json": func(w io.Writer, rep report) error { return writeJSON(w, rep) }, "junit": writeJUnit}[c.output]
	if !ok {
		return usageError("--output %q: want text, json or junit", c.output)
	}
	sets, err := readAssertions(files)
	if err != nil {
		return exitError{exitUsage, err}
	}
	if sets, err = c.chosen(sets); err != nil {
		return err
	}
	s, err := loadValid(c.source)
	if err != nil {
		return exitError{exitUsage, err}
	}
	rep := newReport(assertion.Check(s, sets...))
	if c.junit != "" {
		if err := writeTo(c.junit, rep); err != nil {
			return exitError{exitUsage, fmt.Errorf("--junit: %w", err)}
		}
	}
	if err := write(stdout, rep); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	switch {
	case rep.Bugs > 0:
		return fmt.Errorf("the two evaluators differ on %d flows: please report this as a bug, with the manifests", rep.Bugs)
	case !rep.Holds:
		return exitError{code: exitNo}
	}
	return nil
}

// readAssertions reads every file and joins what is wrong with any.
func readAssertions(files []string) (sets []assertion.Set, err error) {
	var errs []error
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		set, err := assertion.Parse(path, text)
		if err != nil {
			errs = append(errs, errors.New(sanitize(err.Error())))
			continue
		}
		sets = append(sets, set)
	}
	return sets, errors.Join(errs...)
}

// chosen leaves what --run asks for. To run nothing is a mistake: it would pass
// forever.
func (c *testConfig) chosen(sets []assertion.Set) (out []assertion.Set, err error) {
	want, err := regexp.Compile(c.run)
	if err != nil {
		return nil, usageError("--run: %w", err)
	}
	for _, set := range sets {
		chosen := set
		chosen.Assertions = nil
		for _, a := range set.Assertions {
			if want.MatchString(set.Name + "/" + a.Name) {
				chosen.Assertions = append(chosen.Assertions, a)
			}
		}
		if len(chosen.Assertions) > 0 {
			out = append(out, chosen)
		}
	}
	if len(out) == 0 {
		return nil, usageError("--run %q: matches no assertion", c.run)
	}
	return out, nil
}

// loadValid reads a directory whose objects must all be valid: of one that is not,
// a daemon keeps the last valid version, which is not here to be judged.
func loadValid(dir string) (*policy.Snapshot, error) {
	objects, err := file.Load(dir)
	if err != nil {
		return nil, err
	}
	store := k8ssync.NewStore()
	store.Replace(objects)
	var errs []error
	for _, p := range store.Problems() {
		errs = append(errs, errors.New(sanitize(p.Error())))
	}
	return store.Snapshot(), errors.Join(errs...)
}

// report is the results with their sums.
type report struct {
	Holds      bool               `json:"holds"`
	Assertions int                `json:"assertions"`
	Flows      int                `json:"flows"`
	Failed     int                `json:"failed"`
	Bugs       int                `json:"bugs"`
	Results    []assertion.Result `json:"results"`

	groups [][]assertion.Result // the results of one assertion each
}

func newReport(results []assertion.Result) report {
	rep := report{Flows: len(results), Results: results}
	for i, r := range results {
		if r.Status != assertion.Holds {
			rep.Failed++
		}
		if r.Status == assertion.Bug {
			rep.Bugs++
		}
		n := len(rep.groups)
		if i == 0 || results[i-1].Path != r.Path || results[i-1].Assertion != r.Assertion {
			rep.groups = append(rep.groups, nil)
			n++
		}
		rep.groups[n-1] = append(rep.groups[n-1], r)
	}
	rep.Assertions = len(rep.groups)
	rep.Holds = rep.Failed == 0
	return rep
}

func writeTo(path string, rep report) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(writeJUnit(f, rep), f.Close())
}

// text writes a report for people: a line for each assertion, and below it the
// flows that do not hold.
func (c *testConfig) text(w io.Writer, rep report) error {
	var b strings.Builder
	failed := 0
	for _, group := range rep.groups {
		var flows strings.Builder
		bad := 0
		for _, r := range group {
			if r.Status != assertion.Holds {
				bad++
			}
			if r.Status != assertion.Holds || c.verbose {
				flows.WriteString(flowText(r))
			}
		}
		first := group[0]
		if bad > 0 {
			failed++
			fmt.Fprintf(&b, "FAIL %s/%s (%d of %s)\n", first.Set, first.Assertion, bad, count(len(group), "flow"))
		} else {
			fmt.Fprintf(&b, "ok   %s/%s (%s)\n", first.Set, first.Assertion, count(len(group), "flow"))
		}
		b.WriteString(flows.String())
	}
	if rep.Holds {
		fmt.Fprintf(&b, "%s, %s: all hold\n", count(rep.Assertions, "assertion"), count(rep.Flows, "flow"))
	} else {
		fmt.Fprintf(&b, "%d of %s fail, in %d of %s\n", rep.Failed, count(rep.Flows, "flow"), failed, count(rep.Assertions, "assertion"))
	}
	_, err := io.WriteString(w, sanitize(b.String()))
	return err
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// flowText is what there is to say about one flow, a line or more.
func flowText(r assertion.Result) string {
	var b strings.Builder
	if r.Status == assertion.Holds {
		fmt.Fprintf(&b, "  ok   %s: %s: %s\n", r.Flow(), r.Want, r.Why)
		return b.String()
	}
	fmt.Fprintf(&b, "  FAIL %s: %s\n", r.Flow(), r.Outcome())
	for _, line := range failureLines(r) {
		fmt.Fprintf(&b, "       %s\n", line)
	}
	return b.String()
}

// failureLines says where a failed flow is promised, and why it came out
// otherwise.
func failureLines(r assertion.Result) []string {
	lines := []string{fmt.Sprintf("promised at %s:%d", r.Path, r.Line)}
	if r.Tuple != nil {
		lines = append(lines, r.Tuple.String())
	}
	if r.Status != assertion.Broken {
		return lines // its sentence stands above
	}
	lines = append(lines, r.Why)
	if n := r.NearestMiss; n != nil && r.Want == explain.Allow {
		lines = append(lines, "closest: "+n.Rule.String())
		for _, c := range n.Failed {
			lines = append(lines, "- "+c.Text)
		}
		if n.Shadowed {
			lines = append(lines, "- a rule before it decided")
		}
	}
	return lines
}
