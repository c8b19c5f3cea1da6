// Package compile turns policy.Snapshots into filter.Rulesets. Compile is a pure
// function of one snapshot; a Compiler follows a sequence of them and does again
// only what a change reaches, with the same results. There is no clock and no log.
//
// Compiling resolves everything that does not depend on the packet. Objects that
// addresses can belong to (pods, network sets, host endpoints) are reduced to
// identities, which are what selectors can tell apart. Policies are ranked and
// selected for the identities hosted here; what one side of one of their rules
// asks of an address is a term. Identities, the prefixes that rules name and the
// services they name cut the address space into classes, and each class is told to
// the filter.Builder as the terms that hold for it. Rules of policies that select
// nothing on this node cost no more than their selection.
//
// A Compiler counts the users of everything that one thing derives from another
// (identity, class, term, list of rules, segment), and touches what an object that
// goes or comes reaches: see Compiler.update for the order and docs/engine.md for
// a picture.
//
// Selectors are rewritten as trees, never as text, so no literal can escape its
// place. Where an object contradicts itself, the reading chosen is the one that
// matches less for Allow, and a policy.Problem tells about it.
package compile
