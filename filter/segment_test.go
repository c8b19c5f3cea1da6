package filter

import (
	"fmt"
	"math/bits"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter/flow"
)

// wideSpec is one hosted endpoint, 10.0.0.1, whose ingress has the rules as its
// only ones, and peers 11.x.y.z of one class each.
func wideSpec(peers int, rules ...Rule) *Spec {
	spec := &Spec{Classes: make([]Class, peers+2), Rules: rules, Programs: []Program{{Final: FinalAllow}, {}}}
	var ids []RuleID
	for i := range rules {
		rules[i].Info.Index = i
		rules[i].IPv4, rules[i].IPv6 = true, true
		ids = append(ids, RuleID(i+1))
	}
	spec.Programs[1] = Program{Segments: []*Segment{{Rules: ids}}}
	spec.Classes[1] = Class{Hosted: true, Programs: [2]int{flow.Ingress: 1}}
	spec.Prefixes = []ClassPrefix{{netip.MustParsePrefix("10.0.0.1/32"), 1}}
	for i := range peers {
		spec.Prefixes = append(spec.Prefixes, ClassPrefix{netip.PrefixFrom(peerAddr(i), 32), ClassID(i + 2)})
	}
	return spec
}

func peerAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
}

// peersWhere gives the set of the peers that keep says.
func peersWhere(peers int, keep func(i int) bool) *ClassSet {
	bitmap := make([]uint64, (peers+2+63)/64)
	for i := range peers {
		if keep(i) {
			bitmap[(i+2)/64] |= 1 << ((i + 2) % 64)
		}
	}
	return NewClassSet(bitmap, peers+2)
}

func toPort(port int) Side {
	return Side{Ports: &PortMatch{Ranges: []flow.PortRange{{Min: uint16(port), Max: uint16(port)}}}}
}

func fromPeer(i, port int) flow.Tuple {
	return flow.Tuple{Src: peerAddr(i), Dst: netip.MustParseAddr("10.0.0.1"), Proto: flow.TCP, Ported: true, SrcPort: 4711, DstPort: uint16(port)}
}

