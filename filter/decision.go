package filter

import (
	"fmt"
	"sync/atomic"

	"github.com/postern-project/postern/filter/flow"
)

// Verdict is what the kernel is told. The zero Verdict drops.
type Verdict uint8

const (
	Drop Verdict = iota
	Accept
)

func (v Verdict) String() string {
	if v == Accept {
		return "allow"
	}
	return "deny"
}

// Reason tells why a decision, or one end's part of it, came out as it did.
// Every reason has its own counter wherever decisions are counted.
type Reason uint8

const (
	// NoReason is the zero Reason. No engine gives it.
	NoReason Reason = iota
	// NotReady: no ruleset has been published yet. Drop.
	NotReady
	// InvalidTuple: the addresses are missing or of two families. Drop.
	InvalidTuple
	// NoLocalEndpoint: neither address is an endpoint hosted here, so nobody
	// here may decide. Drop: the kernel asks about protected addresses only.
	NoLocalEndpoint
	// NotHosted: this end is not an endpoint of this node; it constrains
	// nothing. Accept.
	NotHosted
	// AddressConflict: two live endpoints claim one of the addresses. Drop.
	AddressConflict
	// ByRule: a rule allowed or denied it.
	ByRule
	// EndOfTier: policies of the tier select the endpoint and none of their
	// rules matched. Drop.
	EndOfTier
	// ByProfile: no tier decided and the namespace's profile allowed it. Accept.
	ByProfile
	// NoProfile: no tier decided and the endpoint's namespace is not known. Drop.
	NoProfile
	// UnknownPod: an address that only pods of this node have is none's, and no pod
	// that has it became known in time. Drop. The verdict loop gives it.
	UnknownPod
	// Stale: the source has not been heard of for too long, and settings say what becomes
	// of new flows then. Either verdict. The verdict loop gives it.
	Stale

	// The reasons below are of requests only (DecideRequest).

	// InvalidRequest: it cannot be understood, or its path does not begin with a
	// slash. Drop.
	InvalidRequest
	// InvalidPrincipal: a certificate is no identity of a service account in an
	// accepted trust domain. Drop.
	InvalidPrincipal
	// IdentityMismatch: a certificate and the pod at the address name different
	// service accounts. Drop.
	IdentityMismatch
	// Plaintext: the source shows no certificate, and is required to. Drop.
	Plaintext

	// Reasons is the number of reasons.
	Reasons
)

var reasonNames = [Reasons]string{
	"none", "not-ready", "invalid-tuple", "no-local-endpoint", "not-hosted",
	"address-conflict", "rule", "end-of-tier", "profile", "no-profile", "unknown-pod", "stale",
	"invalid-request", "invalid-principal", "identity-mismatch", "plaintext",
}

// String gives a short, constant, lower-case name for logs and metrics.
func (r Reason) String() string {
	if r < Reasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason-%d", uint8(r))
}

// Decided counts decisions by verdict and reason. Any goroutine may add and read.
type Decided [Accept + 1][Reasons]atomic.Uint64

// Total sums the reasons of a verdict.
func (d *Decided) Total(v Verdict) (n uint64) {
	for i := range d[v] {
		n += d[v][i].Load()
	}
	return n
}

// RuleID names one rule of a Ruleset, or one tier's end. Zero names nothing. An
// ID is valid for the Ruleset that gave it and no other.
type RuleID uint32

// Outcome is what one end of a flow said.
type Outcome struct {
	Verdict Verdict
	Reason  Reason
	// Logged is set when a rule with action Log matched on the way.
	// Ruleset.LogRules finds which.
	Logged bool
	// BySource is set when a rule on the way looks at the source port: another
	// flow between the same ends to the same port may be decided otherwise.
	BySource bool
	// Rule is set for ByRule and EndOfTier.
	Rule RuleID
}

// Decision is the answer for one flow. The zero Decision drops.
type Decision struct {
	Verdict Verdict
	Reason  Reason
	// Side is the end that gave Reason: for a drop the first end that denied,
	// egress before ingress; for an accept the last end that had something to say.
	Side flow.Direction
	// Egress is the sender's outcome and Ingress the receiver's. When Egress
	// drops, Ingress is not evaluated and its zero value stands.
	Egress, Ingress Outcome
}

// Repeats tells whether every flow of the protocol between the two addresses to the
// same port gets the same decision, and none of them is to be seen by a rule that
// logs.
func (d *Decision) Repeats() bool {
	return !d.Egress.Logged && !d.Egress.BySource && !d.Ingress.Logged && !d.Ingress.BySource
}

// Outcome gives the outcome of the deciding side.
func (d Decision) Outcome() Outcome {
	if d.Side == flow.Egress {
		return d.Egress
	}
	return d.Ingress
}

// Engine holds the ruleset in force. Its methods may be called by any number of
// goroutines at once; readers take no lock. The zero Engine denies everything
// with NotReady.
type Engine struct{ current atomic.Pointer[InForce] }

// InForce is a ruleset and the epoch in which the kernel asks by it (see package nft).
type InForce struct {
	*Ruleset
	Epoch uint32
}

// DecideRequest decides one request on the ruleset in force, and gives that ruleset,
// nil before the first.
func (e *Engine) DecideRequest(req *Request, opt RequestOptions) (o Outcome, rs *Ruleset) {
	rs = e.Ruleset()
	if rs == nil {
		o.Reason = NotReady
		return o, nil
	}
	rs.decideRequest(req, opt, nil, &o)
	return o, rs
}

// Swap puts a ruleset in force, in epoch 0, and returns the one before, nil at first.
// A decision that is under way finishes on the ruleset it began with.
func (e *Engine) Swap(rs *Ruleset) (old *Ruleset) { return e.Enforce(rs, 0) }

// Enforce is Swap in a given epoch. Without a ruleset, nil, everything is denied with
// NotReady from then on.
func (e *Engine) Enforce(rs *Ruleset, epoch uint32) (old *Ruleset) {
	var next *InForce
	if rs != nil {
		next = &InForce{rs, epoch}
	}
	if f := e.current.Swap(next); f != nil {
		old = f.Ruleset
	}
	return old
}

// Ruleset returns the ruleset in force, nil if there is none.
func (e *Engine) Ruleset() *Ruleset {
	if f := e.current.Load(); f != nil {
		return f.Ruleset
	}
	return nil
}

// InForce returns the ruleset in force with its epoch, nil if there is none.
func (e *Engine) InForce() *InForce { return e.current.Load() }

// Decide decides one flow on the ruleset in force. It allocates nothing.
func (e *Engine) Decide(t flow.Tuple) (d Decision) {
	e.DecideInto(&t, &d)
	return d
}

// DecideInto is Decide without copies (see Ruleset.DecideInto).
func (e *Engine) DecideInto(t *flow.Tuple, d *Decision) {
	f := e.current.Load()
	if f == nil {
		*d = Decision{Reason: NotReady}
		return
	}
	f.Ruleset.DecideInto(t, d)
}
