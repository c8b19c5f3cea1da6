// Package nft keeps postern's nftables table: it holds the desired rules as a
// value and brings the kernel to it, one transaction each time.
//
// The table decides what needs a verdict and remembers what got one; policy
// itself never stands in it. A packet of an accepted flow leaves at the first
// rule, on its conntrack mark. Of the rest only those with a protected address
// at one end go further, and of these the first packet of each flow goes to the
// queue. The verdict comes back as NF_REPEAT with a packet mark, the same rules
// see the packet again, copy the mark to the flow and accept. So user space needs
// neither conntrack nor a transaction to teach the kernel.
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