// TestBounds compiles what could blow up. The bounds are on counts: of lines,
// of lanes, and of rules that are left to be matched one by one.
func TestBounds(t *testing.T) {
	tcp := ptr(flow.TCP)
	for _, tt := range []struct {
		name string
		spec func() *Spec
		// asks gives a flow and the position of the rule that must decide it, or -1.
		asks func(i int) (flow.Tuple, int)
		max  Footprint
	}{
		{
			name: "100,000 rules for one pod, a peer and a port each",
			spec: func() *Spec {
				rules := make([]Rule, 100_000)
				const peers = 2000
				var sets [peers]*ClassSet
				for i := range sets {
					sets[i] = peersWhere(peers, func(j int) bool { return i == j })
				}
				for i := range rules {
					rules[i] = Rule{Info: RuleInfo{Action: Allow}, Proto: tcp, Source: Side{Classes: sets[i%peers]}, Destination: toPort(i / peers)}
				}
				return wideSpec(peers, rules...)
			},
			asks: func(i int) (flow.Tuple, int) {
				i *= 97
				return fromPeer(i%2000, i/2000%60), map[bool]int{true: i % 120_000, false: -1}[i%120_000 < 100_000]
			},
			max: Footprint{Signatures: 2001, Segments: 1, Lanes: 1, Pages: 32, Lines: 2*2001 + 14*2000},
		},
		{
			name: "65,535 single ports in one rule list",
			spec: func() *Spec {
				rules := make([]Rule, 65_535)
				for i := range rules {
					rules[i] = Rule{Info: RuleInfo{Action: Action(i % 2)}, Proto: tcp, Destination: toPort(i + 1)}
				}
				return wideSpec(1, rules...)
			},
			asks: func(i int) (flow.Tuple, int) { return fromPeer(0, i*61%65_536), i*61%65_536 - 1 },
			max:  Footprint{Signatures: 1, Segments: 1, Lanes: 1, Lines: 65_536/4 + 8},
		},
		{
			name: "single ports for everyone beside a rule for each of 1,000 peers",
			spec: func() *Spec {
				var rules []Rule
				for i := range 2000 {
					r := Rule{Info: RuleInfo{Action: Allow}, Proto: tcp, Destination: toPort(i * 2)}
					if i%2 == 0 {
						r.Source.Classes = peersWhere(1000, func(j int) bool { return j == i/2 })
						r.Destination = Side{}
					}
					rules = append(rules, r)
				}
				return wideSpec(1000, rules...)
			},
			asks: func(i int) (flow.Tuple, int) {
				peer, port := i%1000, i*7%4000
				own, wild := 2*peer, 100_000
				if port%4 == 2 {
					wild = port / 2
				}
				return fromPeer(peer, port), min(own, wild)
			},
			max: Footprint{Signatures: 1001, Segments: 1, Lanes: 2, Pages: 16, Lines: 3*1002 + 2001/4 + 8},
		},
		{
			name: "1,000 rules with a port each for all but one of 1,000 peers",
			spec: func() *Spec {
				rules := make([]Rule, 1000)
				for i := range rules {
					rules[i] = Rule{Info: RuleInfo{Action: Allow}, Proto: tcp, Source: Side{Classes: peersWhere(1000, func(j int) bool { return j != i })}, Destination: toPort(2 * i)}
				}
				return wideSpec(1000, rules...)
			},
			asks: func(i int) (flow.Tuple, int) {
				peer, port := i*31%1000, i*17%2000
				if i%3 == 0 {
					port = 2 * peer
				}
				if port%2 == 1 || port/2 == peer {
					return fromPeer(peer, port), -1
				}
				return fromPeer(peer, port), port / 2
			},
			// The product would be 2 million spans.
			max: Footprint{Signatures: 1001, Segments: 1, Lanes: 16, Pages: 16 * 16, Lines: 16 * (2*1001 + (4096+16*2001)/4), OneByOne: 500},
		},
		{
			name: "256 rules for every subset of eight bits of 4,000 peers",
			spec: func() *Spec {
				rules := make([]Rule, 256)
				for i := range rules {
					rules[i] = Rule{Info: RuleInfo{Action: Allow}, Proto: tcp, Source: Side{Classes: peersWhere(4000, func(j int) bool { return bits.OnesCount(uint(i&j))%2 == 1 })}, Destination: toPort(2 * i)}
				}
				return wideSpec(4000, rules...)
			},
			asks: func(i int) (flow.Tuple, int) {
				peer, port := i*31%4000, i*17%512
				if bits.OnesCount(uint(port/2&peer))%2 == 1 && port%2 == 0 {
					return fromPeer(peer, port), port / 2
				}
				return fromPeer(peer, port), -1
			},
			// 4,000 peers, of which rules can tell 256 kinds.
			max: Footprint{Signatures: 257, Segments: 1, Lanes: 8, Pages: 40, Lines: 8 * (2*257 + (4096+16*513)/4)},
		},
		{
			name: "a label that all of 50,000 peers share",
			spec: func() *Spec {
				all := peersWhere(50_000, func(int) bool { return true })
				return wideSpec(50_000, Rule{Info: RuleInfo{Action: Allow}, Source: Side{Classes: all}, Destination: toPort(80)})
			},
			asks: func(i int) (flow.Tuple, int) { return fromPeer(i, 80+i%2), -(i % 2) },
			max:  Footprint{Signatures: 2, Segments: 1, Lanes: 1, Pages: 1, Lines: 2 * 2},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rs, err := New(tt.spec())
			if err != nil {
				t.Fatal(err)
			}
			f := rs.Footprint()
			for what, n := range map[string][2]int{
				"signatures": {f.Signatures, tt.max.Signatures}, "segments": {f.Segments, tt.max.Segments}, "lanes": {f.Lanes, tt.max.Lanes}, "pages": {f.Pages, tt.max.Pages}, "bytes of indexes": {f.IndexBytes, 16 * (4096 + 16*tt.max.Signatures)},
				"lines": {f.Lines, tt.max.Lines}, "one by one": {f.OneByOne, tt.max.OneByOne},
			} {
				if n[0] > n[1] {
					t.Errorf("%s: %d, want at most %d", what, n[0], n[1])
				}
			}
			for i := range 5000 {
				in, want := tt.asks(i)
				if o := rs.DecideSide(in, flow.Ingress); int(o.Rule) != want+1 {
					t.Fatalf("%s: rule at %d, want %d", in, int(o.Rule)-1, want)
				}
			}
			in, _ := tt.asks(1)
			if n := testing.AllocsPerRun(10, func() { rs.Decide(in) }); n != 0 {
				t.Errorf("Decide allocates %v times", n)
			}
		})
	}
}

