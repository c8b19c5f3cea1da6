package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// ask runs the program outside the lab, as an operator would.
func ask(t *testing.T, attr *syscall.SysProcAttr, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &errs, attr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestAskTheDaemon explains flows on the state of a running daemon, before and
// after a change, and on a capture of that state after the daemon has gone.
func TestAskTheDaemon(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.start()
	flow := []string{"--from", "prod-engineering/reports", "--to", "prod-engineering/db", "--port", "tcp/5432"}
	live := append([]string{"explain", "--socket", b.socket}, flow...)

	if code, out, errs := ask(t, nil, live...); code != 1 || !strings.HasPrefix(out, "DENY ") {
		t.Errorf("exit code %d, want 1 and a denial:\n%s%s", code, out, errs)
	}
	if code, out, errs := ask(t, nil, "get", "endpoints", "prod-engineering/db", "--socket", b.socket); code != 0 || !strings.Contains(out, "default prod-engineering/demo-calico") {
		t.Errorf("get: exit code %d:\n%s%s", code, out, errs)
	}
	code, before, errs := ask(t, nil, "snapshot", "--socket", b.socket)
	if code != 0 {
		t.Fatalf("snapshot: exit code %d: %s", code, errs)
	}
	b.edit("serviceaccounts.yaml", "{app: reports}", "{app: web-frontend}")
	if code, out, errs := ask(t, nil, live...); code != 0 || !strings.HasPrefix(out, "ALLOW ") {
		t.Errorf("after the change: exit code %d, want 0:\n%s%s", code, out, errs)
	}

	capture := filepath.Join(t.TempDir(), "state.json")
	if err := os.WriteFile(capture, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.daemon.Stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := ask(t, nil, append([]string{"explain", "--state", capture}, flow...)...); code != 1 || !strings.HasPrefix(out, "DENY ") {
		t.Errorf("from the capture: exit code %d, want 1 and a denial:\n%s%s", code, out, errs)
	}
	if code, _, errs := ask(t, nil, live...); code != 3 || !strings.Contains(errs, "no daemon answers") {
		t.Errorf("without a daemon: exit code %d, want 3: %s", code, errs)
	}
}

// TestSocketIsForItsOwner: another user gets no answer, neither by the socket's mode
// nor where somebody opened the mode.
func TestSocketIsForItsOwner(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.start()
	openTo(t, filepath.Dir(program))
	openTo(t, filepath.Dir(b.socket))
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	for _, mode := range []os.FileMode{0o660, 0o666} {
		if err := os.Chmod(b.socket, mode); err != nil {
			t.Fatal(err)
		}
		if code, out, errs := ask(t, nobody, "snapshot", "--socket", b.socket); code != 3 || out != "" {
			t.Errorf("mode %v: exit code %d, %d bytes of the state, %s", mode, code, len(out), errs)
		}
		if code, out, errs := ask(t, nil, "snapshot", "--socket", b.socket); code != 0 || out == "" {
			t.Errorf("mode %v: root was refused: exit code %d, %s", mode, code, errs)
		}
	}
}

// openTo lets every user pass through the directories down to one.
func openTo(t *testing.T, dir string) {
	t.Helper()
	for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
