package replay

import (
	"time"

	"github.com/postern-project/postern/filter/flow"
)

// state is where a flow is, as conntrack sees it. Each has one timeout, the kernel's
// default (nf_conntrack_proto_tcp.c, _udp.c, _sctp.c, _icmp.c, _icmpv6.c,
// _generic.c).
type state uint8

const (
	synSent state = iota
	synReceived
	established
	finWait
	closeWait
	lastAck
	timeWait
	closed
	udpOne  // one direction only so far
	udpBoth // both, so a stream
	// sctpBegun stands for the kernel's states up to cookie-echoed, sctpDown for
	// those from shutdown on.
	sctpBegun
	sctpUp
	sctpDown
	icmpQuery
	other
	states
)

var timeouts = [states]time.Duration{
	synSent:     120 * time.Second,
	synReceived: 60 * time.Second,
	established: 5 * 24 * time.Hour,
	finWait:     120 * time.Second,
	closeWait:   60 * time.Second,
	lastAck:     30 * time.Second,
	timeWait:    120 * time.Second,
	closed:      10 * time.Second,
	udpOne:      30 * time.Second,
	udpBoth:     120 * time.Second,
	sctpBegun:   3 * time.Second,
	sctpUp:      210 * time.Second,
	sctpDown:    10 * time.Second,
	icmpQuery:   30 * time.Second,
	other:       600 * time.Second,
}

// TCP flags.
const (
	fin = 1 << iota
	syn
	rst
	_
	ack
)

// first gives the state of a flow that begins with this packet, and false if the
// kernel would call it INVALID: a TCP packet that can neither begin a connection
// nor be picked up in the middle of one (tcp_conntracks, nf_conntrack_tcp_loose=1),
// an ICMP message that asks nothing (icmp_new, icmpv6_new).
func first(t *flow.Tuple, l4 []byte) (s state, ok bool) {
	switch t.Proto {
	case flow.TCP:
		switch flags := l4[13]; {
		case flags&rst != 0:
			return 0, false
		case flags&syn != 0:
			return synSent, flags&ack == 0
		case flags&fin != 0:
			return 0, false
		default:
			return established, flags&ack != 0
		}
	case flow.UDP, flow.UDPLite:
		return udpOne, true
	case flow.SCTP:
		switch l4chunk(l4) {
		case sctpInit, sctpHeartbeat:
			return sctpBegun, true
		case sctpInitAck, sctpAbort, sctpShutdown, sctpShutdownAck, sctpShutdownComplete, sctpCookieEcho, sctpCookieAck:
			return sctpDown, true
		}
		return 0, false // data from the middle
	case flow.ICMP, flow.ICMPv6:
		_, ok := answerOf(t)
		return icmpQuery, ok
	}
	return other, true
}

// Types of SCTP chunks (RFC 9260 section 3.2).
const (
	sctpInit             = 1
	sctpInitAck          = 2
	sctpHeartbeat        = 4
	sctpAbort            = 6
	sctpShutdown         = 7
	sctpShutdownAck      = 8
	sctpCookieEcho       = 10
	sctpCookieAck        = 11
	sctpShutdownComplete = 14
)

// l4chunk is the type of the first chunk, 255 if it was not captured.
func l4chunk(l4 []byte) uint8 {
	if len(l4) > 12 {
		return l4[12]
	}
	return 255
}

// next gives the state after a packet; back is true against the flow's direction.
// It is the kernel's table without the windows: a packet that does not fit leaves
// the state as it is.
func next(s state, proto flow.Proto, back bool, l4 []byte) state {
	switch proto {
	case flow.TCP:
		return nextTCP(s, back, l4[13])
	case flow.UDP, flow.UDPLite:
		if back {
			return udpBoth
		}
	case flow.SCTP:
		switch l4chunk(l4) {
		case sctpAbort, sctpShutdownComplete:
			return sctpDown
		case sctpCookieAck:
			return sctpUp
		case sctpShutdown, sctpShutdownAck:
			return sctpDown
		}
	}
	return s
}

func nextTCP(s state, back bool, flags uint8) state {
	switch {
	case flags&rst != 0:
		return closed
	case flags&(syn|ack) == syn|ack:
		if s == synSent && back {
			return synReceived
		}
	case flags&syn != 0:
	case flags&fin != 0:
		switch s {
		case synReceived, established:
			return finWait
		case finWait, closeWait:
			return lastAck
		}
	case flags&ack != 0:
		switch s {
		case synReceived:
			if !back {
				return established
			}
		case finWait:
			return closeWait
		case lastAck:
			return timeWait
		}
	}
	return s
}

// reopens tells whether a SYN in this state begins a new connection with the same
// ports.
func (s state) reopens() bool { return s == timeWait || s == closed || s == lastAck }

// answerOf gives the type that answers an ICMP query, and false for a message that is
// none (invmap and valid_new in nf_conntrack_proto_icmp.c and _icmpv6.c).
func answerOf(t *flow.Tuple) (answer uint8, ok bool) {
	if t.Proto == flow.ICMP {
		switch t.ICMPType {
		case 8:
			return 0, true // echo
		case 13, 15, 17: // timestamp, information, address mask
			return t.ICMPType + 1, true
		}
		return 0, false
	}
	switch t.ICMPType {
	case 128, 139: // echo, node information
		return t.ICMPType + 1, true
	}
	return 0, false
}

// queryOf gives the type of the query that an ICMP message asks or answers.
func queryOf(t *flow.Tuple) (query uint8, ok bool) {
	if _, ok := answerOf(t); ok {
		return t.ICMPType, true
	}
	switch {
	case t.Proto == flow.ICMP && t.ICMPType == 0:
		return 8, true
	case t.Proto == flow.ICMP && (t.ICMPType == 14 || t.ICMPType == 16 || t.ICMPType == 18),
		t.Proto == flow.ICMPv6 && (t.ICMPType == 129 || t.ICMPType == 140):
		return t.ICMPType - 1, true
	}
	return 0, false
}

// isError tells whether an ICMP message quotes the packet it is about (icmp_is_err in
// linux/icmp.h; RFC 4443 section 2.1).
func isError(t *flow.Tuple) bool {
	if t.Proto == flow.ICMP {
		switch t.ICMPType {
		case 3, 4, 5, 11, 12: // unreachable, source quench, redirect, time exceeded, parameter problem
			return true
		}
		return false
	}
	return t.ICMPType < 128
}

// isLink tells whether an ICMPv6 message is about the link and its routers, which
// conntrack does not track (noct_valid_new in nf_conntrack_proto_icmpv6.c).
func isLink(t *flow.Tuple) bool {
	if t.Proto != flow.ICMPv6 {
		return false
	}
	return t.ICMPType >= 130 && t.ICMPType <= 137 || t.ICMPType == 143
}
