package speed

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// What is drawn of a result, from its rows.

// rates draws how many there were in a second, and beside each how many times that of
// the reference it is, and where it was in the earlier result.
func (s *section) rates(rows []*Row) *chart {
	var list []bar
	compared := false
	for _, r := range rows {
		b := bar{name: r.Name, value: short(r.PerSecond), parts: []part{{r.PerSecond, s.color(r.Name), fmt.Sprintf("%s: %s %s per second", r.Name, short(r.PerSecond), s.Unit)}}}
		if ref := s.reference(r); s.Reference != "" && ref != nil && ref != r && ref.PerSecond > 0 {
			b.value += fmt.Sprintf("   × %.2f", r.PerSecond/ref.PerSecond)
		}
		if s.earlier != nil {
			if old := s.earlier.find(r.key()); old != nil {
				b.earlier, compared = old.PerSecond, true
			}
		}
		list = append(list, b)
	}
	c := bars(list, s.Unit+" per second")
	if c != nil && compared {
		c.legend = append(c.legend, key{Name: "earlier", Dashed: true})
	}
	return c
}

// shares draws what a new flow and a packet of a known one spend their time on.
func (s *section) shares(rows []*Row) *chart {
	by := map[string]*Row{}
	for _, r := range rows {
		by[r.Name] = r
	}
	read := by[Decode]
	if read == nil {
		return nil
	}
	var list []bar
	for _, of := range []struct {
		name, rest string
		color      int
	}{{NewFlow, "decide", 1}, {KnownFlow, "find and follow the flow", 2}} {
		r := by[of.name]
		if r == nil || r.NS <= read.NS {
			continue
		}
		list = append(list, bar{name: of.name, value: fmt.Sprintf("%s + %s ns", short(read.NS), short(r.NS-read.NS)), parts: []part{
			{read.NS, 0, fmt.Sprintf("decode: %s ns", short(read.NS))}, {r.NS - read.NS, of.color, fmt.Sprintf("%s: %s ns", of.rest, short(r.NS-read.NS))},
		}})
	}
	if len(list) == 0 {
		return nil
	}
	c := bars(list, "processor time by part")
	c.legend = []key{{Color: 0, Name: "read the headers"}, {Color: 1, Name: "decide"}, {Color: 2, Name: "find and follow the flow"}}
	return c
}

// marks are the quantiles that axes of latency name.
var marks = []tick{{0.5, "50 %"}, {0.9, "90 %"}, {0.99, "99 %"}, {0.999, "99.9 %"}, {0.9999, "99.99 %"}, {0.99999, "99.999 %"}}

// nines is the place of a quantile on the axis: 1 for 90 %, 2 for 99 %.
func nines(q float64) float64 { return -math.Log10(1 - q) }

// latency draws the distribution of each row over its quantiles: to the right is rarer,
// as far as there were ten of its kind.
func (s *section) latency(rows []*Row) *chart {
	var list []line
	var ys []float64
	last := 0.0
	for _, r := range rows {
		l := line{name: r.Name, color: s.color(r.Name)}
		total, seen := uint64(0), uint64(0)
		for _, b := range r.Latency {
			total += b.Count
		}
		next := 0 // mark
		for _, b := range r.Latency {
			before := float64(seen) / float64(total)
			seen += b.Count
			if total-seen < 10 && seen != b.Count {
				break
			}
			after, value := float64(seen)/float64(total), max(float64(b.Low+b.High)/2, 1)
			for ; next < len(marks) && marks[next].at < after; next++ {
				at := max(marks[next].at, before)
				l.points = append(l.points, point{nines(at), value, fmt.Sprintf("%s at %s", duration(value), marks[next].text)})
			}
			if after < 1 {
				l.points = append(l.points, point{x: nines(after), y: value})
			}
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
		return nil
	}
	x := axis{title: "this part of all is at most as slow", high: last}
	for _, m := range marks {
		if at := nines(m.at); at <= last {
			x.ticks = append(x.ticks, tick{at, m.text})
		}
	}
	return lines(list, x, decades("latency", ys, duration), "latency by quantile")
}

// scaling says what to draw over a place of the rows.
type scaling struct {
	place          func(*Row) int
	group          func(*Row) string
	value          func(*Row) float64
	xTitle, yTitle string
	log            bool // the places
	ideal          string
}

// curve draws a value over a place, a line for each group; nil for fewer than two
// places.
func (s *section) curve(rows []*Row, of scaling) *chart {
	by := map[string]*line{}
	var order []string
	var xs, ys []float64
	for _, r := range rows {
		v := of.value(r)
		if v <= 0 {
			continue
		}
		name := of.group(r)
		if by[name] == nil {
			by[name] = &line{name: name, color: len(order)}
			order = append(order, name)
		}
		p := point{x: float64(of.place(r)), y: v}
		p.hint = fmt.Sprintf("%s %s at %s %s", short(v), of.yTitle, count(of.place(r)), of.xTitle)
		by[name].points = append(by[name].points, p)
		xs, ys = append(xs, p.x), append(ys, p.y)
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	if len(xs) < 2 {
		return nil
	}
	var list []line
	if of.ideal != "" {
		list = append(list, line{name: of.ideal, dashed: true, points: []point{{x: xs[0], y: xs[0]}, {x: xs[len(xs)-1], y: xs[len(xs)-1]}}})
		ys = append(ys, xs[len(xs)-1])
	}
	for _, name := range order {
		slices.SortFunc(by[name].points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
		list = append(list, *by[name])
	}
	x := axis{title: of.xTitle, low: xs[0], high: xs[len(xs)-1], log: of.log}
	for _, v := range xs {
		x.ticks = append(x.ticks, tick{v, count(int(v))})
	}
	return lines(list, x, fromZero(of.yTitle, ys, func(v float64) string {
		if v == 0 {
			return "0"
		}
		return short(v)
	}), of.yTitle+" by "+of.xTitle)
}

// count prints a whole number with its thousands apart.
func count(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", count(n/1000), n%1000)
}
