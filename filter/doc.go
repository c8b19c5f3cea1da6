// Package filter decides whether a new flow may pass.
//
// A packet's path through postern is: the kernel queues the first packet of a
// flow; package nfq receives it; package packet turns its headers into a
// flow.Tuple; Engine.Decide looks both addresses up in the Ruleset in force and
// walks the sender's egress rules and the receiver's ingress rules; nfq answers
// the kernel with the verdict, and the kernel marks the flow so that no later
// packet of it is queued.
//
// A Ruleset is the compiled form of one policy snapshot. It is immutable: a
// change of policy or of any identity builds a new one and swaps it in with one
// pointer store. Both the addresses and the rules are resolved when it is built:
// an address maps to a class, which stands for everything policy can tell about
// an address, and each rule holds the set of classes it matches on either side.
// Deciding is then two address look-ups and a walk over rules that compare
// small integers.
//
// The package knows nothing of Kubernetes, of selectors, of the kernel, of logs
// or of time. Package compile makes Rulesets.
package filter
