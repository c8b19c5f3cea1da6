package speed

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed page.html
var pageText string

// fileStyle is the style of plots, in the page and in files of their own.
//
//go:embed plot.css
var fileStyle string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// section is one result on the page.
type section struct {
	*Result
	earlier      *Result // nil for nothing to compare with
	Title, About string
	Settings     []string
	Tiles        []tile
	Plots        []plot
	Columns      []string
	Lines        []tableLine
	colors       []string
}

// Earlier is what it is compared with.
func (s *section) Earlier() *Result { return s.earlier }

// tile is a number to read first.
type tile struct{ Value, Label string }

type plot struct {
	Title, Note string
	Chart       *chart
}

// Legend explains the colours.
func (c *chart) Legend() []key { return c.legend }

type tableLine struct {
	Name  string
	Cells []cell
}

type cell struct{ Text, Class string }

var titles = map[string][2]string{
	"decide":  {"Decisions in memory", "Packets that lie ready in memory. Decode reads the headers; new flow decodes and decides, as the verdict loop does with the first packet of a flow; replayed also keeps a table of flows, in which nearly every packet belongs to one that was decided before."},
	"kernel":  {"Packets through the kernel", "Packets written to one TUN device of a network namespace and read from another, with postern's table and queue between, and without. Denied packets count with the rest: they went as far as they go."},
	"connect": {"New connections through a node", "TCP connections from one pod to another through the node between them: connect, a byte there and back, reset. Latency is of connect alone. Postern learned has decided the like before, postern cold never."},
}

// Page writes a page about results: one file, without scripts and without anything
// from elsewhere. Each result is compared with the one of earlier that is of the same
// benchmark and traffic, if there is one.
func Page(w io.Writer, results, earlier []*Result) error {
	page := struct {
		Style    template.CSS
		Machine  []string // where all were measured; nil if not on one machine
		Sections []*section
	}{Style: template.CSS(fileStyle)}
	for i, r := range results {
		facts := r.Machine.Facts()
		if i == 0 {
			page.Machine = facts
		} else if !slices.Equal(page.Machine, facts) {
			page.Machine = nil
		}
		page.Sections = append(page.Sections, newSection(r, counterpart(r, earlier)))
	}
	return pageTemplate.Execute(w, page)
}

// File is a plot as a file of its own.
type File struct {
	Name string // such as decide-latency.svg
	SVG  []byte
}

// Plots draws what Page shows, each plot as a file that stands for itself and follows
// the reader's choice of light or dark.
func Plots(results, earlier []*Result) (files []File) {
	taken := map[string]int{}
	for _, r := range results {
		s := newSection(r, counterpart(r, earlier))
		for _, p := range s.Plots {
			name := fileName(s.Bench + " " + s.traffic() + " " + p.Title)
			if taken[name]++; taken[name] > 1 {
				name += fmt.Sprintf("-%d", taken[name])
			}
			note := s.At.Format("2006-01-02")
			if p.Note != "" {
				note += "; " + p.Note
			}
			files = append(files, File{name + ".svg", p.Chart.File(p.Title, note)})
		}
	}
	return files
}

// fileName keeps letters and digits.
func fileName(text string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}), "-")
}

// counterpart finds the earlier result of the same benchmark and traffic.
func counterpart(r *Result, earlier []*Result) *Result {
	for _, e := range earlier {
		if r.SameLoad(e) {
			return e
		}
	}
	return nil
}

func newSection(r, earlier *Result) *section {
	s := &section{Result: r, earlier: earlier, Title: r.Bench}
	if t, ok := titles[r.Bench]; ok {
		s.Title, s.About = t[0], t[1]
	}
	if t := s.traffic(); t != "" {
		s.Title += ", of " + t
	}
	for _, k := range slices.Sorted(maps.Keys(r.Settings)) {
		s.Settings = append(s.Settings, k+" "+r.Settings[k])
	}
	for i := range r.Rows {
		if !slices.Contains(s.colors, r.Rows[i].Name) {
			s.colors = append(s.colors, r.Rows[i].Name)
		}
	}
	if len(r.Rows) > 0 {
		s.tile()
		s.plot()
	}
	s.table()
	return s
}

// traffic names the capture that was measured with; empty for none.
func (s *section) traffic() string {
	if t := s.Result.Settings["traffic"]; t != "" && t != Generated {
		return filepath.Base(t)
	}
	return ""
}

// color is the same for a name in all plots of a section.
func (s *section) color(name string) int { return slices.Index(s.colors, name) }

// last is the row whose place plots are of that have one place: the largest of a
// sweep.
func (s *section) last() *Row { return &s.Rows[len(s.Rows)-1] }

// here are the rows of the last place, on one thread.
func (s *section) here() []*Row {
	last := s.last()
	return s.rowsThat(func(r *Row) bool { return r.Rules == last.Rules && r.Pods == last.Pods && r.Workers <= 1 })
}

func (s *section) tile() {
	for _, r := range s.here() {
		add := func(value, label string) {
			if value != "" {
				s.Tiles = append(s.Tiles, tile{value, label})
			}
		}
		rate, ratio := short(r.PerSecond), ""
		if ref := s.reference(r); ref != nil && ref.PerSecond > 0 {
			ratio = fmt.Sprintf("× %.2f", r.PerSecond/ref.PerSecond)
		}
		switch s.Bench + " " + r.Name {
		case "decide " + NewFlow:
			add(rate, "new flows decided a second, on one core")
			add(duration(r.NS), "processor time for a new flow")
			if r.Allocs != nil {
				s.Tiles = append(s.Tiles, tile{fmt.Sprintf("%.3g", *r.Allocs), "allocations for a packet"})
			}
		case "decide " + KnownFlow:
			add(rate, "packets of decided flows a second, on one core")
		case "kernel postern":
			add(rate, "packets a second through postern")
			add(ratio, "of the rate with conntrack only")
			add(duration(r.P50), "latency through postern, median")
			add(duration(r.P99), "the slowest of a hundred")
		case "connect postern learned":
			add(ratio, "of the rate with conntrack only, where the like was decided before")
			add(duration(r.P50), "to connect, median, learned")
		case "connect postern cold":
			add(rate, "connections a second that are each like none before")
			add(duration(r.P50), "to connect, median, cold")
		}
	}
}

