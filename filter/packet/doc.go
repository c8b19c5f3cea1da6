// Package packet reads the headers of one layer-3 packet into a flow.Tuple.
//
// The input is what the kernel puts into NFQA_PAYLOAD: it starts at the IPv4 or
// IPv6 header and may be cut anywhere behind it by the queue's copy range.
// Decode is a plain function over that buffer: it has no state, keeps no
// reference to the buffer, allocates nothing and looks at no more than one
// network header, eight IPv6 extension headers and one transport header.
//
// Every failure has a Status of its own, and only OK may be decided. Where a
// packet can be read in two ways Decode reads it as conntrack and nftables do
// (ipv6_skip_exthdr, ipv6_find_hdr), because the kernel keeps the flow and
// caches the verdict under its own reading; where that leaves a choice, it
// refuses. A tuple can say "no ports" but cannot say "no ICMP type", so a packet
// whose ICMP type cannot be read, or has no meaning in its family, is refused
// rather than passed on with type 0, which a rule may name.
//
// Checksums are not verified (offloads leave them unfinished), and neither are
// IPv4 options, IPv6 option contents nor TCP flags: conntrack has refused what
// is INVALID before a packet is queued.
package packet
