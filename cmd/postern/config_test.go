package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the reference file")

// TestReferenceFile: the file in the repository is what the program would write.
func TestReferenceFile(t *testing.T) {
	t.Parallel()
	const path = "../../deploy/postern.yaml"
	want := reference()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s is not up to date: run go test ./cmd/postern -run TestReferenceFile -update\n%s", path, d)
	}
}

func TestConfigShow(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postern.yaml")
	if err := os.WriteFile(path, []byte("source: /etc/postern/manifests\nqueues: 4\nflowLog: all\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := cli(t, "config", "show", "--origin", "--config", path, "--queues", "2")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, line := range []string{"source: /etc/postern/manifests  # file " + path + ":1", "queues: 2  # flag --queues", "flowLog: all  # file " + path + ":3", "markMask: 0xff000000  # default"} {
		key, rest, _ := strings.Cut(line, "  ")
		if !containsLine(out, key, rest) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}

	code, out, errs = cli(t, "config", "show", "-o", "json", "--config", path)
	var list []struct{ Key, Value, Origin string }
	if err := json.Unmarshal([]byte(out), &list); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v: %s%s", code, err, out, errs)
	}
	for _, s := range list {
		if want := map[string]string{"queues": "file", "cleanup": "default"}[s.Key]; want != "" && want != s.Origin {
			t.Errorf("%s comes from %s, want %s", s.Key, s.Origin, want)
		}
	}
}

// TestConfigRefused: run and config show refuse the same, before anything happens.
func TestConfigRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postern.yaml")
	for text, says := range map[string]string{
		"source: a\nqueueVia: magic": `--queue-via "magic": want native, xt or auto`,
		"source: a\nqeues: 1":        path + ":2: qeues: no such key",
		"queues: 1":                  "--source or --kubeconfig is required",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, command := range [][]string{{"run"}, {"config", "show"}} {
			code, _, errs := cli(t, append(command, "--config", path)...)
			if code != exitUsage || !strings.Contains(errs, says) {
				t.Errorf("%v: exit code %d, %s; want %s", command, code, errs, says)
			}
		}
	}
}

func containsLine(text, begin, end string) bool {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, begin) && strings.HasSuffix(strings.TrimSpace(line), end) {
			return true
		}
	}
	return false
}

// TestConfigShowRefused: what the daemon would refuse is shown all the same.
func TestConfigShowRefused(t *testing.T) {
	t.Parallel()
	code, out, errs := cli(t, "config", "show", "--origin", "--flow-log", "all")
	if code != 2 || !strings.Contains(out, "flowLog: all") || !strings.Contains(errs, "--source or --kubeconfig is required") {
		t.Errorf("exit code %d, stdout\n%sstderr\n%s", code, out, errs)
	}
}
