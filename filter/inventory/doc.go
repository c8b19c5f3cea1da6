// Package inventory lists what a snapshot holds the way an operator asks for it: pods
// with the policies that select them, policies with their subjects, service accounts
// with the rules that name them, network sets. What selects what is decided by the
// evaluator of package explain.
package inventory
