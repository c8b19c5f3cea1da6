package nfq

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Message types in subsystem NFNL_SUBSYS_QUEUE (uapi nfnetlink_queue.h, enum
// nfqnl_msg_types).
const (
	msgPacket = unix.NFNL_SUBSYS_QUEUE<<8 + iota
	msgVerdict
	msgConfig
)

// Attributes (enum nfqnl_attr_type).
const (
	attrPacketHeader  = 1  // struct nfqnl_msg_packet_hdr: be32 id, be16 ethertype, u8 hook
	attrVerdictHeader = 2  // struct nfqnl_msg_verdict_hdr: be32 verdict, be32 id
	attrMark          = 3  // be32
	attrPayload       = 10 // the packet from its network header on, cut to the copy range
)

// Lengths of what stands before attributes.
const (
	headerLen  = 16 // struct nlmsghdr
	genericLen = 4  // struct nfgenmsg: u8 family, u8 version, be16 queue
)

// packetMessage is the part of a packet message that the loop needs.
type packetMessage struct {
	id      uint32
	mark    uint32 // 0 if the message has none
	payload []byte // points into the receive buffer; nil if the message has none
}

// message is one netlink message in a datagram.
type message struct {
	typ  uint16
	body []byte // after struct nlmsghdr
}

// nextMessage cuts the first message off a datagram. ok is false when nothing is
// left. A message that claims to be longer than its datagram ends with it: the
// packet's id stands at the front and can still be answered.
func nextMessage(b []byte) (m message, rest []byte, ok bool) {
	if len(b) < headerLen {
		return message{}, nil, false
	}
	n := int(binary.NativeEndian.Uint32(b))
	if n < headerLen {
		return message{}, nil, false
	}
	n = min(n, len(b))
	m = message{typ: binary.NativeEndian.Uint16(b[4:]), body: b[headerLen:n]}
	return m, b[min(align(n), len(b)):], true
}

// parsePacket reads the body of a packet message. ok is false if it has no packet
// header, and then there is no id that could be answered.
func parsePacket(b []byte) (p packetMessage, ok bool) {
	if len(b) < genericLen {
		return p, false
	}
	for b = b[genericLen:]; len(b) >= 4; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			break
		}
		value := b[4:n]
		switch binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) {
		case attrPacketHeader:
			if len(value) >= 4 {
				p.id, ok = binary.BigEndian.Uint32(value), true
			}
		case attrMark:
			if len(value) >= 4 {
				p.mark = binary.BigEndian.Uint32(value)
			}
		case attrPayload:
			p.payload = value
		}
		b = b[min(align(n), len(b)):]
	}
	return p, ok
}

// errno reads the body of an NLMSG_ERROR message: negative errno, then the header
// of the message it is about.
func errno(b []byte) unix.Errno {
	if len(b) < 4 {
		return 0
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(b)))
}

// verdictLen is the length of a verdict message with a mark:
//
//	nlmsghdr 16 · nfgenmsg 4 · NFQA_VERDICT_HDR 4+8 · NFQA_MARK 4+4
const verdictLen = headerLen + genericLen + 12 + 8

// putVerdict writes a verdict message to b, which has room for verdictLen bytes,
// and returns its length.
func putVerdict(b []byte, queue uint16, id, verdict, mark uint32, setMark bool) int {
	n := verdictLen
	if !setMark {
		n -= 8
	}
	binary.NativeEndian.PutUint32(b[0:], uint32(n))
	binary.NativeEndian.PutUint16(b[4:], msgVerdict)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint64(b[8:], 0) // sequence, port: nobody reads them
	b[16], b[17] = unix.AF_UNSPEC, unix.NFNETLINK_V0
	binary.BigEndian.PutUint16(b[18:], queue)
	binary.NativeEndian.PutUint16(b[20:], 12)
	binary.NativeEndian.PutUint16(b[22:], attrVerdictHeader)
	binary.BigEndian.PutUint32(b[24:], verdict)
	binary.BigEndian.PutUint32(b[28:], id)
	if setMark {
		binary.NativeEndian.PutUint16(b[32:], 8)
		binary.NativeEndian.PutUint16(b[34:], attrMark)
		binary.BigEndian.PutUint32(b[36:], mark)
	}
	return n
}

// align rounds up to the 4 bytes that netlink messages and attributes start at.
func align(n int) int { return (n + 3) &^ 3 }
