package replay

import (
	"encoding/binary"
	"net/netip"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/capture"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/packet"
)

// Config says how to replay. What the daemon has flags for has the same defaults
// there.
type Config struct {
	// Policy decides; Baseline, if it is not nil, is asked too, and where the
	// verdicts differ that is reported.
	Policy, Baseline *filter.Ruleset
	// MaxFlows bounds the table; 0 is DefaultMaxFlows.
	MaxFlows int
	// NodeAddrs are addresses of the nodes, whose flows to their pods are accepted
	// without a question.
	NodeAddrs map[netip.Addr]bool
	// VXLANPort is the UDP port to which pods may not send; 0 for none.
	VXLANPort uint16
	// AllowTunnels lets pods send VXLAN and IP in IP.
	AllowTunnels bool
	// JudgeInvalid decides packets that fit no flow like new flows, where
	// otherwise they are counted only: the kernel drops them unseen.
	JudgeInvalid bool
	// GuessMidStream judges a TCP connection whose beginning was not captured as
	// opened from its higher port. The kernel, which picks up connections too,
	// takes the first packet it sees for the direction.
	GuessMidStream bool
	// Ended is called with each flow once its last packet has been seen, in no
	// particular order; the Flow is good during the call. Nil for nobody.
	Ended func(*Flow)
}

// Kind says what a packet was taken for.
type Kind uint8

const (
	// NotIP: carries something else than IP.
	NotIP Kind = iota
	// Cut: too little of it was captured to say what it is.
	Cut
	// Undecodable: postern would drop it, for the packet.Status in Note.
	Undecodable
	// Member of a flow.
	Member
	// Part is a fragment, after the first, of a packet of a flow.
	Part
	// LooseFragment: a fragment whose first one has not been seen.
	LooseFragment
	// Related: an ICMP error about a flow.
	Related
	// LinkLocal: ICMPv6 of the link, which conntrack does not track.
	LinkLocal
	// Invalid: fits no flow and cannot begin one.
	Invalid

	kinds
)

var kindNames = [kinds]string{"not-ip", "cut", "undecodable", "flow", "fragment", "loose-fragment", "related", "link-local", "invalid"}

func (k Kind) String() string { return kindNames[k] }

// Note tells what became of one packet.
type Note struct {
	Kind   Kind
	Status packet.Status // of Undecodable and Cut
	// Flow is the packet's, or the one it is Related to; nil if there is none. It
	// is good until the next packet.
	Flow *Flow
	// First is set for the packet that was decided, Back for packets against the
	// flow's direction.
	First, Back bool
}

// Replayer replays packets. It is not safe for concurrent use.
type Replayer struct {
	cfg       Config
	table     *Table
	fragments *fragments
	sums      sums
}

// New makes a Replayer. cfg.Policy must not be nil.
func New(cfg Config) *Replayer {
	r := &Replayer{cfg: cfg, table: NewTable(cfg.MaxFlows), fragments: newFragments()}
	r.sums.init()
	r.table.Ended = r.ended
	return r
}

func (r *Replayer) ended(f *Flow) {
	r.sums.flow(&r.cfg, f)
	if r.cfg.Ended != nil {
		r.cfg.Ended(f)
	}
}

// Packet takes the next packet.
func (r *Replayer) Packet(p *capture.Packet) Note {
	now := int64(0)
	if !p.Time.IsZero() {
		now = p.Time.UnixNano()
	}
	n := Note{Kind: Cut}
	switch p.Content {
	case capture.IP:
		n = r.IP(p.IP, p.Length-len(p.Frame)+len(p.IP), now)
	case capture.NotIP:
		n.Kind = NotIP
	}
	if n.Kind == Undecodable && p.Cut() && (n.Status == packet.Truncated || n.Status == packet.TooShort) {
		n.Kind = Cut
	}
	r.sums.packet(p, &n)
	return n
}

// IP takes an IP packet of which b was captured, of so many bytes, at a time in Unix
// ns. It allocates nothing but room for flows.
func (r *Replayer) IP(b []byte, length int, now int64) Note {
	r.table.expire(now)
	t, l4, status := packet.DecodeTransport(b)
	if status == packet.Fragment {
		return r.fragment(b, length, now)
	}
	if status != packet.OK {
		return Note{Kind: Undecodable, Status: status}
	}
	src, dst, query := t.SrcPort, t.DstPort, uint8(0)
	switch t.Proto {
	case flow.TCP, flow.UDP, flow.SCTP:
	case flow.ICMP, flow.ICMPv6:
		if isLink(&t) {
			return Note{Kind: LinkLocal}
		}
		if isError(&t) {
			return r.related(l4, now)
		}
		query, _ = queryOf(&t)
		if len(l4) >= 6 {
			src = binary.BigEndian.Uint16(l4[4:])
			dst = src
		}
	case flow.UDPLite: // has ports for conntrack, though not for policy
		if len(l4) >= 4 {
			src, dst = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
		}
	}
	k, down := keyOf(&t, src, dst, query)
	f := r.table.find(&k, now)
	if f != nil && t.Proto == flow.TCP && f.state.reopens() && l4[13]&(syn|ack|rst) == syn {
		r.table.remove(r.table.index.find(&k, r.table.flows))
		f = nil
	}
	n := Note{Kind: Member}
	if f == nil {
		if f = r.begin(&k, &t, down, l4, now); f == nil {
			return Note{Kind: Invalid}
		}
		n.First = true
	} else {
		n.Back = down != f.down
		r.table.touch(f, next(f.state, t.Proto, n.Back, l4), now)
	}
	n.Flow = f
	f.count(n.Back, 1, uint64(length))
	if b[0]>>4 == 6 || b[6]&0x3f|b[7] != 0 {
		r.firstFragment(b, f, down, now)
	}
	return n
}

