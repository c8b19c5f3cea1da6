package rival

import (
	"net/netip"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// Naive evaluates policies for each packet.
type Naive struct {
	tiers    []policy.Tier
	pods     map[netip.Addr]*naivePod
	policies map[string][]ranked // by namespace of the endpoint: its own and the global ones
}

type naivePod struct {
	identity
	local bool
}

// NewNaive sorts policies and indexes pods by address.
func NewNaive(s *policy.Snapshot, node string) (*Naive, error) {
	if err := check(s); err != nil {
		return nil, err
	}
	n := &Naive{pods: make(map[netip.Addr]*naivePod, len(s.Endpoints)), policies: make(map[string][]ranked)}
	namespaces := namespaceLabels(s)
	for _, ep := range s.Endpoints {
		n.pods[ep.Addrs[0]] = &naivePod{newIdentity(ep, namespaces), ep.Node == node}
	}
	tiers, policies := rank(s)
	n.tiers = tiers
	for name := range namespaces {
		n.policies[name] = nil
	}
	for _, p := range policies {
		if p.Namespace != "" {
			n.policies[p.Namespace] = append(n.policies[p.Namespace], p)
			continue
		}
		for name := range namespaces {
			n.policies[name] = append(n.policies[name], p)
		}
	}
	return n, nil
}

// Decide decides one flow of which one end at least is local.
func (n *Naive) Decide(t flow.Tuple) (v Verdict) {
	src, dst := n.pods[t.Src], n.pods[t.Dst]
	v.Accept = true
	if src != nil && src.local {
		v.Accept, v.Egress = n.side(src, dst, t.Dst, &t, flow.Egress)
	}
	if v.Accept && dst != nil && dst.local {
		v.Accept, v.Ingress = n.side(dst, src, t.Src, &t, flow.Ingress)
	}
	return v
}

func (n *Naive) side(own, peer *naivePod, addr netip.Addr, t *flow.Tuple, dir flow.Direction) (bool, uint32) {
	tier, passed := -1, false // the tier of a policy that applied, and whether it let the flow go on
	for _, p := range n.policies[own.namespace] {
		if p.tier == tier && passed || !p.Applies(dir) || !selects(p.Policy, &own.identity) {
			continue
		}
		if p.tier != tier {
			if tier >= 0 && !passed && n.tiers[tier].DefaultAction != policy.Pass {
				return false, 0
			}
			tier, passed = p.tier, false
		}
		rules := p.Rules(dir)
		for i := range rules {
			r := &rules[i]
			if !n.matches(r, p.Namespace, peer, addr, t, dir) {
				continue
			}
			if r.Action == policy.Pass {
				passed = true
				break
			}
			return r.Action == policy.Allow, p.first[dir] + uint32(i)
		}
	}
	return tier < 0 || passed || n.tiers[tier].DefaultAction == policy.Pass, 0
}

func (n *Naive) matches(r *policy.Rule, namespace string, peer *naivePod, addr netip.Addr, t *flow.Tuple, dir flow.Direction) bool {
	proto, ports, stated := portsOf(r)
	if proto != 0 && proto != t.Proto || stated && !ports.Contains(t.DstPort) {
		return false
	}
	e := peerOf(r, dir)
	if len(e.Nets) > 0 && !contains(e.Nets, addr) || contains(e.NotNets, addr) {
		return false
	}
	return !namesPods(e) || peer != nil && matchesPod(e, namespace, &peer.identity)
}
