package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestKernelCases: every case in docs/kernel-cases.md names tests that exist, or says why
// there is none.
func TestKernelCases(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/kernel-cases.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(?:([a-z/]+) )?(Test[A-Za-z0-9]+)`")
	cases := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) != 3 || strings.TrimSpace(cells[0]) == "case" {
			continue
		}
		cases++
		last := strings.TrimSpace(cells[2])
		tests := named.FindAllStringSubmatch(last, -1)
		if why, ok := strings.CutPrefix(last, "none: "); len(tests) == 0 && (!ok || len(strings.Fields(why)) < 3) {
			t.Errorf("%s: neither a test nor a reason why there is none", cells[0])
		}
		for _, m := range tests {
			dir := m[1]
			if dir == "" {
				dir = "test/e2e"
			}
			if !hasTest(t, "../"+dir, m[2]) {
				t.Errorf("%s: there is no %s in %s", cells[0], m[2], dir)
			}
		}
	}
	if cases < 40 {
		t.Errorf("only %d cases found", cases)
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(dir + "/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(t *testing.T)") {
			return true
		}
	}
	return false
}
