package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Cached tells what the kernel has decided from its caches without a question: how much
// in all, and by which ways. It has connections of its own and changes nothing.
//
// It is for one goroutine at a time.
type Cached struct {
	conn  *Conn
	walk  *netlink.Conn
	marks Marks
	table *nftables.Table
	sets  sets
	seed  maphash.Seed

	epoch uint32
	// sure: epoch, and what follows, are of the last Read, and nothing came in between.
	sure bool
	none bool // there was no table
	// seen are the counters of the elements as they were read last, by hash of the way;
	// of allowed and denied ways, by epoch modulo 2.
	seen [2][2]map[uint64]uint64

	count, total Totals
}

// Totals count packets that the kernel decided from its caches; nearly all of them are the
// first of their flow.
type Totals struct{ Allowed, Denied uint64 }

// Hits are packets of one way that the kernel decided from its cache.
type Hits struct {
	Src, Dst netip.Addr
	Proto    uint8
	DstPort  uint16
	Allowed  bool
	Packets  uint64
}

// pageSize is how much of a set the kernel is asked for at once, in bytes; it gives no more.
// For each page it walks over the set from its beginning (nf_tables_dump_set), so that
// small pages make the time quadratic that much sooner.
const pageSize = 32 << 10

// DialCached opens connections in the caller's network namespace.
func DialCached(m Marks) (*Cached, error) {
	c, err := Dial()
	if err != nil {
		return nil, err
	}
	walk, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{MessageBufferSize: pageSize})
	if err != nil {
		c.CloseLasting()
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: TableName}
	return &Cached{conn: c, walk: walk, marks: m, table: t, sets: newSets(t, 0), seed: maphash.MakeSeed()}, nil
}

// Close ends the connections.
func (c *Cached) Close() error { return errors.Join(c.conn.CloseLasting(), c.walk.Close()) }

// Totals reads the two counters of the kernel that have all of them. What it returns
// never falls, whoever makes the table anew; without a table it stays.
func (c *Cached) Totals() (Totals, error) {
	objs, err := c.conn.GetNamedObjects(c.table)
	if err != nil {
		return c.total, fmt.Errorf("table %s: counters: %w", TableName, err)
	}
	now := Totals{}
	for _, o := range objs {
		named, ok := o.(*nftables.NamedObj)
		if !ok {
			continue
		}
		k, ok := named.Obj.(*expr.Counter)
		switch {
		case ok && named.Name == string(CounterAllowedCache):
			now.Allowed = k.Packets
		case ok && named.Name == string(CounterDeniedCache):
			now.Denied = k.Packets
		}
	}
	c.total.Allowed += risen(c.count.Allowed, now.Allowed)
	c.total.Denied += risen(c.count.Denied, now.Denied)
	c.count = now
	return c.total, nil
}

// risen is by how much a counter has grown that may have begun anew.
func risen(before, now uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}

// Read hands to f the hits of each way since the Read before, of the caches that are
// asked for. The first Read of a table finds out only where the counters stand, and so does one
// after a change of policy came in between or more than one change was missed.
//
// Ways leave their cache after allowedFor or deniedFor, and at the next change of policy
// but one. What they were hit since the last Read is in Totals, and here not.
//
// A Read of 64,000 elements takes some 0.3 s of a processor (BenchmarkCachedRead, 2026-11),
// nearly all of it in the kernel, and grows with their square; it keeps some 40 bytes
// for each. Packets do not wait for it.
func (c *Cached) Read(allowed, denied bool, f func(Hits)) error {
	before, ok, err := c.readEpoch()
	if err != nil || !ok {
		// Where there is no table there are no hits, and all that come are new.
		c.sure, c.none = err == nil, err == nil
		return err
	}
	if c.none {
		c.none, c.epoch, c.seen = false, before, [2][2]map[uint64]uint64{}
	}
	if !c.sure || before != c.epoch && before != (c.epoch+1)%c.marks.Epochs() {
		c.seen = [2][2]map[uint64]uint64{}
		f = func(Hits) {}
	} else if before != c.epoch { // its caches were empty when it began
		for kind := range c.seen {
			c.seen[kind][before%2] = nil
		}
	}
	c.sure, c.epoch = false, before
	for kind, wanted := range [2]bool{allowed, denied} {
		if !wanted {
			continue
		}
		if err := c.read(kind, f); err != nil {
			return err
		}
	}
	after, ok, err := c.readEpoch()
	c.sure = err == nil && ok && after == before
	return err
}

// Kinds of caches.
const (
	kindAllowed = 0
	kindDenied  = 1
)

// read is Read for one kind of cache.
//
// An element's counter begins with the packet that taught the way, which was decided
// by the queue. Where an epoch takes an allowed way over from the last one, that packet
// was decided by the cache, and has hit the element of the last epoch twice (lastCache).
func (c *Cached) read(kind int, f func(Hits)) error {
	pairs := [2][2]pair{kindAllowed: c.sets.allowed, kindDenied: c.sets.denied}[kind]
	now, last := c.epoch%2, 1-c.epoch%2
	ended := map[uint64]Hits{}
	err := c.pair(pairs[last], &c.seen[kind][last], kind, func(before uint64, known bool, way, packets uint64, h Hits) {
		if !known {
			before = 1
		}
		if packets > before {
			h.Packets = packets - before
			ended[way] = h
		}
	})
	if err != nil {
		return err
	}
	err = c.pair(pairs[now], &c.seen[kind][now], kind, func(before uint64, known bool, way, packets uint64, h Hits) {
		if !known {
			before = 1
			if e, ok := ended[way]; ok && kind == kindAllowed && e.Packets >= 2 {
				e.Packets -= 2
				ended[way] = e
				before = 0
			}
		}
		if h.Packets = risen(before, packets); h.Packets > 0 {
			f(h)
		}
	})
	if err != nil {
		return err
	}
	for _, h := range ended {
		if h.Packets > 0 {
			f(h)
		}
	}
	return nil
}

