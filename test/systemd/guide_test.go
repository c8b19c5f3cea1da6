//go:build systemd

package systemd

import (
	"os"
	"regexp"
	"strings"
)

// guide is the page that operators follow: what stands in its blocks is what the test
// runs, and all of it.
type guide struct {
	lines map[string]bool // of shell; true once it was run
	units []string        // drop-ins
}

var block = regexp.MustCompile("(?ms)^```(sh|ini)\n(.*?)^```$")

func readGuide() (*guide, error) {
	text, err := os.ReadFile("../../docs/install.md")
	g := &guide{lines: map[string]bool{}}
	for _, m := range block.FindAllStringSubmatch(string(text), -1) {
		if m[1] == "ini" {
			g.units = append(g.units, m[2])
			continue
		}
		for line := range strings.Lines(m[2]) {
			line, _, _ = strings.Cut(line, "  #")
			g.lines[strings.TrimSpace(line)] = false
		}
	}
	return g, err
}

// follow runs a line of the guide, where the packages lie in bin.
func (w *world) follow(line string) string {
	w.Helper()
	w.followed(line)
	return w.run("sh", "-c", "cd /var/tmp && "+line)
}

func (w *world) followed(line string) {
	w.Helper()
	if _, ok := w.lines[line]; !ok {
		w.Errorf("docs/install.md does not say: %s", line)
	}
	w.lines[line] = true
}

// offer makes one version the package in bin.
func (w *world) offer(version string) {
	w.Helper()
	w.run("sh", "-c", "rm -rf /var/tmp/bin && mkdir /var/tmp/bin && cp "+w.deb(version)+" /var/tmp/bin")
}

// unit is the drop-in of the guide that has this line.
func (w *world) unit(line string) string {
	w.Helper()
	for _, u := range w.units {
		if strings.Contains(u, line) {
			return u
		}
	}
	w.Fatalf("docs/install.md has no drop-in with %s", line)
	return ""
}