// plot draws what there is to draw.
func (s *section) plot() {
	if s.Unit == "" {
		return
	}
	add := func(title, note string, c *chart) {
		if c != nil {
			s.Plots = append(s.Plots, plot{title, note, c})
		}
	}
	last, here := s.last(), s.here()
	place := placeText(last)
	if place != "" {
		place += ", one thread"
	}
	note := place
	if s.Reference != "" {
		note = strings.TrimPrefix(note+"; × is the ratio to "+s.Reference, "; ")
	}
	add(strings.ToUpper(s.Unit[:1])+s.Unit[1:]+" per second", note, s.rates(here))
	add("Latency", place, s.latency(here))
	decided := s.rowsThat(func(r *Row) bool { return r.Name == NewFlow && r.Workers <= 1 })
	rules, pods := func(r *Row) int { return r.Rules }, func(r *Row) int { return r.Pods }
	ns := func(r *Row) float64 { return r.NS }
	add("Scaling with rules", "processor time to decode and decide a new flow", s.curve(decided, scaling{
		place: rules, group: func(r *Row) string { return count(r.Pods) + " pods" }, value: ns, xTitle: "rules", yTitle: "ns a packet", log: true,
	}))
	add("Scaling with pods", "processor time to decode and decide a new flow", s.curve(decided, scaling{
		place: pods, group: func(r *Row) string { return count(r.Rules) + " rules" }, value: ns, xTitle: "pods", yTitle: "ns a packet", log: true,
	}))
	add("Where the time goes", place, s.shares(here))
	threads := s.rowsThat(func(r *Row) bool { return r.Rules == last.Rules && r.Pods == last.Pods && r.Workers > 0 })
	add("Scaling with threads", placeText(last), s.curve(threads, scaling{
		place: func(r *Row) int { return r.Workers }, group: func(r *Row) string { return r.Name }, xTitle: "threads", yTitle: "times the rate of one thread", ideal: "ideal",
		value: func(r *Row) float64 {
			one := *r
			one.Workers = 1
			if alone := s.find(one.key()); alone != nil && alone.PerSecond > 0 {
				return r.PerSecond / alone.PerSecond
			}
			return 0
		},
	}))
}

// table makes the columns that have anything in them.
func (s *section) table() {
	for i := range s.Rows {
		s.Lines = append(s.Lines, tableLine{Name: s.Rows[i].Name})
	}
	add := func(head string, text func(*Row) cell) {
		cells, any := make([]cell, len(s.Rows)), false
		for i := range s.Rows {
			cells[i] = text(&s.Rows[i])
			any = any || cells[i].Text != ""
		}
		if !any {
			return
		}
		s.Columns = append(s.Columns, head)
		for i := range cells {
			s.Lines[i].Cells = append(s.Lines[i].Cells, cells[i])
		}
	}
	number := func(f func(*Row) int) func(*Row) cell {
		return func(r *Row) cell {
			if f(r) == 0 {
				return cell{}
			}
			return cell{Text: count(f(r))}
		}
	}
	add("rules", number(func(r *Row) int { return r.Rules }))
	add("pods", number(func(r *Row) int { return r.Pods }))
	add("threads", number(func(r *Row) int { return r.Workers }))
	add(s.Unit+"/s", func(r *Row) cell { return cell{Text: short(r.PerSecond)} })
	add("× "+s.Reference, func(r *Row) cell {
		if ref := s.reference(r); s.Reference != "" && ref != nil && ref.PerSecond > 0 {
			return cell{Text: fmt.Sprintf("%.2f", r.PerSecond/ref.PerSecond)}
		}
		return cell{}
	})
	add("ns each", func(r *Row) cell { return cell{Text: short(r.NS)} })
	add("p50", func(r *Row) cell { return cell{Text: duration(r.P50)} })
	add("p99", func(r *Row) cell { return cell{Text: duration(r.P99)} })
	add("p99.9", func(r *Row) cell { return cell{Text: duration(r.P999)} })
	add("allocations", func(r *Row) cell {
		if r.Allocs == nil {
			return cell{}
		}
		return cell{Text: fmt.Sprintf("%.3g", *r.Allocs)}
	})
	add("lost", func(r *Row) cell {
		if r.Lost == 0 {
			return cell{}
		}
		return cell{Text: fmt.Sprintf("%d of %d", r.Lost, r.Count)}
	})
	add("× earlier", func(r *Row) cell {
		gain, ok := r.Gain(s.earlier)
		switch {
		case !ok:
			return cell{}
		case gain < 0.95:
			return cell{fmt.Sprintf("%.2f", gain), "slower"}
		case gain > 1.05:
			return cell{fmt.Sprintf("%.2f", gain), "faster"}
		}
		return cell{Text: fmt.Sprintf("%.2f", gain)}
	})
}

func (s *section) rowsThat(f func(*Row) bool) (out []*Row) {
	for i := range s.Rows {
		if f(&s.Rows[i]) {
			out = append(out, &s.Rows[i])
		}
	}
	return out
}

func placeText(r *Row) string {
	if r.Rules == 0 {
		return ""
	}
	return fmt.Sprintf("%s rules, %s pods", count(r.Rules), count(r.Pods))
}
