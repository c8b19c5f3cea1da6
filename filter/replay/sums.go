package replay

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/capture"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/packet"
)

// Bounds of what is remembered of flows that have ended.
const (
	maxPairs   = 16_384
	maxPorts   = 32 // of a pair
	maxUnknown = 16_384
)

// sums is what a report is made of.
type sums struct {
	packets, bytes uint64
	kinds          [kinds]uint64
	undecodable    [packet.Statuses]uint64
	loose          uint64 // fragments whose first has not come
	cutFirst       uint64
	flows          [verdicts]Volume
	midStream      uint64
	denied         pairs
	changed        pairs
	unknown        map[netip.Addr]uint64
	unknownMore    uint64
}

// Volume counts flows and what was in them.
type Volume struct {
	Flows   uint64 `json:"flows"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

func (v *Volume) add(f *Flow) {
	v.Flows++
	v.Packets += f.Packets[Forward] + f.Packets[Backward]
	v.Bytes += f.Bytes[Forward] + f.Bytes[Backward]
}

// pairs groups flows by their ends and what was said of them. more counts those of
// pairs that came when there were maxPairs.
type pairs struct {
	of   map[pair]*pairSums
	more Volume
}

type pair struct {
	from, to      Party
	now, baseline Outcome
}

// Party is one end of flows: a pod, or an address that is none's.
type Party struct {
	Namespace, Pod, ServiceAccount string
	Addr                           netip.Addr
}

// service is what a flow asks for at the other end.
type service struct {
	proto flow.Proto
	port  uint16 // type and code for ICMP
}

type pairSums struct {
	Volume
	services  map[service]uint64 // flows
	more      uint64             // of services beyond maxPorts
	example   flow.Tuple
	firstFlow uint64
}

func (s *sums) init() {
	s.unknown = make(map[netip.Addr]uint64)
	s.denied.of = make(map[pair]*pairSums)
	s.changed.of = make(map[pair]*pairSums)
}

func (s *sums) packet(p *capture.Packet, n *Note) {
	s.packets++
	s.bytes += uint64(p.Length)
	s.kinds[n.Kind]++
	switch n.Kind {
	case Undecodable:
		s.undecodable[n.Status]++
	case Cut:
		if s.cutFirst == 0 {
			s.cutFirst = p.Number
		}
	}
}

func (s *sums) flow(cfg *Config, f *Flow) {
	t := f.Tuple()
	s.flows[f.outcome.Verdict].add(f)
	if f.picked {
		s.midStream++
	}
	from, to := party(cfg.Policy, t.Src), party(cfg.Policy, t.Dst)
	for _, p := range []Party{from, to} {
		if p.Pod != "" {
			continue
		}
		if _, ok := s.unknown[p.Addr]; !ok && len(s.unknown) >= maxUnknown {
			s.unknownMore++
			continue
		}
		s.unknown[p.Addr]++
	}
	if f.outcome.Verdict == Denied {
		s.denied.add(pair{from: from, to: to, now: f.outcome}, f, &t)
	}
	if cfg.Baseline != nil && f.outcome.Verdict != f.baseOutcome.Verdict {
		s.changed.add(pair{from, to, f.outcome, f.baseOutcome}, f, &t)
	}
}

func party(rs *filter.Ruleset, a netip.Addr) Party {
	if ep, ok := rs.Endpoint(a); ok {
		return Party{Namespace: ep.Namespace, Pod: ep.Name, ServiceAccount: ep.ServiceAccount}
	}
	return Party{Addr: a}
}

func (p *pairs) add(k pair, f *Flow, t *flow.Tuple) {
	g := p.of[k]
	if g == nil {
		if len(p.of) >= maxPairs {
			p.more.add(f)
			return
		}
		g = &pairSums{services: make(map[service]uint64), example: *t, firstFlow: f.Number}
		p.of[k] = g
	}
	g.Volume.add(f)
	s := service{t.Proto, t.DstPort}
	if t.Proto == flow.ICMP || t.Proto == flow.ICMPv6 {
		s.port = uint16(t.ICMPType)<<8 | uint16(t.ICMPCode)
	}
	if _, ok := g.services[s]; !ok && len(g.services) >= maxPorts {
		g.more++
		return
	}
	g.services[s]++
}

// sorted gives the pairs, those with most flows first.
func (p *pairs) sorted() []pair {
	out := make([]pair, 0, len(p.of))
	for k := range p.of {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b pair) int {
		x, y := p.of[a], p.of[b]
		return cmp.Or(cmp.Compare(y.Flows, x.Flows), cmp.Compare(x.firstFlow, y.firstFlow))
	})
	return out
}

func sortBy[T any, K cmp.Ordered](list []T, by func(T) K) {
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(by(a), by(b)) })
}