// TestPrefixes has thousands of prefixes inside one another, a rule for each.
func TestPrefixes(t *testing.T) {
	t.Parallel()
	const chains, depth = 256, 16 // 11.x.0.0/16 to 11.x.255.255/31
	var rules []Rule
	spec := wideSpec(0)
	classes := 2 + chains*depth
	for i := range depth { // the longest first
		for x := range chains {
			bitmap := make([]uint64, (classes+63)/64)
			for j := 0; j <= i; j++ { // a longer prefix is in its shorter ones
				c := 2 + x*depth + j
				bitmap[c/64] |= 1 << (c % 64)
			}
			r := Rule{Info: RuleInfo{Action: Deny}, IPv4: true, Source: Side{Classes: NewClassSet(bitmap, classes)}, Destination: toPort(i)}
			rules = append(rules, r)
			spec.Prefixes = append(spec.Prefixes, ClassPrefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(x), 255, 254}), 31-i).Masked(), ClassID(2 + x*depth + i)})
		}
	}
	spec.Classes = append(spec.Classes, make([]Class, classes-2)...)
	spec.Rules = rules
	for i := range rules {
		spec.Programs[1].Segments[0].Rules = append(spec.Programs[1].Segments[0].Rules, RuleID(i+1))
	}
	rs, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	if f := rs.Footprint(); f.Lines > (chains*depth+1)*(2+2*depth/4) || f.OneByOne > 0 {
		t.Errorf("%+v", f)
	}
	for x := range chains {
		for i := range depth {
			// An address in prefix i and in no longer one.
			a := uint32(11<<24 | x<<16 | 0xfffe)
			if i > 0 {
				a ^= 1 << i
			}
			in := fromPeer(0, 0)
			in.Src = netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
			for port := range depth {
				in.DstPort = uint16(port)
				want := RuleID(0)
				if port >= i {
					want = RuleID(port*chains + x + 1)
				}
				if o := rs.DecideSide(in, flow.Ingress); o.Rule != want {
					t.Fatalf("%s (prefix %d of %d): rule %d, want %d", in, i, x, o.Rule, want)
				}
			}
		}
	}
}

// TestSegmentsAreTheirRules compares every segment with a walk over its rules, for
// random rules, and under bounds so narrow that lanes are split and rules left.
func TestSegmentsAreTheirRules(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]bounds{
		"usual bounds": usualBounds,
		"narrow":       {merged: 2, words: 30, perInterval: 1, perSignature: 1, lanes: 3},
		"one lane":     {merged: 0, words: 20, lanes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(rt *rapid.T) {
				b := NewBuilder()
				b.bounds = limits
				rs, err := build(randomSpec(rt), b)
				if err != nil {
					rt.Fatal(err)
				}
				for range 200 {
					compareSegments(rt, rs, randomTuple(rt))
				}
			})
		})
	}
}

