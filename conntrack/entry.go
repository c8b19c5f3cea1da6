package conntrack

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	ct "github.com/ti-mo/conntrack"

	"github.com/postern-project/postern/filter/flow"
)

// Status is the kernel's status word of an entry (uapi nf_conntrack_common.h, enum
// ip_conntrack_status).
type Status = ct.Status

// The bits of Status that callers ask for.
const (
	Expected  = ct.StatusExpected  // opened on account of another flow, such as an FTP data connection
	SeenReply = ct.StatusSeenReply // an answer was seen
	Assured   = ct.StatusAssured   // not dropped early when the table is full
	DstNAT    = ct.StatusDstNAT
	SrcNAT    = ct.StatusSrcNAT
	Offloaded = ct.StatusOffload // its packets go by a flowtable and meet no rule
)

// Count is what went one way: packets, and bytes with their IP headers.
type Count struct{ Packets, Bytes uint64 }

// Entry is one flow as the kernel remembers it. It is a value: it does not change
// when the kernel's does, and may be kept.
type Entry struct {
	// Original is the first packet as its sender sent it, Answer an answer as its
	// sender sends it. Without address translation one is the reverse of the other.
	Original, Answer flow.Tuple
	Zone             uint16
	Mark             uint32
	Status           Status
	// State is the state of a TCP connection, "" for others.
	State string
	// Left is how long the entry lives on if no packet comes, in whole seconds; 0
	// in the event that reports its end.
	Left time.Duration
	// Start and End are zero where the kernel does not take timestamps; End is also
	// zero while the flow lives.
	Start, End time.Time
	// Sent and Answered are valid if Counted, which is where the kernel counts.
	Sent, Answered Count
	Counted        bool

	id  uint32
	key key
}

// key is the kernel's own encoding of the original tuple, by which it finds the
// entry again: attribute CTA_TUPLE_ORIG without its header. 48 bytes for IPv4,
// 72 for IPv6, 8 more in a zone of one direction.
type key struct {
	six  bool
	n    uint8
	data [88]byte
}

// Tuple is the flow as policy judges it, after destination NAT and before source
// NAT, in the direction in which it began. ICMP has the type and code of its first
// packet.
func (e *Entry) Tuple() flow.Tuple {
	t := e.Original
	// Who answers is the real destination, and the port it answers from is the one
	// the packet reached.
	t.Dst, t.DstPort = e.Answer.Src, e.Answer.SrcPort
	return t
}

// Service is the address and port that the sender spoke to if that was not the real
// destination: a virtual address. ok is false if it was.
func (e *Entry) Service() (at netip.AddrPort, ok bool) {
	at = netip.AddrPortFrom(e.Original.Dst, e.Original.DstPort)
	return at, e.Original.Dst != e.Answer.Src || e.Original.DstPort != e.Answer.SrcPort
}

// Touches tells whether one of the entry's addresses, before or after translation,
// satisfies is.
func (e *Entry) Touches(is func(netip.Addr) bool) bool {
	return is(e.Original.Src) || is(e.Answer.Src) || is(e.Original.Dst) || is(e.Answer.Dst)
}

// String gives what policy judges, and the mark.
func (e *Entry) String() string { return fmt.Sprintf("%v mark %#x", e.Tuple(), e.Mark) }

// decode reads a message that carries an entry: of a dump, or of an event.
func decode(m netlink.Message) (e Entry, kind Kind, err error) {
	var ev ct.Event
	if err := ev.Unmarshal(m); err != nil {
		return e, 0, fmt.Errorf("decode entry: %w", err)
	}
	switch ev.Type {
	case ct.EventNew:
		kind = Began
	case ct.EventUpdate: // also what a dump consists of
		kind = Changed
	case ct.EventDestroy:
		kind = Ended
	}
	f := ev.Flow
	if f == nil {
		return e, 0, fmt.Errorf("decode entry: message of type %#x is about no flow", uint16(m.Header.Type))
	}
	e = Entry{
		Original: tuple(f.TupleOrig), Answer: tuple(f.TupleReply),
		Zone: f.Zone, Mark: f.Mark, Status: f.Status, Left: time.Duration(f.Timeout) * time.Second,
		Start: f.Timestamp.Start, End: f.Timestamp.Stop, id: f.ID,
	}
	if !e.Original.Valid() || !e.Answer.Valid() {
		return e, 0, fmt.Errorf("decode entry: without addresses at both ends")
	}
	if f.ProtoInfo.TCP != nil {
		e.State = tcpState(f.ProtoInfo.TCP.State)
	}
	_, raw := peek(m.Data)
	if len(raw) == 0 || len(raw) > len(e.key.data) {
		return e, 0, fmt.Errorf("decode entry %v: its tuple has %d bytes", &e, len(raw))
	}
	e.key.six, e.key.n = e.Original.Is6(), uint8(copy(e.key.data[:], raw))
	e.Sent, e.Answered = Count{f.CountersOrig.Packets, f.CountersOrig.Bytes}, Count{f.CountersReply.Packets, f.CountersReply.Bytes}
	// A flow has at least the packet that began it.
	e.Counted = e.Sent.Packets+e.Answered.Packets > 0
	return e, kind, nil
}

func tuple(t ct.Tuple) flow.Tuple {
	p := flow.Proto(t.Proto.Protocol)
	r := flow.Tuple{Src: t.IP.SourceAddress, Dst: t.IP.DestinationAddress, Proto: p, Ported: p.HasPorts()}
	switch {
	case r.Ported:
		r.SrcPort, r.DstPort = t.Proto.SourcePort, t.Proto.DestinationPort
	case p == flow.ICMP || p == flow.ICMPv6:
		r.ICMPType, r.ICMPCode = t.Proto.ICMPType, t.Proto.ICMPCode
	}
	return r
}

// tcpStates are enum tcp_conntrack (uapi nf_conntrack_tcp.h) in words.
var tcpStates = [...]string{
	"none", "syn-sent", "syn-received", "established", "fin-wait", "close-wait", "last-ack", "time-wait", "close", "syn-sent2",
}

func tcpState(n uint8) string {
	if int(n) < len(tcpStates) {
		return tcpStates[n]
	}
	return fmt.Sprintf("state-%d", n)
}
