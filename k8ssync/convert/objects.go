package convert

import (
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// BuiltInTiers are the tiers that always exist, in their order. They cannot be
// changed.
func BuiltInTiers() []policy.Tier {
	return []policy.Tier{
		{Name: policy.AdminTier, Order: 1000, DefaultAction: policy.Pass},
		{Name: policy.DefaultTier, Order: policy.DefaultTierOrder, DefaultAction: policy.Deny},
		{Name: policy.BaselineTier, Order: 10 * policy.DefaultTierOrder, DefaultAction: policy.Pass},
	}
}

// DefaultAllow gives the profile that always exists and allows everything.
func DefaultAllow() *policy.Profile {
	return &policy.Profile{
		Name:    policy.DefaultAllowProfile,
		Ingress: []policy.Rule{{Action: policy.Allow}},
		Egress:  []policy.Rule{{Action: policy.Allow}},
	}
}

func (r *report) tierObject(o *calico.Tier) *policy.Tier {
	r.metadata(&o.ObjectMeta, tierName)
	t := &policy.Tier{Name: o.Name, Order: policy.DefaultTierOrder, DefaultAction: policy.Deny}
	if o.Spec.Order != nil {
		t.Order = *o.Spec.Order
		if math.IsInf(t.Order, 0) || math.IsNaN(t.Order) {
			r.add("spec.order", "%v is no order; write a finite number", t.Order)
			t.Order = policy.DefaultTierOrder
		}
	}
	if a := o.Spec.DefaultAction; a != nil {
		switch *a {
		case calico.Pass:
			t.DefaultAction = policy.Pass
		case calico.Deny:
		default:
			r.add("spec.defaultAction", "%q is no tier's action; write Deny or Pass", shorten(string(*a)))
		}
	}
	for _, b := range BuiltInTiers() {
		if b.Name == t.Name && b != *t {
			r.add("spec", "tier %s is built in and cannot be changed; remove the object, or write order: %.0f and defaultAction: %s",
				b.Name, b.Order, b.DefaultAction)
			return &b
		}
	}
	return t
}

// profile converts a Profile. Those that are derived from other objects appear
// in dumps of a cluster and contribute nothing of their own.
func (r *report) profile(o *calico.Profile) *policy.Profile {
	r.metadata(&o.ObjectMeta, anyName)
	if o.Name == policy.DefaultAllowProfile || strings.HasPrefix(o.Name, "kns.") || strings.HasPrefix(o.Name, "ksa.") {
		r.warn("", "this profile is derived by the system; the object is not used")
		return nil
	}
	return &policy.Profile{
		Name:          o.Name,
		Ingress:       r.rules("spec.ingress", flow.Ingress, o.Spec.Ingress),
		Egress:        r.rules("spec.egress", flow.Egress, o.Spec.Egress),
		LabelsToApply: r.labels("spec.labelsToApply", o.Spec.LabelsToApply),
	}
}

// networkSet converts both kinds of set. Nets that cannot be read are left out:
// a set stands in rules that allow and in rules that deny, so no other reading is
// closed for both.
func (r *report) networkSet(m *meta.ObjectMeta, nets []string) *policy.NetworkSet {
	r.metadata(m, anyName)
	if _, ok := m.Labels[calico.LabelNamespace]; ok {
		r.add("metadata.labels["+calico.LabelNamespace+"]", "is derived and cannot be written; remove it")
	}
	s := &policy.NetworkSet{Kind: r.key.Kind, Namespace: r.key.Namespace, Name: r.key.Name, Labels: cloneLabels(m.Labels)}
	for i, text := range nets {
		at := "spec.nets[" + strconv.Itoa(i) + "]"
		if p, why := anyPrefix(text); why != "" {
			r.add(at, "%s", why)
		} else {
			s.Nets = append(s.Nets, p)
		}
	}
	return s
}

// anyPrefix reads a prefix or a bare address and masks host bits away.
func anyPrefix(text string) (p netip.Prefix, why string) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return p, strconv.Quote(shorten(text)) + " is no prefix and no address; write one such as 10.0.0.0/24, 10.0.0.1 or fd00:1::/64"
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() {
		return p, text + " is an IPv4 address in IPv6 form; write it as IPv4"
	}
	return p.Masked(), ""
}

var interfaceName = regexp.MustCompile(`^(\*|[a-zA-Z0-9_.-]{1,15})$`)

func (r *report) hostEndpoint(o *calico.HostEndpoint) *policy.HostEndpoint {
	r.metadata(&o.ObjectMeta, anyName)
	h := &policy.HostEndpoint{
		Name: o.Name, Node: o.Spec.Node, InterfaceName: o.Spec.InterfaceName,
		Labels: cloneLabels(o.Labels), Profiles: slices.Clone(o.Spec.Profiles),
	}
	if h.Node == "" {
		r.add("spec.node", "not given; write the name of the node the interface is on")
	}
	if h.InterfaceName == "" && len(o.Spec.ExpectedIPs) == 0 {
		r.add("spec.interfaceName", `not given, and no expectedIPs either; write an interface's name, or "*" for all`)
	}
	if h.InterfaceName != "" && !interfaceName.MatchString(h.InterfaceName) {
		r.add("spec.interfaceName", `%q is no interface name; write at most 15 letters, digits, dots, dashes and underscores, or "*"`, shorten(h.InterfaceName))
	}
	for i, text := range o.Spec.ExpectedIPs {
		if a, why := plainAddr(text); why != "" {
			r.add("spec.expectedIPs["+strconv.Itoa(i)+"]", "%s", why)
		} else {
			h.ExpectedIPs = append(h.ExpectedIPs, a)
		}
	}
	for i, p := range o.Spec.Ports {
		at := "spec.ports[" + strconv.Itoa(i) + "]"
		before := r.count
		for _, why := range validation.IsValidPortName(p.Name) {
			r.add(at+".name", "%q is no port name: %s", shorten(p.Name), why)
		}
		proto := r.protocol(at+".protocol", &p.Protocol)
		if proto != nil && !proto.Number.HasPorts() {
			r.add(at+".protocol", "protocol %s has no ports; write TCP, UDP or SCTP", proto.Number)
		}
		if p.Port == 0 {
			r.add(at+".port", "port 0 cannot be matched; write a number from 1 to 65535")
		}
		if r.count == before {
			h.Ports = append(h.Ports, policy.NamedPort{Name: p.Name, Proto: proto.Number, Port: p.Port})
		}
	}
	if h.Node == "" || h.InterfaceName == "" && len(h.ExpectedIPs) == 0 {
		return nil // nothing it could be the endpoint of
	}
	return h
}

// plainAddr reads an address that can stand on the wire.
func plainAddr(text string) (a netip.Addr, why string) {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return a, strconv.Quote(shorten(text)) + " is no address; write one such as 10.0.0.1 or fd00::1"
	case a.Zone() != "":
		return a, text + " has a zone; write the address alone"
	case a.Is4In6():
		return a, text + " is an IPv4 address in IPv6 form; write " + a.Unmap().String()
	}
	return a, ""
}
