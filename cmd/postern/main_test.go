package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestCommandLine: what commands say of command lines that cannot be, and the code they
// end with.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	const hint = "Run with --help for usage.\n"
	missing := filepath.Join(t.TempDir(), "missing")
	flow := []string{"--from", "prod-engineering/reports", "--to", "prod-engineering/db", "--port", "tcp/5432"}
	for _, tc := range []struct {
		line string
		more []string
		code int
		says string // all of stderr
	}{
		{"explian", nil, 2, "postern: unknown command \"explian\"; did you mean explain?\n" + hint},
		{"nonsense", nil, 2, "postern: unknown command \"nonsense\"\n" + hint},
		{"authz prob", nil, 2, "postern: unknown command \"prob\"; did you mean probe?\n" + hint},
		{"config shwo", nil, 2, "postern: unknown command \"shwo\"; did you mean show?\n" + hint},
		{"completion fsh", nil, 2, "postern: unknown command \"fsh\"; did you mean bash or fish or zsh?\n" + hint},
		{"completion bash x", nil, 2, "postern: bash takes flags only, not \"x\"\n" + hint},
		{"help explian", nil, 2, "postern: unknown command \"explian\"; did you mean explain?\n" + hint},
		{"help explain x", nil, 2, "postern: unknown command \"x\"\n" + hint},
		{"version x", nil, 2, "postern: version takes flags only, not \"x\"\n" + hint},
		{"run --queue a", nil, 2, "postern: --queue \"a\": invalid syntax\n" + hint},
		{"run --queue 70000", nil, 2, "postern: --queue \"70000\": value out of range\n" + hint},
		{"run --hold-time 5", nil, 2, "postern: --hold-time \"5\": time: missing unit in duration \"5\"\n" + hint},
		{"run --nix", nil, 2, "postern: unknown flag: --nix\n" + hint},
		{"explain --source " + exampleManifests + " --from prod-engineering/reports --to prod-engineering/db --port 80", nil, 1, "postern: note: --port 80 is protocol number 80; for a port write tcp/80 or udp/80\n"},
		// What is named and cannot be read has the code of usage, and is none.
		{"explain --source " + missing, flow, 2, "postern: " + missing + ": read directory: open " + missing + ": no such file or directory\n"},
		{"explain --state " + missing, flow, 2, "postern: open " + missing + ": no such file or directory\n"},
		{"lint " + missing, nil, 2, "postern: read manifests: stat " + missing + ": no such file or directory\n"},
		{"diff " + exampleManifests + " " + missing, nil, 2, "postern: read manifests: stat " + missing + ": no such file or directory\n"},
		{"test " + missing + " --source " + exampleManifests, nil, 2, "postern: open " + missing + ": no such file or directory\n"},
		// No daemon.
		{"status --socket " + missing, nil, 3, ""},
		{"observe --socket " + missing, nil, 3, "postern: no daemon answers at " + missing + ": connect: no such file or directory; is postern running?\n"},
		{"flows --socket " + missing, nil, 3, "postern: no daemon answers at " + missing + ": connect: no such file or directory; is postern running?\n"},
		{"get endpoints --socket " + missing, nil, 3, "postern: no daemon answers at " + missing + ": connect: no such file or directory; is postern running? Use --source DIR to ask about a directory of manifests\n"},
	} {
		code, out, errs := cli(t, append(strings.Fields(tc.line), tc.more...)...)
		if code != tc.code || code > 1 && out != "" || tc.says != "" && errs != tc.says {
			t.Errorf("%s: exit code %d, want %d; stdout %q; said\n%swant\n%s", tc.line, code, tc.code, out, errs, tc.says)
		}
	}
}

// TestVersion: as a command and as a flag.
func TestVersion(t *testing.T) {
	t.Parallel()
	code, out, _ := cli(t, "version")
	flagCode, flagOut, _ := cli(t, "--version")
	if code != 0 || flagCode != 0 || out != flagOut || !strings.HasPrefix(out, "postern ") {
		t.Errorf("version: %d %q, --version: %d %q", code, out, flagCode, flagOut)
	}
}