func compareSegments(rt *rapid.T, rs *Ruleset, in flow.Tuple) {
	q, _ := rs.query(&in)
	s := rs.subject(&q)
	var slow Decision // without the way that most decisions take
	rs.decide(&q, &slow)
	if quick := rs.Decide(in); quick != slow {
		rt.Fatalf("%s: %+v, want %+v", in, quick, slow)
	}
	check := func(p *program, dir flow.Direction, what string) {
		peer := q.src.signature
		if dir == flow.Egress {
			peer = q.dst.signature
		}
		for seg := range p.segments {
			logged := false
			want := rs.firstMatch(seg, &s, func(RuleID) { logged = true })
			outcome, gotLogged := seg.match(rs, &q, peer)
			got := RuleID(0)
			if outcome != goOn {
				got = RuleID(outcome >> outcomeRule)
				if a, end := Action(outcome&3), outcome&outcomeEnd != 0; a != rs.rules[got].action || end != (got == seg.end) {
					rt.Fatalf("%s, %s: action %s of rule %d, end %v", what, in, a, got, end)
				}
			}
			if got != want || gotLogged != logged {
				rt.Fatalf("%s %s, %s: rule %d, logged %v, want %d, %v", what, dir, in, got, gotLogged, want, logged)
			}
		}
	}
	for _, dir := range []flow.Direction{flow.Ingress, flow.Egress} {
		self := q.dst.end
		if dir == flow.Egress {
			self = q.src.end
		}
		if self >= firstEnd {
			check(&rs.ends[self<<1|uint32(dir)], dir, "pod")
		}
		for chain, byDir := range rs.hosts["h"] {
			check(byDir[dir], dir, HostChain(chain).String())
		}
	}
}

var (
	randomPorts  = []uint16{0, 1, 79, 80, 81, 65_535}
	randomProtos = []flow.Proto{flow.TCP, flow.TCP, flow.UDP, flow.SCTP, flow.ICMP, flow.ICMPv6, 47}
)

func pick[E any](rt *rapid.T, from []E) E { return rapid.SampledFrom(from).Draw(rt, "one") }

func chance(rt *rapid.T, percent int) bool {
	return rapid.IntRange(0, 99).Draw(rt, "percent") < percent
}

func randomTuple(rt *rapid.T) flow.Tuple {
	names := names[rapid.IntRange(0, 1).Draw(rt, "family")]
	ends := []string{"client", "server", "closed", "lan", "world"}
	in := tuple(names[pick(rt, ends)], names[pick(rt, ends)], pick(rt, randomProtos), 0)
	in.SrcPort, in.DstPort = pick(rt, randomPorts), pick(rt, randomPorts)
	in.Ported = in.Proto.HasPorts() && chance(rt, 80)
	in.ICMPType, in.ICMPCode = uint8(rapid.IntRange(0, 2).Draw(rt, "type")), uint8(rapid.IntRange(0, 2).Draw(rt, "code"))
	return in
}

// randomSpec is testSpec with other rules.
func randomSpec(rt *rapid.T) *Spec {
	spec := testSpec()
	spec.Rules = []Rule{{IPv4: true, IPv6: true, Info: RuleInfo{Index: -1}}}
	var segments []*Segment
	for range rapid.IntRange(1, 4).Draw(rt, "segments") {
		seg := &Segment{}
		for i := range rapid.IntRange(0, 12).Draw(rt, "rules") {
			spec.Rules = append(spec.Rules, randomRule(rt, i))
			seg.Rules = append(seg.Rules, RuleID(len(spec.Rules)))
		}
		if chance(rt, 50) {
			seg.End = 1
		}
		segments = append(segments, seg)
	}
	spec.Programs = nil
	for range testClasses {
		p := Program{Final: FinalAllow}
		for range rapid.IntRange(0, 3).Draw(rt, "length") {
			p.Segments = append(p.Segments, pick(rt, segments))
		}
		spec.Programs = append(spec.Programs, p)
	}
	for i := range spec.Classes {
		spec.Classes[i].Programs = [2]int{i, int(testClasses) - 1 - i}
	}
	spec.Hosts[0].Programs = [HostChains][2]int{{0, 1}, {2, 3}, {4, 5}, {0, 5}}
	return spec
}

