package authz

import (
	"errors"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// check is what is read of an envoy.service.auth.v3.CheckRequest.
type check struct {
	source, destination peer
	attributes          bool // are there
	http                bool // attributes.request.http is there
	method, path        string
	// err is set if the message is no CheckRequest.
	err error
}

// peer is an attribute context's peer.
type peer struct {
	address     address
	labels      map[string]string
	principal   string
	certificate string
}

// address is a core.v3.Address, of which only socket addresses are of use.
type address struct {
	kind     protowire.Number // the field that is set: socketAddress, another one, or 0
	text     string
	protocol uint64 // enum SocketAddress.Protocol
	portKind protowire.Number
	port     uint64
}

// Field numbers, of the messages in their order below.
const (
	requestAttributes = 1 // CheckRequest

	attributesSource      = 1 // AttributeContext
	attributesDestination = 2
	attributesRequest     = 4

	peerAddress     = 1 // AttributeContext.Peer
	peerService     = 2
	peerLabels      = 3
	peerPrincipal   = 4
	peerCertificate = 5

	requestHTTP = 2 // AttributeContext.Request

	httpID       = 1 // AttributeContext.HttpRequest
	httpMethod   = 2
	httpHeaders  = 3
	httpPath     = 4
	httpBody     = 11
	entryKey     = 1 // of a map
	entryValue   = 2
	httpProtocol = 10

	socketAddress   = 1 // config.core.v3.Address
	pipeAddress     = 2
	internalAddress = 3

	socketProtocol  = 1 // config.core.v3.SocketAddress
	socketText      = 2
	socketPort      = 3
	socketNamedPort = 4
)

var (
	errWire = errors.New("not a protocol buffer")
	errUTF8 = errors.New("text that is not UTF-8")
)

// decode reads a CheckRequest. It reads what proto.Unmarshal would, a field that is
// there twice included, except that fields which nobody asks for are passed over:
// the headers of a request would be most of the work, and a map to allocate.
func decode(b []byte) (c check) {
	c.err = fields(b, func(n protowire.Number, v value) error {
		if n != requestAttributes {
			return nil
		}
		return v.message(c.decodeAttributes)
	})
	return c
}

func (c *check) decodeAttributes(b []byte) error {
	c.attributes = true
	return fields(b, func(n protowire.Number, v value) error {
		switch n {
		case attributesSource:
			return v.message(c.source.decode)
		case attributesDestination:
			return v.message(c.destination.decode)
		case attributesRequest:
			return v.message(func(b []byte) error {
				return fields(b, func(n protowire.Number, v value) error {
					if n != requestHTTP {
						return nil
					}
					return v.message(c.decodeHTTP)
				})
			})
		}
		return nil
	})
}

func (c *check) decodeHTTP(b []byte) error {
	c.http = true
	return fields(b, func(n protowire.Number, v value) error {
		switch {
		case n == httpMethod:
			return v.text(&c.method)
		case n == httpPath:
			return v.text(&c.path)
		case n == httpHeaders:
			return v.message(func(b []byte) error {
				return fields(b, func(_ protowire.Number, v value) error { return v.utf8() })
			})
		case n == httpID || n > httpPath && n <= httpBody:
			return v.utf8()
		}
		return nil
	})
}

func (p *peer) decode(b []byte) error {
	return fields(b, func(n protowire.Number, v value) error {
		switch n {
		case peerAddress:
			return v.message(p.address.decode)
		case peerLabels:
			return v.message(p.decodeLabel)
		case peerPrincipal:
			return v.text(&p.principal)
		case peerCertificate:
			return v.text(&p.certificate)
		case peerService:
			return v.utf8()
		}
		return nil
	})
}

func (p *peer) decodeLabel(b []byte) error {
	var key, val string
	err := fields(b, func(n protowire.Number, v value) error {
		switch n {
		case entryKey:
			return v.text(&key)
		case entryValue:
			return v.text(&val)
		}
		return nil
	})
	if err == nil {
		if p.labels == nil {
			p.labels = make(map[string]string)
		}
		p.labels[key] = val
	}
	return err
}

func (a *address) decode(b []byte) error {
	return fields(b, func(n protowire.Number, v value) error {
		if n < socketAddress || n > internalAddress || v.kind != protowire.BytesType {
			return nil
		}
		if n != a.kind {
			*a = address{kind: n} // one of them only, the last
		}
		if n != socketAddress {
			return nil
		}
		return v.message(a.decodeSocket)
	})
}

func (a *address) decodeSocket(b []byte) error {
	return fields(b, func(n protowire.Number, v value) error {
		switch n {
		case socketProtocol:
			v.number(&a.protocol)
		case socketText:
			return v.text(&a.text)
		case socketPort:
			if v.number(&a.port) {
				a.portKind = n
			}
		case socketNamedPort:
			if v.kind == protowire.BytesType {
				a.portKind, a.port = n, 0
			}
			return v.utf8()
		}
		return nil
	})
}

// value is a field's, of one of two wire types; others are passed over.
type value struct {
	kind   protowire.Type
	bytes  []byte
	varint uint64
}

// message reads a field that is a message.
func (v value) message(f func([]byte) error) error {
	if v.kind != protowire.BytesType {
		return nil
	}
	return f(v.bytes)
}

func (v value) text(to *string) error {
	if v.kind != protowire.BytesType {
		return nil
	}
	*to = string(v.bytes)
	return v.utf8()
}

func (v value) utf8() error {
	if v.kind == protowire.BytesType && !utf8.Valid(v.bytes) {
		return errUTF8
	}
	return nil
}

// number reads a number of 32 bits, as proto.Unmarshal does: what is above is cut.
func (v value) number(to *uint64) bool {
	if v.kind != protowire.VarintType {
		return false
	}
	*to = uint64(uint32(v.varint))
	return true
}

// fields calls f for every field of a message.
func fields(b []byte, f func(protowire.Number, value) error) error {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return errWire
		}
		b = b[size:]
		v := value{kind: kind}
		switch kind {
		case protowire.BytesType:
			v.bytes, size = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			v.varint, size = protowire.ConsumeVarint(b)
		default:
			size = protowire.ConsumeFieldValue(n, kind, b)
		}
		if size < 0 {
			return errWire
		}
		b = b[size:]
		if err := f(n, v); err != nil {
			return err
		}
	}
	return nil
}
