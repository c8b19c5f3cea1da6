package convert

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/projectcalico/api/pkg/lib/numorstring"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// rules converts the rules of one direction. Faulty ones are replaced by what
// fails closed.
func (r *report) rules(field string, dir flow.Direction, list []calico.Rule) []policy.Rule {
	if r.faultyRules[field] {
		// The list itself is not readable, and any of its rules may deny.
		return []policy.Rule{{Action: policy.Deny}}
	}
	if len(list) > maxRules {
		r.add(field, "has %d rules; at most %d are allowed, so split the policy", len(list), maxRules)
	}
	var out []policy.Rule
	for i := range list {
		at := field + "[" + strconv.Itoa(i) + "]"
		before := r.count
		rule := r.rule(at, dir, &list[i])
		rule.Index = i
		switch {
		case !r.ruleFaulty(at, before):
			out = append(out, rule)
		case denies(list[i].Action):
			out = append(out, policy.Rule{Index: i, Action: policy.Deny})
		}
	}
	return out
}

// denies tells whether a faulty rule must be taken for one that denies: those
// whose action is not clearly another one, if only misspelt.
func denies(a calico.Action) bool {
	for _, other := range []calico.Action{calico.Allow, calico.Pass, calico.Log} {
		if strings.EqualFold(strings.TrimSpace(string(a)), string(other)) {
			return false
		}
	}
	return true
}

func (r *report) rule(at string, dir flow.Direction, in *calico.Rule) policy.Rule {
	var out policy.Rule
	switch in.Action {
	case calico.Allow:
		out.Action = policy.Allow
	case calico.Deny:
		out.Action = policy.Deny
	case calico.Pass:
		out.Action = policy.Pass
	case calico.Log:
		out.Action = policy.Log
	case "":
		r.add(at+".action", "not given; write Allow, Deny, Pass or Log")
	default:
		r.add(at+".action", "%q is no action; write Allow, Deny, Pass or Log, with this case", shorten(string(in.Action)))
	}
	if in.IPVersion != nil {
		if *in.IPVersion == 4 || *in.IPVersion == 6 {
			out.IPVersion = uint8(*in.IPVersion)
		} else {
			r.add(at+".ipVersion", "%d is no IP version; write 4 or 6, or leave it out for both", *in.IPVersion)
		}
	}
	out.Protocol = r.protocol(at+".protocol", in.Protocol)
	out.NotProtocol = r.protocol(at+".notProtocol", in.NotProtocol)
	r.protocolFamily(at+".protocol", out.Protocol, out.IPVersion)
	r.protocolFamily(at+".notProtocol", out.NotProtocol, out.IPVersion)
	out.ICMP = r.icmp(at+".icmp", in.ICMP, out.Protocol)
	out.NotICMP = r.icmp(at+".notICMP", in.NotICMP, out.Protocol)
	out.HTTP = r.http(at+".http", dir, in, out.Protocol)

	e := entity{dir: dir, protocol: out.Protocol, family: out.IPVersion}
	out.Source = r.entity(at+".source", &e, true, &in.Source)
	out.Destination = r.entity(at+".destination", &e, false, &in.Destination)

	if in.Metadata != nil {
		for _, k := range slices.Sorted(maps.Keys(in.Metadata.Annotations)) {
			for _, why := range validation.IsQualifiedName(k) {
				r.add(at+".metadata.annotations["+k+"]", "not a valid annotation key: %s", why)
			}
		}
		out.Annotations = maps.Clone(in.Metadata.Annotations)
	}
	return out
}

var protocolNames = map[string]flow.Proto{
	numorstring.ProtocolTCP: flow.TCP, numorstring.ProtocolUDP: flow.UDP,
	numorstring.ProtocolICMP: flow.ICMP, numorstring.ProtocolICMPv6: flow.ICMPv6,
	numorstring.ProtocolSCTP: flow.SCTP, numorstring.ProtocolUDPLite: flow.UDPLite,
}

