package nft

import (
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
func packetMarkIs(mask, value uint32) exprs { return packetMark(mask, expr.CmpOpEq, value) }

// meta mark & MASK != 0
func packetMarkHas(mask uint32) exprs { return packetMark(mask, expr.CmpOpNeq, 0) }

func packetMark(mask uint32, op expr.CmpOp, value uint32) exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg}, and(u32(mask)), compare(op, u32(value)...)}
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

// ct mark & MASK == @SET
func flowMarkIn(mask uint32, s *nftables.Set) exprs {
	return exprs{&expr.Ct{Key: expr.CtKeyMARK, Register: reg}, and(u32(mask)), lookup(s)}
}

// ct direction reply
func isReply() exprs {
	return exprs{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}, compare(expr.CmpOpEq, 1)}
}

// ct direction original
func isOriginal() exprs {
	return exprs{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}, compare(expr.CmpOpEq, 0)}
}

// ct state STATE
func flowIs(bit uint32) exprs {
	return exprs{&expr.Ct{Key: expr.CtKeySTATE, Register: reg}, and(u32(bit)), compare(expr.CmpOpNeq, u32(0)...)}
}

func isInvalid() exprs { return flowIs(expr.CtStateBitINVALID) }

// isRelated holds for an ICMP error about a flow, and for the first packet of one
// that a helper announced. Either carries the conntrack mark of that other flow.
func isRelated() exprs { return flowIs(expr.CtStateBitRELATED) }

// isTaken holds for the packet on which conntrack picks up a connection that it did
// not see begin.
func isTaken() exprs { return join(flowIs(expr.CtStateBitNEW), notOpening()) }

// meta l4proto PROTO
func l4proto(op expr.CmpOp, proto byte) exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, compare(op, proto)}
}

// meta l4proto != tcp
func notTCP() exprs { return l4proto(expr.CmpOpNeq, unix.IPPROTO_TCP) }

// tcp flags & (syn|ack) != syn: every TCP packet but the one that opens a
// connection (RFC 9293 section 3.1: flags are byte 13, SYN 0x02, ACK 0x10).
func notOpening() exprs { return flags(expr.CmpOpNeq) }

// EphemeralPort is the first of the ports from which Linux connects where nobody says
// otherwise (net.ipv4.ip_local_port_range).
const EphemeralPort = 32768

// tcp sport < 32768 tcp dport >= 32768: from a server, by the look of it
func looksLikeAnswer() exprs { return ports(expr.CmpOpLt, expr.CmpOpGte) }

// tcp sport >= 32768 tcp dport < 32768: to a server, by the look of it
func looksLikeQuestion() exprs { return ports(expr.CmpOpGte, expr.CmpOpLt) }

func ports(source, destination expr.CmpOp) exprs {
	port := func(offset uint32, op expr.CmpOp) exprs {
		return exprs{
			&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
			compare(op, EphemeralPort>>8, EphemeralPort&0xff),
		}
	}
	return join(l4proto(expr.CmpOpEq, unix.IPPROTO_TCP), port(0, source), port(2, destination))
}

// tcp flags & (syn|ack) == syn
func isOpening() exprs { return flags(expr.CmpOpEq) }

func flags(op expr.CmpOp) exprs {
	return join(l4proto(expr.CmpOpEq, unix.IPPROTO_TCP), exprs{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		and([]byte{0x12}), compare(op, 0x02),
	})
}

// meta l4proto != @SET
func l4protoNotIn(s *nftables.Set) exprs {
	return exprs{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID, Invert: true},
	}
}

// udp dport PORT
func udpTo(port uint16) exprs {
	return join(l4proto(expr.CmpOpEq, unix.IPPROTO_UDP), exprs{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		compare(expr.CmpOpEq, byte(port>>8), byte(port)),
	})
}

// fib saddr type local, fib daddr type local
func ownAddress(source bool) exprs {
	return exprs{
		&expr.Fib{Register: reg, FlagSADDR: source, FlagDADDR: !source, ResultADDRTYPE: true},
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

// ip6 nexthdr != @SET
func nextHeaderNotIn(s *nftables.Set) exprs {
	return join(family(unix.NFPROTO_IPV6), exprs{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 1},
		&expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID, Invert: true},
	})
}

