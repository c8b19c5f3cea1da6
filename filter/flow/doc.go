// Package flow names the parts of a flow: protocol, direction, port range and
// the tuple a decision is taken on.
//
// A Tuple is one packet seen as policy sees it: after destination NAT and
// before source NAT, so that both addresses are those of the real ends. It is a
// plain value of the standard library; the packet decoder makes it, and the
// engine, the explainer, the conntrack sweep and the replay tool all take it.
package flow
