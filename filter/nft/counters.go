package nft

// Counter names one of the table's counters.
type Counter string

// The table's counters, in packets. None of them is on the path of established
// flows.
const (
	// CounterQueued: handed to the queue.
	CounterQueued Counter = "queued"
	// CounterAccepted: came back from the queue accepted.
	CounterAccepted Counter = "accepted"
	// CounterDenied: came back from the queue denied; dropped.
	CounterDenied Counter = "denied"
	// CounterStale: came back with an answer of a policy that was in force no more;
	// asked again.
	CounterStale Counter = "stale"
	// CounterAllowedCache: accepted, since a flow of the same way was.
	CounterAllowedCache Counter = "allowed_cache"
	// CounterDeniedCache: dropped, since a flow of the same way was.
	CounterDeniedCache Counter = "denied_cache"
	// CounterDeniedFlow: dropped, since another packet of the flow was.
	CounterDeniedFlow Counter = "denied_flow"
	// CounterKept: flows accepted in an earlier epoch, and untouched by what changed
	// since.
	CounterKept Counter = "kept"
	// CounterFromNode: new flows that the host itself opened to a protected pod,
	// accepted without a question (spec section 5.3, 6).
	CounterFromNode Counter = "from_node"
	// CounterInvalid: to or from a protected pod and fits no flow; dropped.
	CounterInvalid Counter = "invalid"
	// CounterError: ICMP errors about flows that are not accepted, or not again yet;
	// dropped.
	CounterError Counter = "icmp_error"
	// CounterTunnel: a tunnel packet made by a pod; dropped (spec section 5.3, 10).
	CounterTunnel Counter = "tunnel"
	// CounterToHost: new flows of pods to this host, refused whatever policy says
	// (spec section 5.3, 7).
	CounterToHost Counter = "to_host"
	// CounterGuard: over what one source may ask; dropped. New flows of protocols with
	// ports, new flows of others, packets of flows that conntrack knew.
	CounterGuard         Counter = "guard"
	CounterGuardPortless Counter = "guard_portless"
	CounterGuardKnown    Counter = "guard_known"
)

// CounterUnanswered: passed the queue without an answer (Config.CountUnanswered).
const CounterUnanswered Counter = "unanswered"

// Counters lists the counters that Table makes; CounterSpoofed is that of Sources.
var Counters = []Counter{
	CounterQueued, CounterAccepted, CounterDenied, CounterStale, CounterAllowedCache, CounterDeniedCache, CounterDeniedFlow, CounterKept,
	CounterFromNode, CounterInvalid, CounterError, CounterTunnel, CounterToHost, CounterGuard, CounterGuardPortless, CounterGuardKnown, CounterUnanswered,
}
