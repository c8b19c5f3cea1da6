package assertion

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// End is one end of a flow, in one of four ways: a pod (Namespace and Name), an
// address, every address of a prefix, or every pod of a Selection.
type End struct {
	Namespace, Name string
	Addr            netip.Addr   // never IPv4-mapped, without zone
	Prefix          netip.Prefix // masked
	Selection       *Selection
}

// Selection chooses pods: those for which everything that is stated holds.
type Selection struct {
	// Namespace and Account are exact names; empty if not stated. Account is
	// never stated without Namespace.
	Namespace, Account string
	// Selector sees the labels that a policy's selector sees, derived ones
	// included; the other two see the labels of the pod's namespace and of its
	// service account.
	Selector, NamespaceSelector, AccountSelector *selector.Selector
	// OrNone: there need not be any such pod.
	OrNone bool
}

// ParseEnd reads namespace/name, with or without "pod:" before it, or an address.
func ParseEnd(text string) (End, error) {
	text = strings.TrimPrefix(text, "pod:")
	if namespace, name, isPod := strings.Cut(text, "/"); isPod {
		if namespace == "" || name == "" || strings.Contains(name, "/") {
			return End{}, errNoEnd
		}
		return End{Namespace: namespace, Name: name}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return End{}, errNoEnd
	}
	return End{Addr: a.Unmap()}, nil
}

var errNoEnd = errors.New("want an address, or a pod as namespace/name")

// Pod finds the pod that the end names; nil if it names none or there is none.
func (e End) Pod(s *policy.Snapshot) *policy.Endpoint {
	if e.Name == "" {
		return nil
	}
	for _, ep := range s.Endpoints {
		if ep.Namespace == e.Namespace && ep.Name == e.Name {
			return ep
		}
	}
	return nil
}

// AddrsOf gives a pod's addresses of one family.
func AddrsOf(ep *policy.Endpoint, six bool) (addrs []netip.Addr) {
	for _, a := range ep.Addrs {
		if a.Is6() == six {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// String prints the end much as it was written.
func (e End) String() string {
	switch {
	case e.Selection != nil:
		return e.Selection.String()
	case e.Prefix.IsValid():
		return e.Prefix.String()
	case e.Addr.IsValid():
		return e.Addr.String()
	default:
		return e.Namespace + "/" + e.Name
	}
}

// String prints what is stated, in braces.
func (s *Selection) String() string {
	var parts []string
	switch {
	case s.Account != "":
		parts = append(parts, "serviceAccount: "+s.Namespace+"/"+s.Account)
	case s.Namespace != "":
		parts = append(parts, "namespace: "+s.Namespace)
	}
	for _, f := range []struct {
		name string
		*selector.Selector
	}{{"selector", s.Selector}, {"namespaceSelector", s.NamespaceSelector}, {"serviceAccountSelector", s.AccountSelector}} {
		if f.Selector != nil {
			parts = append(parts, f.name+": "+f.Selector.String())
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// Port is a protocol and what a flow of it states beside its addresses.
type Port struct {
	Proto flow.Proto
	// Number is the destination port, valid for protocols that HasPorts.
	Number uint16
	// Type and Code are valid for ICMP and ICMPv6.
	Type, Code uint8
}

var errNoPort = errors.New("want tcp/80, udp/53, sctp/9, icmp:8/0, icmpv6:128 or a protocol number")

// ParsePort reads tcp/80, icmp:8/0, icmp:8 or a protocol number. Without type
// and code an ICMP flow is type 0 code 0.
func ParsePort(text string) (Port, error) {
	name, rest, cut := text, "", false
	if i := strings.IndexAny(text, "/:"); i >= 0 {
		name, rest, cut = text[:i], text[i+1:], true
	}
	proto, err := flow.ParseProto(name)
	if err != nil {
		return Port{}, errNoPort
	}
	p := Port{Proto: proto}
	switch {
	case proto.HasPorts():
		n, err := strconv.ParseUint(rest, 10, 16)
		if err != nil {
			return Port{}, errNoPort
		}
		p.Number = uint16(n)
	case cut && (proto == flow.ICMP || proto == flow.ICMPv6):
		typ, code, stated := strings.Cut(rest, "/")
		t, err := strconv.ParseUint(typ, 10, 8)
		if err != nil {
			return Port{}, errNoPort
		}
		p.Type = uint8(t)
		if !stated {
			break
		}
		c, err := strconv.ParseUint(code, 10, 8)
		if err != nil {
			return Port{}, errNoPort
		}
		p.Code = uint8(c)
	case cut:
		return Port{}, errNoPort
	}
	return p, nil
}

// Tuple gives the flow between two addresses. The source port counts for
// protocols that have ports.
func (p Port) Tuple(src, dst netip.Addr, sourcePort uint16) flow.Tuple {
	t := flow.Tuple{Src: src, Dst: dst, Proto: p.Proto, ICMPType: p.Type, ICMPCode: p.Code}
	if p.Proto.HasPorts() {
		t.Ported, t.SrcPort, t.DstPort = true, sourcePort, p.Number
	}
	return t
}

// Family is 4 for ICMP and 6 for ICMPv6, which are defined there only, and else 0.
func (p Port) Family() int {
	switch p.Proto {
	case flow.ICMP:
		return 4
	case flow.ICMPv6:
		return 6
	default:
		return 0
	}
}

// String prints what ParsePort reads.
func (p Port) String() string {
	switch {
	case p.Proto.HasPorts():
		return fmt.Sprintf("%s/%d", p.Proto, p.Number)
	case p.Proto == flow.ICMP || p.Proto == flow.ICMPv6:
		return fmt.Sprintf("%s:%d/%d", p.Proto, p.Type, p.Code)
	default:
		return p.Proto.String()
	}
}