func lookup(s *nftables.Set) expr.Any {
	return &expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID}
}

// ip saddr and ip daddr, or ip6 saddr and ip6 daddr, into register 1.
func addr(v int, source bool) exprs {
	offset, length := uint32(16), uint32(4)
	if v == v6 {
		offset, length = 24, 16
	}
	if source {
		offset -= length
	}
	return join(family(nfproto[v]), exprs{
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
	})
}

var nfproto = [2]byte{v4: unix.NFPROTO_IPV4, v6: unix.NFPROTO_IPV6}

// ip saddr @SET, ip daddr @SET and the same for ip6.
func addrIn(s *nftables.Set, source bool) exprs {
	return append(addr(familyOf(s), source), lookup(s))
}

// ip saddr @SET ip saddr != @BUT and the like
func addrInBut(s, but *nftables.Set, source bool) exprs {
	return join(addrIn(s, source), addr(familyOf(s), source)[2:], exprs{
		&expr.Lookup{SourceRegister: reg, SetName: but.Name, SetID: but.ID, Invert: true},
	})
}

func familyOf(s *nftables.Set) int {
	if s.KeyType == nftables.TypeIP6Addr {
		return v6
	}
	return v4
}

// Registers that follow register 1 in a concatenation. Register 1 is the first of
// four of 32 bits each (NFT_REG_1), which have numbers of their own.
const (
	reg32    = unix.NFT_REG32_00
	reg32of1 = 4 // of 32 bits, that make a register of 128
)

// ip saddr . ip daddr . meta l4proto . th dport, from register 1 on
func wayOf(v int) exprs {
	length := addr(v, true)[2].(*expr.Payload).Len
	at := func(word uint32) uint32 { // the register that begins at a word
		if word%reg32of1 == 0 {
			return reg + word/reg32of1
		}
		return reg32 + word
	}
	e := addr(v, true)
	rest := exprs{
		addr(v, false)[2],
		&expr.Meta{Key: expr.MetaKeyL4PROTO},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
	for i, part := range rest {
		word := length / 4
		if i > 0 {
			word += length/4 + uint32(i) - 1
		}
		switch p := part.(type) {
		case *expr.Payload:
			p.DestRegister = at(word)
		case *expr.Meta:
			p.Register = at(word)
		}
		e = append(e, part)
	}
	return e
}

// ip saddr . ip daddr . meta l4proto . th dport @SET
func wayIn(v int, s *nftables.Set) exprs { return append(wayOf(v), lookup(s)) }

// add @SET { ip saddr . ip daddr . meta l4proto . th dport }
func addWay(v int, s *nftables.Set) exprs {
	return append(wayOf(v), &expr.Dynset{SrcRegKey: reg, SetName: s.Name, SetID: s.ID, Operation: unix.NFT_DYNSET_OP_ADD})
}

// update @SET { ip saddr limit rate over RATE/second burst RATE packets }: holds
// once the source has used its share up. Where the set is full it does not hold.
func overLimit(v int, s *nftables.Set, rate uint32) exprs {
	return append(addr(v, true), &expr.Dynset{
		SrcRegKey: reg, SetName: s.Name, SetID: s.ID, Operation: unix.NFT_DYNSET_OP_UPDATE,
		Exprs: []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(rate), Over: true, Unit: expr.LimitTimeSecond, Burst: rate}},
	})
}

// counter name NAME
func count(c Counter) exprs {
	return exprs{&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: string(c)}}
}

func verdict(kind expr.VerdictKind) exprs { return exprs{&expr.Verdict{Kind: kind}} }

func accept() exprs { return verdict(expr.VerdictAccept) }

func drop() exprs { return verdict(expr.VerdictDrop) }

// return: to the rule after the jump that led here
func back() exprs { return verdict(expr.VerdictReturn) }

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
