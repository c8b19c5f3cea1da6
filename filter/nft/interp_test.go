package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The interpreter runs the very rules that go to the kernel, expression by
// expression, over packets and conntrack entries that a test makes up. It knows what
// these rules use and nothing else.

// skb is a packet on its way through a base chain.
type skb struct {
	src, dst     netip.Addr
	proto        byte
	sport, dport uint16
	tcpFlags     byte
	icmpType     byte
	hopLimit     byte
	options      bool // IPv6: an extension header stands before the transport header
	mark         uint32

	ct *conn // nil if untracked or invalid
	// reply and state are conntrack's view of this packet.
	reply bool
	state uint32
	own   bool // from an address of the node
}

// conn is a conntrack entry.
type conn struct{ mark uint32 }

// machine is what the kernel has: one generation of rules, and sets. A packet that
// began under one generation ends under it, also if another has come.
type machine struct {
	chains map[string][]rule
	sets   map[string]*memory
	count  map[string]int
	clock  *int // in seconds
}

// memory is a set. Those that rules may write are full at size.
type memory struct {
	keys    map[string]*element
	size    int
	width   int // of a key, in bytes
	timeout int // of an element, in seconds; 0 if it stays
}

// element may have a limit, as a bucket that is filled with as many tokens as its rate
// in a second.
type element struct {
	expires int // 0 if it stays
	tokens  int
	filled  int // when
}

// find gives the element of a key, nil if there is none any more.
func (s *memory) find(k string, now int) *element {
	e := s.keys[k]
	if e != nil && e.expires != 0 && now >= e.expires {
		delete(s.keys, k)
		return nil
	}
	return e
}

// full tells whether there is no room for another.
func (s *memory) full(now int) bool {
	for k := range s.keys {
		s.find(k, now)
	}
	return len(s.keys) >= s.size
}

// touch begins the time of an element anew.
func (s *memory) touch(e *element, now int) {
	if s.timeout != 0 {
		e.expires = now + s.timeout
	}
}

// over takes a token, and tells whether there was none.
func (e *element) over(l *expr.Limit, now int) bool {
	e.tokens = min(int(l.Burst), e.tokens+(now-e.filled)*int(l.Rate))
	e.filled = now
	if e.tokens == 0 {
		return true
	}
	e.tokens--
	return false
}

type outcome int

const (
	cont    outcome = iota // the end of a regular chain, or a base chain's policy
	broke                  // this rule does not match
	through                // accept
	dropped
	queued
)

// run sends a packet through a base chain.
func (m *machine) run(base string, p *skb) outcome {
	out := m.chain(base, p, 0)
	if out == cont {
		return through
	}
	return out
}

func (m *machine) chain(name string, p *skb, depth int) outcome {
	rules, ok := m.chains[name]
	if !ok || depth > 16 {
		panic(fmt.Sprintf("jump to %q, %d deep", name, depth))
	}
next:
	for _, r := range rules {
		regs := make([]byte, 16*4)
		for _, e := range r.exprs {
			v, ok := e.(*expr.Verdict)
			if !ok {
				switch out := m.eval(e, regs, p); out {
				case cont:
				case broke:
					continue next
				default:
					return out
				}
				continue
			}
			switch v.Kind {
			case expr.VerdictAccept:
				return through
			case expr.VerdictDrop:
				return dropped
			case expr.VerdictReturn:
				return cont
			case expr.VerdictGoto:
				return m.chain(v.Chain, p, depth+1)
			case expr.VerdictJump:
				if out := m.chain(v.Chain, p, depth+1); out != cont {
					return out
				}
			default:
				panic(v)
			}
		}
	}
	return cont
}

// register gives the bytes from a register on.
func register(regs []byte, n uint32) []byte {
	if n >= unix.NFT_REG32_00 {
		return regs[(n-unix.NFT_REG32_00)*4:]
	}
	return regs[(n-1)*16:]
}

// store writes what is shorter than a register as the kernel does.
func store(regs []byte, n uint32, data []byte) {
	r := register(regs, n)
	clear(r[:(len(data)+3)/4*4])
	copy(r, data)
}

