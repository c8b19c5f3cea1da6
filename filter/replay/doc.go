// Package replay takes captured packets through policy: the parser and the engine
// that packets meet on a node, and a table of flows in place of the kernel's.
//
// A flow is decided once, on the packet that would have been queued, and its other
// packets follow, in both directions, as conntrack has them follow: by protocol and
// timeout (Table). Packets that the kernel would not ask about are not decided
// either: discovery of neighbours, errors about flows, fragments after the first,
// flows without an end that any policy selects.
//
// A denied flow is followed too, since its later packets are in the capture, which
// on the node would not have been sent. It stands in the table as if it had been
// accepted: what answers it is no flow of its own.
//
// Memory is bounded by Config whatever the capture holds. What does not fit is
// counted and reported.
package replay
