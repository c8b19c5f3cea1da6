package lint

import (
	"net/netip"
	"reflect"
	"slices"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// coversRule tells whether every packet and every request that inner matches
// provably matches outer. Both are rules of policies of one namespace. Each
// criterion of outer must follow from those of inner; where it does so only by
// reasoning over several at once, the answer is no.
func coversRule(outer, inner *policy.Rule, namespace string) bool {
	return coversFamily(outer, inner) && coversProtocol(outer, inner) && coversICMP(outer, inner) &&
		(outer.HTTP == nil || reflect.DeepEqual(outer.HTTP, inner.HTTP)) &&
		coversEntity(entity{&outer.Source, namespace}, entity{&inner.Source, namespace}) &&
		coversEntity(entity{&outer.Destination, namespace}, entity{&inner.Destination, namespace})
}

// unconditional tells whether a rule matches every packet and request.
func unconditional(r *policy.Rule) bool { return coversRule(r, &policy.Rule{}, "") }

// family is what ipVersion or the name of a protocol narrows a rule to, or 0.
// Nets narrow it too, and are looked at where they stand.
func family(r *policy.Rule) uint8 {
	if r.IPVersion == 0 && r.Protocol != nil && r.Protocol.ByName {
		switch r.Protocol.Number {
		case flow.ICMP:
			return 4
		case flow.ICMPv6:
			return 6
		}
	}
	return r.IPVersion
}

func coversFamily(outer, inner *policy.Rule) bool {
	return family(outer) == 0 || family(outer) == family(inner)
}

func coversProtocol(outer, inner *policy.Rule) bool {
	if p := outer.Protocol; p != nil && (inner.Protocol == nil || inner.Protocol.Number != p.Number) {
		return false
	}
	p := outer.NotProtocol
	return p == nil ||
		inner.NotProtocol != nil && inner.NotProtocol.Number == p.Number ||
		inner.Protocol != nil && inner.Protocol.Number != p.Number
}

// coversICMP: both fields also say that the packet is ICMP of its family.
func coversICMP(outer, inner *policy.Rule) bool {
	if c := outer.ICMP; c != nil && (inner.ICMP == nil || !holdsICMP(c, inner.ICMP)) {
		return false
	}
	c := outer.NotICMP
	return c == nil || inner.NotICMP != nil && holdsICMP(inner.NotICMP, c)
}

// holdsICMP tells whether what b matches is among what a matches.
func holdsICMP(a, b *policy.ICMPMatch) bool {
	return a.Type == b.Type && (a.Code == nil || b.Code != nil && *a.Code == *b.Code)
}

func coversEntity(outer, inner entity) bool {
	return coversNets(outer.Nets, inner.Nets) && coversNotNets(outer.NotNets, inner.NotNets) &&
		coversIdentity(outer, inner) &&
		(outer.Service == nil || inner.Service != nil && *outer.Service == *inner.Service) &&
		coversPorts(outer, inner) && coversNotPorts(outer, inner)
}

// coversNets: the packet is in one of inner, each of which is within one of
// outer. That also gives outer an entry of the packet's family.
func coversNets(outer, inner []netip.Prefix) bool {
	return len(outer) == 0 || len(inner) > 0 && allWithin(inner, outer)
}

// coversNotNets: the packet is in none of inner, which together hold all of
// outer. Outer must also exist for every family that inner exists for.
func coversNotNets(outer, inner []netip.Prefix) bool {
	if len(outer) == 0 {
		return true
	}
	for _, p := range inner {
		if !slices.ContainsFunc(outer, func(o netip.Prefix) bool { return o.Addr().Is6() == p.Addr().Is6() }) {
			return false
		}
	}
	return len(inner) > 0 && allWithin(outer, inner)
}

// allWithin tells whether each prefix is within one of the others.
func allWithin(list, others []netip.Prefix) bool {
	for _, p := range list {
		if !slices.ContainsFunc(others, func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Contains(p.Addr()) }) {
			return false
		}
	}
	return true
}

func coversIdentity(outer, inner entity) bool {
	switch {
	case !outer.statesIdentity():
		return true
	case outer.hasPositive():
		return inner.hasPositive() && admitsAll(outer, inner)
	default: // only NEG: "no object matches" follows from itself alone
		return inner.statesIdentity() && !inner.hasPositive() && outer.NotSelector.Equal(inner.NotSelector)
	}
}

// admitsAll tells whether an object that satisfies POS and not NEG of inner does
// so of outer.
func admitsAll(outer, inner entity) bool {
	if !outer.statesIdentity() {
		return true
	}
	return coversNamespaces(outer, inner) &&
		impliedBy(outer.accountSelector(), inner.accountSelector()) &&
		(!outer.hasNames() || inner.hasNames() && subset(inner.ServiceAccounts.Names, outer.ServiceAccounts.Names)) &&
		impliedBy(outer.Selector, inner.Selector) &&
		(outer.NotSelector == nil || outer.NotSelector.Equal(inner.NotSelector))
}

func coversNamespaces(outer, inner entity) bool {
	switch o := outer.NamespaceSelector; {
	case o == nil && outer.namespace == "":
		return true
	case o == nil:
		return inner.statesIdentity() && inner.NamespaceSelector == nil
	case o.Equal(inner.NamespaceSelector):
		return true
	default: // the policy's own namespace is a namespace
		return o.Equal(selector.All()) && inner.statesIdentity() && inner.NamespaceSelector == nil && inner.namespace != ""
	}
}

func impliedBy(outer, inner *selector.Selector) bool {
	return outer == nil || outer.Equal(selector.All()) || outer.Equal(inner)
}

func subset(list, of []string) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !slices.Contains(of, s) })
}

// coversPorts: a named port is that of objects which the same side's identity
// admits.
func coversPorts(outer, inner entity) bool {
	if len(outer.Ports) == 0 {
		return true
	}
	named := admitsAll(outer, inner)
	for _, p := range inner.Ports {
		if !slices.ContainsFunc(outer.Ports, func(o policy.Port) bool { return holdsPort(o, p, named) }) {
			return false
		}
	}
	return len(inner.Ports) > 0
}

// coversNotPorts: what outer excludes, inner excludes.
func coversNotPorts(outer, inner entity) bool {
	named := admitsAll(inner, outer)
	for _, o := range outer.NotPorts {
		if !slices.ContainsFunc(inner.NotPorts, func(p policy.Port) bool { return holdsPort(p, o, named) }) {
			return false
		}
	}
	return true
}

func holdsPort(a, b policy.Port, named bool) bool {
	if a.Name != "" || b.Name != "" {
		return named && a.Name == b.Name
	}
	return a.Min <= b.Min && b.Max <= a.Max
}
