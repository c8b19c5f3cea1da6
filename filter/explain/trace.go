package explain

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// Verdict is the outcome of an evaluation. The zero Verdict denies.
type Verdict uint8

const (
	Deny Verdict = iota
	Allow
	// None: the chain of a host endpoint left the packet undecided and the next
	// chain goes on. Pods never get it.
	None
)

func (v Verdict) String() string {
	switch v {
	case Allow:
		return "allow"
	case None:
		return "none"
	default:
		return "deny"
	}
}

// MarshalText implements encoding.TextMarshaler.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Reason tells why a verdict came out as it did. The words are the engine's own
// reasons where the engine has them.
type Reason string

const (
	// ByRule: a rule of a policy decided.
	ByRule Reason = "rule"
	// EndOfTier: policies of a tier select the endpoint and no rule matched.
	EndOfTier Reason = "end-of-tier"
	// ByProfile: no tier decided and a profile of the endpoint did.
	ByProfile Reason = "profile"
	// NoProfile: no tier decided and no profile allowed it, or the namespace of
	// the pod is not known.
	NoProfile Reason = "no-profile"
	// NotHosted: this end is no endpoint of this node and constrains nothing.
	NotHosted Reason = "not-hosted"
	// NoLocalEndpoint: neither end is hosted here, so nobody here may decide.
	NoLocalEndpoint Reason = "no-local-endpoint"
	// AddressConflict: two live pods claim one of the addresses.
	AddressConflict Reason = "address-conflict"
	// InvalidTuple: addresses missing or of two families.
	InvalidTuple Reason = "invalid-tuple"

	// NoPolicy: nothing applies in this chain of a host endpoint.
	NoPolicy Reason = "no-policy"
	// NoMatch: policies of this chain of a host endpoint apply, none decided.
	NoMatch Reason = "no-match"

	// InvalidRequest: the request's path does not start with a slash.
	InvalidRequest Reason = "invalid-request"
	// InvalidPrincipal: a principal is no SPIFFE identity of a service account
	// in an accepted trust domain.
	InvalidPrincipal Reason = "invalid-principal"
	// IdentityMismatch: a principal and the pod at the address name different
	// service accounts.
	IdentityMismatch Reason = "identity-mismatch"
	// Plaintext: the request has no source principal and the options want one.
	Plaintext Reason = "plaintext"
)

// Tuple is a flow.Tuple that marshals with names instead of numbers, and with
// ports or ICMP fields only where they are valid.
type Tuple flow.Tuple

func (t Tuple) String() string { return flow.Tuple(t).String() }

// MarshalJSON implements json.Marshaler.
func (t Tuple) MarshalJSON() ([]byte, error) {
	out := struct {
		Protocol        string     `json:"protocol"`
		Source          netip.Addr `json:"source"`
		SourcePort      *uint16    `json:"sourcePort,omitempty"`
		Destination     netip.Addr `json:"destination"`
		DestinationPort *uint16    `json:"destinationPort,omitempty"`
		ICMPType        *uint8     `json:"icmpType,omitempty"`
		ICMPCode        *uint8     `json:"icmpCode,omitempty"`
	}{Protocol: t.Proto.String(), Source: t.Src, Destination: t.Dst}
	if t.Ported {
		out.SourcePort, out.DestinationPort = &t.SrcPort, &t.DstPort
	}
	if t.Proto == flow.ICMP || t.Proto == flow.ICMPv6 {
		out.ICMPType, out.ICMPCode = &t.ICMPType, &t.ICMPCode
	}
	return json.Marshal(out)
}

// Object is one object that covers an address: a pod, a host endpoint or a
// network set, with the labels that selectors see (section 3).
type Object struct {
	Kind           policy.Kind       `json:"kind"`
	Namespace      string            `json:"namespace,omitempty"`
	Name           string            `json:"name"`
	Node           string            `json:"node,omitempty"`
	ServiceAccount string            `json:"serviceAccount,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"` // derived; read-only
}

// Identity is what policy knows about one end of a flow.
type Identity struct {
	Address       netip.Addr `json:"address"`
	Pods          []Object   `json:"pods,omitempty"`
	NetworkSets   []Object   `json:"networkSets,omitempty"`
	HostEndpoints []Object   `json:"hostEndpoints,omitempty"`
	// Unknown: no object covers the address; it is external to policy.
	Unknown bool `json:"unknown,omitempty"`
	// Hosted: the address is a pod that this node decides for.
	Hosted bool `json:"hosted,omitempty"`
	// Conflict: two live pods claim the address.
	Conflict bool `json:"conflict,omitempty"`
}

// Criterion is one criterion of a rule that did not hold.
type Criterion struct {
	// Field is the criterion's place in the rule, such as "source.nets".
	// "source.namespace" is the policy's own namespace, which no field states,
	// and "source.certificate…" are checks of the application layer.
	Field string `json:"field"`
	Text  string `json:"text"`
}

// RuleRef names a rule of a policy or profile.
type RuleRef struct {
	Tier      string      `json:"tier,omitempty"` // empty for a profile's rule
	Kind      policy.Kind `json:"kind"`
	Namespace string      `json:"namespace,omitempty"`
	Name      string      `json:"name"`
	Direction string      `json:"direction"`
	Index     int         `json:"index"`
	Action    string      `json:"action"`
}