func (m *machine) eval(e expr.Any, regs []byte, p *skb) outcome {
	matches := func(is bool) outcome {
		if is {
			return cont
		}
		return broke
	}
	switch e := e.(type) {
	case *expr.Meta:
		switch {
		case e.Key == expr.MetaKeyMARK && e.SourceRegister:
			p.mark = binary.NativeEndian.Uint32(register(regs, e.Register))
		case e.Key == expr.MetaKeyMARK:
			store(regs, e.Register, u32(p.mark))
		case e.Key == expr.MetaKeyL4PROTO:
			store(regs, e.Register, []byte{p.proto})
		case e.Key == expr.MetaKeyNFPROTO:
			store(regs, e.Register, []byte{nfproto[p.family()]})
		default:
			panic(e)
		}
	case *expr.Ct:
		switch {
		case e.Key == expr.CtKeySTATE:
			store(regs, e.Register, u32(p.state))
		case p.ct == nil:
			return broke
		case e.Key == expr.CtKeyMARK && e.SourceRegister:
			p.ct.mark = binary.NativeEndian.Uint32(register(regs, e.Register))
		case e.Key == expr.CtKeyMARK:
			store(regs, e.Register, u32(p.ct.mark))
		case e.Key == expr.CtKeyDIRECTION && p.reply:
			store(regs, e.Register, []byte{1})
		case e.Key == expr.CtKeyDIRECTION:
			store(regs, e.Register, []byte{0})
		default:
			panic(e)
		}
	case *expr.Bitwise:
		src, dst := register(regs, e.SourceRegister), register(regs, e.DestRegister)
		for i := range e.Len {
			dst[i] = src[i]&e.Mask[i] ^ e.Xor[i]
		}
	case *expr.Cmp:
		c := bytes.Compare(register(regs, e.Register)[:len(e.Data)], e.Data)
		switch e.Op {
		case expr.CmpOpEq:
			return matches(c == 0)
		case expr.CmpOpNeq:
			return matches(c != 0)
		case expr.CmpOpLt:
			return matches(c < 0)
		case expr.CmpOpGte:
			return matches(c >= 0)
		}
		panic(e)
	case *expr.Payload:
		b, ok := p.payload(e)
		if !ok {
			return broke
		}
		store(regs, e.DestRegister, b)
	case *expr.Fib:
		if e.FlagSADDR == e.FlagDADDR || !e.ResultADDRTYPE {
			panic(e)
		}
		kind := uint32(unix.RTN_UNICAST)
		if e.FlagSADDR && p.own || e.FlagDADDR && slices.Contains(nodeAddrs, p.dst) {
			kind = unix.RTN_LOCAL
		}
		store(regs, e.Register, u32(kind))
	case *expr.Lookup:
		s := m.set(e.SetName)
		in := s.find(s.key(regs, e.SourceRegister), *m.clock) != nil
		return matches(in != e.Invert)
	case *expr.Dynset:
		s, now := m.set(e.SetName), *m.clock
		k := s.key(regs, e.SrcRegKey)
		el := s.find(k, now)
		switch {
		case el == nil && s.full(now):
			return broke
		case el == nil:
			el = &element{filled: now}
			for _, x := range e.Exprs {
				el.tokens = int(x.(*expr.Limit).Burst)
			}
			s.touch(el, now)
			s.keys[k] = el
		case e.Operation == unix.NFT_DYNSET_OP_UPDATE:
			s.touch(el, now)
		}
		for _, x := range e.Exprs {
			if l := x.(*expr.Limit); el.over(l, now) != l.Over {
				return broke
			}
		}
	case *expr.Objref:
		m.count[e.Name]++
	case *expr.Queue, *expr.Target:
		return queued
	case *expr.Reject:
		return dropped
	default:
		panic(fmt.Sprintf("%T", e))
	}
	return cont
}

func (m *machine) set(name string) *memory {
	s, ok := m.sets[name]
	if !ok {
		panic("no set " + name)
	}
	return s
}

func (s *memory) key(regs []byte, n uint32) string { return string(register(regs, n)[:s.width]) }

func (p *skb) family() int {
	if p.src.Is6() {
		return v6
	}
	return v4
}

func (p *skb) payload(e *expr.Payload) ([]byte, bool) {
	switch {
	case e.Base == expr.PayloadBaseNetworkHeader && e.Len > 1:
		src := uint32(12)
		if p.family() == v6 {
			src = 8
		}
		switch e.Offset {
		case src:
			return p.src.AsSlice(), true
		case src + e.Len:
			return p.dst.AsSlice(), true
		}
	case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == 6 && p.options:
		return []byte{unix.IPPROTO_DSTOPTS}, true
	case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == 6:
		return []byte{p.proto}, true
	case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == 7:
		return []byte{p.hopLimit}, true
	case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 13:
		return []byte{p.tcpFlags}, p.proto == unix.IPPROTO_TCP
	case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 0 && e.Len == 1:
		return []byte{p.icmpType}, true
	case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 0:
		return binary.BigEndian.AppendUint16(nil, p.sport), true
	case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2:
		return binary.BigEndian.AppendUint16(nil, p.dport), true
	}
	panic(e)
}
