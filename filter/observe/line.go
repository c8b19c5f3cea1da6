package observe

import (
	"net/netip"
	"time"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/flowlog"
)

// Line is what goes over the socket, one JSON object a line: an event, with the keys
// that the flow log has for it, or, with Missed alone, the count of events that this
// client was too slow for.
type Line struct {
	Missed uint64 `json:"missed,omitempty"`

	Decided    time.Time  `json:"decided,omitzero"`
	Kind       string     `json:"kind,omitempty"` // flow or request
	Verdict    string     `json:"verdict,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	Direction  string     `json:"direction,omitempty"`
	Proto      string     `json:"proto,omitempty"`
	Src        netip.Addr `json:"src,omitzero"`
	SrcPod     string     `json:"src_pod,omitempty"`
	SrcAccount string     `json:"src_account,omitempty"`
	Dst        netip.Addr `json:"dst,omitzero"`
	DstPod     string     `json:"dst_pod,omitempty"`
	DstAccount string     `json:"dst_account,omitempty"`
	// Ports are nil for protocols without, ICMP type and code for all but ICMP.
	SrcPort  *uint16 `json:"sport,omitempty"`
	DstPort  *uint16 `json:"dport,omitempty"`
	ICMPType *uint8  `json:"icmp_type,omitempty"`
	ICMPCode *uint8  `json:"icmp_code,omitempty"`

	Tier        string `json:"tier,omitempty"`
	PolicyKind  string `json:"policy_kind,omitempty"`
	Policy      string `json:"policy,omitempty"`
	Rule        *int   `json:"rule,omitempty"` // nil for the end of a tier
	Annotations string `json:"rule_annotations,omitempty"`
	Generation  uint64 `json:"generation,omitempty"`
	// Epoch is nil for a request, and before the first ruleset.
	Epoch *uint32 `json:"epoch,omitempty"`

	Pending           string `json:"pending,omitempty"`
	PendingReason     string `json:"pending_reason,omitempty"`
	PendingPolicyKind string `json:"pending_policy_kind,omitempty"`
	PendingPolicy     string `json:"pending_policy,omitempty"`
	PendingRule       *int   `json:"pending_rule,omitempty"`

	SrcPrincipal string `json:"src_principal,omitempty"`
	DstPrincipal string `json:"dst_principal,omitempty"`
	Method       string `json:"method,omitempty"`
	Path         string `json:"path,omitempty"`
	Problem      string `json:"problem,omitempty"`
}

// LineOf puts an event in words.
func LineOf(e *flowlog.Event) Line {
	l := Line{
		Decided: time.Unix(0, e.UnixNano).UTC(), Kind: e.Kind(),
		Verdict: e.Verdict.String(), Reason: e.Reason.String(), Direction: e.Side.String(), Proto: e.Tuple.Proto.String(),
		Src: e.Tuple.Src, Dst: e.Tuple.Dst, Generation: e.Generation,
		Tier: e.Rule.Tier, Annotations: e.Rule.Annotations,
	}
	l.SrcPod, l.SrcAccount = pod(e.Src)
	l.DstPod, l.DstAccount = pod(e.Dst)
	switch t := e.Tuple; {
	case t.Ported:
		l.SrcPort, l.DstPort = &t.SrcPort, &t.DstPort
	case t.Proto == flow.ICMP || t.Proto == flow.ICMPv6:
		l.ICMPType, l.ICMPCode = &t.ICMPType, &t.ICMPCode
	}
	if e.Decided && e.Request == nil {
		l.Epoch = &e.Epoch
	}
	l.PolicyKind, l.Policy, l.Rule = policyOf(e.Rule)
	if p := e.Pending; p != nil {
		l.Pending, l.PendingReason = p.Verdict.String(), p.Reason.String()
		l.PendingPolicyKind, l.PendingPolicy, l.PendingRule = policyOf(p.Rule)
	}
	if q := e.Request; q != nil {
		l.SrcPrincipal, l.DstPrincipal, l.Method, l.Path, l.Problem = q.Source, q.Destination, q.Method, q.Path, q.Problem
	}
	return l
}

func pod(e filter.EndpointInfo) (name, account string) {
	if e.Name == "" {
		return "", ""
	}
	return e.Namespace + "/" + e.Name, e.ServiceAccount
}

func policyOf(i filter.RuleInfo) (kind, name string, rule *int) {
	if i.Kind == "" {
		return "", "", nil
	}
	return i.Kind, flowlog.PolicyName(i), &i.Index
}
