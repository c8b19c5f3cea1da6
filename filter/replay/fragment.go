package replay

import (
	"encoding/binary"
	"time"

	"github.com/postern-project/postern/filter/flow"
)

// datagram identifies the fragments of one packet (RFC 791 section 3.2, RFC 8200
// section 4.5).
type datagram struct {
	src, dst end
	id       uint32
	proto    flow.Proto // IPv4 only
	six      bool
}

// fragments remembers whose datagrams are under way. The kernel puts them together
// before policy sees them; here the first fragment stands for the whole.
type fragments struct {
	flows map[datagram]pending
	order []datagram // ring, oldest at next
	next  int
}

// pending is a datagram's flow once its first fragment has come.
type pending struct {
	key   key
	known bool
	down  bool
	since int64
	early [2]uint64 // packets and bytes that came before the first
}

// Bounds as in the kernel (ipfrag_time); the number is a tenth of what its default
// memory limit allows.
const (
	maxDatagrams     = 4096
	datagramLifetime = int64(30 * time.Second)
)

func newFragments() *fragments {
	return &fragments{flows: make(map[datagram]pending), order: make([]datagram, maxDatagrams)}
}

func (f *fragments) find(d datagram, now int64) (pending, bool) {
	p, ok := f.flows[d]
	return p, ok && now-p.since <= datagramLifetime
}

func (f *fragments) put(d datagram, p pending) {
	if _, ok := f.flows[d]; !ok {
		delete(f.flows, f.order[f.next])
		f.order[f.next] = d
		f.next = (f.next + 1) % len(f.order)
	}
	f.flows[d] = p
}

// fragmentOf reads a packet's place in its datagram. ok is false for a packet that is
// whole, and for one whose header cannot be read.
func fragmentOf(b []byte) (d datagram, first, ok bool) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		field := binary.BigEndian.Uint16(b[6:])
		if field&0x3fff == 0 { // neither more to come nor an offset
			return d, false, false
		}
		d = datagram{src: end4(b[12:]), dst: end4(b[16:]), id: uint32(binary.BigEndian.Uint16(b[4:])), proto: flow.Proto(b[9])}
		return d, field&0x1fff == 0, true
	case len(b) >= 40 && b[0]>>4 == 6:
		return fragmentOf6(b)
	}
	return d, false, false
}

func fragmentOf6(b []byte) (d datagram, first, ok bool) {
	next, rest := b[6], b[40:]
	for range 8 {
		if len(rest) < 8 {
			return d, false, false
		}
		switch next {
		case 0, 43, 60: // hop-by-hop, routing, destination options
			size := 8 + 8*int(rest[1])
			if len(rest) < size {
				return d, false, false
			}
			next, rest = rest[0], rest[size:]
		case 44:
			field := binary.BigEndian.Uint16(rest[2:])
			if field&0xfff9 == 0 { // an atomic fragment is whole
				return d, false, false
			}
			d = datagram{src: end6(b[8:]), dst: end6(b[24:]), id: binary.BigEndian.Uint32(rest[4:]), six: true}
			return d, field&0xfff8 == 0, true
		default:
			return d, false, false
		}
	}
	return d, false, false
}

// end4 is the end of an IPv4 address as endOf gives it: mapped into IPv6.
func end4(b []byte) end {
	return end{0, 0xffff<<32 | uint64(binary.BigEndian.Uint32(b))}
}

func end6(b []byte) end {
	return end{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}
