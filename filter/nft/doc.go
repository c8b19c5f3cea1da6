// Package nft keeps postern's nftables table: it holds the desired rules as a
// value and brings the kernel to it, one transaction each time.
//
// The table decides what needs a verdict and remembers what got one; policy
// itself never stands in it. A packet of a judged flow leaves at the first rules,
// on its conntrack mark. Of the rest only those with a protected address at one end
// go further, and of these the first packet of each flow goes to the queue, unless
// its way was decided before. The answer comes back as NF_REPEAT with a packet mark,
// accepted or denied; the same rules see the packet again, learn its way, mark the
// flow, and let it pass or drop it. So user space needs neither conntrack nor a
// transaction to teach the kernel.
//
// Answers and marks carry the epoch of the policy they come from. Table.Apply
// enters another in one transaction, and a Wheel says which numbers still hold.
// docs/dataplane.md draws it all.
//
// Base chains are made once and never deleted while postern runs: deleting any
// base chain drops every packet that waits in any queue of the network
// namespace. Everything else changes by replacing rules and set elements. No rule
// carries the bypass flag: with nobody listening a queued packet is dropped.
//
// Where the kernel has no nft queue expression, the xt NFQUEUE target does the
// same work through nft_compat; Probe finds out which.
//
// A Table is not safe for concurrent use.
package nft
