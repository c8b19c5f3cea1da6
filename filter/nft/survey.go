package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// Survey is what tables of others do where postern's table works. It sees what
// nftables knows: also rules that iptables-nft made, but none of iptables-legacy.
type Survey struct {
	// Ours: postern's table is there.
	Ours bool
	// Bases are the chains of others that the kernel calls.
	Bases []Base
	// Marks are their rules that write or read packet or conntrack marks.
	Marks []MarkUse
	// Queues are their rules that queue, Untracked those that keep packets from
	// conntrack, Offloads those that put flows into a flowtable.
	Queues    []QueueUse
	Untracked []Place
	Offloads  []Place
	// Flowtables are the tables' flowtables, whether a rule uses them or not.
	Flowtables []Place
	// Unread are chains whose rules could not be read, and why.
	Unread map[Place]error
}

// Place names a chain, or an object of a table.
type Place struct{ Family, Table, Name string }

func (p Place) String() string { return p.Family + " " + p.Table + " " + p.Name }

// Base is a chain that the kernel calls.
type Base struct {
	Place
	// Type is filter, nat or route; Hook is prerouting, input, forward, output,
	// postrouting, ingress or egress.
	Type, Hook string
	Priority   int
	// Drops: its policy is to drop.
	Drops bool
}

// MarkUse is a rule that has to do with marks.
type MarkUse struct {
	Place
	// Flow: the conntrack mark; else the packet mark.
	Flow bool
	// Writes: it changes the bits; else it compares them.
	Writes bool
	Bits   uint32
}

// QueueUse is a rule that queues.
type QueueUse struct {
	Place
	First, Last uint16
}

// LookAround reads the tables of all families but postern's own. Nothing is changed.
func LookAround(c *Conn) (s Survey, err error) {
	chains, err := c.ListChains()
	if err != nil {
		return s, fmt.Errorf("list chains: %w", err)
	}
	tables, err := c.ListTables()
	if err != nil {
		return s, fmt.Errorf("list tables: %w", err)
	}
	s.Unread = map[Place]error{}
	for _, t := range tables {
		if isOurs(t) {
			s.Ours = true
			continue
		}
		fts, err := c.ListFlowtables(t)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
			s.Unread[Place{familyName(t.Family), t.Name, "(flowtables)"}] = err
		}
		for _, f := range fts {
			s.Flowtables = append(s.Flowtables, Place{familyName(t.Family), t.Name, f.Name})
		}
	}
	for _, ch := range chains {
		if isOurs(ch.Table) {
			continue
		}
		at := Place{familyName(ch.Table.Family), ch.Table.Name, ch.Name}
		if ch.Hooknum != nil && ch.Priority != nil {
			s.Bases = append(s.Bases, Base{
				Place: at, Type: string(ch.Type), Hook: hookName(ch.Table.Family, *ch.Hooknum), Priority: int(*ch.Priority),
				Drops: ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop,
			})
		}
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil {
			s.Unread[at] = err
			continue
		}
		for _, r := range rules {
			s.read(at, r.Exprs)
		}
	}
	return s, nil
}

func isOurs(t *nftables.Table) bool {
	return t.Family == nftables.TableFamilyINet && t.Name == TableName
}

