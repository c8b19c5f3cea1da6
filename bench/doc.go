// Package bench compares the address table of package trie with its rivals on
// equal terms. It is a module of its own so that postern does not depend on
// them.
//
// BenchmarkRatio is the one to quote: it takes turns between the table and bart
// and reports thread time, so that other work on the machine meets all alike.
//
//	go test -run '^$' -bench Ratio -benchtime 25x
//	go test -run '^$' -bench 'Lookup|Change|Build' -count 7
//
// "dep" look-ups take an address that depends on the result before, so they show
// the latency one new flow pays; "indep" ones know all addresses beforehand and
// show throughput. Tables and addresses come from fixed seeds.
package bench
