package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/assertion"
	"github.com/postern-project/postern/filter/explain"
)

var updateReports = flag.Bool("update-reports", false, "rewrite the reports in testdata")

const (
	exampleManifests  = "../../docs/examples/service-accounts"
	exampleAssertions = "../../docs/examples/assertions/service-accounts.yaml"
)

// cli runs one command line.
func cli(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = execute(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// assertions writes a file with one assertion, which has this below its name, and
// gives its path.
func assertions(t *testing.T, name, below string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.yaml")
	text := "apiVersion: postern.dev/v1alpha1\nkind: Assertions\nmetadata: {name: s}\nspec:\n  assertions:\n  - name: " + name + "\n" + below
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	holding = "    deny: [{from: prod-engineering/reports, to: prod-engineering/db, port: tcp/5432}]\n"
	failing = `    allow:
    - {from: prod-engineering/reports, to: prod-engineering/db, port: tcp/5432, family: 4}
    - {from: prod-engineering/api, to: prod-engineering/db, port: tcp/5432, family: 4}
    deny:
    - {from: prod-engineering/api, to: prod-engineering/db, port: icmp:8}
    - {from: prod-engineering/nobody, to: prod-engineering/db, port: tcp/5432}
`
)

// TestExampleAssertions: what the documentation shows holds, on the policies that
// the documentation shows, and not without them.
func TestExampleAssertions(t *testing.T) {
	t.Parallel()
	code, out, errs := cli(t, "test", exampleAssertions, "--source", exampleManifests)
	if code != 0 || errs != "" || !strings.HasSuffix(out, ": all hold\n") || strings.Contains(out, "FAIL") {
		t.Errorf("exit code %d, %s\n%s", code, errs, out)
	}
	for _, policies := range []string{"policy-1-names.yaml", "policy-2-labels.yaml", "policy-3-selector.yaml"} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(exampleManifests)); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, policies)); err != nil {
			t.Fatal(err)
		}
		if code, out, _ := cli(t, "test", exampleAssertions, "--source", dir); code != exitNo || !strings.Contains(out, "\n  FAIL ") {
			t.Errorf("without %s: exit code %d\n%s", policies, code, out)
		}
	}
}

// TestAssertionsPage: the page's example is one.
func TestAssertionsPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/assertions.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllSubmatch(page, -1)
	if len(blocks) == 0 {
		t.Error("no example found")
	}
	for _, b := range blocks {
		path := filepath.Join(t.TempDir(), "page.yaml")
		if err := os.WriteFile(path, b[1], 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, errs := cli(t, "test", path, "--source", exampleManifests); code != 0 {
			t.Errorf("exit code %d\n%s%s", code, out, errs)
		}
	}
}

func TestTestReports(t *testing.T) {
	t.Parallel()
	path := assertions(t, `'db <is> closed & "quiet"'`, failing)
	junit := filepath.Join(t.TempDir(), "report.xml")
	for _, tc := range []struct {
		golden string
		args   []string
	}{
		{"test.txt", nil}, {"test-verbose.txt", []string{"-v"}}, {"test.json", []string{"-o", "json"}}, {"test.xml", []string{"-o", "junit", "--junit", junit}},
	} {
		code, out, errs := cli(t, append([]string{"test", path, "--source", exampleManifests}, tc.args...)...)
		if code != exitNo || errs != "" {
			t.Errorf("%s: exit code %d: %s", tc.golden, code, errs)
		}
		compareReport(t, tc.golden, strings.ReplaceAll(out, path, "a.yaml"))
		if tc.golden == "test.xml" {
			if file, err := os.ReadFile(junit); err != nil || string(file) != out {
				t.Errorf("--junit wrote %s, %v; want what -o junit prints", file, err)
			}
		}
	}
}

func compareReport(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *updateReports {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s: -want +got:\n%s", name, d)
	}
}

