package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/test/lab"
)

// promises writes assertions beside, not among, the manifests.
func promises(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, dir, "db.yaml", `apiVersion: postern.dev/v1alpha1
kind: Assertions
metadata: {name: db}
spec:
  assertions:
  - name: reports stay away from db
    deny:
    - {from: prod-engineering/reports, to: prod-engineering/db, port: tcp/5432}
    allow:
    - {from: {serviceAccount: prod-engineering/api-service}, to: prod-engineering/db, port: tcp/5432}
`)
	return filepath.Join(dir, "db.yaml")
}

// refused waits until the daemon refuses a state, from line number from on of its
// log, and asserts that it names the assertion and the flow.
func (b *bench) refused(from int, message string) {
	b.Helper()
	line, _, err := b.daemon.Wait(from, patience, func(l lab.Line) bool { return strings.HasPrefix(l.Text("message"), message) })
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range []string{"db.yaml:8", "reports stay away from db", "prod-engineering/reports -> prod-engineering/db tcp/5432", "want deny, got allow"} {
		if !strings.Contains(line.Text("error"), s) || line.Text("level") != "error" {
			b.Errorf("the log does not name %q: %v", s, line)
		}
	}
}

// replaced gives a manifest of the examples with some text replaced.
func replaced(t *testing.T, name string, oldNew ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examples, name))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(oldNew); i += 2 {
		if !strings.Contains(string(text), oldNew[i]) {
			t.Fatalf("%s does not hold %q", name, oldNew[i])
		}
	}
	return strings.NewReplacer(oldNew...).Replace(string(text))
}

// TestAssertionRefusesChange: a change that breaks an assertion does not reach
// packets, nor does anything that was written with it, until it is mended.
func TestAssertionRefusesChange(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.serve(5432)
	b.start("--assertions", promises(t))
	const api, web, reports, db = "prod-engineering/api", "prod-engineering/web", "prod-engineering/reports", "prod-engineering/db"
	before := func() {
		t.Helper()
		for _, six := range []bool{false, true} {
			b.reaches(reports, db, six, false)
			b.reaches(api, db, six, true)
			b.reaches(web, db, six, true)
		}
	}
	before()

	from := len(b.daemon.Log(0))
	b.writeOnly("serviceaccounts.yaml", replaced(t, "serviceaccounts.yaml", "{app: reports}", "{app: web-frontend}"))
	b.refused(from, "change breaks an assertion")
	before()

	// A second change does no harm by itself, and is held back with the first.
	from = len(b.daemon.Log(0))
	b.writeOnly("serviceaccounts.yaml", replaced(t, "serviceaccounts.yaml", "{app: reports}", "{app: web-frontend}", "{app: web-frontend}", "{app: nothing}"))
	b.refused(from, "change breaks an assertion")
	before()
	for _, l := range b.daemon.Log(from) {
		if l.Text("message") == "enforcing" {
			t.Errorf("a refused state was put in force: %v", l)
		}
	}

	from = len(b.daemon.Log(0))
	b.writeOnly("serviceaccounts.yaml", replaced(t, "serviceaccounts.yaml", "{app: web-frontend}", "{app: nothing}"))
	if _, from, err := b.daemon.Wait(from, patience, lab.Message("assertions hold again")); err != nil {
		t.Fatal(err)
	} else if _, err := b.daemon.WaitEnforcing(from); err != nil {
		t.Fatal(err)
	}
	for _, six := range []bool{false, true} {
		b.reaches(reports, db, six, false)
		b.reaches(api, db, six, true)
		b.reaches(web, db, six, false)
	}
}

// TestAssertionBrokenAtStart: nothing is applied and the kernel is not touched
// until policy keeps its promises.
func TestAssertionBrokenAtStart(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.serve(5432)
	b.writeOnly("serviceaccounts.yaml", replaced(t, "serviceaccounts.yaml", "{app: reports}", "{app: web-frontend}"))
	b.launch("--assertions", promises(t))
	b.refused(0, "policy breaks an assertion, nothing is applied")
	if rules := b.nft("list", "ruleset"); rules != "" {
		t.Errorf("the kernel was touched:\n%s", rules)
	}
	b.writeOnly("serviceaccounts.yaml", replaced(t, "serviceaccounts.yaml"))
	if _, err := b.daemon.WaitEnforcing(0); err != nil {
		t.Fatal(err)
	}
	b.reaches("prod-engineering/reports", "prod-engineering/db", false, false)
	b.reaches("prod-engineering/api", "prod-engineering/db", true, true)
}
