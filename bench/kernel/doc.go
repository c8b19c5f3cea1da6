// Kernel measures whole packet paths: real connections from a client through a node
// to a server, with postern on the node and with what it is held against, and
// prints a line per figure at the end. It needs root.
//
//	kernel [-only REGEXP] [-rounds N] [-write FILE]
//
// Every contestant has a lab of three network namespaces of its own, all at once, and
// the rounds of load go round between them, so that whatever else the machine does
// meets all alike. A ratio is the median of the ratios of rounds. Load is bounded in
// time and number and never leaves the labs.
//
// What has to run in a namespace, or be counted by itself, is this program again as
// a child process, see children.
package main
