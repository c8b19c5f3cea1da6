// Package filter decides whether a new flow may pass.
//
// A packet's path through postern is: the kernel queues the first packet of a
// flow; package nfq receives it; package packet turns its headers into a
// flow.Tuple; Ruleset.DecideInto looks both addresses up in the Ruleset in force and
// walks the sender's egress rules and the receiver's ingress rules; nfq answers
// the kernel with the verdict, and the kernel marks the flow so that no later
// packet of it is queued.
//
// A Ruleset is the compiled form of one policy snapshot. It is immutable: a
// change of policy or of any identity makes a new one and swaps it in with one
// pointer store. Everything is resolved when it is made. An address maps to a
// class; a class has a signature, which is everything that rules can tell about
// an address, and, if an endpoint of this node has the address, a program for
// either direction. A program is a list of segments, one for each tier. A segment
// holds, for every signature the peer may have and every protocol and port, the
// first of its rules that matches. Deciding is two address look-ups and, for each
// segment, a handful of dependent loads, however many rules there are. A loop that
// decides packet after packet asks through a Cache of its own, which has most of them.
//
// A proxy in front of a pod may ask about a single request as well: see
// Ruleset.DecideRequest.
//
// The package knows nothing of Kubernetes, of selectors, of the kernel, of logs
// or of time. Package compile makes Rulesets.
package filter
