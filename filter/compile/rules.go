package compile

import (
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// buildRules numbers the needed rules and fills segments and programs.
func (c *compiler) buildRules() {
	words := (len(c.spec.Classes) + 63) / 64
	c.resolver = resolver{
		matches: make(map[string][]int),
		sets:    make(map[string]*filter.ClassSet),
		named:   make(map[string]*filter.ClassPorts),
		served:  make(map[policy.ServiceRef]*filter.ClassPorts),
		ports:   make(map[string][]int),
		bitmap:  make([]uint64, words),
		other:   make([]uint64, words),
	}
	for id := range c.identities {
		for _, p := range c.identities[id].ports {
			if ids := c.ports[p.Name]; len(ids) == 0 || ids[len(ids)-1] != id {
				c.ports[p.Name] = append(ids, id)
			}
		}
	}
	numbers := make(map[ruleList][]filter.RuleID, len(c.needed))
	for _, l := range c.needed {
		numbers[l] = c.addRules(l)
	}
	type end struct {
		tier int
		dir  flow.Direction
	}
	ends := make(map[end]filter.RuleID)
	for _, seg := range c.order {
		seg.out = new(filter.Segment)
		for _, l := range seg.lists {
			seg.out.Rules = append(seg.out.Rules, numbers[l]...)
		}
		if seg.end {
			at := end{seg.lists[0].tier, seg.lists[0].dir}
			if ends[at] == 0 {
				ends[at] = c.addRule(filter.Rule{IPv4: true, IPv6: true, Info: filter.RuleInfo{
					Tier: c.tiers[at.tier].name, Direction: at.dir, Index: -1, Action: filter.Deny,
				}})
			}
			seg.out.End = ends[at]
		}
	}
	for _, p := range c.plans {
		out := filter.Program{Final: p.final}
		for _, seg := range p.segments {
			out.Segments = append(out.Segments, seg.out)
		}
		c.spec.Programs = append(c.spec.Programs, out)
	}
}

func (c *compiler) addRule(r filter.Rule) filter.RuleID {
	c.spec.Rules = append(c.spec.Rules, r)
	return filter.RuleID(len(c.spec.Rules))
}

// addRules adds the rules of a list that can match at all.
func (c *compiler) addRules(l ruleList) []filter.RuleID {
	var out []filter.RuleID
	info := filter.RuleInfo{Direction: l.dir}
	if l.profile != nil {
		info.Kind, info.Name = string(policy.ProfileKind), l.profile.Name
	} else {
		info.Tier = c.tiers[l.tier].name
		info.Kind, info.Namespace, info.Name = string(l.policy.Kind), l.policy.Namespace, l.policy.Name
	}
	rules := l.rules()
	for i := range rules {
		r := &rules[i]
		info.Index, info.Action = r.Index, actions[r.Action]
		if l.profile != nil && info.Action == filter.Pass {
			info.Action = filter.Deny // there is nothing to pass to (D6)
		}
		if rule, ok := c.rule(r, info); ok {
			out = append(out, c.addRule(rule))
		}
	}
	return out
}

// actions has the engine's word for each action; what is not there denies.
var actions = map[policy.Action]filter.Action{
	policy.Deny: filter.Deny, policy.Allow: filter.Allow, policy.Pass: filter.Pass, policy.Log: filter.Log,
}

// rule resolves a rule; ok is false if no packet can match it.
func (c *compiler) rule(r *policy.Rule, info filter.RuleInfo) (out filter.Rule, ok bool) {
	out = filter.Rule{Info: info}
	out.IPv4, out.IPv6 = families(r)
	if r.Protocol != nil {
		out.Proto = &r.Protocol.Number
	}
	if r.NotProtocol != nil {
		out.NotProto = &r.NotProtocol.Number
	}
	out.ICMP, out.NotICMP = icmp(r.ICMP), icmp(r.NotICMP)
	var some, any bool
	if out.Source, some = c.side(&r.Source, info.Namespace); some {
		out.Destination, any = c.side(&r.Destination, info.Namespace)
	}
	// As a source a service is its addresses, whatever the port; as a
	// destination it is address, protocol and port together.
	if s := r.Destination.Service; s != nil {
		out.Destination.Service = c.servicePorts(*s)
	}
	return out, some && any && (out.IPv4 || out.IPv6)
}

// families tells for which families a rule exists (spec section 6).
func families(r *policy.Rule) (v4, v6 bool) {
	switch {
	case r.IPVersion != 0:
		v4, v6 = r.IPVersion == 4, r.IPVersion == 6
	case r.Protocol != nil && r.Protocol.ByName && r.Protocol.Number == flow.ICMP:
		v4 = true
	case r.Protocol != nil && r.Protocol.ByName && r.Protocol.Number == flow.ICMPv6:
		v6 = true
	default:
		v4, v6 = true, true
	}
	for _, nets := range [][]netip.Prefix{r.Source.Nets, r.Source.NotNets, r.Destination.Nets, r.Destination.NotNets} {
		if len(nets) > 0 {
			is4 := func(p netip.Prefix) bool { return p.Addr().Is4() }
			is6 := func(p netip.Prefix) bool { return p.Addr().Is6() }
			v4, v6 = v4 && slices.ContainsFunc(nets, is4), v6 && slices.ContainsFunc(nets, is6)
		}
	}
	return v4, v6
}

func icmp(m *policy.ICMPMatch) *filter.ICMPMatch {
	if m == nil {
		return nil
	}
	out := &filter.ICMPMatch{Type: m.Type, AnyCode: m.Code == nil}
	if m.Code != nil {
		out.Code = *m.Code
	}
	return out
}