// pair reads the caches of both families. It shows each element to f, with its counter
// as it was seen before, and renews what was seen.
func (c *Cached) pair(p pair, seen *map[uint64]uint64, kind int, f func(before uint64, known bool, way, packets uint64, h Hits)) error {
	whole := true
	now := make(map[uint64]uint64, len(*seen))
	for v, s := range p {
		consistent, err := c.elements(s.Name, func(key []byte, packets uint64) {
			h, ok := hitsOf(v, key)
			if !ok {
				return
			}
			way := maphash.Bytes(c.seed, key)
			if _, again := now[way]; again {
				return
			}
			now[way] = packets
			before, known := (*seen)[way]
			h.Allowed = kind == kindAllowed
			f(before, known, way, packets, h)
		})
		if err != nil {
			return err
		}
		whole = whole && consistent
	}
	if !whole { // some were not shown; they are no strangers next time
		for way, packets := range *seen {
			if _, shown := now[way]; !shown {
				now[way] = packets
			}
		}
	}
	*seen = now
	return nil
}

// hitsOf reads the key of a cache: each part of it fills whole words of 4 bytes.
func hitsOf(v int, key []byte) (h Hits, ok bool) {
	n := 4
	if v == v6 {
		n = 16
	}
	if len(key) != 2*n+8 {
		return h, false
	}
	h.Src, _ = netip.AddrFromSlice(key[:n])
	h.Dst, _ = netip.AddrFromSlice(key[n : 2*n])
	h.Proto, h.DstPort = key[2*n], binary.BigEndian.Uint16(key[2*n+4:])
	return h, true
}

// readEpoch is Table.Epoch, but ok is false for whatever it would not understand.
func (c *Cached) readEpoch() (epoch uint32, ok bool, err error) {
	_, err = c.elements(c.sets.current.Name, func(key []byte, _ uint64) {
		if len(key) == 4 {
			epoch, _, ok = c.marks.Judged(binary.NativeEndian.Uint32(key))
		}
	})
	return epoch, ok, err
}

// elements walks over a set as the kernel sends it, a page at a time: google/nftables
// holds all of it, at eight times the memory, and asks for small pages. A set that is not
// there has none. consistent is false if somebody changed tables meanwhile, so that
// elements may have been left out or shown twice.
func (c *Cached) elements(set string, f func(key []byte, packets uint64)) (consistent bool, err error) {
	text := func(s string) []byte { return append([]byte(s), 0) }
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: text(TableName)},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: text(set)},
	})
	if err != nil {
		return false, err
	}
	_, err = c.walk.Send(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil {
		return false, fmt.Errorf("set %s: list: %w", set, err)
	}
	consistent = true
	for m, err := range c.walk.ReceiveIter() {
		if errors.Is(err, unix.ENOENT) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("set %s: list: %w", set, err)
		}
		consistent = consistent && m.Header.Flags&netlink.DumpInterrupted == 0
		if len(m.Data) < 4 {
			continue
		}
		for list := range attributes(m.Data[4:], unix.NFTA_SET_ELEM_LIST_ELEMENTS) {
			for element := range attributes(list, unix.NFTA_LIST_ELEM) {
				f(elementKey(element), elementPackets(element))
			}
		}
	}
	return consistent, nil
}

// elementKey is NFTA_SET_ELEM_KEY, and in it NFTA_DATA_VALUE.
func elementKey(element []byte) []byte {
	for key := range attributes(element, unix.NFTA_SET_ELEM_KEY) {
		for value := range attributes(key, unix.NFTA_DATA_VALUE) {
			return value
		}
	}
	return nil
}

// elementPackets is what NFTA_SET_ELEM_EXPR holds if it is a counter, its only kind here:
// NFTA_EXPR_DATA, and in it NFTA_COUNTER_PACKETS.
func elementPackets(element []byte) uint64 {
	for e := range attributes(element, unix.NFTA_SET_ELEM_EXPR) {
		for data := range attributes(e, unix.NFTA_EXPR_DATA) {
			for n := range attributes(data, unix.NFTA_COUNTER_PACKETS) {
				if len(n) == 8 {
					return binary.BigEndian.Uint64(n)
				}
			}
		}
	}
	return 0
}

// attributes gives the values of one type in a list of netlink attributes. It ends at the
// first that is longer than what is left.
func attributes(b []byte, typ uint16) func(yield func([]byte) bool) {
	const flags = unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER
	return func(yield func([]byte) bool) {
		for len(b) >= unix.NLA_HDRLEN {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.NLA_HDRLEN || n > len(b) {
				return
			}
			if binary.NativeEndian.Uint16(b[2:])&^flags == typ && !yield(b[unix.NLA_HDRLEN:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}
