package flowlog

import (
	"net/netip"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
)

// line begins a line with what there is to say of an event besides the rule.
func (w *Writer) line(e *Event) *zerolog.Event {
	l := w.log.Info().
		Stringer("verdict", e.Verdict).
		Stringer("reason", e.Reason).
		Stringer("direction", e.Side).
		Stringer("proto", e.Tuple.Proto)
	l = end(l, "src", e.Tuple.Src, e.Src)
	l = end(l, "dst", e.Tuple.Dst, e.Dst)
	switch {
	case e.Tuple.Ported:
		l = l.Uint16("sport", e.Tuple.SrcPort).Uint16("dport", e.Tuple.DstPort)
	case e.Tuple.Proto == flow.ICMP || e.Tuple.Proto == flow.ICMPv6:
		l = l.Uint8("icmp_type", e.Tuple.ICMPType).Uint8("icmp_code", e.Tuple.ICMPCode)
	}
	if e.Decided {
		l = l.Uint64("generation", e.Generation)
		if e.Request == nil {
			l = l.Uint32("epoch", e.Epoch)
		}
	}
	if e.Request != nil {
		l = request(l, e.Request)
	}
	return l.Time("decided", time.Unix(0, e.UnixNano))
}

// end names one end of the flow: always by address, and by pod and service
// account where the address is a pod's.
func end(l *zerolog.Event, side string, a netip.Addr, ep filter.EndpointInfo) *zerolog.Event {
	l = l.Stringer(side, a)
	if ep.Name != "" {
		l = l.Str(side+"_pod", ep.Namespace+"/"+ep.Name).Str(side+"_account", ep.ServiceAccount)
	}
	return l
}

// request adds what there is to say of a request.
func request(l *zerolog.Event, r *Asked) *zerolog.Event {
	for _, f := range [...]struct{ key, value string }{
		{"src_principal", r.Source}, {"dst_principal", r.Destination}, {"method", r.Method}, {"path", r.Path}, {"problem", r.Problem},
	} {
		if f.value != "" {
			l = l.Str(f.key, f.value)
		}
	}
	return l
}

// rule names a rule: index counts from 0 in the object's list of
// the direction, and the end of a tier has no policy and no index.
func rule(l *zerolog.Event, i filter.RuleInfo) *zerolog.Event {
	l = l.Str("tier", i.Tier)
	if i.EndOfTier() {
		return l
	}
	l = l.Str("policy_kind", i.Kind).Str("policy", PolicyName(i)).Int("rule", i.Index)
	if i.Annotations != "" {
		l = l.Str("rule_annotations", i.Annotations)
	}
	return l
}

// decision is a line of the flow log, to be sent.
func (w *Writer) decision(e *Event) *zerolog.Event {
	l := w.line(e)
	if e.Rule != (filter.RuleInfo{}) {
		l = rule(l, e.Rule)
	}
	if p := e.Pending; p != nil {
		l = l.Stringer("pending", p.Verdict).Stringer("pending_reason", p.Reason)
		if p.Rule.Kind != "" {
			l = l.Str("pending_policy_kind", p.Rule.Kind).Str("pending_policy", PolicyName(p.Rule)).Int("pending_rule", p.Rule.Index)
		}
	}
	return l
}

func prefix(template string, i filter.RuleInfo) string {
	return strings.NewReplacer("%t", i.Tier, "%k", i.Kind, "%n", i.Name, "%p", PolicyName(i), "%%", "%").Replace(template)
}
