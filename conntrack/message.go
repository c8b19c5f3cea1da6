package conntrack

import (
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/netfilter"
)

// Message types of subsystem NFNL_SUBSYS_CTNETLINK (uapi nfnetlink_conntrack.h, enum
// cntl_msg_types).
const (
	msgNew    = 0 // make, or change what is there
	msgGet    = 1
	msgDelete = 2
)

// Attributes (enum ctattr_type).
const (
	attrTupleOriginal = 1  // nested
	attrStatus        = 3  // be32
	attrMark          = 8  // be32
	attrID            = 12 // be32
	attrZone          = 18 // be16
	attrMarkMask      = 21 // be32
	attrStatusMask    = 26 // be32
)

// genericLen is the length of struct nfgenmsg, which stands before attributes.
const genericLen = 4

// peek finds the mark and the original tuple in the data of a message, without
// decoding the rest: most entries are nobody's.
func peek(b []byte) (mark uint32, original []byte) {
	for b = b[min(genericLen, len(b)):]; len(b) >= 4; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			break
		}
		switch value := b[4:n]; binary.NativeEndian.Uint16(b[2:]) & netlinkTypeMask {
		case attrTupleOriginal:
			original = value
		case attrMark:
			if len(value) == 4 {
				mark = binary.BigEndian.Uint32(value)
			}
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return mark, original
}

// netlinkTypeMask is NLA_TYPE_MASK: without the flags nested and byte order.
const netlinkTypeMask = 1<<14 - 1

func message(typ netfilter.MessageType, family netfilter.ProtoFamily, flags netlink.HeaderFlags, attrs []netfilter.Attribute) netlink.Message {
	// The errors that this can give are of attributes that are both nested and not.
	m, err := netfilter.MarshalNetlink(netfilter.Header{
		SubsystemID: netfilter.NFSubsysCTNetlink, MessageType: typ, Family: family, Flags: netlink.Request | flags,
	}, attrs)
	if err != nil {
		panic(err)
	}
	return m
}

func be32(attr uint16, v uint32) netfilter.Attribute {
	return netfilter.Attribute{Type: attr, Data: netfilter.Uint32Bytes(v)}
}

// find names an entry: by its family, its original tuple and its zone.
func (e *Entry) find() (netfilter.ProtoFamily, []netfilter.Attribute) {
	family := netfilter.ProtoIPv4
	if e.key.six {
		family = netfilter.ProtoIPv6
	}
	attrs := []netfilter.Attribute{{Type: attrTupleOriginal | netlink.Nested, Data: e.key.data[:e.key.n]}}
	if e.Zone != 0 {
		attrs = append(attrs, netfilter.Attribute{Type: attrZone, Data: netfilter.Uint16Bytes(e.Zone)})
	}
	return family, attrs
}

// change is the request that makes an action happen.
func (a Action) change(e *Entry) netlink.Message {
	family, attrs := e.find()
	if a.remove {
		// With the id, so that a younger flow with the same tuple is spared, unless it
		// lies where the old one lay in memory: the kernel makes the id of both.
		return message(msgDelete, family, 0, append(attrs, be32(attrID, e.id)))
	}
	return message(msgNew, family, 0, append(attrs, be32(attrMark, a.mark), be32(attrMarkMask, a.mask)))
}

// request asks for a dump of what matches f.
func (f Filter) request() netlink.Message {
	var attrs []netfilter.Attribute
	if f.Mask != 0 {
		attrs = append(attrs, be32(attrMark, f.Mark), be32(attrMarkMask, f.Mask))
	}
	if f.StatusMask != 0 {
		attrs = append(attrs, be32(attrStatus, uint32(f.Status)), be32(attrStatusMask, uint32(f.StatusMask)))
	}
	if f.InZone {
		attrs = append(attrs, netfilter.Attribute{Type: attrZone, Data: netfilter.Uint16Bytes(f.Zone)})
	}
	return message(msgGet, netfilter.ProtoUnspec, netlink.Dump, attrs)
}