// read finds what a rule does that concerns others. An nft rule that changes a mark
// reads as "meta load mark; bitwise; meta set mark", one that compares it as "meta load
// mark; [bitwise;] cmp or lookup".
func (s *Survey) read(at Place, es []expr.Any) {
	loaded := struct{ flow, packet bool }{}
	keeps := uint32(0) // what the last bitwise leaves as it is
	compared := uint32(math.MaxUint32)
	mark := func(flow, writes bool, bits uint32) {
		if bits != 0 {
			s.Marks = append(s.Marks, MarkUse{at, flow, writes, bits})
		}
	}
	for _, e := range es {
		switch e := e.(type) {
		case *expr.Meta:
			if e.Key != expr.MetaKeyMARK {
				continue
			}
			if !e.SourceRegister {
				loaded.packet, loaded.flow, keeps, compared = true, false, math.MaxUint32, math.MaxUint32
				continue
			}
			if !loaded.packet {
				keeps = 0
			}
			mark(false, true, ^keeps)
			loaded.packet = false
		case *expr.Ct:
			if e.Key != expr.CtKeyMARK {
				continue
			}
			// The library does not read the register of a write, and 0 is none that a
			// value could be loaded into.
			if !e.SourceRegister && e.Register != 0 {
				loaded.flow, loaded.packet, keeps, compared = true, false, math.MaxUint32, math.MaxUint32
				continue
			}
			if !loaded.flow {
				keeps = 0
			}
			mark(true, true, ^keeps)
			loaded.flow = false
		case *expr.Bitwise:
			if len(e.Mask) == 4 && len(e.Xor) == 4 {
				mask, xor := binary.NativeEndian.Uint32(e.Mask), binary.NativeEndian.Uint32(e.Xor)
				keeps &= mask &^ xor
				compared = mask
			} else {
				keeps = 0
			}
		case *expr.Immediate: // overwrites what was loaded
			loaded.flow, loaded.packet = false, false
		case *expr.Cmp, *expr.Lookup, *expr.Range:
			if loaded.flow || loaded.packet {
				mark(loaded.flow, false, compared)
				loaded.flow, loaded.packet = false, false
			}
		case *expr.Queue:
			s.Queues = append(s.Queues, QueueUse{at, e.Num, e.Num + max(e.Total, 1) - 1})
		case *expr.Notrack:
			s.Untracked = append(s.Untracked, at)
		case *expr.FlowOffload:
			s.Offloads = append(s.Offloads, at)
		case *expr.Target:
			s.target(at, e)
		case *expr.Match:
			info, ok := e.Info.(*xt.Unknown)
			// struct xt_mark_mtinfo1 and xt_connmark_mtinfo1: mark, mask, invert.
			if ok && (e.Name == "mark" || e.Name == "connmark") && len(*info) >= 8 {
				mark(e.Name == "connmark", false, binary.NativeEndian.Uint32((*info)[4:]))
			}
		}
	}
}

// target reads an xt target (uapi linux/netfilter/xt_MARK.h and so on).
func (s *Survey) target(at Place, t *expr.Target) {
	info, ok := t.Info.(*xt.Unknown)
	if !ok {
		return
	}
	b := []byte(*info)
	word := func(i int) uint32 {
		if len(b) < 4*i+4 {
			return 0
		}
		return binary.NativeEndian.Uint32(b[4*i:])
	}
	use := func(flow bool, bits uint32) {
		if bits != 0 {
			s.Marks = append(s.Marks, MarkUse{at, flow, true, bits})
		}
	}
	switch t.Name {
	case "MARK": // mark, mask: (packet &^ mask) ^ mark
		use(false, word(0)|word(1))
	case "CONNMARK": // ctmark, ctmask, nfmask, from revision 2 on a shift and its bits, mode
		mode, shifted := 12, uint32(0)
		if t.Rev >= 2 {
			mode = 14
			if len(b) > mode && b[13] != 0 {
				shifted = math.MaxUint32
			}
		}
		switch {
		case len(b) <= mode:
		case b[mode] == 0: // set
			use(true, word(0)|word(1)|shifted)
		case b[mode] == 1: // save
			use(true, word(1)|word(2)|shifted)
		default: // restore
			use(false, word(1)|word(2)|shifted)
		}
	case "CONNSECMARK", "SECMARK":
	case "NOTRACK":
		s.Untracked = append(s.Untracked, at)
	case "CT": // xt_ct_target_info: flags, bit 0 is notrack
		if len(b) >= 2 && binary.NativeEndian.Uint16(b)&1 != 0 {
			s.Untracked = append(s.Untracked, at)
		}
	case "NFQUEUE": // queuenum, queues_total
		if len(b) >= 2 {
			first, total := binary.NativeEndian.Uint16(b), uint16(1)
			if t.Rev > 0 && len(b) >= 4 {
				total = max(binary.NativeEndian.Uint16(b[2:]), 1)
			}
			s.Queues = append(s.Queues, QueueUse{at, first, first + total - 1})
		}
	case "FLOWOFFLOAD":
		s.Offloads = append(s.Offloads, at)
	}
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyARP:
		return "arp"
	case nftables.TableFamilyBridge:
		return "bridge"
	case nftables.TableFamilyNetdev:
		return "netdev"
	default:
		return fmt.Sprintf("family-%d", f)
	}
}

