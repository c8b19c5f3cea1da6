// Package explain evaluates policy literally, straight from a policy.Snapshot,
// and tells why a flow was allowed or denied.
//
// It is the second, independent implementation of Calico's semantics: package
// compile turns a snapshot into tables for the packet path, and this package
// reads the snapshot's own rules one criterion after the other. The two share
// only the snapshot's values, so where they agree on random policies and flows
// both are probably right. Nothing here rewrites a rule's selectors into one
// big selector; a namespaceSelector is evaluated on a view of the labels that
// adds the prefix to each label it looks up. Section numbers in comments are
// those of the policy semantics specification.
//
// It is also the body of the explain command: an operator wants the identities,
// the tiers and rules in the order in which they were read, the first criterion
// that kept each rule from matching, and the Allow rule that came closest.
// Clarity goes before speed; only what is silly to scan is indexed.
package explain
