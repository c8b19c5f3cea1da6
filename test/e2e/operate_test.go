package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-project/postern/test/lab"
)

// guide is the operator's guide followed on the node of a lab, as it is written: its
// paths are real ones, in a mount namespace in which /etc and /run are the guide's.
type guide struct {
	*bench
	dir string // holds what /etc/postern and /run/postern are
}

// reader gives a command that reads a line as the guide's reader would type it.
func (g *guide) reader(line string) []string {
	script := fmt.Sprintf(`set -e
mount -t tmpfs none /run
mkdir /run/postern
mount --bind %[1]s/run /run/postern
mount -t tmpfs none /etc
mkdir /etc/postern
mount --bind %[1]s/etc /etc/postern
cd %[1]s/here
PATH=%[2]s:$PATH
exec `, g.dir, filepath.Dir(program))
	return []string{"unshare", "--mount", "sh", "-c", script + line}
}

// do runs a line to its end.
func (g *guide) do(line string) (code int, out string) {
	g.Helper()
	args := g.reader(line)
	var b bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := g.Node.Start(cmd); err != nil {
		g.Fatal(err)
	}
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), b.String()
}

// begin runs a line that goes on, such as a daemon.
func (g *guide) begin(line string) *lab.Daemon {
	g.Helper()
	args := g.reader(line)
	d, err := g.Node.StartDaemon(args[0], args[1:]...)
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() {
		if err := d.Stop(syscall.SIGTERM); err != nil {
			g.Errorf("%s: %v; its log:\n%s", line, err, d.Text())
		}
	})
	return d
}

// block is a fenced block of a page.
type block struct{ language, text string }

func blocks(t *testing.T, page string) (all []block) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		all = append(all, block{m[1], m[2]})
	}
	return all
}

// TestOperatorGuide follows docs/operate.md from its beginning to its end: every line
// of shell is run, the policy is put in force, and lines of the log are as they are
// shown. A line that is not known here fails: decide how to try it.
func TestOperatorGuide(t *testing.T) {
	g := &guide{bench: setup(t, examples), dir: t.TempDir()}
	openTo(t, g.dir)
	for _, sub := range []string{"etc", "run", "here"} {
		if err := os.Mkdir(filepath.Join(g.dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	manifests := filepath.Join(g.dir, "etc", "manifests")
	if err := os.CopyFS(manifests, os.DirFS(examples)); err != nil {
		t.Fatal(err)
	}
	g.bench.dir = manifests
	settings, err := os.ReadFile("../../deploy/postern.yaml")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(g.dir, "etc"), "postern.yaml", string(settings)+"\nsource: /etc/postern/manifests\n")
	g.serve(5432, 8080)

	tried := 0
	for _, s := range blocks(t, "../../docs/operate.md") {
		switch s.language {
		case "yaml":
			g.write("first.yaml", s.text)
			for from, want := range map[string]bool{"prod-engineering/web": true, "prod-engineering/reports": false} {
				if err := g.pods[from].Exchange("tcp", at(g.pods["prod-engineering/api"], false, 8080), []byte("hello"), impatience); (err == nil) != want {
					t.Errorf("under the first policy %s reaches api: %v, want %v", from, err == nil, want)
				}
			}
		case "json":
			g.logs(s.text)
		case "sh":
			for line := range strings.Lines(s.text) {
				tried++
				g.follow(strings.TrimSpace(line))
			}
		}
	}
	if tried < 12 {
		t.Errorf("only %d lines found in the guide", tried)
	}
}

// follow does what one line says, and looks whether it does what the guide says.
func (g *guide) follow(line string) {
	g.Helper()
	expect := func(code int, text string) {
		g.Helper()
		if got, out := g.do(line); got != code || !strings.Contains(out, text) {
			g.Errorf("%s: exit code %d, want %d and %q:\n%s", line, got, code, text, out)
		}
	}
	words := strings.Fields(line)
	switch {
	case strings.HasPrefix(line, "postern run "):
		g.daemon = g.begin(line)
		if _, err := g.daemon.WaitEnforcing(0); err != nil {
			g.Fatal(err)
		}
		g.reaches("prod-engineering/api", "prod-engineering/db", false, true)
		g.reaches("prod-engineering/reports", "prod-engineering/db", false, false)
	case strings.HasPrefix(line, "postern keep "):
		if err := g.daemon.Stop(syscall.SIGTERM); err != nil {
			g.Fatal(err)
		}
		if code, out := g.do("postern status"); code != 3 {
			g.Errorf("stopped, and status says %d: %s", code, out)
		}
		g.daemon = g.begin(line)
		if _, err := g.daemon.WaitEnforcing(0); err != nil {
			g.Fatal(err)
		}
		g.reaches("prod-engineering/api", "prod-engineering/db", false, true)
	case strings.HasPrefix(line, "postern observe --follow"):
		watching := g.begin("sh -c 'exec " + line + " >&2'")
		from, to := g.pods["prod-engineering/reports"], g.pods["prod-engineering/db"]
		port := uint16(2000)
		eventually(g.T, "the denial is shown", func() bool {
			port++ // the kernel remembers what was denied already, and does not ask again
			if err := from.Send(udp(at(from, false, 4000), at(to, false, port), []byte("no"))); err != nil {
				g.Fatal(err)
			}
			return strings.Contains(watching.Text(), "DENY  udp prod-engineering/reports (reports-sa) ")
		})
		if err := watching.Stop(syscall.SIGINT); err != nil {
			g.Errorf("%s: %v", line, err)
		}
	case strings.HasPrefix(line, "postern observe "):
		expect(0, "DENY  tcp prod-engineering/reports (reports-sa)")
	case line == "postern doctor":
		expect(0, "postern can enforce here")
	case strings.HasPrefix(line, "postern explain --from prod-engineering/web "):
		expect(0, "ALLOW ")
	case strings.HasPrefix(line, "postern explain --from prod-engineering/reports "):
		expect(1, "DENY ")
	case strings.HasPrefix(line, "postern get accounts"):
		expect(0, "ingress rule 0 of prod-engineering/allow-web-frontend")
	case strings.HasPrefix(line, "postern get policies"):
		expect(0, "prod-engineering/first")
	case strings.HasPrefix(line, "postern get endpoints"):
		expect(0, "protected")
	case strings.HasPrefix(line, "postern lint "):
		expect(0, "")
	case strings.HasPrefix(line, "postern config show "):
		expect(0, "flowLogRate: ")
	case line == "postern bundle":
		expect(0, "status.json")
	case words[0] == "nft":
		expect(0, "table inet postern")
	case words[0] == "cat":
		expect(0, fmt.Sprint(queue))
	default:
		g.Errorf("the guide has a line that this test does not know: %s", line)
	}
}

// logs looks for lines of the daemon's log with the keys of those that the guide shows.
func (g *guide) logs(shown string) {
	g.Helper()
	for d := json.NewDecoder(strings.NewReader(shown)); ; {
		var want lab.Line
		if err := d.Decode(&want); err == io.EOF {
			return
		} else if err != nil {
			g.Fatal(err)
		}
		if _, _, err := g.daemon.Wait(0, patience, func(l lab.Line) bool {
			for key := range want {
				if _, ok := l[key]; !ok {
					return false
				}
			}
			return l.Text("message") == want.Text("message") && l.Text("reason") == want.Text("reason")
		}); err != nil {
			g.Errorf("no line of the log has all keys of %v: %v", want, err)
		}
	}
}