func (f *Flow) count(back bool, packets, bytes uint64) {
	i := Forward
	if back {
		i = Backward
	}
	f.Packets[i] += packets
	f.Bytes[i] += bytes
}

// begin decides a new flow; nil for a packet that cannot begin one.
func (r *Replayer) begin(k *key, t *flow.Tuple, down bool, l4 []byte, now int64) *Flow {
	s, ok := first(t, l4)
	if !ok {
		if !r.cfg.JudgeInvalid {
			return nil
		}
		s = other
		if t.Proto == flow.TCP {
			s = closed
		}
	}
	judged := *t
	picked := t.Proto == flow.TCP && s == established
	back := picked && r.cfg.GuessMidStream && t.SrcPort < t.DstPort
	if back {
		down, judged = !down, t.Reverse()
	}
	f := r.table.add(k, down, s, now)
	f.picked, f.icmpType, f.icmpCode = picked, t.ICMPType, t.ICMPCode
	f.outcome = r.judge(r.cfg.Policy, &judged)
	if r.cfg.Baseline != nil {
		f.baseOutcome = r.judge(r.cfg.Baseline, &judged)
	}
	return f
}

// firstFragment remembers whose datagram this is the beginning of, if it is one.
func (r *Replayer) firstFragment(b []byte, f *Flow, down bool, now int64) {
	d, first, ok := fragmentOf(b)
	if !ok || !first {
		return
	}
	p, _ := r.fragments.find(d, now)
	f.count(down != f.down, p.early[0], p.early[1])
	r.sums.loose -= p.early[0]
	r.fragments.put(d, pending{key: f.key, known: true, down: down, since: now})
}

func (r *Replayer) fragment(b []byte, length int, now int64) Note {
	d, _, ok := fragmentOf(b)
	if !ok {
		return Note{Kind: Undecodable, Status: packet.Fragment}
	}
	p, seen := r.fragments.find(d, now)
	if seen && p.known {
		if f := r.table.find(&p.key, now); f != nil {
			n := Note{Kind: Part, Flow: f, Back: p.down != f.down}
			f.count(n.Back, 1, uint64(length))
			return n
		}
	}
	if !seen {
		p.since = now
	}
	p.early[0]++
	p.early[1] += uint64(length)
	r.sums.loose++
	r.fragments.put(d, p)
	return Note{Kind: LooseFragment}
}

// related finds the flow that an ICMP error is about, by the packet it quotes.
func (r *Replayer) related(l4 []byte, now int64) Note {
	if len(l4) > 8 {
		if k, _, ok := quoted(l4[8:]); ok {
			if f := r.table.find(&k, now); f != nil {
				return Note{Kind: Related, Flow: f}
			}
		}
	}
	return Note{Kind: Invalid}
}

// quoted reads the key of a packet of which little more than 8 bytes behind its IP
// header are there (RFC 792).
func quoted(b []byte) (k key, down, ok bool) {
	var t flow.Tuple
	var l4 []byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		header := int(b[0]&0xf) * 4
		if header < 20 || len(b) < header {
			return k, false, false
		}
		t = flow.Tuple{Src: netip.AddrFrom4([4]byte(b[12:16])), Dst: netip.AddrFrom4([4]byte(b[16:20])), Proto: flow.Proto(b[9])}
		l4 = b[header:]
	case len(b) >= 40 && b[0]>>4 == 6: // behind extension headers it is not looked for
		t = flow.Tuple{Src: netip.AddrFrom16([16]byte(b[8:24])), Dst: netip.AddrFrom16([16]byte(b[24:40])), Proto: flow.Proto(b[6])}
		l4 = b[40:]
	default:
		return k, false, false
	}
	src, dst, query := uint16(0), uint16(0), uint8(0)
	switch t.Proto {
	case flow.TCP, flow.UDP, flow.SCTP, flow.UDPLite:
		if len(l4) < 4 {
			return k, false, false
		}
		src, dst = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	case flow.ICMP, flow.ICMPv6:
		if len(l4) < 6 {
			return k, false, false
		}
		t.ICMPType = l4[0]
		query, _ = queryOf(&t)
		src = binary.BigEndian.Uint16(l4[4:])
		dst = src
	}
	k, down = keyOf(&t, src, dst, query)
	return k, down, true
}