func randomRule(rt *rapid.T, index int) Rule {
	r := Rule{Info: RuleInfo{Index: index, Action: Action(rapid.IntRange(0, 3).Draw(rt, "action"))}}
	r.IPv4, r.IPv6 = chance(rt, 90), chance(rt, 90)
	if chance(rt, 60) {
		r.Proto = ptr(pick(rt, randomProtos))
	}
	if chance(rt, 15) {
		r.NotProto = ptr(pick(rt, randomProtos))
	}
	icmp := func() *ICMPMatch {
		if chance(rt, 88) {
			return nil
		}
		return &ICMPMatch{Type: uint8(rapid.IntRange(0, 2).Draw(rt, "type")), Code: uint8(rapid.IntRange(0, 2).Draw(rt, "code")), AnyCode: chance(rt, 50)}
	}
	r.ICMP, r.NotICMP = icmp(), icmp()
	r.Source, r.Destination = randomSide(rt), randomSide(rt)
	return r
}

func randomSide(rt *rapid.T) (s Side) {
	if chance(rt, 40) {
		var members []ClassID
		for c := range testClasses {
			if chance(rt, 60) {
				members = append(members, c)
			}
		}
		s.Classes = classSet(members...)
	}
	offers := func() *ClassPorts {
		var out []ClassPort
		for range rapid.IntRange(0, 4).Draw(rt, "offers") {
			out = append(out, ClassPort{ClassID(rapid.IntRange(0, int(testClasses)-1).Draw(rt, "class")), pick(rt, randomProtos), pick(rt, randomPorts)})
		}
		return NewClassPorts(out)
	}
	ports := func() *PortMatch {
		m := &PortMatch{}
		for range rapid.IntRange(0, 3).Draw(rt, "ranges") {
			from := pick(rt, randomPorts)
			m.Ranges = append(m.Ranges, flow.PortRange{Min: from, Max: max(from, pick(rt, randomPorts))})
		}
		if chance(rt, 40) {
			m.Named = offers()
		}
		return m
	}
	if chance(rt, 25) {
		s.Ports = ports()
	}
	if chance(rt, 15) {
		s.NotPorts = ports()
	}
	if chance(rt, 10) {
		s.Service = offers()
	}
	return s
}

// TestPaint compares the two ways to paint a group with looking at each stroke.
func TestPaint(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var strokes []stroke
		point := rapid.OneOf(rapid.Uint16(), rapid.Uint16Range(0, 20), rapid.Uint16Range(axisEnd-3, axisEnd))
		for i := range rapid.IntRange(0, 30).Draw(rt, "strokes") {
			a, b := point.Draw(rt, "a"), point.Draw(rt, "b")
			strokes = append(strokes, stroke{min(a, b), max(a, b), answerOf(i, Allow)})
		}
		few, many := newPainter(), newPainter()
		few.paintFew(strokes)
		many.paintMany(strokes)
		if fmt.Sprint(few.spans) != fmt.Sprint(many.spans) {
			rt.Fatalf("few gives %v, many %v", few.spans, many.spans)
		}
		lines, root := appendTree(nil, few.spans)
		if 1+len(lines) != linesOf(len(few.spans)) {
			rt.Fatalf("%d spans: %d lines, and counted as %d", len(few.spans), 1+len(lines), linesOf(len(few.spans)))
		}
		l := &lane{rows: 1, lines: append([]line{root}, lines...)}
		for i := range l.lines {
			for k, w := range l.lines[i].words {
				if w&deeper != 0 {
					l.lines[i].words[k]++ // after the root
				}
			}
		}
		for range 20 {
			x := point.Draw(rt, "x")
			want := uint32(noAnswer)
			for _, s := range strokes {
				if s.first <= x && x <= s.last {
					want = s.answer
					break
				}
			}
			if got := l.find(0, 0, uint32(x)); got != want {
				rt.Fatalf("%d: %d, want %d", x, got, want)
			}
		}
	})
}
