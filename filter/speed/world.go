package speed

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// The shape of generated worlds.
const (
	rulesOfPolicy = 10
	podsOfAccount = 10
	namespaces    = 20
)

// World is a generated cluster with packets that open flows in it.
type World struct {
	Snapshot *policy.Snapshot
	Packets  [][]byte // IPv4 TCP SYNs, each of a flow of its own
}

// Generate makes a cluster of so many pods with so many rules, and so many packets;
// the same from the same numbers. Each policy selects the pods of a namespace, and
// its rules allow accounts of any namespace to a port; half the packets are from
// pods, the rest from addresses outside.
func Generate(pods, rules, packets int) *World {
	rnd := rand.New(rand.NewPCG(uint64(pods), uint64(rules)))
	s := &policy.Snapshot{Generation: 1, Tiers: []policy.Tier{{Name: policy.DefaultTier, Order: policy.DefaultTierOrder}}}
	accounts := max(pods/podsOfAccount, 1)
	namespace := func(i int) string { return fmt.Sprintf("ns-%03d", i%namespaces) }
	account := func(i int) string { return fmt.Sprintf("sa-%05d", i) }
	for i := range namespaces {
		s.Namespaces = append(s.Namespaces, &policy.Namespace{Name: namespace(i), Labels: map[string]string{"kubernetes.io/metadata.name": namespace(i)}})
	}
	for i := range accounts {
		s.ServiceAccounts = append(s.ServiceAccounts, &policy.ServiceAccount{Namespace: namespace(i), Name: account(i)})
	}
	for i := range pods {
		a := i % accounts
		s.Endpoints = append(s.Endpoints, &policy.Endpoint{
			Namespace: namespace(a), Name: fmt.Sprintf("pod-%06d", i), UID: fmt.Sprint(i), ServiceAccount: account(a), Addrs: []netip.Addr{podAddr(i)},
		})
	}
	tcp := &policy.Protocol{Number: flow.TCP, ByName: true}
	for n := 0; rules > 0; n++ {
		p := &policy.Policy{
			Kind: policy.NetworkPolicy, Namespace: namespace(n), Name: fmt.Sprintf("policy-%05d", n), Tier: policy.DefaultTier,
			Order: float64(n), AppliesIngress: true,
		}
		for i := range min(rules, rulesOfPolicy) {
			r := policy.Rule{Index: i, Action: policy.Allow, Protocol: tcp}
			if i%3 == 2 {
				r.Source.Nets = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(rnd.IntN(256)), 0}), 24)}
			} else {
				r.Source.NamespaceSelector = selector.All()
				r.Source.ServiceAccounts = &policy.ServiceAccountMatch{Names: []string{account(rnd.IntN(accounts))}}
			}
			port := uint16(8000 + rnd.IntN(64))
			r.Destination.Ports = []policy.Port{{PortRange: flow.PortRange{Min: port, Max: port}}}
			p.Ingress = append(p.Ingress, r)
		}
		rules -= len(p.Ingress)
		s.Policies = append(s.Policies, p)
	}
	w := &World{Snapshot: s}
	for i := range packets {
		src := podAddr(rnd.IntN(pods))
		if i%2 == 1 {
			src = netip.AddrFrom4([4]byte{198, 18, byte(rnd.IntN(256)), byte(rnd.IntN(256))})
		}
		w.Packets = append(w.Packets, Opening(src, podAddr(rnd.IntN(pods)), uint16(1024+i%60000), uint16(8000+rnd.IntN(64))))
	}
	return w
}

func podAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// Opening is a TCP SYN of 40 bytes, without options or checksums.
func Opening(src, dst netip.Addr, sport, dport uint16) []byte {
	b := make([]byte, 40)
	b[0], b[3], b[8], b[9] = 0x45, 40, 64, byte(flow.TCP)
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[20:], sport)
	binary.BigEndian.PutUint16(b[22:], dport)
	b[32], b[33] = 5<<4, 2
	return b
}
