package capture

import (
	"encoding/binary"
	"fmt"
)

// LinkType says what a frame begins with (tcpdump.org/linktypes.html).
type LinkType uint16

// The link types that are understood. Linux's "any" device gives the cooked ones.
const (
	Null      LinkType = 0 // loopback of BSD: family, in the capturing host's byte order
	Ethernet  LinkType = 1
	rawBSD    LinkType = 12  // DLT_RAW, which some programs write into files
	rawOpen   LinkType = 14  // the same on OpenBSD
	Raw       LinkType = 101 // from the IP header on
	Loop      LinkType = 108 // loopback of OpenBSD: family, big-endian
	Cooked    LinkType = 113 // Linux cooked, version 1
	RawIPv4   LinkType = 228
	RawIPv6   LinkType = 229
	CookedV2  LinkType = 276 // Linux cooked, version 2
	supported          = "Ethernet, raw IP, Linux cooked v1 and v2, BSD loopback"
)

// LinkError is a link type that is not understood.
type LinkError struct{ Link LinkType }

func (e *LinkError) Error() string {
	return fmt.Sprintf("link type %d is not known here (known are %s)", e.Link, supported)
}

func (l LinkType) check() error {
	switch l {
	case Null, Ethernet, rawBSD, rawOpen, Raw, Loop, Cooked, RawIPv4, RawIPv6, CookedV2:
		return nil
	}
	return &LinkError{l}
}

// Content is what a frame carries.
type Content uint8

const (
	// IP: version 4 or 6, as the link layer says; the header may still lie.
	IP Content = iota
	// NotIP: something else, such as ARP.
	NotIP
	// CutLink: the frame ends before it says what it carries.
	CutLink
)

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	// Tags of 802.1Q, 802.1ad and what was used before 802.1ad.
	etherVLAN, etherQinQ, etherOldQinQ = 0x8100, 0x88a8, 0x9100
	maxTags                            = 4
)

// network finds the IP header of a frame.
func (l LinkType) network(b []byte) ([]byte, Content) {
	switch l {
	case Ethernet:
		return ether(b, 12)
	case Cooked:
		// packet type, device type, address length, address of 8, protocol
		return ether(b, 14)
	case CookedV2:
		// protocol, reserved, interface, device type, packet type, address length, address of 8
		if len(b) < 20 {
			return nil, CutLink
		}
		return tagged(b[20:], binary.BigEndian.Uint16(b))
	case Null, Loop:
		if len(b) < 4 {
			return nil, CutLink
		}
		return family(b)
	default: // the version is in the header
		if len(b) == 0 {
			return nil, CutLink
		}
		return b, IP
	}
}

// ether goes on at a type field.
func ether(b []byte, at int) ([]byte, Content) {
	if len(b) < at+2 {
		return nil, CutLink
	}
	return tagged(b[at+2:], binary.BigEndian.Uint16(b[at:]))
}

// tagged goes behind VLAN tags, one in the other.
func tagged(b []byte, typ uint16) ([]byte, Content) {
	for range maxTags {
		switch typ {
		case etherIPv4, etherIPv6:
			return b, IP
		case etherVLAN, etherQinQ, etherOldQinQ:
			if len(b) < 4 {
				return nil, CutLink
			}
			typ, b = binary.BigEndian.Uint16(b[2:]), b[4:]
		default:
			return nil, NotIP
		}
	}
	if typ == etherIPv4 || typ == etherIPv6 {
		return b, IP
	}
	return nil, NotIP
}

// family reads a BSD address family, from whichever end it was written: AF_INET is
// 2 everywhere, AF_INET6 is 24 (NetBSD, OpenBSD), 28 (FreeBSD), 30 (macOS) or 10
// (Linux).
func family(b []byte) ([]byte, Content) {
	f := binary.LittleEndian.Uint32(b)
	if f > 0xffff {
		f = binary.BigEndian.Uint32(b)
	}
	switch f {
	case 2, 10, 24, 28, 30:
		return b[4:], IP
	}
	return nil, NotIP
}
