package nft

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The functions here build one statement each, in the words of the nft command
// that stands beside it. All work in register 1.

const reg = 1

type exprs []expr.Any

func join(parts ...exprs) (all exprs) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func u32(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }

func compare(op expr.CmpOp, data ...byte) expr.Any {
	return &expr.Cmp{Op: op, Register: reg, Data: data}
}

func and(mask []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}
}

// meta mark & MASK == VALUE
func packetMarkIs(mask, value uint32) exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg}, and(u32(mask)), compare(expr.CmpOpEq, u32(value)...)}
}

// meta mark set meta mark & ~MASK | VALUE
func setPacketMark(mask, value uint32) exprs {
	return exprs{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: u32(^mask), Xor: u32(value)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg, SourceRegister: true},
	}
}

// ct mark & MASK == VALUE
func flowMarkIs(mask, value uint32) exprs {
	return exprs{&expr.Ct{Key: expr.CtKeyMARK, Register: reg}, and(u32(mask)), compare(expr.CmpOpEq, u32(value)...)}
}

// ct mark set ct mark & ~MASK | VALUE
func setFlowMark(mask, value uint32) exprs {
	return exprs{
		&expr.Ct{Key: expr.CtKeyMARK, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: u32(^mask), Xor: u32(value)},
		&expr.Ct{Key: expr.CtKeyMARK, Register: reg, SourceRegister: true},
	}
}

// ct direction reply
func isReply() exprs {
	return exprs{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}, compare(expr.CmpOpEq, 1)}
}

// ct state invalid
func isInvalid() exprs {
	return exprs{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg}, and(u32(expr.CtStateBitINVALID)),
		compare(expr.CmpOpNeq, u32(0)...),
	}
}

// meta l4proto PROTO
func l4proto(op expr.CmpOp, proto byte) exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, compare(op, proto)}
}

// tcp flags & (syn|ack) != syn: every TCP packet but the one that opens a
// connection (RFC 9293 section 3.1: flags are byte 13, SYN 0x02, ACK 0x10).
func notOpening() exprs {
	return join(l4proto(expr.CmpOpEq, unix.IPPROTO_TCP), exprs{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		and([]byte{0x12}), compare(expr.CmpOpNeq, 0x02),
	})
}

// udp dport PORT
func udpTo(port uint16) exprs {
	return join(l4proto(expr.CmpOpEq, unix.IPPROTO_UDP), exprs{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		compare(expr.CmpOpEq, byte(port>>8), byte(port)),
	})
}

// fib saddr type local
func fromOwnAddress() exprs {
	return exprs{
		&expr.Fib{Register: reg, FlagSADDR: true, ResultADDRTYPE: true},
		compare(expr.CmpOpEq, u32(unix.RTN_LOCAL)...),
	}
}

// icmpv6 type TYPE
func icmp6Type(t byte) exprs {
	return join(l4proto(expr.CmpOpEq, unix.IPPROTO_ICMPV6), exprs{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}, compare(expr.CmpOpEq, t),
	})
}

// ip6 hoplimit 255: the packet was not routed on its way (RFC 4861 section 6.1).
func hopLimit255() exprs {
	return join(family(unix.NFPROTO_IPV6), exprs{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 7, Len: 1}, compare(expr.CmpOpEq, 255),
	})
}

// meta nfproto ipv4 | ipv6
func family(nfproto byte) exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, compare(expr.CmpOpEq, nfproto)}
}

// ip saddr @SET, ip daddr @SET and the same for ip6.
func addrIn(s *nftables.Set, source bool) exprs {
	nfproto, offset, length := byte(unix.NFPROTO_IPV4), uint32(16), uint32(4)
	if s.KeyType == nftables.TypeIP6Addr {
		nfproto, offset, length = unix.NFPROTO_IPV6, 24, 16
	}
	if source {
		offset -= length
	}
	return join(family(nfproto), exprs{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID},
	})
}

// counter name NAME
func count(c Counter) exprs {
	return exprs{&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: string(c)}}
}

func verdict(kind expr.VerdictKind) exprs { return exprs{&expr.Verdict{Kind: kind}} }

func accept() exprs { return verdict(expr.VerdictAccept) }

func drop() exprs { return verdict(expr.VerdictDrop) }

// reject with icmpx port-unreachable
func reject() exprs {
	return exprs{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}}
}

// jump CHAIN: and come back
func jump(chain string) exprs {
	return exprs{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

// goto CHAIN: and do not come back
func goTo(chain string) exprs {
	return exprs{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

func elements(addrs []netip.Addr) []nftables.SetElement {
	el := make([]nftables.SetElement, len(addrs))
	for i, a := range addrs {
		el[i].Key = a.AsSlice()
	}
	return el
}
