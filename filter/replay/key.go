package replay

import (
	"encoding/binary"
	"net/netip"

	"github.com/postern-project/postern/filter/flow"
)

// key is a flow's identity in both directions: the ends in order, the lower first.
type key struct {
	low, high end
	ports     uint32 // of low, then of high; 0 without ports, the identifier for ICMP queries
	proto     flow.Proto
	six       bool
	// query is the type of an ICMP query, which its answer has too.
	query uint8
}

// end is an address as two words; comparing and hashing them is all that is done
// with it.
type end struct{ hi, lo uint64 }

func (e end) less(o end) bool { return e.hi < o.hi || e.hi == o.hi && e.lo < o.lo }

func endOf(a netip.Addr) end {
	b := a.As16()
	return end{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (e end) addr(six bool) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], e.hi)
	binary.BigEndian.PutUint64(b[8:], e.lo)
	if a := netip.AddrFrom16(b); six {
		return a
	} else {
		return a.Unmap()
	}
}

// keyOf gives a packet's key, and whether the packet goes from high to low.
func keyOf(t *flow.Tuple, src, dst uint16, query uint8) (k key, down bool) {
	k = key{low: endOf(t.Src), high: endOf(t.Dst), ports: uint32(src)<<16 | uint32(dst), proto: t.Proto, six: t.Src.Is6(), query: query}
	if k.high.less(k.low) || k.high == k.low && dst < src {
		k.low, k.high, k.ports = k.high, k.low, uint32(dst)<<16|uint32(src)
		return k, true
	}
	return k, false
}

// tuple gives the tuple of a flow that went up or down first.
func (k *key) tuple(down bool, icmpType, icmpCode uint8) flow.Tuple {
	t := flow.Tuple{Src: k.low.addr(k.six), Dst: k.high.addr(k.six), Proto: k.proto}
	if k.proto.HasPorts() {
		t.Ported = true
		t.SrcPort, t.DstPort = uint16(k.ports>>16), uint16(k.ports)
	}
	if down {
		t = t.Reverse()
	}
	if k.proto == flow.ICMP || k.proto == flow.ICMPv6 {
		t.ICMPType, t.ICMPCode = icmpType, icmpCode
	}
	return t
}
