// Package e2e tests the program end to end: the real binary with real queues,
// conntrack and nftables in a lab of network namespaces. What a test asserts about
// a packet it reads at the receiver, not from postern.
package e2e
