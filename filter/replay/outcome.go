package replay

import (
	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
)

// Verdict is what becomes of a flow. The zero Verdict denies.
type Verdict uint8

const (
	Denied Verdict = iota
	Allowed
	// Outside: neither end is a pod of a node that postern protects, so nobody
	// would be asked.
	Outside

	verdicts
)

func (v Verdict) String() string {
	switch v {
	case Allowed:
		return "allow"
	case Outside:
		return "outside"
	}
	return "deny"
}

// Cause is a filter.Reason, or one of those that the rules in the kernel have
// before the engine is asked.
type Cause uint8

const (
	// Tunnel: a pod sends VXLAN or IP in IP, which is dropped whatever policy says.
	Tunnel = Cause(filter.Reasons) + iota
	// FromNode: a node reaches its pod, which is accepted whatever policy says.
	FromNode
)

func (c Cause) String() string {
	switch c {
	case Tunnel:
		return "tunnel"
	case FromNode:
		return "from-node"
	}
	return filter.Reason(c).String()
}

// Outcome is what one policy set says of a flow.
type Outcome struct {
	Verdict Verdict
	Cause   Cause
	// Side is the end that Cause is of.
	Side flow.Direction
	// Rule is of the ruleset that was asked; 0 where no rule decided.
	Rule filter.RuleID
}

// judge asks one ruleset, after the rules that the kernel has before it (package
// nft).
func (r *Replayer) judge(rs *filter.Ruleset, t *flow.Tuple) Outcome {
	if len(r.cfg.NodeAddrs) > 0 && r.cfg.NodeAddrs[t.Src] {
		if ep, ok := rs.Endpoint(t.Dst); ok && ep.Hosted {
			return Outcome{Verdict: Allowed, Cause: FromNode}
		}
	}
	if !r.cfg.AllowTunnels && (t.Proto == ipInIP || t.Proto == flow.UDP && t.DstPort == r.cfg.VXLANPort && t.DstPort != 0) {
		if ep, ok := rs.Endpoint(t.Src); ok && ep.Hosted {
			return Outcome{Cause: Tunnel, Side: flow.Egress}
		}
	}
	d := rs.Decide(*t)
	if d.Reason == filter.NoLocalEndpoint {
		return Outcome{Verdict: Outside, Cause: Cause(d.Reason)}
	}
	o := Outcome{Cause: Cause(d.Reason), Side: d.Side, Rule: d.Outcome().Rule}
	if d.Verdict == filter.Accept {
		o.Verdict = Allowed
	}
	return o
}

const ipInIP flow.Proto = 4