// String prints "rule ingress[0] (Allow) of Kind namespace/name in tier x".
func (r RuleRef) String() string {
	key := policy.Key{Kind: r.Kind, Namespace: r.Namespace, Name: r.Name}
	s := fmt.Sprintf("rule %s[%d] (%s) of %s", r.Direction, r.Index, r.Action, key)
	if r.Tier != "" {
		s += " in tier " + r.Tier
	}
	return s
}

// RuleStep is a rule that was read.
type RuleStep struct {
	Index   int    `json:"index"`
	Action  string `json:"action"`
	Matched bool   `json:"matched"`
	// Failed is the first criterion that did not hold; nil if it matched.
	Failed *Criterion `json:"failed,omitempty"`
}

// PolicyStep is a policy that selects the endpoint for the direction.
type PolicyStep struct {
	Kind      policy.Kind `json:"kind"`
	Namespace string      `json:"namespace,omitempty"`
	Name      string      `json:"name"`
	// Order is nil for a policy without order, which comes last.
	Order *float64 `json:"order,omitempty"`
	// Staged is the staged action of a staged policy in a pending evaluation.
	Staged policy.StagedAction `json:"staged,omitempty"`
	// Rules are those that were read; Unread counts those after the deciding one.
	Rules  []RuleStep `json:"rules,omitempty"`
	Unread int        `json:"unread,omitempty"`
	// Skipped: an earlier policy of the tier decided or passed.
	Skipped bool `json:"skipped,omitempty"`
}

// TierStep is a tier with at least one policy that selects the endpoint for the
// direction. Other tiers are skipped and not listed.
type TierStep struct {
	Name          string   `json:"name"`
	Order         *float64 `json:"order,omitempty"` // nil for a tier without object
	DefaultAction string   `json:"defaultAction"`
	// Outcome is Allow, Deny or Pass if a rule said so, "end of tier: Deny" or
	// "end of tier: Pass" if none matched, "none" in a chain whose tiers have
	// no end.
	Outcome  string       `json:"outcome"`
	Policies []PolicyStep `json:"policies"`
}

// ProfileStep is a profile of the endpoint, reached because no tier decided.
type ProfileStep struct {
	Name string `json:"name"`
	// Unknown: there is no such profile, which denies.
	Unknown bool       `json:"unknown,omitempty"`
	Outcome string     `json:"outcome"` // Allow, Deny or none
	Rules   []RuleStep `json:"rules,omitempty"`
}

// NearestMiss is the Allow rule that came closest to allowing a denied side.
type NearestMiss struct {
	Rule RuleRef `json:"rule"`
	// Failed are all the criteria that did not hold. It may be empty only if
	// the rule is Shadowed.
	Failed []Criterion `json:"failed,omitempty"`
	// Shadowed: the rule was never read, because a rule before it decided or
	// passed to the next tier.
	Shadowed bool `json:"shadowed,omitempty"`
}

// Side is the evaluation of one end: the sender's egress or the receiver's
// ingress.
type Side struct {
	Direction string `json:"direction"`
	// Endpoint is the endpoint that decides: "namespace/name" of a pod, the
	// name of a host endpoint, empty if this end has none here.
	Endpoint string  `json:"endpoint,omitempty"`
	Verdict  Verdict `json:"verdict"`
	Reason   Reason  `json:"reason"`
	// Tier and Rule decided. Tier alone is set for EndOfTier; Rule alone, which
	// is then a profile's, for ByProfile on a host endpoint.
	Tier string   `json:"tier,omitempty"`
	Rule *RuleRef `json:"rule,omitempty"`
	// NotReached: the egress side dropped, so the engine never got here.
	NotReached bool `json:"notReached,omitempty"`

	// Logs are the rules with action Log that matched on the way.
	Logs        []RuleRef     `json:"logs,omitempty"`
	Tiers       []TierStep    `json:"tiers,omitempty"`
	Profiles    []ProfileStep `json:"profiles,omitempty"`
	NearestMiss *NearestMiss  `json:"nearestMiss,omitempty"`
}

// Evaluation is the evaluation of both ends under one set of policies.
type Evaluation struct {
	Verdict Verdict `json:"verdict"`
	Reason  Reason  `json:"reason"`
	// Side gave Reason: "egress" or "ingress". For a denial it is the first end
	// that denied, egress before ingress; for an allowed flow the last end that
	// had something to say. Empty if no end was evaluated.
	Side string `json:"side,omitempty"`
	// Rule decided; nil if no rule did.
	Rule    *RuleRef `json:"rule,omitempty"`
	Egress  Side     `json:"egress"`
	Ingress Side     `json:"ingress"`
}

// Trace is the explanation of one flow.
type Trace struct {
	// Generation is the snapshot's.
	Generation  uint64   `json:"generation"`
	Tuple       Tuple    `json:"tuple"`
	Source      Identity `json:"source"`
	Destination Identity `json:"destination"`
	// Evaluation is under the enforced policies: what happens.
	Evaluation
	// Pending is under enforced and staged policies: what would happen if the
	// staged ones were enforced (section 10). Nil if nothing is staged.
	Pending *Evaluation `json:"pending,omitempty"`
}

// orderValue gives an order for a step: nil where there is none, or no number
// that JSON can hold.
func orderValue(order float64) *float64 {
	if math.IsInf(order, 0) || math.IsNaN(order) {
		return nil
	}
	return &order
}
