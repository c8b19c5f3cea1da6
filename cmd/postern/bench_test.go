package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// decide measures, saves, compares and fails as it is told to, with generated traffic
// and with captures; report makes a page of it.
func TestBenchDecide(t *testing.T) {
	dir := t.TempDir()
	saved, page := filepath.Join(dir, "decide.json"), filepath.Join(dir, "report.html")
	quick := []string{"--duration", "2ms", "--packets", "1000", "--workers", "1"}
	run := func(args ...string) (string, string, int) {
		return command(append([]string{"bench", "decide"}, append(args, quick...)...)...)
	}
	out, errs, code := run("--rules", "10,20", "--pods", "50", "--save", saved)
	if code != 0 || strings.Count(out, "new flow") != 2 || !strings.Contains(out, "20 rules, 50 pods") {
		t.Fatalf("code %d, %s%s", code, out, errs)
	}
	out, errs, code = run("--rules", "10", "--pods", "50", "--against", saved, "--fail-below", "0.000001")
	if code != 0 || !strings.Contains(out, "x earlier") {
		t.Errorf("code %d, %s%s", code, out, errs)
	}
	if _, errs, code = run("--rules", "10", "--pods", "50", "--against", saved, "--fail-below", "1000000"); code != exitNo {
		t.Errorf("a thousand thousand times as fast: code %d, %s", code, errs)
	}
	if _, errs, code = run("--rules", "30", "--pods", "50", "--against", saved); code != exitUsage || !strings.Contains(errs, "measured nothing") {
		t.Errorf("nothing in common: code %d, %s", code, errs)
	}
	if out, errs, code = run(replayCaptures+"http.pcap", "--policy", replayPolicy); code != 0 || !strings.Contains(out, "replayed") {
		t.Errorf("capture: code %d, %s%s", code, out, errs)
	}
	if _, errs, code = command("bench", "report", saved, "--output", page); code != 0 {
		t.Errorf("report: code %d, %s", code, errs)
	}
	if b, err := os.ReadFile(page); err != nil || !strings.Contains(string(b), "Scaling with rules") {
		t.Errorf("page: %v", err)
	}
	plots := filepath.Join(dir, "plots")
	if _, errs, code = command("bench", "report", saved, "--against", saved, "--plots", plots, "--output", page); code != 0 {
		t.Errorf("report: code %d, %s", code, errs)
	}
	if b, err := os.ReadFile(filepath.Join(plots, "decide-scaling-with-rules.svg")); err != nil || !strings.HasPrefix(string(b), "<svg") {
		t.Errorf("plot: %v", err)
	}
	other := filepath.Join(dir, "other.json")
	if err := os.WriteFile(other, []byte(`{"format": 1, "bench": "kernel", "rows": []}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, errs, code = command("bench", "report", saved, "--against", other, "--output", page); code != exitUsage || !strings.Contains(errs, "none of the results") {
		t.Errorf("another benchmark's: code %d, %s", code, errs)
	}
}

func TestBenchFlags(t *testing.T) {
	t.Parallel()
	notJSON := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(notJSON, []byte("no"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ args, want string }{
		{"bench fly", "unknown benchmark"},
		{"bench decide a.pcap", "need --policy"},
		{"bench decide --policy x", "are for captures"},
		{"bench decide --rules 0", "--rules"},
		{"bench decide --workers 0", "--workers"},
		{"bench decide --packets 0", "--packets"},
		{"bench decide --duration 0s", "--duration"},
		{"bench decide --fail-below 0.9", "needs --against"},
		{"bench decide --against /does/not/exist", "--against"},
		{"bench decide --against " + notJSON, "read result"},
		{"bench decide /does/not/exist --policy " + replayPolicy, "no such file"},
		{"bench kernel a.pcap", "need --policy"},
		{"bench kernel --window 0", "--window"},
		{"bench connect --rounds 0", "--rounds"},
		{"bench connect --workers 0", "--workers"},
		{"bench report", "want the results"},
		{"bench report " + notJSON, "read result"},
	} {
		_, errs, code := command(strings.Fields(tc.args)...)
		if code != exitUsage || !strings.Contains(errs, tc.want) {
			t.Errorf("%s: code %d, %s", tc.args, code, errs)
		}
	}
}
