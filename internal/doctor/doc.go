// Package doctor looks whether a host can enforce, and what on it works against that.
//
// Look gathers facts: what the kernel takes, which chains of others are called where
// postern's are, what marks they use, sysctls, conntrack's size, capabilities, the
// daemon. Judge makes findings of them, each with a level, what it means and what to
// do; it is a function of the facts alone. Nothing on the host changes for longer than
// the look: tables that are tried are removed in the transaction that makes them, and
// the queue that is bound is closed.
package doctor
