package nft

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// CounterSpoofed: with a source address that does not belong where the packet came
// from, or a message that only routers send. Only there once Sources has been applied.
const CounterSpoofed Counter = "spoofed"

// SourceCheck is what becomes of packets with a source address that is not that of
// who sent them, and of those by which a pod says that it is a router.
type SourceCheck uint8

const (
	SourcesDropped SourceCheck = iota
	SourcesCounted             // and pass
	SourcesIgnored
)

// Sources binds source addresses to links: a packet from a pod's own link, and a
// packet with a pod's address from anywhere, passes only if the kernel would send an
// answer back the way it came. The route table is the binding, so it is never out of
// date, and a pod is bound by the route that its network plugin makes before it
// starts. What is learned is only which links are pods' own.
//
// It has chains of its own in postern's table. Table makes the first, jumps to it, and leaves
// their rules alone. It is not safe for concurrent use.
type Sources struct {
	conn   *Conn
	check  SourceCheck
	exempt []netip.Prefix
}

// Table jumps to the first with every packet that arrives, before conntrack has seen it.
const (
	chainArrived = "arrived"
	chainSources = "sources"
)

// NewSources returns a handle; the kernel is not touched. Addresses under an exempt
// prefix are not checked: those that pods share, for instance.
func NewSources(c *Conn, check SourceCheck, exempt []netip.Prefix) *Sources {
	return &Sources{conn: c, check: check, exempt: exempt}
}

// Apply makes the kernel check, with these indexes of pods' own links, in one
// transaction. The table must be there: Table.Apply makes it.
func (s *Sources) Apply(links []int) error {
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: TableName}
	set := &nftables.Set{Table: t, Name: "links", KeyType: nftables.TypeIFIndex, Comment: "links that lead to pods of this host"}
	arrived := &nftables.Chain{Table: t, Name: chainArrived}
	sources := &nftables.Chain{Table: t, Name: chainSources}
	s.conn.AddObj(&nftables.NamedObj{Table: t, Name: string(CounterSpoofed), Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	if err := s.conn.AddSet(set, nil); err != nil {
		return fmt.Errorf("set %s: %w", set.Name, err)
	}
	s.conn.FlushSet(set)
	var els []nftables.SetElement
	for _, l := range links {
		els = append(els, nftables.SetElement{Key: binaryutil.NativeEndian.PutUint32(uint32(l))})
	}
	for c := range slices.Chunk(els, chunk) {
		if err := s.conn.SetAddElements(set, c); err != nil {
			return fmt.Errorf("set %s: %w", set.Name, err)
		}
	}
	s.conn.AddChain(sources)
	s.conn.FlushChain(arrived)
	s.conn.FlushChain(sources)
	add := func(ch *nftables.Chain, rules []rule) {
		for _, r := range rules {
			s.conn.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: r.exprs, UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
		}
	}
	if s.check != SourcesIgnored {
		add(sources, s.rules())
		pods4 := &nftables.Set{Table: t, Name: "pods4", KeyType: nftables.TypeIPAddr}
		pods6 := &nftables.Set{Table: t, Name: "pods6", KeyType: nftables.TypeIP6Addr}
		add(arrived, []rule{
			goesBack(unix.NFPROTO_IPV4), // nearly all packets
			{"from a pod's link", join(linkIn(set), goTo(chainSources))},
			{"with a pod's address, from anywhere", join(addrIn(pods4, true), goTo(chainSources))},
			{"with a pod's address, from anywhere", join(addrIn(pods6, true), goTo(chainSources))},
		})
	}
	if err := s.conn.Flush(); err != nil {
		return fmt.Errorf("table %s: check of source addresses: %w", TableName, err)
	}
	return nil
}

func (s *Sources) rules() []rule {
	refuse := count(CounterSpoofed)
	if s.check == SourcesDropped {
		refuse = join(refuse, drop())
	}
	var rules []rule
	for _, p := range s.exempt {
		rules = append(rules, rule{"exempt", join(sourceIn(p.Masked()), accept())})
	}
	return append(rules,
		// Router advertisement and redirect (RFC 4861): who believes one sends by way of
		// its sender, which need not have an address of anybody for it.
		rule{"not a router", join(icmp6Type(134), refuse)},
		rule{"not a router", join(icmp6Type(137), refuse)},
		goesBack(unix.NFPROTO_IPV6),
		// These are never routed, and a pod needs them to get an address and to find its gateway.
		rule{"no address yet", join(sourceIn(netip.MustParsePrefix("0.0.0.0/32")), accept())},
		rule{"no address yet", join(sourceIn(netip.MustParsePrefix("::/128")), accept())},
		rule{"of the link", join(sourceIn(netip.MustParsePrefix("fe80::/10")), accept())},
		rule{"not the sender's address", refuse})
}

// iif @SET
func linkIn(s *nftables.Set) exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyIIF, Register: reg}, &expr.Lookup{SourceRegister: reg, SetName: s.Name, SetID: s.ID}}
}

// ip saddr PREFIX, ip6 saddr PREFIX
func sourceIn(p netip.Prefix) exprs {
	nfproto, offset := byte(unix.NFPROTO_IPV4), uint32(12)
	if p.Addr().Is6() {
		nfproto, offset = unix.NFPROTO_IPV6, 8
	}
	addr := p.Addr().AsSlice()
	mask := make([]byte, len(addr))
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	load := exprs{&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(addr))}}
	if p.Bits() < p.Addr().BitLen() {
		load = append(load, and(mask))
	}
	return join(family(nfproto), load, exprs{compare(expr.CmpOpEq, addr...)})
}

// fib saddr . iif oif exists: the best route to the source goes out where the packet
// came in. The host's own addresses have none.
func goesBack(nfproto byte) rule {
	return rule{"an answer would go back this way", join(family(nfproto), exprs{
		&expr.Fib{Register: reg, FlagSADDR: true, FlagIIF: true, FlagPRESENT: true, ResultOIF: true},
		compare(expr.CmpOpEq, 1),
	}, accept())}
}
