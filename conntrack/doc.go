// Package conntrack reads and changes the kernel's table of flows.
//
// The kernel remembers every flow as an entry with two tuples: what the first
// packet looked like, and what an answer looks like. Address translation shows in
// the difference. Policy judges a flow after destination NAT and before source
// NAT; Entry.Tuple gives that view, so that an engine can be asked about a live
// flow exactly as it was asked about its first packet.
//
// A Conn walks the table: Sweep shows each entry to a function, which keeps it,
// changes its mark under a mask, or deletes it; Entries collects. The kernel
// filters by mark, status and zone before anything is copied, and all is checked
// again here, since older kernels ignore conditions they do not know. A Watcher
// reports flows as they begin and end, and says so when it has missed some.
//
// Three things to know of the kernel (net/netfilter/nf_conntrack_netlink.c):
//
//   - The table changes while it is walked. A walk sees every entry that is there
//     from its beginning to its end, may see one twice, and may or may not see those
//     that come and go meanwhile.
//   - A mark is changed by reading and writing it. A packet of the same flow that sets
//     the mark at that moment may undo the change, or the change the packet's. Who
//     relies on a change must be safe both ways; postern's rules are, because a value
//     that is missing is asked about again and one that is stale carries its epoch.
//   - Packets, bytes and the start of a flow are counted only where the sysctls
//     net.netfilter.nf_conntrack_acct and nf_conntrack_timestamp were on when the
//     flow began.
//
// The wire format of entries is decoded by ti-mo/conntrack. Requests are put together
// here: the library cannot change a mark under a mask, holds a whole dump in memory,
// and its listener ends at the first overrun.
//
// All of it needs CAP_NET_ADMIN in the network namespace that the calling thread is
// in when a Conn or a Watcher is made.
package conntrack
