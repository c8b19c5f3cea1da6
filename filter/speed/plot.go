package speed

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// Plots are inline SVG of a fixed width that the page scales. Colours are classes of
// the page's style (s0 to s7), so that they follow light and dark.

// bar is one bar of a chart of rates.
type bar struct {
	label string
	value float64
	note  string
}

const plotWidth = 560

// bars draws horizontal bars with their values.
func bars(list []bar, unit string) string {
	const row, top, left, right = 34, 6, 150, 120
	most := 0.0
	for _, b := range list {
		most = max(most, b.value)
	}
	if most == 0 {
		return ""
	}
	var s strings.Builder
	height := top + row*len(list) + 4
	open(&s, height, "rates, in "+unit)
	for i, b := range list {
		y := top + i*row
		width := (plotWidth - left - right) * b.value / most
		text(&s, left-10, float64(y)+20, "label end", b.label)
		fmt.Fprintf(&s, `<rect class="f%d" x="%d" y="%d" width="%.1f" height="%d" rx="3"/>`, i%series, left, y+3, max(width, 1), row-10)
		note := short(b.value)
		if b.note != "" {
			note += "  " + b.note
		}
		text(&s, left+width+8, float64(y)+20, "value", note)
	}
	s.WriteString("</svg>")
	return s.String()
}

const series = 8

// line is one curve.
type line struct {
	name   string
	points []point
	color  int
}

type point struct{ x, y float64 }

// axis maps values to a line of so many units. Ticks are given, or powers of ten.
type axis struct {
	low, high float64
	log       bool
	ticks     []tick
}

type tick struct {
	at   float64
	text string
}

func (a axis) place(v float64) float64 {
	if a.high == a.low {
		return 0.5
	}
	if a.log {
		return math.Log(v/a.low) / math.Log(a.high/a.low)
	}
	return (v - a.low) / (a.high - a.low)
}

// decades makes a logarithmic axis around values, all positive.
func decades(values []float64, label func(float64) string) axis {
	low, high := math.Pow(10, math.Floor(math.Log10(slices.Min(values)))), math.Pow(10, math.Ceil(math.Log10(slices.Max(values))))
	if low == high {
		high *= 10
	}
	a := axis{low: low, high: high, log: true}
	for v := low; v <= high*1.001; v *= 10 {
		a.ticks = append(a.ticks, tick{v, label(v)})
	}
	return a
}

// fromZero makes a linear axis with round ticks.
func fromZero(values []float64, label func(float64) string) axis {
	most := slices.Max(values) * 1.08
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for _, part := range []float64{0.2, 0.5} {
		if most/(step*part) <= 6 {
			step *= part
			break
		}
	}
	high := math.Ceil(most/step) * step
	a := axis{high: high}
	for v := 0.0; v <= high*1.001; v += step {
		a.ticks = append(a.ticks, tick{v, label(v)})
	}
	return a
}

// lines draws curves over common axes, with a legend below; dots marks the points.
func lines(list []line, x, y axis, title, xTitle, yTitle string, dots bool) string {
	const top, left, right, plotHeight = 26, 66, 18, 230
	const width = plotWidth - left - right
	perRow := 3
	rows := (len(list) + perRow - 1) / perRow
	var s strings.Builder
	open(&s, top+plotHeight+52+rows*20, title)
	text(&s, left, 14, "axis", yTitle)
	for _, t := range y.ticks {
		at := top + plotHeight*(1-y.place(t.at))
		fmt.Fprintf(&s, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`, left, left+width, at, at)
		text(&s, left-8, at+4, "tick end", t.text)
	}
	for _, t := range x.ticks {
		at := left + width*x.place(t.at)
		fmt.Fprintf(&s, `<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, at, at, top, top+plotHeight)
		text(&s, at, top+plotHeight+17, "tick middle", t.text)
	}
	text(&s, left+width/2, top+plotHeight+36, "axis middle", xTitle)
	for i, l := range list {
		var path strings.Builder
		for n, p := range l.points {
			px, py := left+width*x.place(p.x), top+plotHeight*(1-y.place(p.y))
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(n, 1)], px, py)
			if dots {
				fmt.Fprintf(&s, `<circle class="f%d" cx="%.1f" cy="%.1f" r="3.5"><title>%s</title></circle>`, l.color%series, px, py,
					html.EscapeString(fmt.Sprintf("%s: %s", l.name, short(p.y))))
			}
		}
		fmt.Fprintf(&s, `<path class="s%d" d="%s"/>`, l.color%series, path.String())
		lx, ly := float64(left+i%perRow*(width/perRow)), float64(top+plotHeight+56+i/perRow*20)
		fmt.Fprintf(&s, `<rect class="f%d" x="%.1f" y="%.1f" width="12" height="12" rx="2"/>`, l.color%series, lx, ly-10)
		text(&s, lx+18, ly, "label", l.name)
	}
	s.WriteString("</svg>")
	return s.String()
}

