// Package lint finds what is valid in a policy.Snapshot and yet not what its
// author meant: an account that nobody runs as, a rule that an earlier one
// decides for, a Deny that one family of addresses slips past.
//
// Everything is computed from the snapshot. A finding that speaks of the world
// ("no pod is selected") is made only where the snapshot holds the objects it
// speaks of, so that policies without their cluster can be checked too. What is
// said of rules that are never reached is proved by implication, criterion by
// criterion, and is silent where the proof does not go through; a test removes
// what was reported and asks package explain whether any verdict changed.
// Section numbers in comments are those of the policy semantics specification.
package lint
