// Package assertion holds policy to what was promised about it: flows that must
// stay allowed and flows that must stay denied, written down in a file beside the
// policies.
//
// Parse reads such a file strictly, Check judges every flow of it on a snapshot,
// and a Gate refuses snapshots that break a promise. A flow may name its ends as
// pods, as addresses, or as every pod that matches, and every address of a
// prefix; "every" is meant literally. Each flow is judged twice, by the literal
// evaluator (package explain) and by the compiled ruleset that packets meet, and a
// difference between the two is reported as what it is: a bug.
//
// The format is described in docs/assertions.md. ParsePort and ParseEnd, which
// read the parts of a flow, serve the command line too.
package assertion
