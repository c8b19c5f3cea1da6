package convert

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/projectcalico/api/pkg/lib/numorstring"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

const (
	maxNets  = 256
	maxPorts = 50
)

// entity is what both halves of a rule are checked against.
type entity struct {
	dir      flow.Direction
	protocol *policy.Protocol
	// family is 4 or 6 once ipVersion or the first prefix has said so. All four
	// lists of a rule are of one family.
	family   uint8
	familyOf string // the field that said so; empty for ipVersion
}

func (r *report) entity(at string, e *entity, source bool, in *calico.EntityRule) policy.EntityRule {
	out := policy.EntityRule{
		Nets:              r.nets(at+".nets", e, in.Nets, true),
		NotNets:           r.nets(at+".notNets", e, in.NotNets, false),
		NamespaceSelector: r.namespaceSelector(at+".namespaceSelector", in.NamespaceSelector),
		Selector:          r.endpointSelector(at+".selector", in.Selector),
		NotSelector:       r.ruleSelector(at+".notSelector", in.NotSelector),
		Ports:             r.ports(at+".ports", e, in.Ports),
		NotPorts:          r.ports(at+".notPorts", e, in.NotPorts),
	}
	if sa := in.ServiceAccounts; sa != nil {
		out.ServiceAccounts = &policy.ServiceAccountMatch{
			Names:    slices.Clone(sa.Names),
			Selector: r.ruleSelector(at+".serviceAccounts.selector", sa.Selector),
		}
		for i, name := range sa.Names {
			if slices.Contains(sa.Names[:i], name) {
				r.add(at+".serviceAccounts.names["+strconv.Itoa(i)+"]", "%q is listed twice; keep one", shorten(name))
			}
		}
	}
	if in.Services != nil {
		out.Service = r.service(at, e, source, in)
	}
	return out
}

// nets converts nets, or notNets if catchAll is false.
func (r *report) nets(field string, e *entity, list []string, catchAll bool) []netip.Prefix {
	if len(list) > maxNets {
		r.add(field, "has %d entries; at most %d are allowed, so put them in a NetworkSet", len(list), maxNets)
	}
	var out []netip.Prefix
	seen := make(map[netip.Prefix]bool, len(list))
	for i, text := range list {
		at := field + "[" + strconv.Itoa(i) + "]"
		p, why := canonicalPrefix(text)
		switch {
		case why != "":
			r.add(at, "%s", why)
			continue
		case !catchAll && p.Bits() == 0:
			r.add(at, "%s leaves nothing to match; remove it, or write a smaller prefix", p)
		case seen[p]:
			r.add(at, "%s is listed twice; keep one", p)
		}
		e.agree(r, at, p)
		seen[p] = true
		out = append(out, p)
	}
	return out
}

// agree reports a prefix whose family is not the rule's.
func (e *entity) agree(r *report, at string, p netip.Prefix) {
	family := uint8(4)
	if p.Addr().Is6() {
		family = 6
	}
	switch {
	case e.family == 0:
		e.family, e.familyOf = family, at
	case e.family == family:
	case e.familyOf == "":
		r.add(at, "%s is an IPv%d prefix and ipVersion is %d; leave ipVersion out, or write an IPv%d prefix", p, family, e.family, e.family)
	default:
		r.add(at, "%s is an IPv%d prefix and %s is an IPv%d one; write one rule for each family", p, family, e.familyOf, e.family)
	}
}

// canonicalPrefix reads a prefix that has a mask and no host bits; why says what
// is wrong with any other.
func canonicalPrefix(text string) (p netip.Prefix, why string) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" && !a.Is4In6() {
			return p, strconv.Quote(text) + " has no mask; write " + netip.PrefixFrom(a, a.BitLen()).String()
		}
		return p, strconv.Quote(shorten(text)) + " is no prefix; write one such as 10.0.0.0/24 or fd00:1::/64"
	}
	if p.Addr().Is4In6() {
		return p, text + " is an IPv4 address in IPv6 form; write the IPv4 prefix"
	}
	if p != p.Masked() {
		return p, text + " has host bits; write " + p.Masked().String()
	}
	return p, ""
}

// ports converts ports or notPorts.
func (r *report) ports(field string, e *entity, list []numorstring.Port) []policy.Port {
	if len(list) > maxPorts {
		r.add(field, "has %d entries; at most %d are allowed, so use ranges or another rule", len(list), maxPorts)
	}
	var out []policy.Port
	numbers := false
	for i, p := range list {
		at := field + "[" + strconv.Itoa(i) + "]"
		if p.PortName != "" {
			for _, why := range validation.IsValidPortName(p.PortName) {
				r.add(at, "%q is no port name: %s", shorten(p.PortName), why)
			}
			out = append(out, policy.Port{Name: p.PortName})
			continue
		}
		numbers = true
		switch {
		case p.MinPort == 0:
			r.add(at, "port 0 cannot be matched; write numbers from 1 to 65535")
		case p.MinPort > p.MaxPort:
			r.add(at, "%d:%d ends before it begins; write %d:%d", p.MinPort, p.MaxPort, p.MaxPort, p.MinPort)
		}
		out = append(out, policy.Port{PortRange: flow.PortRange{Min: p.MinPort, Max: p.MaxPort}})
	}
	switch {
	case len(list) == 0:
	case e.protocol == nil && numbers:
		r.add(field, "port numbers need a protocol; write protocol: TCP, UDP or SCTP in the rule")
	case e.protocol != nil && !e.protocol.Number.HasPorts():
		r.add(field, "protocol %s has no ports that rules can match; remove them, or write protocol: TCP, UDP or SCTP", e.protocol.Number)
	}
	return out
}

// service converts services, which stands alone in its half of the rule.
func (r *report) service(at string, e *entity, source bool, in *calico.EntityRule) *policy.ServiceRef {
	field := at + ".services"
	if in.Services.Name == "" {
		r.add(field+".name", "not given; write the service's name")
	}
	for _, other := range []struct {
		name   string
		stated bool
	}{
		{"selector", in.Selector != ""}, {"notSelector", in.NotSelector != ""}, {"namespaceSelector", in.NamespaceSelector != ""},
		{"serviceAccounts", in.ServiceAccounts != nil}, {"nets", len(in.Nets) > 0}, {"notNets", len(in.NotNets) > 0},
		{"ports", !source && len(in.Ports) > 0}, {"notPorts", !source && len(in.NotPorts) > 0},
	} {
		if other.stated {
			r.add(field, "excludes %s beside it; write two rules", other.name)
		}
	}
	if e.dir == flow.Ingress && !source {
		r.add(field, "of an ingress rule goes in source, not in destination")
	}
	if e.dir == flow.Egress && source {
		r.add(field, "of an egress rule goes in destination, not in source")
	}
	ref := &policy.ServiceRef{Namespace: in.Services.Namespace, Name: in.Services.Name}
	if ref.Namespace == "" {
		ref.Namespace = r.key.Namespace // [D1]
	}
	if ref.Namespace == "" {
		r.add(field+".namespace", "not given; write the service's namespace, since a %s has none of its own", strings.TrimPrefix(string(r.key.Kind), "Staged"))
	}
	return ref
}
