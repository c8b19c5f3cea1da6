// Package compile turns a policy.Snapshot into a filter.Ruleset. It is a pure
// function: no clock, no logs, no state between calls, and equal snapshots give
// rulesets that decide alike.
//
// Compiling resolves everything that does not depend on the packet. Objects that
// addresses can belong to (pods, network sets, host endpoints) are reduced to
// identities, which are what selectors can tell apart. Policies are sorted and
// selected for the identities hosted here. The prefixes of identities, of the
// rules thus needed and of the services they name cut the address space into
// classes, and each side of a rule becomes a set of classes. Rules of policies
// that select nothing on this node cost no more than their selection.
//
// Selectors are rewritten as trees, never as text, so no literal can escape its
// place. Where an object contradicts itself, the reading chosen is the one that
// matches less for Allow, and a policy.Problem tells about it.
package compile
