package filter

// Footprint counts what the compiled segments of a Ruleset are made of, each
// shared piece once.
type Footprint struct {
	Signatures int // addresses of one signature are one to every rule
	Segments   int
	Lanes      int
	Pages      int
	IndexBytes int
	Lines      int // of 32 bytes
	OneByOne   int // rules that segments match one by one
}

// Footprint walks everything and is meant for status and for tests of bounds.
func (rs *Ruleset) Footprint() Footprint {
	f := Footprint{Signatures: len(rs.signatures)}
	segments, pages := make(map[*segment]bool), make(map[*page]bool)
	addLane := func(l *lane) {
		f.Lanes++
		f.IndexBytes += len(l.index)
		f.Lines += len(l.lines)
		for _, p := range l.pages {
			if !pages[p] {
				pages[p] = true
				f.Pages++
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
	for i := range rs.ends {
		addProgram(&rs.ends[i])
	}
	for _, h := range rs.hosts {
		for _, chain := range h {
			addProgram(chain[0])
			addProgram(chain[1])
		}
	}
	return f
}
