package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	t.Parallel()
	r := New()
	r.Add("a-ns", 12.34, AtMost(12.34))
	r.Add("b-x", 1.899, AtLeast(1.9))
	r.Add("c-ns", 123.4, None)
	if r.Met() {
		t.Error("met, with a figure that is short")
	}
	r.Pending("d-ms", AtMost(1))
	var out strings.Builder
	r.Print(&out)
	want := "a-ns 12.3 <=12.3 ok\nb-x 1.9 >=1.9 short\nc-ns 123 - info\nd-ms - <=1 pending\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	good := New()
	good.Add("a", 1, AtMost(1))
	good.Add("b", 5, None)
	if !good.Met() {
		t.Error("not met, with nothing short")
	}
	pending := New()
	if pending.Pending("d", AtMost(1)); pending.Met() {
		t.Error("met, with a figure that is pending")
	}
}

func TestReportWrite(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "page.md")
	text := "before\n" + beginTable + "old\n" + endTable + "after\n"
	if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := New()
	r.Add("a-ns", 3, AtMost(4))
	if err := r.Write(page); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"before\n" + beginTable, "| a-ns | 3 | <=4 | ok |\n", endTable + "after\n"} {
		if !strings.Contains(string(got), part) {
			t.Errorf("%q is not in\n%s", part, got)
		}
	}
	if strings.Contains(string(got), "old") {
		t.Errorf("the old table is still in\n%s", got)
	}
	if err := os.WriteFile(page, []byte("no markers"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Write(page); err == nil {
		t.Error("a page without markers: want an error")
	}
}
