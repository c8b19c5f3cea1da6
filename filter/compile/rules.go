package compile

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// ruleList is the rules of a policy or profile in one direction, in the Builder,
// and what they use.
type ruleList struct {
	key    listKey
	ids    []filter.RuleID
	terms  []*term
	named  []*named
	served []*service
	users  int // segments
}

// list gives a list of rules, used once more. tier is empty for a profile.
func (c *Compiler) list(key listKey, tier string) *ruleList {
	l := c.lists[key]
	if l == nil {
		l = &ruleList{key: key}
		c.lists[key] = l
		c.addRules(l, tier)
	}
	l.users++
	return l
}

// dropList takes one use from a list. The Builder keeps its rules until dropUnused.
func (c *Compiler) dropList(l *ruleList) {
	if l.users--; l.users > 0 {
		return
	}
	delete(c.lists, l.key)
	for _, t := range l.terms {
		c.dropTerm(t)
	}
	for _, n := range l.named {
		c.dropNamed(n)
	}
	for _, s := range l.served {
		c.dropServicePorts(s)
	}
}

// rules gives the rules that a key names.
func (k listKey) rules() []policy.Rule {
	if k.profile == nil {
		return k.policy.Rules(k.dir)
	}
	if k.dir == flow.Egress {
		return k.profile.Egress
	}
	return k.profile.Ingress
}

// annotations puts a rule's annotations in one line.
func annotations(r *policy.Rule) string {
	pairs := make([]string, 0, len(r.Annotations))
	for _, k := range slices.Sorted(maps.Keys(r.Annotations)) {
		pairs = append(pairs, k+"="+r.Annotations[k])
	}
	return strings.Join(pairs, " ")
}

// addRules gives the Builder the rules that can match at all.
func (c *Compiler) addRules(l *ruleList, tier string) {
	info := filter.RuleInfo{Direction: l.key.dir, Tier: tier}
	if p := l.key.profile; p != nil {
		info.Kind, info.Name = string(policy.ProfileKind), p.Name
	} else {
		p := l.key.policy
		info.Kind, info.Namespace, info.Name = string(p.Kind), p.Namespace, p.Name
	}
	rules := l.key.rules()
	for i := range rules {
		r := &rules[i]
		info.Index, info.Action, info.Annotations = r.Index, actions[r.Action], annotations(r)
		if l.key.profile != nil && info.Action == filter.Pass {
			info.Action = filter.Deny // there is nothing to pass to (D6)
		}
		out := filter.Rule{Info: info}
		if out.IPv4, out.IPv6 = families(r); !out.IPv4 && !out.IPv6 {
			continue
		}
		if r.Protocol != nil {
			out.Proto = &r.Protocol.Number
		}
		if r.NotProtocol != nil {
			out.NotProto = &r.NotProtocol.Number
		}
		out.ICMP, out.NotICMP = icmp(r.ICMP), icmp(r.NotICMP)
		out.Source = c.side(&r.Source, info, l)
		out.Destination = c.side(&r.Destination, info, l)
		// As a source a service is its addresses, whatever the port; as a
		// destination it is address, protocol and port together.
		if s := r.Destination.Service; s != nil {
			served := c.servicePorts(*s)
			l.served = append(l.served, served)
			out.Destination.Service = served.ports
		}
		if l.key.dir == flow.Ingress && l.key.profile == nil {
			out.Request = request(r, info.Namespace)
		}
		l.ids = append(l.ids, c.out.AddRule(&out))
	}
}

// side resolves one side of a rule. The service of a destination is left to the
// caller.
func (c *Compiler) side(e *policy.EntityRule, info filter.RuleInfo, l *ruleList) (out filter.Side) {
	p := scope(e, info.Namespace)
	key := p.key()
	if t := c.term(e, p, key); t != nil {
		t.note(info.Action)
		l.terms = append(l.terms, t)
		out.Classes = t.set
	}
	out.Ports = c.portMatch(e.Ports, p, key, l)
	out.NotPorts = c.portMatch(e.NotPorts, p, key, l)
	return out
}

// portMatch resolves a list of ports of one side.
func (c *Compiler) portMatch(ports []policy.Port, p predicate, key string, l *ruleList) *filter.PortMatch {
	if len(ports) == 0 {
		return nil
	}
	out := new(filter.PortMatch)
	var names []string
	for _, port := range ports {
		if port.Name == "" {
			out.Ranges = append(out.Ranges, port.PortRange)
		} else {
			names = append(names, port.Name)
		}
	}
	if len(names) > 0 {
		n := c.namedPorts(names, p, key)
		l.named = append(l.named, n)
		out.Named = n.ports
	}
	return out
}

// actions has the engine's word for each action; what is not there denies.
var actions = map[policy.Action]filter.Action{
	policy.Deny: filter.Deny, policy.Allow: filter.Allow, policy.Pass: filter.Pass, policy.Log: filter.Log,
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
