package metrics

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// shipped is what operators get for these metrics.
const shipped = "../../deploy/monitoring"

// TestShippedNames: alerts, their tests and the dashboard speak of metrics that exist.
func TestShippedNames(t *testing.T) {
	families, err := New(Build{}, full).registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, f := range families {
		known[f.GetName()] = true
	}
	for _, file := range []string{"alerts.yaml", "alerts_test.yaml", "dashboard.json"} {
		text, err := os.ReadFile(shipped + "/" + file)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`(postern|process)_[a-z0-9_]+`).FindAllString(string(text), -1)
		if len(names) < 10 {
			t.Errorf("%s names %d metrics", file, len(names))
		}
		for _, n := range names {
			if !known[n] && !known[strings.TrimSuffix(strings.TrimSuffix(n, "_bucket"), "_count")] {
				t.Errorf("%s: there is no metric %s", file, n)
			}
		}
	}
}

// TestAlerts runs Prometheus's own tool.
func TestAlerts(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = shipped
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v (promtool is of Debian's package prometheus)\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestDashboard: it is what Grafana imports, and its panels do not cover each other.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile(shipped + "/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		UID    string
		Panels []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q: no title, no question or no number of its own", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if taken[at] != "" || at[0] >= 24 {
					t.Fatalf("%q lies on %q, or outside", p.Title, taken[at])
				}
				taken[at] = p.Title
			}
		}
	}
	if d.UID == "" || len(ids) < 10 {
		t.Errorf("uid %q, %d panels", d.UID, len(ids))
	}
}