// TestJUnit decodes a report, with every status, as a consumer would.
func TestJUnit(t *testing.T) {
	t.Parallel()
	allow := explain.Allow
	results := []assertion.Result{
		{Path: "a", Set: "one", Assertion: "x", From: "n/a", To: "n/b", Port: "tcp/1", Family: 4, Status: assertion.Holds, Want: explain.Allow, Got: &allow},
		{Path: "a", Set: "one", Assertion: "x", From: "n/a", To: "n/c", Port: "tcp/1", Status: assertion.Unchecked, Why: "no \x1b[31m\x00pod]]>"},
		{Path: "b", Set: "two", Assertion: "y", From: "n/a", To: "n/b", Port: "tcp/1", Status: assertion.Broken, Got: &allow, Why: "a rule"},
		{Path: "b", Set: "two", Assertion: "y", From: "n/a", To: "n/b", Port: "tcp/2", Status: assertion.Bug, Why: "they differ"},
	}
	var out bytes.Buffer
	if err := writeJUnit(&out, newReport(results)); err != nil {
		t.Fatal(err)
	}
	var got struct {
		XMLName xml.Name `xml:"testsuites"`
		Tests   int      `xml:"tests,attr"`
		Suites  []struct {
			Name     string `xml:"name,attr"`
			Tests    int    `xml:"tests,attr"`
			Failures int    `xml:"failures,attr"`
			Errors   int    `xml:"errors,attr"`
			Cases    []struct {
				Class   string `xml:"classname,attr"`
				Name    string `xml:"name,attr"`
				Failure []struct {
					Message string `xml:"message,attr"`
					Text    string `xml:",chardata"`
				} `xml:"failure"`
				Error []struct {
					Message string `xml:"message,attr"`
				} `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v:\n%s", err, out.String())
	}
	if !strings.HasPrefix(out.String(), `<?xml version="1.0" encoding="UTF-8"?>`) || got.Tests != 4 || len(got.Suites) != 2 {
		t.Fatalf("got %+v from\n%s", got, out.String())
	}
	one, two := got.Suites[0], got.Suites[1]
	if one.Name != "one" || one.Tests != 2 || one.Failures != 1 || one.Errors != 0 || len(one.Cases) != 2 {
		t.Errorf("suite one: %+v", one)
	}
	if two.Name != "two" || two.Tests != 2 || two.Failures != 1 || two.Errors != 1 || len(two.Cases) != 2 {
		t.Errorf("suite two: %+v", two)
	}
	if c := one.Cases[0]; c.Class != "x" || c.Name != "allow n/a -> n/b tcp/1 (IPv4)" || len(c.Failure) != 0 || len(c.Error) != 0 {
		t.Errorf("what holds: %+v", c)
	}
	if c := one.Cases[1]; len(c.Failure) != 1 || c.Failure[0].Message != "want deny, cannot tell: no \ufffd[31m\ufffdpod]]>" || c.Failure[0].Text == "" {
		t.Errorf("what cannot be told: %+v", c)
	}
	if c := two.Cases[0]; len(c.Failure) != 1 || c.Failure[0].Message != "want deny, got allow" || !strings.Contains(c.Failure[0].Text, "a rule") {
		t.Errorf("what is broken: %+v", c)
	}
	if c := two.Cases[1]; len(c.Error) != 1 || len(c.Failure) != 0 || c.Error[0].Message != "they differ" {
		t.Errorf("a bug: %+v", c)
	}
}

func TestTestJSON(t *testing.T) {
	t.Parallel()
	_, out, _ := cli(t, "test", exampleAssertions, "--source", exampleManifests, "-o", "json")
	var got struct {
		Holds             bool
		Assertions, Flows int
		Results           []struct{ File, Status, Want, Got, Why string }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if !got.Holds || got.Assertions != 4 || got.Flows != len(got.Results) || got.Flows == 0 {
		t.Errorf("holds %v, %d assertions, %d flows, %d results", got.Holds, got.Assertions, got.Flows, len(got.Results))
	}
	for _, r := range got.Results {
		if r.Status != "holds" || r.Want != r.Got || r.Why == "" || r.File != exampleAssertions {
			t.Errorf("%+v", r)
		}
	}
}

func TestTestRun(t *testing.T) {
	t.Parallel()
	code, out, _ := cli(t, "test", exampleAssertions, "--source", exampleManifests, "--run", "^service-accounts/.*outside")
	if want := "ok   service-accounts/nobody outside reaches db (2 flows)\n1 assertion, 2 flows: all hold\n"; code != 0 || out != want {
		t.Errorf("exit code %d, printed\n%s\nwant\n%s", code, out, want)
	}
}

// TestTestUsage: whatever keeps the answer from being one is exit code 2, and
// says what is wrong.
func TestTestUsage(t *testing.T) {
	t.Parallel()
	good := assertions(t, "a", holding)
	bad := assertions(t, "a", "    deny: [{from: x, to: y/z, port: tcp/1}]\n    \"\\e[2J\": 1\n")
	invalid := t.TempDir()
	if err := os.CopyFS(invalid, os.DirFS(exampleManifests)); err != nil {
		t.Fatal(err)
	}
	policy := "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: demo-calico, namespace: prod-engineering}\nspec: {selector: 'app = \"db\"'}\n"
	if err := os.WriteFile(filepath.Join(invalid, "policy-1-names.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		args []string
		says string
	}{
		{"no file", []string{"--source", exampleManifests}, "^postern: test: want the files of assertions to judge\n"},
		{"no source", []string{good}, "^postern: --source is required\n"},
		{"output", []string{good, "--source", exampleManifests, "-o", "xml"}, `^postern: --output "xml": want text, json or junit\n`},
		{"expression", []string{good, "--source", exampleManifests, "--run", "("}, "^postern: --run: error parsing regexp"},
		{"nothing to run", []string{good, "--source", exampleManifests, "--run", "no such"}, `^postern: --run "no such": matches no assertion\n`},
		{"file that is not there", []string{good, "no-such-file", "--source", exampleManifests}, "^postern: open no-such-file: no such file or directory\n"},
		{"bad file", []string{good, bad, "--source", exampleManifests}, `a.yaml:8: assertion "a": \?\[2J: no such field; want name, allow, deny\n.*a.yaml:7: assertion "a": deny\[0\].from: "x": want a pod`},
		{"source that is not there", []string{good, "--source", "no-such-directory"}, "no-such-directory"},
		{"invalid manifest", []string{good, "--source", invalid}, `policy-1-names.yaml: NetworkPolicy prod-engineering/demo-calico: spec.selector: `},
		{"report that cannot be written", []string{good, "--source", exampleManifests, "--junit", filepath.Join(invalid, "no", "x")}, "^postern: --junit: open "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := cli(t, append([]string{"test"}, tc.args...)...)
			if code != exitUsage || out != "" || !regexp.MustCompile(tc.says).MatchString(errs) {
				t.Errorf("exit code %d, printed %q, said %q; want 2, nothing, and %s", code, out, errs, tc.says)
			}
		})
	}
	if code, out, errs := cli(t, "test", good, "--source", exampleManifests); code != 0 || errs != "" {
		t.Errorf("the good one: exit code %d, %s%s", code, out, errs)
	}
}