func hookName(f nftables.TableFamily, h nftables.ChainHook) string {
	if f == nftables.TableFamilyNetdev {
		if h == 1 { // NF_NETDEV_EGRESS
			return "egress"
		}
		return "ingress"
	}
	names := []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	if int(h) < len(names) {
		return names[h]
	}
	return fmt.Sprintf("hook-%d", h)
}

// Where postern's own chains stand, for those who look at others.
var (
	// RawPriority is that of the chains that clear and set marks, at prerouting and
	// output.
	RawPriority = int(*nftables.ChainPriorityRaw)
	// PostroutingPriority and InputPriority are those of the chains that decide.
	PostroutingPriority = int(*beforeSourceNAT)
	InputPriority       = int(*afterIPVS)
)

// Feature is something of the kernel that postern's table needs.
type Feature struct {
	Name string
	// Queue: it is a way to queue, of which one is enough.
	Queue bool
	Err   error // why the kernel refused it; nil if it did not
}

// TryFeatures asks the kernel about each thing that postern's rules are made of, and
// about the rules themselves. Like Try it makes a table with regular chains, which no
// packet sees, and removes it in the same transaction.
func TryFeatures(c *Conn, cfg Config) ([]Feature, error) {
	chain := func(es ...exprs) func(*nftables.Table) {
		return func(t *nftables.Table) {
			ch := c.AddChain(&nftables.Chain{Table: t, Name: "probe"})
			c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: join(es...)})
		}
	}
	m := cfg.Marks
	tried := []struct {
		name  string
		queue bool
		make  func(*nftables.Table)
	}{
		{"nf_tables, table of family inet", false, func(*nftables.Table) {}},
		{"queue expression (nft_queue)", true, chain(Queues{Count: 1}.statement(ViaNative, false))},
		{"NFQUEUE target (xt_NFQUEUE, nft_compat)", true, chain(Queues{Count: 1}.statement(ViaTarget, false))},
		{"conntrack state (nft_ct)", false, chain(isInvalid(), drop())},
		{"conntrack mark", false, chain(setFlowMark(m.Mask(), m.Flow(0)))},
		{"packet mark", false, chain(setPacketMark(m.Mask(), 0))},
		{"reverse path (nft_fib_inet)", false, chain(exprs{&expr.Fib{Register: 1, ResultOIF: true, FlagSADDR: true, FlagIIF: true}})},
		{"reject (nft_reject_inet)", false, chain(reject())},
		{"counters by name (nft_objref)", false, func(t *nftables.Table) {
			c.AddObj(&nftables.NamedObj{Table: t, Name: string(CounterQueued), Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
			chain(count(CounterQueued))(t)
		}},
		{"the whole rule set: caches, guards, sets with timeouts", false, func(t *nftables.Table) { tryRules(c, cfg, t) }},
	}
	var found []Feature
	for _, f := range tried {
		t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "postern-probe"})
		f.make(t)
		c.DelTable(t)
		err := c.Flush()
		if errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("probe nftables: %w", err)
		}
		found = append(found, Feature{f.name, f.queue, err})
	}
	return found, nil
}

// tryRules queues the messages that make a table like postern's, without hooks.
func tryRules(c *Conn, cfg Config, as *nftables.Table) {
	t := &Table{conn: c, cfg: cfg, table: as, sets: newSets(as, DefaultCacheSize)}
	t.unhooked = true
	t.create()
	t.renew(inForce{}, false)
}
