// Package report collects figures, holds them against targets, and writes them as
// lines and as the table of a page.
package report

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// figure is one measured value. Its name ends in its unit: ns, us, ms, MB, B, or x
// for a ratio.
type figure struct {
	name    string
	value   float64
	target  Target
	pending bool
}

// Target is a bound; the zero Target is none.
type Target struct {
	relation string // "<=" or ">="
	bound    float64
}

// None is no target: the figure is for information.
var None Target

// AtMost is met by the bound and what is below.
func AtMost(bound float64) Target { return Target{"<=", bound} }

// AtLeast is met by the bound and what is above.
func AtLeast(bound float64) Target { return Target{">=", bound} }

func (t Target) String() string {
	if t == None {
		return "-"
	}
	return t.relation + number(t.bound)
}

func (f *figure) state() string {
	switch {
	case f.pending:
		return "pending"
	case f.target == None:
		return "info"
	case f.target.relation == "<=" && f.value <= f.target.bound, f.target.relation == ">=" && f.value >= f.target.bound:
		return "ok"
	}
	return "short"
}

func (f *figure) valueText() string {
	if f.pending {
		return "-"
	}
	return number(f.value)
}

// number prints three significant digits, and integers in full.
func number(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// Report collects figures in order. It is for one goroutine.
type Report struct {
	start   time.Time
	commit  string // at the start
	figures []figure
}

// New begins a report: the time and the commit are those of the start.
func New() *Report { return &Report{start: time.Now(), commit: commit()} }

// Add adds a figure. Its name ends in its unit: ns, us, ms, MB, B, or x for a ratio.
func (r *Report) Add(name string, value float64, t Target) {
	r.figures = append(r.figures, figure{name: name, value: value, target: t})
}

// Pending adds a figure that nothing measures yet: it must not look met.
func (r *Report) Pending(name string, t Target) {
	r.figures = append(r.figures, figure{name: name, target: t, pending: true})
}

// Met tells whether every target is met.
func (r *Report) Met() bool {
	for i := range r.figures {
		if s := r.figures[i].state(); s == "short" || s == "pending" {
			return false
		}
	}
	return true
}

// Finish writes the figures into a page, unless its name is empty, prints them, and
// tells whether all targets are met.
func (r *Report) Finish(page string) (met bool, err error) {
	if page != "" {
		if err := r.Write(page); err != nil {
			return false, err
		}
	}
	r.Print(os.Stdout)
	return r.Met(), nil
}

// Print writes a line per figure: name, value, target, and ok, short, info (no target) or
// pending (nothing measures it yet).
func (r *Report) Print(w io.Writer) {
	for i := range r.figures {
		f := &r.figures[i]
		fmt.Fprintln(w, f.name, f.valueText(), f.target, f.state())
	}
}

// The table lies between these lines; the rest of the file is written by hand.
const (
	beginTable = "<!-- begin: figures: written by the benchmark, not by hand -->\n"
	endTable   = "<!-- end: figures: written by the benchmark, not by hand -->\n"
)

// Write replaces the table between the markers in the file.
func (r *Report) Write(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the page: %w", err)
	}
	before, rest, ok1 := bytes.Cut(text, []byte(beginTable))
	_, after, ok2 := bytes.Cut(rest, []byte(endTable))
	if !ok1 || !ok2 {
		return fmt.Errorf("%s: the lines that mark the table are missing", path)
	}
	page := string(before) + beginTable + r.table() + endTable + string(after)
	if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

func (r *Report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, commit %s, %s, %s %s/%s, GOMAXPROCS %d, took %s\n\n", r.start.Format(time.DateOnly), r.commit, cpuModel(),
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), time.Since(r.start).Round(time.Second))
	fmt.Fprintln(&b, "| figure | value | target | |\n|---|---:|---:|---|")
	for i := range r.figures {
		f := &r.figures[i]
		state := f.state()
		if state == "info" {
			state = ""
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", f.name, f.valueText(), strings.Trim(f.target.String(), "-"), state)
	}
	fmt.Fprintln(&b)
	return b.String()
}

// commit names what was measured.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}
