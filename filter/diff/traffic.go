package diff

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/flow"
)

var familyNames = [2]string{"IPv4", "IPv6"}

// protocols names the protocols that have cells of their own.
func (c *comparison) protocols() (out []string) {
	for _, cells := range c.cells {
		for _, cell := range cells {
			if name := cell.proto.String(); !cell.other && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// render gives the traffic of some cells, as text and as data. families are those
// that the ends have in common.
func (c *comparison) render(cells [2][]int, families [2]bool) (string, []Traffic) {
	var lists [2][]Traffic
	var texts [2]string
	for fam := range cells {
		if len(cells[fam]) > 0 {
			lists[fam], texts[fam] = c.traffic(fam, cells[fam]), c.text(fam, cells[fam])
		}
	}
	both := families[0] && families[1]
	if !both || texts[0] == texts[1] {
		return cmp.Or(texts[0], texts[1]), union(slices.Clone(lists[0]), lists[1])
	}
	var parts []string
	var list []Traffic
	for fam, text := range texts {
		if text == "" {
			continue
		}
		// These exist in one family only, so there is nothing to add.
		if texts[1-fam] != "" || !strings.HasPrefix(text, "icmp") || strings.Contains(text, ",") {
			text = familyNames[fam] + ": " + text
		}
		parts = append(parts, text)
		for _, t := range lists[fam] {
			t.Family = familyNames[fam]
			list = append(list, t)
		}
	}
	return strings.Join(parts, "; "), list
}

// part is what some cells hold of one protocol, by source ports.
type part struct {
	proto flow.Proto
	other bool
	rows  []row
}

type row struct{ src, dst []flow.PortRange }

func (p *part) name() string {
	if p.other {
		return "other"
	}
	return p.proto.String()
}

// parts sorts cells by protocol and joins ranges.
func (c *comparison) parts(fam int, cells []int) (out []part) {
	for len(cells) > 0 {
		first := c.cells[fam][cells[0]]
		n := 1
		for n < len(cells) && c.cells[fam][cells[n]].proto == first.proto {
			n++
		}
		p := part{proto: first.proto, other: first.other}
		bySource := make(map[flow.PortRange]int)
		for _, i := range cells[:n] {
			cell := c.cells[fam][i]
			k, known := bySource[cell.src]
			if !known {
				k = len(p.rows)
				bySource[cell.src] = k
				p.rows = append(p.rows, row{src: []flow.PortRange{cell.src}})
			}
			p.rows[k].dst = append(p.rows[k].dst, cell.dst)
		}
		p.rows = joinRows(p.rows)
		out, cells = append(out, p), cells[n:]
	}
	return out
}

// joinRows joins rows of the same destination ports.
func joinRows(rows []row) (out []row) {
	for _, r := range rows {
		r.dst = join(r.dst)
		i := slices.IndexFunc(out, func(o row) bool { return slices.Equal(o.dst, r.dst) })
		if i < 0 {
			out = append(out, r)
			continue
		}
		out[i].src = join(append(out[i].src, r.src...))
	}
	return out
}

func isWhole(r []flow.PortRange) bool { return len(r) == 1 && r[0] == whole }

func (c *comparison) traffic(fam int, cells []int) (out []Traffic) {
	if len(cells) == c.all[fam] && c.options.Port == nil {
		return []Traffic{{Protocol: "any"}}
	}
	for _, p := range c.parts(fam, cells) {
		for _, r := range p.rows {
			t := Traffic{Protocol: p.name()}
			switch {
			case isWhole(r.dst):
			case p.proto.HasPorts():
				t.Ports = r.dst
			default:
				t.ICMP = r.dst
			}
			if !isWhole(r.src) {
				t.SourcePorts = r.src
			}
			out = append(out, t)
		}
	}
	return out
}

// text says which traffic the cells are; what includes other protocols is said by
// what it leaves out.
func (c *comparison) text(fam int, cells []int) string {
	other := slices.ContainsFunc(cells, func(i int) bool { return c.cells[fam][i].other })
	if c.options.Port != nil || !other {
		return c.list(fam, cells)
	}
	var without []int
	for i := range c.cells[fam] {
		if !slices.Contains(cells, i) {
			without = append(without, i)
		}
	}
	if len(without) == 0 {
		return "any protocol"
	}
	return "any protocol except " + c.list(fam, without)
}

func (c *comparison) list(fam int, cells []int) string {
	var out []string
	for _, p := range c.parts(fam, cells) {
		for _, r := range p.rows {
			out = append(out, p.text(r))
		}
	}
	return strings.Join(out, ", ")
}

func (p *part) text(r row) string {
	text := p.name()
	switch {
	case p.other:
		return "other protocols"
	case !p.proto.HasPorts() && p.proto != flow.ICMP && p.proto != flow.ICMPv6:
		text = strings.TrimSpace("protocol " + text)
		if p.proto == flow.UDPLite {
			text = "udplite"
		}
	case isWhole(r.dst):
	default:
		numbers, sep, exclude := rangesText, "/", outside(r.dst)
		if !p.proto.HasPorts() {
			numbers, sep = icmpText, " "
		}
		open := r.dst[0].Min == 0 && r.dst[len(r.dst)-1].Max == last
		if open && len(exclude) <= len(r.dst) {
			text += " except " + numbers(exclude)
		} else {
			text += sep + numbers(r.dst)
		}
	}
	if !isWhole(r.src) {
		text += " from source port " + rangesText(r.src)
	}
	return text
}

func rangesText(list []flow.PortRange) string {
	var out []string
	for _, r := range list {
		out = append(out, span(uint32(r.Min), uint32(r.Max)))
	}
	return strings.Join(out, ",")
}

func span(low, high uint32) string {
	if low == high {
		return fmt.Sprint(low)
	}
	return fmt.Sprintf("%d-%d", low, high)
}

// icmpText prints ranges of type<<8 | code: "type 8, type 3 code 0-3".
func icmpText(list []flow.PortRange) string {
	var out []string
	for _, r := range list {
		low, high := uint32(r.Min), uint32(r.Max)
		for low <= high {
			typ, code := low>>8, low&0xff
			end := min(high, typ<<8|0xff)
			if code == 0 && high-low >= 0xff { // whole types
				n := (high - low + 1) >> 8
				out = append(out, "type "+span(typ, typ+n-1))
				low += n << 8
				continue
			}
			out = append(out, fmt.Sprintf("type %d code %s", typ, span(code, end&0xff)))
			low = end + 1
		}
	}
	return strings.Join(out, ", ")
}
