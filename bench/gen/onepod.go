package gen

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// OnePod makes a world of 10,000 pods, each with an identity of its own, of which
// one is local, and so many rules that all apply to its ingress: 68 % select
// peers by labels, 30 % by a prefix, half of these without a part of it, and 2 %
// take any peer on a port of their own. Half of the flows are made to match a rule
// drawn at random; the other half come from peers that no rule names, to ports
// that many name, and have to be held against every rule.
func OnePod(rules int) *World {
	rnd := rand.New(rand.NewPCG(4, uint64(rules)))
	s := newSnapshot(1, rnd)
	place(s, []int{0})
	o := &onePod{Rand: rnd, s: s}
	var list []policy.Rule
	peers := make([]func() uint32, rules) // each draws a peer that the rule matches
	for i := range rules {
		r := policy.Rule{Index: i % rulesOfPolicy, Action: policy.Allow, Protocol: tcp}
		if rnd.IntN(5) == 0 {
			r.Action = policy.Deny
		}
		switch k := i * 37 % 50; { // the shares hold for ten rules too
		case k < 34:
			r.Source, peers[i] = o.labelled()
		case k < 49:
			r.Source, peers[i] = o.network()
		default:
			peers[i] = func() uint32 { return o.pod(rnd.IntN(Namespaces), rnd.IntN(Workloads)) }
			r.Destination.Ports = ports(20_000+uint16(i%8192), 20_000+uint16(i%8192))
		}
		if r.Destination.Ports == nil {
			first := servedPort(rnd)
			r.Destination.Ports = ports(first, first+[]uint16{0, 0, 0, 15}[rnd.IntN(4)])
		}
		list = append(list, r)
	}
	for i := 0; i < len(list); i += rulesOfPolicy {
		s.Policies = append(s.Policies, &policy.Policy{
			Kind: policy.GlobalNetworkPolicy, Name: fmt.Sprintf("p-%06d", i), Tier: policy.DefaultTier, Order: 1000,
			Selector:       selector.And(selector.Equals("app", appName(0)), selector.Equals("projectcalico.org/namespace", namespaceName(0))),
			AppliesIngress: true, Ingress: list[i:min(i+rulesOfPolicy, len(list))],
		})
	}
	return &World{s, o.flows(list, peers)}
}

const rulesOfPolicy = 10

type onePod struct {
	*rand.Rand
	s *policy.Snapshot
}

func servedPort(rnd *rand.Rand) uint16 { return servedPorts[rnd.IntN(len(servedPorts))] }

// pod gives the address of the pod of a workload.
func (o *onePod) pod(namespace, workload int) uint32 {
	return number(o.s.Endpoints[namespace*Workloads+workload].Addrs[0])
}

// labelled draws peers by labels: one workload of a namespace, or one or two
// workloads of a team's namespaces.
func (o *onePod) labelled() (policy.EntityRule, func() uint32) {
	w, n := o.IntN(Workloads), o.IntN(Namespaces-quietNamespaces)
	peer := func() uint32 { return o.pod(n, w) }
	if o.IntN(2) == 0 {
		return inNamespace(n, selector.Equals("app", appName(w))), peer
	}
	app := selector.In("app", appName(w), appName((w+o.IntN(8))%Workloads))
	return policy.EntityRule{Selector: selector.And(app, selector.Equals("team", teamName(n)), selector.Equals("quiet", "false"))}, peer
}

// network draws peers by prefix, in 96.0.0.0/3.
func (o *onePod) network() (policy.EntityRule, func() uint32) {
	addr, length := Addr4(0x60000000|o.Uint32N(1<<29)), 16+o.IntN(13)
	net, except := netip.PrefixFrom(addr, length).Masked(), netip.Prefix{}
	e := policy.EntityRule{Nets: []netip.Prefix{net}}
	if o.IntN(2) == 0 {
		except = netip.PrefixFrom(addr, length+2).Masked()
		e.NotNets = []netip.Prefix{except}
	}
	return e, func() uint32 {
		for {
			if a := inside(o.Rand, net); !except.IsValid() || !except.Contains(Addr4(a)) {
				return a
			}
		}
	}
}

// flows draws distinct flows to the local pod.
func (o *onePod) flows(rules []policy.Rule, peers []func() uint32) []Flow {
	here := number(o.s.Endpoints[0].Addrs[0])
	seen := make(map[Flow]bool, distinctFlows)
	out := make([]Flow, 0, distinctFlows)
	for len(out) < distinctFlows {
		f := Flow{Dst: here, Proto: flow.TCP}
		if len(out)%2 == 0 {
			i := o.IntN(len(rules))
			f.Src = peers[i]()
			p := rules[i].Destination.Ports[0]
			f.Port = p.Min + uint16(o.IntN(int(p.Max-p.Min)+1))
		} else {
			f.Src, f.Port = o.quiet(), servedPort(o.Rand)
		}
		if !seen[f] {
			seen[f] = true
			out = append(out, f)
		}
	}
	return out
}

// quiet draws a peer that no rule with a peer matches.
func (o *onePod) quiet() uint32 {
	if o.IntN(2) == 0 {
		return 0x20000000 | o.Uint32N(1<<29) // 32.0.0.0/3
	}
	return o.pod(Namespaces-1-o.IntN(quietNamespaces), o.IntN(Workloads))
}
