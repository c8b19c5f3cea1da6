// Package dataplane puts a snapshot of policy in force: it compiles, publishes to
// the engine and tells the kernel which addresses to ask about, in the order that
// leaves no gap.
//
// The order is: what is no longer protected leaves the kernel first, then the
// engine gets the new ruleset, then what is newly protected enters the kernel. So
// the kernel never asks about an address that the engine cannot judge, and no
// address is protected by the kernel alone for longer than one pointer store.
package dataplane
