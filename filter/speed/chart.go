package speed

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"
)

// A chart is drawn once and shown in two ways: within the page, which scales it and
// sets its legend as text, and as a file of its own. Lengths are units of a fixed
// width; colours are classes (s0 to s7, f0 to f7) of the style around it, so that they
// follow light and dark.
type chart struct {
	body   strings.Builder
	height int
	label  string // for those who cannot see it
	legend []key
}

// key explains a colour.
type key struct {
	Color  int
	Name   string
	Dashed bool // the line of what is compared with
}

const (
	chartWidth = 460
	series     = 8
)

// SVG is the chart without its legend, for the page.
func (c *chart) SVG() template.HTML { return template.HTML(c.svg(c.height, "", "")) }

// File is the chart as a file, with its title, legend and style.
func (c *chart) File(title, note string) []byte {
	const head, left, perRow, pitch = 52, 16, 2, 20
	var inner strings.Builder
	fmt.Fprintf(&inner, `<rect class="card" x="0.5" y="0.5" width="%d" height="%d" rx="10"/>`, chartWidth+2*left-1, c.height+head+left-1+pitch*((len(c.legend)+perRow-1)/perRow))
	text(&inner, left, 25, "title", title)
	text(&inner, left, 42, "tick", note)
	fmt.Fprintf(&inner, `<g transform="translate(%d,%d)">%s`, left, head, c.body.String())
	for i, k := range c.legend {
		x, y := float64(i%perRow*chartWidth/perRow), float64(c.height+12+i/perRow*pitch)
		if k.Dashed {
			fmt.Fprintf(&inner, `<path class="was" d="M%.0f %.0fh12"/>`, x, y-4)
		} else {
			fmt.Fprintf(&inner, `<rect class="f%d" x="%.0f" y="%.0f" width="11" height="11" rx="2.5"/>`, k.Color%series, x, y-10)
		}
		text(&inner, x+17, y, "", k.Name)
	}
	inner.WriteString("</g>")
	d := chart{label: title}
	d.body.WriteString(inner.String())
	height := c.height + head + left + pitch*((len(c.legend)+perRow-1)/perRow)
	return []byte(d.svg(height, ` xmlns="http://www.w3.org/2000/svg"`, "<style>"+fileStyle+"</style>") + "\n")
}

func (c *chart) svg(height int, attributes, style string) string {
	width := chartWidth
	if attributes != "" {
		width += 32
		attributes += fmt.Sprintf(` width="%d" height="%d"`, width, height)
	}
	return fmt.Sprintf(`<svg%s viewBox="0 0 %d %d" role="img" aria-label="%s">%s%s</svg>`, attributes, width, height, html.EscapeString(c.label), style, c.body.String())
}

func text(s *strings.Builder, x, y float64, class, value string) {
	if value != "" {
		fmt.Fprintf(s, `<text class="%s" x="%.1f" y="%.1f">%s</text>`, class, x, y, html.EscapeString(value))
	}
}

// hint is what a pointer is shown.
func hint(format string, args ...any) string {
	return "<title>" + html.EscapeString(fmt.Sprintf(format, args...)) + "</title>"
}

// bar is one bar, of one part or several in a row.
type bar struct {
	name, value string
	parts       []part
	earlier     float64 // 0 for nothing to compare with
}

type part struct {
	size  float64
	color int
	hint  string
}

