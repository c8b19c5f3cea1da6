package e2e

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/test/lab"
)

// TestReload: settings are read again when their file changes and at SIGHUP; invalid ones
// change nothing, and what only a start can change is named.
func TestReload(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.serve(5432)
	dir := t.TempDir()
	write := func(text string) { writeFile(t, dir, "postern.yaml", text) }
	write("logRuleRate: 7\n")
	b.start("--config", filepath.Join(dir, "postern.yaml"), "--metrics-listen", listenAddress)
	const api, db = "prod-engineering/api", "prod-engineering/db"
	from := 0
	wait := func(message string) lab.Line {
		t.Helper()
		line, next, err := b.daemon.Wait(from, patience, lab.Message(message))
		if err != nil {
			t.Fatal(err)
		}
		from = next
		return line
	}
	degraded := func() string {
		t.Helper()
		st, err := control.NewClient(b.socket).Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(st.Degraded, "\n")
	}
	write("logRuleRat: 8\n")
	if l := wait("the settings cannot be reloaded; those before stay"); !strings.Contains(l.Text("error"), "logRuleRat: no such key") || l.Text("why") != "file changed" {
		t.Errorf("the log does not name the key: %v", l)
	}
	if s := degraded(); !strings.Contains(s, "logRuleRat: no such key") {
		t.Errorf("degraded: %q", s)
	}
	b.reaches(api, db, false, true)

	// Assertions take effect at once, also on what is in force; a queue's length does not.
	writeFile(t, dir, "all.yaml", "apiVersion: postern.dev/v1alpha1\nkind: Assertions\nmetadata: {name: all}\nspec:\n  assertions:\n  - name: nobody reaches db\n    deny:\n    - {from: "+api+", to: "+db+", port: tcp/5432}\n")
	write("assertions: [" + filepath.Join(dir, "all.yaml") + "]\nqueueLength: 99\n")
	// Two tasks tell of it, in either order.
	before := from
	wait("change breaks an assertion and is refused as a whole, the last good state stays in force")
	from = before
	if l := wait("reloaded the settings"); l.Text("level") != "warn" || !strings.Contains(strings.Join(strings.Fields(b.daemon.Text()), " "), `"at_next_start":["queueLength"]`) {
		t.Errorf("the log does not name what waits for a start: %v", l)
	}
	if s := degraded(); strings.Contains(s, "no such key") || !strings.Contains(s, "next start only have changed: queueLength") {
		t.Errorf("degraded: %q", s)
	}
	b.reaches(api, db, false, true)

	write("logLevel: error\n")
	if err := syscall.Kill(b.daemon.PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the settings were read again", func() bool { return degraded() == "" })
	eventually(t, "reloads are counted", func() bool {
		return b.metric(`postern_config_reloads_total{result="invalid"}`) == 1 && b.metric(`postern_config_reloads_total{result="done"}`) >= 2
	})
	lines := len(b.daemon.Log(0))
	b.reaches(api, db, false, true) // would be logged at level info
	b.reaches("prod-engineering/reports", db, false, false)
	if l := b.daemon.Log(lines); len(l) != 0 {
		t.Errorf("logged at level error: %v", l)
	}
}
