package filter

import "github.com/postern-project/postern/filter/flow"

// HostChain is one of the chains a host endpoint's policies run in (spec
// section 5.4).
type HostChain uint8

const (
	// HostNormal: to and from local processes.
	HostNormal HostChain = iota
	// HostForward: forwarded through the host.
	HostForward
	// HostUntracked: doNotTrack policies, before connection tracking.
	HostUntracked
	// HostPreDNAT: preDNAT policies, before destination NAT; ingress only.
	HostPreDNAT

	// HostChains is the number of chains.
	HostChains
)

func (c HostChain) String() string {
	switch c {
	case HostNormal:
		return "normal"
	case HostForward:
		return "forward"
	case HostUntracked:
		return "untracked"
	case HostPreDNAT:
		return "pre-dnat"
	}
	return "unknown"
}

// HostOutcome is what one chain of a host endpoint said.
type HostOutcome struct {
	Outcome
	// Undecided is set if the chain leaves the flow to the next one; Verdict and
	// Reason mean nothing then.
	Undecided bool
}

// DecideHost runs one chain of a host endpoint of this node, without failsafes.
// ok is false if there is no such host endpoint or chain; the outcome drops
// then. It allocates nothing.
func (rs *Ruleset) DecideHost(name string, chain HostChain, dir flow.Direction, t flow.Tuple) (out HostOutcome, ok bool) {
	programs, ok := rs.hosts[name]
	if !ok || chain >= HostChains || dir > flow.Egress {
		return HostOutcome{Outcome: Outcome{Reason: NoLocalEndpoint}}, false
	}
	q, ok := rs.query(&t)
	if !ok {
		return HostOutcome{Outcome: Outcome{Reason: InvalidTuple}}, true
	}
	if q.src.end == endConflict || q.dst.end == endConflict {
		return HostOutcome{Outcome: Outcome{Reason: AddressConflict}}, true
	}
	out.Undecided = rs.run(programs[chain][dir], dir, &q, &out.Outcome)
	return out, true
}
