package packet

// Status tells how decoding ended. Every status but OK is a reason to drop; each
// has its own counter wherever packets are counted.
type Status uint8

const (
	// Unknown is the zero Status. Decode never gives it.
	Unknown Status = iota
	// OK: the tuple is complete and may be decided.
	OK
	// TooShort: the buffer ends inside the IP header, options included.
	TooShort
	// BadVersion: the first four bits are neither 4 nor 6.
	BadVersion
	// BadHeaderLength: the IPv4 header says it is shorter than 20 bytes.
	BadHeaderLength
	// BadTotalLength: the IPv4 total length is smaller than the header.
	BadTotalLength
	// Truncated: the packet, or the part of it that was copied, ends inside an
	// extension header or the transport header. Tiny first fragments end here
	// (RFC 1858, RFC 7112), and so does a copy range that is too small.
	Truncated
	// Fragment: a fragment without the first bytes of its packet. Conntrack
	// reassembles before any of our hooks, so one that arrives means that
	// reassembly is off.
	Fragment
	// TooManyExtensions: more than eight IPv6 extension headers.
	TooManyExtensions
	// BadExtension: a hop-by-hop header that is not the first (RFC 8200 section
	// 4.1), or an authentication header shorter than its fixed part (RFC 4302).
	BadExtension
	// RoutingType0: a type 0 routing header (deprecated by RFC 5095).
	RoutingType0
	// MappedAddress: an IPv6 packet with an address in ::ffff:0:0/96, which
	// would be judged as the IPv4 address inside it by anyone who unmaps it.
	MappedAddress
	// BadSource: the source is a multicast address (RFC 1122 section 3.2.1.3,
	// RFC 4291 section 2.7).
	BadSource
	// BadDestination: the destination is the unspecified address (RFC 4291
	// section 2.5.2, RFC 1122 section 3.2.1.3).
	BadDestination
	// BadTransport: a TCP data offset below 5, or a UDP length of 1 to 7.
	BadTransport
	// ICMPFamily: ICMP inside IPv6 or ICMPv6 inside IPv4, which no RFC defines.
	ICMPFamily

	// Statuses is the number of statuses.
	Statuses
)

var statusNames = [Statuses]string{
	"unknown", "ok", "too-short", "bad-version", "bad-header-length", "bad-total-length",
	"truncated", "fragment", "too-many-extensions", "bad-extension", "routing-type-0",
	"mapped-address", "bad-source", "bad-destination", "bad-transport", "icmp-family",
}

// String gives a constant, short, lower-case name for logs and metric labels. A
// value that is no status is "unknown".
func (s Status) String() string {
	if s < Statuses {
		return statusNames[s]
	}
	return statusNames[Unknown]
}
