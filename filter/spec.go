package filter

import (
	"net/netip"

	"github.com/postern-project/postern/filter/flow"
)

// Action is what a rule does with a packet it matches. The zero Action denies.
type Action uint8

const (
	Deny Action = iota
	Allow
	// Pass leaves the segment and goes on with the next.
	Pass
	// Log notes the match and goes on with the next rule.
	Log
)

func (a Action) String() string {
	switch a {
	case Allow:
		return "Allow"
	case Pass:
		return "Pass"
	case Log:
		return "Log"
	default:
		return "Deny"
	}
}

// Spec is what a Ruleset is built from. Everything about identity is resolved
// before: no labels, names or prefixes are left in rules. New copies what it
// keeps except for class sets, class ports and port ranges, which must not be
// changed afterwards; those and segments may be shared freely within a Spec,
// and sharing them is what keeps a Ruleset small.
type Spec struct {
	// Generation is the number of the snapshot that was compiled.
	Generation uint64

	// Prefixes maps addresses to classes, the longest prefix winning. A prefix's
	// class must stand for everything shorter prefixes say as well. Each prefix
	// is masked and given once.
	Prefixes []ClassPrefix
	// Classes is indexed by ClassID. Classes[0] is required, even if empty, and
	// can be neither hosted nor conflicting.
	Classes []Class

	// Rules is indexed by RuleID-1.
	Rules []Rule
	// Programs is indexed by the programs of classes and hosts.
	Programs []Program

	// Endpoints are the pods known by address, hosted here or not.
	Endpoints []Endpoint
	// Hosts are the host endpoints, each name once.
	Hosts []Host
}

// ClassPrefix maps one prefix to a class.
type ClassPrefix struct {
	Prefix netip.Prefix
	Class  ClassID
}

// Class tells what to do for the addresses of one class.
type Class struct {
	// Conflict is set if two live endpoints claim the address.
	Conflict bool
	// Hosted is set if the address is that of an endpoint of this node.
	Hosted bool
	// Programs are indexes into Spec.Programs by flow.Direction, read only if
	// Hosted is set.
	Programs [2]int
}

// Program decides for an endpoint and a direction: the segments in order, then
// Final.
type Program struct {
	Segments []*Segment
	Final    Final
}

// Segment is one tier as one program sees it: the rules of the tier's policies
// that apply, in order. An empty segment with an End decides at once.
type Segment struct {
	Rules []RuleID
	// End names a rule that states no criteria and stands for the end of the
	// tier. 0 means that what no rule matched goes on with the next segment.
	End RuleID
}

// Final is what a program says when none of its segments decided. The zero Final
// denies.
type Final uint8

const (
	// FinalDeny drops with NoProfile.
	FinalDeny Final = iota
	// FinalAllow accepts with ByProfile.
	FinalAllow
	// FinalOpen accepts with NotHosted: nothing here constrains the flow. Host
	// endpoints only.
	FinalOpen
	// FinalUndecided leaves the flow to the next chain. Host endpoints only.
	FinalUndecided
)

// Rule is one rule, resolved. Every criterion that is stated must hold; zero
// values state nothing, except that a rule of no family matches nothing.
type Rule struct {
	Info RuleInfo

	IPv4, IPv6      bool // the families the rule exists for
	Proto, NotProto *flow.Proto
	// ICMP and NotICMP imply that the packet is ICMP over IPv4 or ICMPv6 over IPv6.
	ICMP, NotICMP *ICMPMatch

	Source, Destination Side

	// Request is what else is asked of a request, at the application layer. It is
	// nil for most rules, and no packet is asked for it.
	Request *RequestMatch
}

// ICMPMatch matches a type and, unless AnyCode is set, a code.
type ICMPMatch struct {
	Type, Code uint8
	AnyCode    bool
}

// Side is what a rule asks of one end of a flow.
type Side struct {
	// Classes holds the classes that satisfy selectors, prefixes and their
	// negations; nil if nothing of the kind is stated.
	Classes *ClassSet
	// Ports and NotPorts are nil if not stated. Without ports in the packet
	// Ports does not hold and NotPorts does.
	Ports, NotPorts *PortMatch
	// Service is nil if not stated. It holds if the end's class offers the
	// packet's protocol and port on this side.
	Service *ClassPorts
}

// PortMatch holds if any of its ranges or named ports does.
type PortMatch struct {
	Ranges []flow.PortRange
	Named  *ClassPorts
}

// RuleInfo tells where a rule comes from.
type RuleInfo struct {
	Tier string // empty for the rule of a profile
	// Kind, Namespace and Name are those of the policy or profile; all are empty
	// for the end of a tier.
	Kind, Namespace, Name string
	Direction             flow.Direction
	// Index is the position of the rule in its object's list, -1 for the end of
	// a tier.
	Index  int
	Action Action
	// Annotations are the rule's own, as "key=value key=value" by key, for logs.
	Annotations string
}

// EndOfTier tells whether it stands for the end of a tier.
func (i RuleInfo) EndOfTier() bool { return i.Index < 0 }

// Endpoint is a pod as logs and the kernel's sets need it.
type Endpoint struct {
	EndpointInfo
	Addrs []netip.Addr
}

// EndpointInfo names a pod.
type EndpointInfo struct {
	Namespace, Name string
	ServiceAccount  string // empty if it has none
	Hosted          bool
}

// Host is a host endpoint of this node.
type Host struct {
	Name string
	// Programs are indexes into Spec.Programs by HostChain and flow.Direction.
	Programs [HostChains][2]int
}
