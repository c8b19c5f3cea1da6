package gen

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"github.com/postern-project/postern/filter/flow"
)

// Flow is a new IPv4 connection in twelve bytes, so that reading the traffic
// disturbs the caches less than deciding it.
type Flow struct {
	Src, Dst uint32 // 10.0.0.1 is 0x0a000001
	Port     uint16 // of the destination
	Proto    flow.Proto
}

// NewTuple gives a tuple without what a Flow has: the rest is alike for all.
func NewTuple() flow.Tuple { return flow.Tuple{Ported: true, SrcPort: 40_000} }

// Tuple gives the flow as the engine takes it.
func (f Flow) Tuple() flow.Tuple {
	t := NewTuple()
	t.Src, t.Dst, t.Proto, t.DstPort = Addr4(f.Src), Addr4(f.Dst), f.Proto, f.Port
	return t
}

// Addr4 gives an IPv4 address from its number.
func Addr4(a uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// StreamLen is the length of streams, a power of two so that loops can mask.
const StreamLen = 1 << 16

// Zipf draws connections with repetition, as a busy node sees them: few of the
// flows often (Zipf, exponent 1.1), most of them rarely.
func Zipf(flows []Flow) []Flow {
	rnd := rand.New(rand.NewPCG(3, 3))
	zipf := rand.NewZipf(rnd, 1.1, 1, uint64(len(flows)-1))
	stream := make([]Flow, StreamLen)
	for i := range stream {
		stream[i] = flows[zipf.Uint64()]
	}
	return stream
}

// Uniform draws connections with repetition, all equally often.
func Uniform(flows []Flow) []Flow {
	rnd := rand.New(rand.NewPCG(3, 4))
	stream := make([]Flow, StreamLen)
	for i := range stream {
		stream[i] = flows[rnd.IntN(len(flows))]
	}
	return stream
}

// Scan draws connections as Uniform does, each to another port, as a scan of ports
// makes them: hardly any comes again.
func Scan(flows []Flow) []Flow {
	stream := Uniform(flows)
	rnd := rand.New(rand.NewPCG(3, 5))
	for i := range stream {
		stream[i].Port = uint16(rnd.Uint32())
	}
	return stream
}

const distinctFlows = 20_000

// flows draws distinct connections of the pods given by index, to and from them.
func (c *cluster) flows(pods []int) []Flow {
	seen := make(map[Flow]bool, distinctFlows)
	out := make([]Flow, 0, distinctFlows)
	for len(out) < distinctFlows {
		pod := pods[c.IntN(len(pods))]
		here := number(c.s.Endpoints[pod].Addrs[0])
		peer, port, proto := c.peer(namespaceOf(pod, PodsPerWorkload)), servedPorts[c.IntN(len(servedPorts))], flow.TCP
		in := c.IntN(2) == 0
		switch c.IntN(10) {
		case 0:
			in, proto, port = false, flow.UDP, dnsPort
			peer = number(c.pod(dnsNamespace, 0))
		case 1:
			in, port = true, metricsPort
			peer = number(c.pod(monitoringNamespace, 0))
		}
		f := Flow{Src: here, Dst: peer, Port: port, Proto: proto}
		if in {
			f.Src, f.Dst = peer, here
		}
		if peer == here || seen[f] {
			continue // a small world has few flows to DNS and from monitoring
		}
		seen[f] = true
		out = append(out, f)
	}
	return out
}

// pod draws the address of a pod of a workload.
func (c *cluster) pod(namespace, workload int) netip.Addr {
	return c.s.Endpoints[(namespace*Workloads+workload)*PodsPerWorkload+c.IntN(PodsPerWorkload)].Addrs[0]
}

// peer draws the other end of a connection of a pod in the namespace.
func (c *cluster) peer(namespace int) uint32 {
	switch k := c.IntN(20); {
	case k < 9:
		return number(c.pod(namespace, c.IntN(Workloads)))
	case k < 15:
		return number(c.pod(c.IntN(Namespaces), c.IntN(Workloads)))
	case k < 18 && len(c.nets[namespace]) > 0:
		return inside(c.Rand, c.nets[namespace][c.IntN(len(c.nets[namespace]))])
	case k == 18 && len(c.deny) > 0:
		return inside(c.Rand, c.deny[c.IntN(len(c.deny))])
	}
	return 0x20000000 | c.Uint32N(1<<29) // 32.0.0.0/3
}

// inside draws an address of a prefix.
func inside(rnd *rand.Rand, net netip.Prefix) uint32 {
	return number(net.Addr()) | uint32(rnd.Uint64N(1<<(32-net.Bits())))
}
