// Package bench compares postern with rivals on equal terms. It is a module of its
// own so that postern does not depend on them.
//
// Command figures measures everything that is claimed of deciding and holds it
// against targets; its results are in docs/performance.md. Command kernel does the
// same for packets through a real node (docs/performance-kernel.md). Package gen
// makes the worlds and the traffic, package rival holds what is compared with,
// package measure times, package report holds values against targets. The benchmarks
// here show more of the address table.
//
//	go run ./figures
//	go run ./figures -only lpm
//	go run ./kernel -only connect
//	go test -run '^$' -bench . .
package bench
