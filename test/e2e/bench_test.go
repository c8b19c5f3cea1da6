package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// benchRows runs a benchmark of the program and gives the rows it saves, by name.
func benchRows(t *testing.T, args ...string) map[string]struct {
	PerSecond   float64
	Count, Lost uint64
	Latency     []struct{ Count uint64 }
} {
	t.Helper()
	path := filepath.Join(t.TempDir(), "result.json")
	cmd := exec.Command(program, append(append([]string{"bench"}, args...), "--save", path)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if out, err := cmd.Output(); err != nil {
		t.Fatalf("%v: %v: %s%s", args, err, out, stderr.String())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	type row = struct {
		PerSecond   float64
		Count, Lost uint64
		Latency     []struct{ Count uint64 }
	}
	var result struct {
		Rows []struct {
			Name string
			row
		}
	}
	if err := json.Unmarshal(text, &result); err != nil {
		t.Fatal(err)
	}
	rows := map[string]row{}
	for _, r := range result.Rows {
		rows[r.Name] = r.row
	}
	return rows
}

// TestBenchConnect: every way to have a node lets connections through, and hardly
// any gets lost on the way.
func TestBenchConnect(t *testing.T) {
	rows := benchRows(t, "connect", "--duration", "100ms", "--rounds", "1", "--workers", "2")
	for _, name := range []string{"no filter", "conntrack only", "static map", "null loop", "postern cold", "postern learned"} {
		r := rows[name]
		if r.PerSecond <= 0 || r.Count == 0 || r.Lost*10 > r.Count || len(r.Latency) == 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestBenchKernel: with postern between, all that policy allows comes through the
// kernel and nothing else, of captured and of generated traffic.
func TestBenchKernel(t *testing.T) {
	for _, args := range [][]string{
		{"--packets", "2000"},
		{"../../filter/replay/testdata/captures/http6.pcap", "../../filter/replay/testdata/captures/icmp.pcap", "--policy", examples},
	} {
		rows := benchRows(t, append([]string{"kernel", "--duration", "50ms"}, args...)...)
		for _, name := range []string{"no filter", "conntrack only", "postern"} {
			r := rows[name]
			if r.PerSecond <= 0 || r.Count == 0 || r.Lost*50 > r.Count || len(r.Latency) == 0 {
				t.Errorf("%v: %s: %+v", args, name, r)
			}
		}
	}
}
