// Package policy is Calico's v3 policy model as plain values: tiers, policies,
// rules, endpoints, sets, and the Snapshot that holds one consistent state of
// them all.
//
// The values say what the objects say and nothing is derived: scoping a rule to
// a namespace, prefixing selectors, inheriting labels and sorting policies are
// the business of whoever evaluates. Two packages do so independently of each
// other, compile for the packet path and explain as its oracle, and they share
// nothing but these values. Package k8ssync/convert makes the values from API
// objects and refuses what Calico's admission refuses, so a value here holds
// only what passed: selectors parse, prefixes are masked, ports are ordered.
//
// Everything reachable from a Snapshot is read-only from the moment the
// Snapshot is handed out.
package policy
