// Package dataplane puts a snapshot of policy in force: it compiles, tells the kernel
// in one transaction, and publishes to the engine, in the order that leaves no gap.
//
// The order is: the kernel enters a new epoch, with the addresses to ask about, empty
// caches, and the addresses whose live flows must be judged again; then the engine gets
// the ruleset and the epoch's number. In between the engine answers in the old epoch;
// the kernel takes no such answer and asks again. So what passes is what the kernel's
// own policy allows, and an address that the engine does not know yet is only asked
// about twice. If the kernel's answer to a change fails, it is not certain which epoch
// it is in: the next change takes another, and nothing of the past holds in it.
//
// Afterwards, and with nothing waiting for it, a sweeper marks the live flows that are
// denied now, deletes those of addresses that left, and takes marks of old epochs off
// flows before their numbers are used again (nft.Wheel).
package dataplane
