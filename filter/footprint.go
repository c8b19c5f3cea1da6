package filter

// Footprint counts what the compiled segments of a Ruleset are made of, each
// shared piece once.
type Footprint struct {
	Signatures int // addresses of one signature are one to every rule
	Segments   int
	Lanes      int
	Pages      int
	IndexBytes int
	Rows       int
	Spans      int // of all rows
	OneByOne   int // rules that segments match one by one
}

// Footprint walks everything and is meant for status and for tests of bounds.
func (rs *Ruleset) Footprint() Footprint {
	f := Footprint{Signatures: len(rs.signatures)}
	segments, pages, rows := make(map[*segment]bool), make(map[*page]bool), make(map[*row]bool)
	addRow := func(r *row) {
		if !rows[r] {
			rows[r] = true
			f.Rows++
			f.Spans += len(r.spans)
		}
	}
	addLane := func(l *lane) {
		f.Lanes++
		f.IndexBytes += len(l.index)
		addRow(l.rest)
		for _, r := range l.rows {
			addRow(r)
		}
		for _, p := range l.pages {
			if pages[p] {
				continue
			}
			pages[p] = true
			f.Pages++
			for _, r := range p {
				addRow(r)
			}
		}
	}
	addProgram := func(p *program) {
		for seg := range p.segments {
			if segments[seg] {
				continue
			}
			segments[seg] = true
			f.Segments++
			seg.each(addLane)
			if seg.aside != nil {
				f.OneByOne += len(seg.aside.rules)
			}
		}
	}
	for _, end := range rs.ends[firstEnd:] {
		addProgram(&end[0])
		addProgram(&end[1])
	}
	for _, h := range rs.hosts {
		for _, chain := range h {
			addProgram(chain[0])
			addProgram(chain[1])
		}
	}
	return f
}
