// Package live tells of the flows that live in the kernel: whose they are, how policy
// has judged them, and what they have carried.
//
// A flow is a conntrack entry (package conntrack). Its mark tells what was decided and in
// which epoch; who is at its ends is told by the ruleset of that epoch, as far as
// it is remembered: an address may be another pod's by the time that a flow of the one
// before is looked at.
//
// Ends writes a line for each flow that ends, and Hits one for all flows of two accounts that
// the kernel decided from its caches, which no verdict loop sees.
//
// List walks over the kernel's table when somebody asks. Names and rules are found in
// rulesets, which never change, so nothing here waits for the verdict loop or makes it wait.
package live