func (r *report) protocol(field string, p *numorstring.Protocol) *policy.Protocol {
	if p == nil {
		return nil
	}
	const want = "write TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite (with this case) or a number from 1 to 255"
	if n, err := p.NumValue(); err == nil {
		if n == 0 {
			r.add(field, "0 is no protocol that rules can match; %s", want)
			return nil
		}
		return &policy.Protocol{Number: flow.Proto(n)}
	}
	n, ok := protocolNames[p.StrVal]
	if !ok {
		r.add(field, "%q is no protocol; %s", shorten(p.StrVal), want)
		return nil
	}
	return &policy.Protocol{Number: n, ByName: true}
}

// protocolFamily refuses ICMP for IPv6 and ICMPv6 for IPv4.
func (r *report) protocolFamily(field string, p *policy.Protocol, version uint8) {
	switch {
	case p == nil:
	case p.Number == flow.ICMP && version == 6:
		r.add(field, "ICMP is an IPv4 protocol and ipVersion is 6; write ICMPv6, or ipVersion: 4")
	case p.Number == flow.ICMPv6 && version == 4:
		r.add(field, "ICMPv6 is an IPv6 protocol and ipVersion is 4; write ICMP, or ipVersion: 6")
	}
}

// icmp converts icmp or notICMP. Calico forgets to ask for the protocol beside
// notICMP [D5].
func (r *report) icmp(field string, in *calico.ICMPFields, p *policy.Protocol) *policy.ICMPMatch {
	if in == nil {
		return nil
	}
	if p == nil || p.Number != flow.ICMP && p.Number != flow.ICMPv6 {
		r.add(field, "needs protocol ICMP or ICMPv6 beside it")
	}
	var out policy.ICMPMatch
	if in.Code != nil {
		if *in.Code < 0 || *in.Code > 255 {
			r.add(field+".code", "%d is no ICMP code; write a number from 0 to 255", *in.Code)
		}
		code := uint8(*in.Code)
		out.Code = &code
	}
	if in.Type == nil {
		if in.Code != nil {
			r.add(field+".code", "needs a type beside it")
		}
		return nil
	}
	if *in.Type < 0 || *in.Type > 254 {
		r.add(field+".type", "%d is no ICMP type; write a number from 0 to 254", *in.Type)
	}
	out.Type = uint8(*in.Type)
	return &out
}

const (
	maxHTTP     = 20 // methods, and paths
	maxHTTPPath = 1024
)

func (r *report) http(field string, dir flow.Direction, rule *calico.Rule, p *policy.Protocol) *policy.HTTPMatch {
	in := rule.HTTP
	if in == nil {
		return nil
	}
	if rule.Action != calico.Allow {
		r.add(field, "is for rules with action Allow only; to refuse requests, allow the others")
	}
	if dir != flow.Ingress {
		r.add(field, "is for ingress rules only; move it to the policy of the pods that serve the requests")
	}
	if rule.Protocol != nil && (p == nil || p.Number != flow.TCP) {
		r.add(field, "needs protocol TCP, or none")
	}
	if len(in.Methods) > maxHTTP {
		r.add(field+".methods", "has %d entries; at most %d are allowed", len(in.Methods), maxHTTP)
	}
	seen := map[string]bool{}
	for i, m := range in.Methods {
		if seen[m] {
			r.add(field+".methods["+strconv.Itoa(i)+"]", "%q is listed twice; keep one", shorten(m))
		}
		seen[m] = true
	}
	if len(in.Paths) > maxHTTP {
		r.add(field+".paths", "has %d entries; at most %d are allowed", len(in.Paths), maxHTTP)
	}
	out := &policy.HTTPMatch{Methods: slices.Clone(in.Methods)}
	for i, path := range in.Paths {
		at := field + ".paths[" + strconv.Itoa(i) + "]"
		text := path.Exact + path.Prefix
		switch {
		case (path.Exact == "") == (path.Prefix == ""):
			r.add(at, "states both or neither of exact and prefix; write one of them")
		case !strings.HasPrefix(text, "/"):
			r.add(at, "%q does not start with a slash; write %q", shorten(text), "/"+shorten(text))
		case strings.ContainsAny(text, "? #"):
			r.add(at, "%q holds a question mark, a space or a #; write the path without query and fragment", shorten(text))
		case len(text) > maxHTTPPath:
			r.add(at, "has %d characters; at most %d are allowed", len(text), maxHTTPPath)
		}
		out.Paths = append(out.Paths, policy.HTTPPath{Exact: path.Exact, Prefix: path.Prefix})
	}
	return out
}
