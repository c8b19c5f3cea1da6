package rival

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// Verdict is the answer of a rival for one flow: accepted or not, and the rules
// that said so, where 0 stands for no rule. Rules are numbered from 1 in the order
// of RuleNames.
type Verdict struct {
	Accept          bool
	Egress, Ingress uint32
}

// RuleNames gives, by number, the rules of a snapshot's policies; the name for 0
// is empty.
func RuleNames(s *policy.Snapshot) []string {
	names := []string{""}
	for _, p := range s.Policies {
		for _, dir := range []flow.Direction{flow.Ingress, flow.Egress} {
			for i := range p.Rules(dir) {
				names = append(names, RuleName(string(p.Kind), p.Namespace, p.Name, dir, p.Rules(dir)[i].Index))
			}
		}
	}
	return names
}

// RuleName names one rule.
func RuleName(kind, namespace, name string, dir flow.Direction, index int) string {
	return fmt.Sprintf("%s %s/%s %s rule %d", kind, namespace, name, dir, index)
}

// ranked is a policy with its place in the order of evaluation and the number of
// the first rule of each direction.
type ranked struct {
	*policy.Policy
	tier  int // index into tiers
	first [2]uint32
}

// rank sorts tiers and policies as Calico does: order, then name.
func rank(s *policy.Snapshot) ([]policy.Tier, []ranked) {
	tiers := slices.Clone(s.Tiers)
	slices.SortFunc(tiers, func(a, b policy.Tier) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name))
	})
	var out []ranked
	number := uint32(1)
	for _, p := range s.Policies {
		r := ranked{Policy: p, tier: slices.IndexFunc(tiers, func(t policy.Tier) bool { return t.Name == p.Tier })}
		for _, dir := range []flow.Direction{flow.Ingress, flow.Egress} {
			r.first[dir] = number
			number += uint32(len(p.Rules(dir)))
		}
		out = append(out, r)
	}
	slices.SortStableFunc(out, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.tier, b.tier), cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace))
	})
	return tiers, out
}

// identity is a pod as selectors see it.
type identity struct {
	namespace, account string
	labels, within     selector.Map // its own and derived ones; its namespace's
}

func newIdentity(ep *policy.Endpoint, namespaces map[string]selector.Map) identity {
	labels := selector.Map{
		"projectcalico.org/namespace":      ep.Namespace,
		"projectcalico.org/serviceaccount": ep.ServiceAccount,
		"projectcalico.org/orchestrator":   "k8s",
	}
	for k, v := range ep.Labels {
		labels[k] = v
	}
	return identity{ep.Namespace, ep.ServiceAccount, labels, namespaces[ep.Namespace]}
}

func namespaceLabels(s *policy.Snapshot) map[string]selector.Map {
	out := make(map[string]selector.Map)
	for _, n := range s.Namespaces {
		labels := selector.Map{"projectcalico.org/name": n.Name}
		for k, v := range n.Labels {
			labels[k] = v
		}
		out[n.Name] = labels
	}
	return out
}

// selects tells whether a policy applies to an endpoint.
func selects(p *policy.Policy, id *identity) bool {
	if p.Namespace != "" && p.Namespace != id.namespace {
		return false
	}
	return p.Selector.Matches(id.labels) && p.NamespaceSelector.Matches(id.within)
}

// namesPods tells whether the entity rule asks for labels, names or accounts,
// which no address outside the pods has.
func namesPods(e *policy.EntityRule) bool {
	return e.Selector != nil || e.NamespaceSelector != nil || e.ServiceAccounts != nil
}

// matchesPod evaluates the labels, names and accounts that an entity rule of a
// policy in the namespace asks for.
func matchesPod(e *policy.EntityRule, namespace string, id *identity) bool {
	switch {
	case e.NamespaceSelector != nil:
		if !e.NamespaceSelector.Matches(id.within) {
			return false
		}
	case namespace != "" && id.namespace != namespace:
		return false
	}
	if e.ServiceAccounts != nil && !slices.Contains(e.ServiceAccounts.Names, id.account) {
		return false
	}
	return e.Selector.Matches(id.labels)
}

// peerOf gives the end of a rule that is not the endpoint's own.
func peerOf(r *policy.Rule, dir flow.Direction) *policy.EntityRule {
	if dir == flow.Egress {
		return &r.Destination
	}
	return &r.Source
}

// check refuses what the rivals cannot evaluate.
func check(s *policy.Snapshot) error {
	for _, p := range s.Policies {
		if p.Staged != policy.Enforced || p.ServiceAccountSelector != nil || p.DoNotTrack || p.PreDNAT || p.ApplyOnForward {
			return fmt.Errorf("%s: not a plain policy for pods", p.Key())
		}
		if !slices.ContainsFunc(s.Tiers, func(t policy.Tier) bool { return t.Name == p.Tier }) {
			return fmt.Errorf("%s: unknown tier %q", p.Key(), p.Tier)
		}
		for _, dir := range []flow.Direction{flow.Ingress, flow.Egress} {
			for i := range p.Rules(dir) {
				if !plain(&p.Rules(dir)[i], dir) {
					return fmt.Errorf("%s: %s rule %d has criteria that rivals do not know", p.Key(), dir, i)
				}
			}
		}
	}
	taken := make(map[netip.Addr]bool, len(s.Endpoints))
	for _, ep := range s.Endpoints {
		if len(ep.Addrs) != 1 || taken[ep.Addrs[0]] {
			return fmt.Errorf("%s: want one address of its own, not %v", ep.Key(), ep.Addrs)
		}
		taken[ep.Addrs[0]] = true
	}
	return nil
}

// plain tells whether a rule states nothing but a protocol, a peer and one range
// of destination ports.
func plain(r *policy.Rule, dir flow.Direction) bool {
	own := r.Destination
	if dir == flow.Egress {
		own = r.Source
	}
	peer := peerOf(r, dir)
	return r.IPVersion == 0 && r.NotProtocol == nil && r.ICMP == nil && r.NotICMP == nil && r.HTTP == nil && r.Action != policy.Log &&
		own.Nets == nil && own.NotNets == nil && !namesPods(&own) && own.NotSelector == nil && own.Service == nil && own.NotPorts == nil &&
		peer.NotSelector == nil && peer.Service == nil && peer.NotPorts == nil && r.Source.Ports == nil &&
		(peer.ServiceAccounts == nil || peer.ServiceAccounts.Selector == nil && len(peer.ServiceAccounts.Names) > 0) &&
		(r.Destination.Ports == nil || len(r.Destination.Ports) == 1 && r.Destination.Ports[0].Name == "")
}

// portsOf gives the protocol, 0 for any, and the destination ports of a rule.
func portsOf(r *policy.Rule) (flow.Proto, flow.PortRange, bool) {
	proto := flow.Proto(0)
	if r.Protocol != nil {
		proto = r.Protocol.Number
	}
	if r.Destination.Ports == nil {
		return proto, flow.PortRange{}, false
	}
	return proto, r.Destination.Ports[0].PortRange, true
}

func contains(nets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
}
