package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	t.Parallel()
	r := newReport()
	r.add("a-ns", 12.34, atMost(12.34))
	r.add("b-x", 1.899, atLeast(1.9))
	r.add("c-ns", 123.4, none)
	if r.met() {
		t.Error("met, with a figure that is short")
	}
	r.pending("d-ms", atMost(1))
	var out strings.Builder
	r.print(&out)
	want := "a-ns 12.3 <=12.3 ok\nb-x 1.9 >=1.9 short\nc-ns 123 - info\nd-ms - <=1 pending\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	good := newReport()
	good.add("a", 1, atMost(1))
	good.add("b", 5, none)
	if !good.met() {
		t.Error("not met, with nothing short")
	}
	pending := newReport()
	if pending.pending("d", atMost(1)); pending.met() {
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
	r := newReport()
	r.add("a-ns", 3, atMost(4))
	if err := r.write(page); err != nil {
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
	if err := r.write(page); err == nil {
		t.Error("a page without markers: want an error")
	}
}