func open(s *strings.Builder, height int, title string) {
	fmt.Fprintf(s, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, plotWidth, height, html.EscapeString(title))
}

func text(s *strings.Builder, x, y float64, class, value string) {
	fmt.Fprintf(s, `<text class="%s" x="%.1f" y="%.1f">%s</text>`, class, x, y, html.EscapeString(value))
}

// quantiles draws the latency of rows over their quantiles: to the right is rarer.
func quantiles(rows []*Row) string {
	var list []line
	var ys []float64
	last := 0.0
	for i, r := range rows {
		l := line{name: r.Name, color: i}
		total, seen := uint64(0), uint64(0)
		for _, b := range r.Latency {
			total += b.Count
		}
		for _, b := range r.Latency {
			seen += b.Count
			rest := float64(total-seen) / float64(total)
			nines := 6.0 // for the slowest of all, as far as there are enough to tell
			if rest > 0 {
				nines = -math.Log10(rest)
			}
			nines = min(nines, math.Log10(float64(total)))
			l.points = append(l.points, point{nines, max(float64(b.Low+b.High)/2, 1)})
		}
		if len(l.points) == 0 {
			continue
		}
		for _, p := range l.points {
			ys, last = append(ys, p.y), max(last, p.x)
		}
		list = append(list, l)
	}
	if len(list) == 0 {
		return ""
	}
	x := axis{high: last}
	for _, t := range []tick{{0, "0"}, {0.30103, "50 %"}, {1, "90 %"}, {2, "99 %"}, {3, "99.9 %"}, {4, "99.99 %"}, {5, "99.999 %"}} {
		if t.at <= last && t.at != 0 {
			x.ticks = append(x.ticks, t)
		}
	}
	return lines(list, x, decades(ys, duration), "latency", "of all, this part is at most as slow", "latency", false)
}

// curve draws a value over a place, a line for each group.
func curve(rows []*Row, place func(*Row) int, group func(*Row) string, value func(*Row) float64, xTitle, yTitle string, label func(float64) string, logX bool) string {
	by := map[string]*line{}
	var order []string
	var xs, ys []float64
	for _, r := range rows {
		name := group(r)
		if by[name] == nil {
			by[name] = &line{name: name, color: len(order)}
			order = append(order, name)
		}
		p := point{float64(place(r)), value(r)}
		by[name].points = append(by[name].points, p)
		xs, ys = append(xs, p.x), append(ys, p.y)
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	if len(xs) < 2 {
		return "" // no curve
	}
	var list []line
	for _, name := range order {
		slices.SortFunc(by[name].points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
		list = append(list, *by[name])
	}
	x := axis{low: xs[0], high: xs[len(xs)-1], log: logX}
	for _, v := range xs {
		x.ticks = append(x.ticks, tick{v, short(v)})
	}
	return lines(list, x, fromZero(ys, label), yTitle+" by "+xTitle, xTitle, yTitle, true)
}
