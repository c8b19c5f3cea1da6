package speed

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"short": short, "duration": duration,
	"allocs": func(a *float64) string {
		if a == nil {
			return ""
		}
		return fmt.Sprintf("%.3g", *a)
	},
}).Parse(pageText))

// section is one result on the page.
type section struct {
	*Result
	Title, About string
	Settings     []string
	Plots        []plot
	Lines        []tableLine
	HasNS        bool
	HasLatency   bool
	HasAllocs    bool
	HasLost      bool
}

type plot struct {
	Title, Note string
	SVG         template.HTML // made here, its texts escaped
}

type tableLine struct {
	Label string
	Ratio string
	*Row
}

var titles = map[string][2]string{
	"decide":  {"Decisions in memory", "Packets that lie ready in memory. Decode reads the headers; new flow decodes and decides, as the verdict loop does with the first packet of a flow; replayed also keeps a table of flows, in which nearly every packet belongs to one that was decided before."},
	"kernel":  {"Packets through the kernel", "Packets written to one TUN device of a network namespace and read from another, with postern's table and queue between, and without."},
	"connect": {"New connections through a node", "TCP connections from one pod to another through the node between them: connect, a byte there and back, reset. Latency is of connect alone."},
}

// Page writes a page about results: one file, without scripts and without anything
// from elsewhere.
func Page(w io.Writer, results []*Result) error {
	var sections []*section
	for _, r := range results {
		sections = append(sections, newSection(r))
	}
	return pageTemplate.Execute(w, sections)
}

func newSection(r *Result) *section {
	s := &section{Result: r, Title: r.Bench}
	if t, ok := titles[r.Bench]; ok {
		s.Title, s.About = t[0], t[1]
	}
	for _, k := range slices.Sorted(maps.Keys(r.Settings)) {
		s.Settings = append(s.Settings, k+" "+r.Settings[k])
	}
	for i := range r.Rows {
		row := &r.Rows[i]
		l := tableLine{Label: row.label(), Row: row}
		if ref := r.reference(row); r.Reference != "" && ref != nil && ref.PerSecond > 0 {
			l.Ratio = fmt.Sprintf("%.2f", row.PerSecond/ref.PerSecond)
		}
		s.Lines = append(s.Lines, l)
		s.HasNS = s.HasNS || row.NS > 0
		s.HasLatency = s.HasLatency || row.P50 > 0
		s.HasAllocs = s.HasAllocs || row.Allocs != nil
		s.HasLost = s.HasLost || row.Lost > 0
	}
	s.plot()
	return s
}

func (s *section) add(title, note, svg string) {
	if svg != "" {
		s.Plots = append(s.Plots, plot{title, note, template.HTML(svg)})
	}
}

// plot draws what there is to draw.
func (s *section) plot() {
	if len(s.Rows) == 0 || s.Unit == "" {
		return
	}
	last := s.Rows[len(s.Rows)-1] // the largest of a sweep
	here := s.rowsThat(func(r *Row) bool { return r.Rules == last.Rules && r.Pods == last.Pods && r.Workers <= 1 })
	var list []bar
	for _, r := range here {
		b := bar{label: r.Name, value: r.PerSecond}
		if ref := s.reference(r); s.Reference != "" && ref != nil && ref != r && ref.PerSecond > 0 {
			b.note = fmt.Sprintf("× %.2f", r.PerSecond/ref.PerSecond)
		}
		list = append(list, b)
	}
	note := threaded(&last)
	if s.Reference != "" {
		note = strings.TrimPrefix(note+"; × is the ratio to "+s.Reference, "; ")
	}
	s.add(strings.ToUpper(s.Unit[:1])+s.Unit[1:]+" per second", note, bars(list, s.Unit+" per second"))
	s.add("Latency", threaded(&last), quantiles(here))

	decided := s.rowsThat(func(r *Row) bool { return r.Name == NewFlow && r.Workers <= 1 })
	ns := func(r *Row) float64 { return r.NS }
	s.add("Scaling with rules", "processor time to decode and decide", curve(decided, func(r *Row) int { return r.Rules },
		func(r *Row) string { return short(float64(r.Pods)) + " pods" }, ns, "rules", "ns a packet", zero, true))
	s.add("Scaling with pods", "processor time to decode and decide", curve(decided, func(r *Row) int { return r.Pods },
		func(r *Row) string { return short(float64(r.Rules)) + " rules" }, ns, "pods", "ns a packet", zero, true))
	threads := s.rowsThat(func(r *Row) bool { return r.Rules == last.Rules && r.Pods == last.Pods && r.Workers > 0 })
	s.add("Scaling with threads", placeText(&last), curve(threads, func(r *Row) int { return r.Workers },
		func(r *Row) string { return r.Name }, func(r *Row) float64 { return r.PerSecond }, "threads", s.Unit+" per second", zero, false))
}

func zero(v float64) string {
	if v == 0 {
		return "0"
	}
	return short(v)
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
	return fmt.Sprintf("%s rules, %s pods", short(float64(r.Rules)), short(float64(r.Pods)))
}

func threaded(r *Row) string {
	if text := placeText(r); text != "" {
		return text + ", one thread"
	}
	return ""
}
