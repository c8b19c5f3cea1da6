// Package bench compares postern with rivals on equal terms. It is a module of its
// own so that postern does not depend on them.
//
// Command figures measures everything that is claimed and holds it against
// targets; its results are in docs/performance.md. Package gen makes the worlds
// and the traffic, package rival holds what is compared with, package measure
// times. The benchmarks here and in package kernel show more of the address table
// and of established connections.
//
//	go run ./figures
//	go run ./figures -only lpm
//	go test -run '^$' -bench . . ./kernel
package bench
