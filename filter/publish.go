package filter

import (
	"maps"
	"net/netip"
	"slices"
)

// Publish gives the Ruleset of what the Builder was told up to now.
func (b *Builder) Publish(generation uint64) *Ruleset {
	b.compileStale()
	if b.changedEnds {
		b.link()
	}
	rs := &Ruleset{
		generation: generation,
		serial:     serials.Add(1),
		table:      b.addresses.View(),
		classes:    b.classes.share(),
		quick:      b.quick.share(),
		ends:       b.ends.share(),
		signatures: b.signatures.share(),
		rules:      b.rules.share(),
		byAddr:     b.byAddr.View(),
		endpoints:  b.endpoints.share(),
		hosts:      b.hostChains,
		accounts:   b.accountBook.share(),
		sizes: Sizes{
			Prefixes: b.addresses.Len(), Classes: b.liveClasses, Programs: len(b.plans),
			Rules: b.liveRules, Endpoints: b.liveEndpoints,
		},
	}
	if b.changedGuard {
		b.guard(rs)
	}
	rs.protected, rs.hosted, rs.hosting = b.protected, b.hostedAddrs, b.hosting
	b.changedEnds, b.changedGuard = false, false
	b.sweep()
	return rs
}

// compileStale compiles what is new, and what has a row to make for a new
// signature.
func (b *Builder) compileStale() {
	for _, s := range b.signatures.list[b.seenSignatures:] {
		for _, t := range s.terms {
			for c := range b.termUsers[t] {
				b.stale[c] = true
			}
		}
		for _, o := range s.offer {
			for c := range b.setUsers[o>>24] {
				b.stale[c] = true
			}
		}
	}
	b.seenSignatures = len(b.signatures.list)
	for c := range b.stale {
		c.out = b.compile(c)
		b.changedEnds = true
	}
	clear(b.stale)
}

// link makes the programs whose segments are others now.
func (b *Builder) link() {
	b.changedGuard = true
	for _, p := range b.plans {
		if p.out == nil || !p.current() {
			p.out = &program{final: p.final}
			for i, c := range p.segments {
				if i == 0 {
					p.out.first = c.out
				} else {
					p.out.more = append(p.out.more, c.out)
				}
			}
		}
	}
	for i := firstEnd; i < len(b.endPlans); i++ {
		e := &b.endPlans[i]
		if e.users == 0 {
			continue
		}
		if in := [2]*program{e.plans[0].out, e.plans[1].out}; e.in != in {
			e.in = in
			for dir, p := range in {
				b.setEnd(2*i+dir, *p)
			}
		}
	}
	b.hostChains = make(map[string][HostChains][2]*program, len(b.hosts))
	for name, plans := range b.hosts {
		var chains [HostChains][2]*program
		for chain, byDir := range plans {
			chains[chain] = [2]*program{byDir[0].out, byDir[1].out}
		}
		b.hostChains[name] = chains
	}
}

// current tells whether the program has the segments that the plan has now.
func (p *plan) current() bool {
	i, same := 0, true
	for seg := range p.out.segments {
		same = same && seg == p.segments[i].out
		i++
	}
	return same
}

// guard finds the addresses that are hosted, and those whose flows must be decided.
func (b *Builder) guard(rs *Ruleset) {
	b.hostedAddrs = slices.SortedFunc(maps.Keys(b.hosted), netip.Addr.Compare)
	b.protected = [2][]netip.Addr{}
	for _, a := range b.hostedAddrs {
		c := rs.classes[rs.table.Lookup(a)]
		for dir := range b.protected {
			if c.end == endConflict || c.end >= firstEnd && rs.ends[int(c.end)<<1|dir].constrains() {
				b.protected[dir] = append(b.protected[dir], a)
			}
		}
	}
}

// constrains tells whether the program could do anything but allow.
func (p *program) constrains() bool { return p.first != nil || p.final != FinalAllow }

// sweep forgets pages that no segment has, now and then.
func (b *Builder) sweep() {
	if len(b.interned) < 2*b.swept+1024 {
		return
	}
	pages := make(map[*page]bool)
	for _, c := range b.segments {
		c.out.each(func(l *lane) {
			for _, p := range l.pages {
				pages[p] = true
			}
		})
	}
	maps.DeleteFunc(b.interned, func(_ page, p *page) bool { return !pages[p] })
	b.swept = len(b.interned)
}

// each calls f for every lane.
func (seg *segment) each(f func(*lane)) {
	f(&seg.lane)
	if a := seg.aside; a != nil {
		for i := range a.lanes {
			f(&a.lanes[i])
		}
		for i := range a.logs {
			f(&a.logs[i])
		}
	}
}

// Garbage tells what share of the numbers that Rulesets index belongs to nothing
// any more. They are given back only by a new Builder.
func (b *Builder) Garbage() float64 {
	live, all := 0, len(b.signatures.list)+len(b.endpoints.list)+len(b.terms)
	for _, n := range b.used {
		if n > 0 {
			live++
		}
	}
	live += b.byAddr.Len() + len(b.termOf) + 1
	return 1 - float64(live)/float64(all)
}
