package explain

import (
	"net/netip"
	"sync"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// Options say whose decisions are explained. The zero Options take every pod
// for hosted here and the specification's defaults at the application layer.
type Options struct {
	// Node is the node whose decisions are wanted: pods whose Node is empty or
	// equal are hosted there. Empty: every pod is hosted here.
	Node string

	// RefusePlaintext denies requests without a source principal. By default
	// the address alone decides them.
	RefusePlaintext bool
	// MismatchToRules lets the rules judge a request whose principal and
	// address name different service accounts. By default it is refused.
	MismatchToRules bool
	// TrustDomains are the accepted trust domains; none means any.
	TrustDomains []string
}

// Evaluator evaluates flows on one snapshot. It is immutable but for caches and
// may be used by any number of goroutines at once.
type Evaluator struct {
	opt        Options
	generation uint64

	index
	profiles map[string]*policy.Profile

	// enforced and pending are the same view if nothing is staged.
	enforced, pending *view

	// namespaceSelectors caches namespaceVariants by *selector.Selector.
	namespaceSelectors sync.Map
}

// New indexes a snapshot. The snapshot is only read, and must not change.
func New(s *policy.Snapshot, o Options) *Evaluator {
	if s == nil {
		s = &policy.Snapshot{}
	}
	e := &Evaluator{
		opt:        o,
		generation: s.Generation,
		index:      newIndex(s),
		profiles:   make(map[string]*policy.Profile, len(s.Profiles)),
	}
	for _, p := range s.Profiles {
		e.profiles[p.Name] = p
	}
	enforced, pending, staged := views(s.Policies)
	e.enforced = &view{tiers: sortTiers(s.Tiers, enforced)}
	e.pending = e.enforced
	if staged {
		e.pending = &view{tiers: sortTiers(s.Tiers, pending)}
	}
	return e
}

// packet is a tuple with what covers its addresses.
type packet struct {
	flow.Tuple
	src, dst place
	// hasPorts: the tuple's ports may be read (section 6).
	hasPorts bool
}

// place is an address and the objects that cover it: pods first.
type place struct {
	addr    netip.Addr
	objects []*object
}

// pods gives the pods that claim the address; more than one is a conflict.
func (p place) pods() []*object {
	n := 0
	for n < len(p.objects) && p.objects[n].kind == policy.PodKind {
		n++
	}
	return p.objects[:n]
}

func (p place) conflict() bool { return len(p.pods()) > 1 }

func (e *Evaluator) packet(t flow.Tuple) *packet {
	return &packet{
		Tuple:    t,
		src:      e.place(t.Src),
		dst:      e.place(t.Dst),
		hasPorts: t.Ported && t.Proto.HasPorts(),
	}
}

// hosted gives the pod at the address that this node decides for, or nil.
func (e *Evaluator) hosted(p place) *object {
	pods := p.pods()
	if len(pods) != 1 || !e.isHosted(pods[0]) {
		return nil
	}
	return pods[0]
}

func (e *Evaluator) isHosted(o *object) bool {
	return e.opt.Node == "" || o.node == "" || o.node == e.opt.Node
}

// Explain evaluates a flow and records every step.
func (e *Evaluator) Explain(t flow.Tuple) Trace {
	p := e.packet(t)
	tr := Trace{
		Generation:  e.generation,
		Tuple:       Tuple(t),
		Source:      e.identity(p.src),
		Destination: e.identity(p.dst),
		Evaluation:  e.evaluate(p, e.enforced, true),
	}
	if e.pending != e.enforced {
		pending := e.evaluate(p, e.pending, true)
		tr.Pending = &pending
	}
	return tr
}

// Decide evaluates a flow under the enforced policies exactly as Explain does,
// without recording steps or nearest misses.
func (e *Evaluator) Decide(t flow.Tuple) Evaluation {
	return e.evaluate(e.packet(t), e.enforced, false)
}

// DecidePending is Decide under enforced and staged policies (section 10).
func (e *Evaluator) DecidePending(t flow.Tuple) Evaluation {
	return e.evaluate(e.packet(t), e.pending, false)
}

// EvaluateSide evaluates one end only: what the node that hosts that end says.
func (e *Evaluator) EvaluateSide(t flow.Tuple, d flow.Direction) Side {
	p := e.packet(t)
	if reason, ok := refusal(p); ok {
		return Side{Direction: d.String(), Reason: reason}
	}
	return e.side(p, d, e.enforced, true)
}

// refusal gives the reason for which a packet is denied before any policy.
func refusal(p *packet) (Reason, bool) {
	switch {
	case !p.Valid():
		return InvalidTuple, true
	case p.src.conflict() || p.dst.conflict():
		return AddressConflict, true
	default:
		return "", false
	}
}

// evaluate is section 5.3: both ends must allow, egress first.
func (e *Evaluator) evaluate(p *packet, v *view, verbose bool) Evaluation {
	if reason, ok := refusal(p); ok {
		return Evaluation{
			Reason:  reason,
			Egress:  Side{Direction: flow.Egress.String(), Reason: reason},
			Ingress: Side{Direction: flow.Ingress.String(), Reason: reason},
		}
	}
	ev := Evaluation{Egress: e.side(p, flow.Egress, v, verbose)}
	if ev.Egress.Verdict == Allow || verbose {
		ev.Ingress = e.side(p, flow.Ingress, v, verbose)
		ev.Ingress.NotReached = ev.Egress.Verdict != Allow
	}

	var decider *Side
	switch {
	case ev.Egress.Verdict != Allow:
		decider = &ev.Egress
	case ev.Ingress.Reason != NotHosted:
		decider = &ev.Ingress
	case ev.Egress.Reason != NotHosted:
		decider = &ev.Egress
	default:
		ev.Reason = NoLocalEndpoint
		return ev
	}
	ev.Verdict, ev.Reason = decider.Verdict, decider.Reason
	ev.Side, ev.Rule = decider.Direction, decider.Rule
	return ev
}

// side evaluates one end of a packet that was not refused.
func (e *Evaluator) side(p *packet, d flow.Direction, v *view, verbose bool) Side {
	at := p.dst
	if d == flow.Egress {
		at = p.src
	}
	o := e.hosted(at)
	if o == nil {
		return Side{Direction: d.String(), Verdict: Allow, Reason: NotHosted}
	}
	w := walk{e: e, packet: p, direction: d, verbose: verbose}
	return w.pod(o, v.selecting(o))
}

// identity tells what covers an address, for a Trace.
func (e *Evaluator) identity(p place) Identity {
	id := Identity{
		Address:  p.addr,
		Unknown:  len(p.objects) == 0,
		Conflict: p.conflict(),
		Hosted:   e.hosted(p) != nil,
	}
	for _, o := range p.objects {
		out := Object{
			Kind: o.kind, Namespace: o.namespace, Name: o.name,
			Node: o.node, ServiceAccount: o.serviceAccount, Labels: o.labels,
		}
		switch o.kind {
		case policy.PodKind:
			id.Pods = append(id.Pods, out)
		case policy.HostEndpointKind:
			id.HostEndpoints = append(id.HostEndpoints, out)
		default:
			id.NetworkSets = append(id.NetworkSets, out)
		}
	}
	return id
}