// bars draws horizontal bars, each below its name and value.
func bars(list []bar, label string) *chart {
	most := 0.0
	for _, b := range list {
		sum := 0.0
		for _, p := range b.parts {
			sum += p.size
		}
		most = max(most, sum, b.earlier)
	}
	if most == 0 {
		return nil
	}
	pitch := min(max(300/len(list), 44), 88)
	c := &chart{height: pitch * len(list), label: label}
	for i, b := range list {
		y, thick := float64(i*pitch), float64(min(pitch-34, 40))
		text(&c.body, 0, y+14, "", b.name)
		text(&c.body, chartWidth, y+14, "end", b.value)
		fmt.Fprintf(&c.body, `<rect class="trough" x="0" y="%.1f" width="%d" height="%.1f" rx="3"/>`, y+21, chartWidth, thick)
		x := 0.0
		for _, p := range b.parts {
			width := max(chartWidth*p.size/most, 1)
			fmt.Fprintf(&c.body, `<rect class="f%d" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="3">%s</rect>`, p.color%series, x, y+21, width, thick, hint("%s", p.hint))
			x += width
		}
		if b.earlier > 0 {
			fmt.Fprintf(&c.body, `<path class="was" d="M%.1f %.1fv%.1f">%s</path>`, chartWidth*b.earlier/most, y+18, thick+6, hint("earlier: %s", short(b.earlier)))
		}
	}
	return c
}

// line is one curve.
type line struct {
	name   string
	points []point
	color  int
	dashed bool // not measured: what would be ideal
}

// point is a place of a curve; it is marked if it has a hint.
type point struct {
	x, y float64
	hint string
}

// axis maps values to a line from 0 to 1.
type axis struct {
	title     string
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
func decades(title string, values []float64, label func(float64) string) axis {
	low, high := math.Pow(10, math.Floor(math.Log10(slices.Min(values)))), math.Pow(10, math.Ceil(math.Log10(slices.Max(values))))
	if low == high {
		high *= 10
	}
	a := axis{title: title, low: low, high: high, log: true}
	for v := low; v <= high*1.001; v *= 10 {
		a.ticks = append(a.ticks, tick{v, label(v)})
	}
	return a
}

// fromZero makes a linear axis with four to six round ticks.
func fromZero(title string, values []float64, label func(float64) string) axis {
	most := slices.Max(values) * 1.05
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for _, part := range []float64{0.1, 0.2, 0.5, 1, 2} {
		if most/(step*part) <= 5 {
			step *= part
			break
		}
	}
	high := math.Ceil(most/step) * step
	a := axis{title: title, high: high}
	for v := 0.0; v <= high*1.001; v += step {
		a.ticks = append(a.ticks, tick{v, label(v)})
	}
	return a
}

// lines draws curves over common axes.
func lines(list []line, x, y axis, label string) *chart {
	const top, left, right, height = 26, 60, 18, 236
	const width = chartWidth - left - right
	c := &chart{height: top + height + 44, label: label}
	s := &c.body
	text(s, 0, 12, "tick", y.title)
	for _, t := range y.ticks {
		at := top + height*(1-y.place(t.at))
		fmt.Fprintf(s, `<path class="grid" d="M%d %.1fH%d"/>`, left, at, left+width)
		text(s, left-9, at+4, "tick end", t.text)
	}
	for _, t := range x.ticks {
		at := left + width*x.place(t.at)
		fmt.Fprintf(s, `<path class="grid" d="M%.1f %dV%d"/>`, at, top, top+height)
		text(s, at, top+height+18, "tick middle", t.text)
	}
	text(s, left+width/2, top+height+38, "tick middle", x.title)
	for _, l := range list {
		var path, dots strings.Builder
		for n, p := range l.points {
			px, py := left+width*x.place(p.x), top+height*(1-y.place(p.y))
			fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(n, 1)], px, py)
			if p.hint != "" {
				fmt.Fprintf(&dots, `<circle class="dot f%d" cx="%.1f" cy="%.1f" r="4">%s</circle>`, l.color%series, px, py, hint("%s: %s", l.name, p.hint))
			}
		}
		class := fmt.Sprintf("curve s%d", l.color%series)
		if l.dashed {
			class = "was"
		}
		fmt.Fprintf(s, `<path class="%s" d="%s"/>%s`, class, path.String(), dots.String())
		c.legend = append(c.legend, key{l.color % series, l.name, l.dashed})
	}
	return c
}
