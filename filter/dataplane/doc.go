// Package dataplane puts a snapshot of policy in force: it compiles, publishes to
// the engine and tells the kernel which addresses to ask about, in the order that
// leaves no gap.
//
// The order is: the engine gets the new ruleset, then the kernel is told, in one
// change, what to ask about. In between, the kernel asks about the addresses of
// before and the engine answers by the policy of now, so what passes is what passes
// before or after. Telling the kernel in two steps, withdrawing first, would leave a
// moment in which a denial that moves from a flow's sender to its receiver is at
// neither. An address that the engine does not know any more is denied for that
// moment.
package dataplane
