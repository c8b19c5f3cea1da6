package test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-project/postern/test/lab"
)

// snippet is one fenced block of a page; language is what stands behind the fence.
type snippet struct{ language, text string }

func snippets(t *testing.T, page string) (found []snippet) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		found = append(found, snippet{m[1], m[2]})
	}
	return found
}

// shell runs a line as a reader would, at the top of the checkout.
func shell(t *testing.T, line string) (out string, code int) {
	t.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = ".."
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", line, err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// TestReadme does what README tells its reader to, in order. A command that is not
// known here fails: decide how to try it.
func TestReadme(t *testing.T) {
	all := snippets(t, "../README.md")
	tried := 0
	for i, s := range all {
		if s.language != "sh" {
			continue
		}
		var shown string // what README says that the last command prints
		if i+1 < len(all) && all[i+1].language == "text" {
			shown = all[i+1].text
		}
		for line := range strings.Lines(s.text) {
			line = strings.TrimSpace(line)
			tried++
			switch {
			case line == "make test":
				// This is it. CI must run the same.
				ci, err := os.ReadFile("../.ci/run")
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.HasSuffix(ci, []byte("\nmake test\n")) {
					t.Errorf("README and .ci/run differ on the test command")
				}
			case line == "make demo":
				out, code := shell(t, line)
				if code != 0 {
					t.Errorf("%s: exit code %d:\n%s", line, code, out)
				}
				for l := range strings.Lines(shown) {
					if l = strings.TrimSpace(l); l != "" && l != "…" && !strings.Contains(out, l) {
						t.Errorf("README shows %q, and the demo did not print it:\n%s", l, out)
					}
				}
			case line == "make build":
				if out, code := shell(t, line); code != 0 {
					t.Errorf("%s: exit code %d:\n%s", line, code, out)
				}
			case strings.HasPrefix(line, "bin/postern explain "):
				out, code := shell(t, line)
				if code != 1 || !strings.HasPrefix(out, shown) || shown == "" {
					t.Errorf("%s: exit code %d, printed\n%s\nand README shows\n%s", line, code, out, shown)
				}
			case strings.HasPrefix(line, "bin/postern run "):
				runFor(t, line)
			case strings.HasPrefix(line, "bin/postern "):
				if out, code := shell(t, line); code != 0 {
					t.Errorf("%s: exit code %d:\n%s", line, code, out)
				}
			default:
				t.Errorf("README has a command that this test does not know: %s", line)
			}
		}
	}
	if tried < 5 {
		t.Errorf("only %d commands found in README", tried)
	}
}

// runFor starts a daemon as the line says, in a namespace, until it enforces.
func runFor(t *testing.T, line string) {
	t.Helper()
	l, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := l.Node.StartDaemon("sh", "-c", "cd .. && exec "+line)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.WaitEnforcing(0); err != nil {
		t.Errorf("%s: %v", line, err)
	}
	if err := d.Stop(syscall.SIGTERM); err != nil {
		t.Errorf("%s: %v", line, err)
	}
}

// TestLinks follows every link to a file in the documentation.
func TestLinks(t *testing.T) {
	pages, err := exec.Command("git", "-C", "..", "ls-files", "*.md").Output()
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:]+)[^)]*\)`)
	checked := 0
	for page := range strings.FieldsSeq(string(pages)) {
		if strings.Contains(page, "testdata/") {
			continue
		}
		text, err := os.ReadFile("../" + page)
		if err != nil {
			t.Fatal(err)
		}
		dir := "../" + page[:strings.LastIndexByte("/"+page, '/')]
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			checked++
			if _, err := os.Stat(dir + "/" + m[1]); err != nil {
				t.Errorf("%s: link to %s: %v", page, m[1], err)
			}
		}
	}
	if checked == 0 {
		t.Error("no link found")
	}
}
