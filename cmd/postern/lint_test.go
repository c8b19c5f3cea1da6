package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/lint"
)

var updateLint = flag.Bool("update-lint", false, "rewrite testdata/lint/*.golden")

// lintCommand runs a command line as main does.
func lintCommand(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = execute(t.Context(), append([]string{"lint"}, args...), &out, &errs)
	return out.String(), errs.String(), code
}

func TestLintGolden(t *testing.T) {
	for _, output := range []string{"text", "json"} {
		out, stderr, code := lintCommand(t, "testdata/lint/manifests", "-o", output)
		if code != 1 || stderr != "" {
			t.Errorf("exit code %d, stderr %q", code, stderr)
		}
		golden := "testdata/lint/" + output + ".golden"
		if *updateLint {
			if err := os.WriteFile(golden, []byte(out), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), out); diff != "" {
			t.Errorf("%s output (-want +got):\n%s", output, diff)
		}
		if strings.ContainsAny(out, "\x1b\a") {
			t.Errorf("%s output holds control characters", output)
		}
	}
}

// TestLintExamples: what the documentation shows is free of findings.
func TestLintExamples(t *testing.T) {
	out, stderr, code := lintCommand(t, "../../docs/examples/service-accounts", "--fail-on", "warning")
	if want := "0 errors, 0 warnings, 0 notes in 21 objects of 6 files\n"; code != 0 || out != want || stderr != "" {
		t.Errorf("exit code %d, printed\n%s%s", code, out, stderr)
	}
	out, _, code = lintCommand(t, "../../docs/examples/service-accounts", "-o", "json")
	if code != 0 || out != "[]\n" {
		t.Errorf("exit code %d, printed\n%s", code, out)
	}
}

func TestLintExitCode(t *testing.T) {
	warns := filepath.Join(t.TempDir(), "policy") // files named explicitly may be called anything
	if err := os.WriteFile(warns, []byte("{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: g}}"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{warns, 0, "[selects-everything]", ""},
		{warns + " --fail-on error", 0, "0 errors, 1 warning, 0 notes in 1 object of 1 file\n", ""},
		{warns + " --fail-on warning", 1, "[selects-everything]", ""},
		{warns + " " + warns, 0, "in 1 object of 1 file\n", ""},
		{"testdata/lint/manifests/refused.yaml", 1, "[invalid]", ""},
		{"testdata/lint/manifests/broken.yaml", 1, "[unreadable]", ""},
		{warns + " ../../docs/examples/service-accounts", 0, "in 22 objects of 7 files\n", ""},
		{"", 2, "", "needs a manifest"},
		{"no/such/path", 2, "", "no/such/path"},
		{t.TempDir(), 2, "", "no manifest"},
		{warns + " -o yaml", 2, "", "want text or json"},
		{warns + " --fail-on info", 2, "", "want error or warning"},
		{warns + " --no-such-flag", 2, "", "no-such-flag"},
	} {
		stdout, stderr, code := lintCommand(t, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) || (tt.stderr == "") != (stderr == "") {
			t.Errorf("lint %s: exit code %d, stdout %q, stderr %q", tt.args, code, stdout, stderr)
		}
	}
}

// TestLintDocs: every finding has its row in the documentation, with its severity.
func TestLintDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## Lint\n")
	if !ok {
		t.Fatal("docs/policy.md has no section Lint")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]bool{}
	for line := range strings.Lines(section) {
		cells := strings.Split(line, " | ")
		id, ok := strings.CutPrefix(cells[0], "| `")
		if !ok {
			continue
		}
		id = strings.TrimSuffix(id, "`")
		documented[id] = true
		if len(cells) != 4 || string(lint.SeverityOf(id)) != cells[1] {
			t.Errorf("row of %s: want id, severity %s, example and what to write instead", id, lint.SeverityOf(id))
		}
	}
	for _, id := range lint.IDs() {
		if !documented[id] {
			t.Errorf("%s is not documented", id)
		}
	}
	if n := len(lint.IDs()); n != len(documented) {
		t.Errorf("%d findings documented, there are %d", len(documented), n)
	}
}

func TestLintJSONOfObject(t *testing.T) {
	out, _, _ := lintCommand(t, "testdata/lint/manifests", "-o", "json")
	var list []map[string]string
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		for _, key := range []string{"id", "severity", "message", "file"} {
			if f[key] == "" {
				t.Errorf("no %s in %v", key, f)
			}
		}
		if f["id"] != lint.Unreadable && (f["kind"] == "" || f["name"] == "") {
			t.Errorf("no object in %v", f)
		}
	}
}
