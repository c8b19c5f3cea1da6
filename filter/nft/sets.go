package nft

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
)

// Indices of a pair.
const (
	v4 = 0
	v6 = 1
)

// pair is one set for each family, by v4 and v6.
type pair [2]*nftables.Set

// sets are the table's sets. What stands in a cache was decided in one epoch, so
// there are two of each kind, that of the present and that of the last, and they
// change places: flushing one would not do, since a packet on another processor may
// add to it, by the rules of before, after the kernel has listed what to flush.
type sets struct {
	ingress, egress, pods pair // addresses of pods
	local                 pair // prefixes of which this host's pods have theirs
	dirty                 pair
	current, past         *nftables.Set // flow marks
	ported                *nftables.Set // protocols that have ports
	allowed, denied       [2]pair       // by epoch modulo 2
	// What a source may ask: new flows of protocols with ports, of others, and packets
	// of flows that conntrack knows already.
	guard, guardPortless, guardKnown pair
}

// How long elements stay. Both only bound what stands in the kernel: every change of
// policy begins with empty sets.
const (
	allowedFor = time.Minute
	deniedFor  = 5 * time.Second // a denial is asked again, so that its counters are seen to move
	guardFor   = 10 * time.Second
)

const guardSize = 65536 // sources; beyond, the newest go unlimited

// way is the key of the caches: from whom to whom, by which protocol, to which port.
var way = [2]nftables.SetDatatype{
	v4: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService),
	v6: nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService),
}

func newSets(t *nftables.Table, cacheSize uint32) sets {
	addrs := [2]nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeIP6Addr}
	set := func(name, comment string, key nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{Table: t, Name: name, KeyType: key, Comment: comment}
	}
	both := func(name, comment string, keys [2]nftables.SetDatatype, more func(*nftables.Set)) (p pair) {
		for v := range p {
			p[v] = set(fmt.Sprint(name, 4+2*v), comment, keys[v])
			if more != nil {
				more(p[v])
			}
		}
		return p
	}
	cache := func(timeout time.Duration) func(*nftables.Set) {
		return func(s *nftables.Set) {
			s.Dynamic, s.HasTimeout, s.Timeout, s.Size, s.Counter = true, true, timeout, cacheSize, true
		}
	}
	guard := func(s *nftables.Set) {
		s.Dynamic, s.HasTimeout, s.Timeout, s.Size = true, true, guardFor, guardSize
	}
	s := sets{
		ingress: both("ingress", "pods that a policy isolates for ingress", addrs, nil),
		egress:  both("egress", "pods that a policy isolates for egress", addrs, nil),
		pods:    both("pods", "all pods of this host", addrs, nil),
		local:   both("local", "where pods of this host have their addresses", addrs, func(s *nftables.Set) { s.Interval = true }),
		dirty:   both("dirty", "whose flows of past epochs are judged again", addrs, nil),
		current: set("epoch", "what marks a flow accepted by the policy in force", nftables.TypeMark),
		past:    set("past", "what marks one accepted before, which still holds unless dirty", nftables.TypeMark),
		ported:  set("ported", "protocols with ports", nftables.TypeInetProto),

		guard:         both("guard", "sources of new flows", addrs, guard),
		guardPortless: both("guard_portless", "sources of new flows without ports", addrs, guard),
		guardKnown:    both("guard_known", "sources of packets of known flows", addrs, guard),
	}
	for i, name := range [2]string{"even", "odd"} {
		s.allowed[i] = both("allowed_"+name, "ways that were allowed", way, cache(allowedFor))
		s.denied[i] = both("denied_"+name, "ways that were denied", way, cache(deniedFor))
	}
	return s
}

// kept are the sets whose elements Apply brings to what is wanted, element by
// element.
func (s *sets) kept() []*nftables.Set {
	return []*nftables.Set{
		s.ingress[v4], s.ingress[v6], s.egress[v4], s.egress[v6], s.pods[v4], s.pods[v6],
		s.dirty[v4], s.dirty[v6], s.current, s.past,
	}
}

// caches are the sets that an epoch begins with empty ones of.
func (s *sets) caches(epoch uint32) []*nftables.Set {
	a, d := s.allowed[epoch%2], s.denied[epoch%2]
	return []*nftables.Set{a[v4], a[v6], d[v4], d[v6]}
}

// others are made once.
func (s *sets) others() []*nftables.Set {
	return []*nftables.Set{
		s.local[v4], s.local[v6], s.ported,
		s.guard[v4], s.guard[v6], s.guardPortless[v4], s.guardPortless[v6], s.guardKnown[v4], s.guardKnown[v6],
	}
}

func byFamily(addrs []netip.Addr) (of [2][]netip.Addr) {
	for _, a := range addrs {
		v := v4
		if a.Is6() {
			v = v6
		}
		of[v] = append(of[v], a)
	}
	return of
}

// intervals gives the elements of an interval set for prefixes of one family: the
// first address of each, and the one after the last, which ends it. Those that are
// inside others are left out: the kernel refuses what overlaps.
func intervals(prefixes []netip.Prefix, v int) (els []nftables.SetElement) {
	for i, p := range prefixes {
		p = p.Masked()
		if p.Addr().Is6() != (v == v6) {
			continue
		}
		covered := false
		for j, q := range prefixes {
			q = q.Masked()
			if j != i && q.Overlaps(p) && (q.Bits() < p.Bits() || q.Bits() == p.Bits() && j < i) {
				covered = true
			}
		}
		if covered {
			continue
		}
		els = append(els, nftables.SetElement{Key: p.Addr().AsSlice()})
		if end := afterLast(p); end.IsValid() { // the last of all addresses needs no end
			els = append(els, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return els
}

// afterLast is the address behind a prefix; not valid if there is none.
func afterLast(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last.Next()
}
