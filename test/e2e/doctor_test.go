package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"testing"

	"github.com/postern-project/postern/internal/doctor"
)

// onNode runs the program in the node's network namespace, as an operator would.
func (b *bench) onNode(args ...string) (code int, stdout, stderr string) {
	b.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := b.Node.Start(cmd); err != nil {
		b.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		b.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestDoctor looks at a host before the daemon, beside it, and when somebody else uses
// the daemon's marks; packets are judged as before.
func TestDoctor(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.serve(5432)
	look := func(want int, check string, level doctor.Level) {
		t.Helper()
		code, out, errs := b.onNode("doctor", "--socket", b.socket, "-o", "json")
		var found []doctor.Finding
		if err := json.Unmarshal([]byte(out), &found); err != nil || code != want {
			t.Fatalf("%v, exit code %d, want %d: %s%s", err, code, want, out, errs)
		}
		for _, f := range found {
			if f.Check == check && f.Level == level {
				return
			}
		}
		t.Errorf("no %s of level %s: %s", check, level, out)
	}
	look(0, "daemon", doctor.Info)
	b.start()
	look(0, "daemon", doctor.OK)
	b.reaches("prod-engineering/api", "prod-engineering/db", false, true)
	b.reaches("prod-engineering/reports", "prod-engineering/db", false, false)
	b.nft("add table inet other; add chain inet other c { type filter hook prerouting priority mangle; }; add rule inet other c meta mark set 0x05000000")
	look(1, "marks.written", doctor.Fail)
}
