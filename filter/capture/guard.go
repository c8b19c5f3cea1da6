package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Types of blocks that matter here (draft-ietf-opsawg-pcapng section 4); all
// others are left out.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6
)

const orderMagic = 0x1a2b3c4d

// Options of an interface that change what its packets mean.
const (
	optionEnd        = 0
	optionComment    = 1
	optionResolution = 9
	optionOffset     = 14
)

// guard stands between a pcapng and pcapgo. It reads whole blocks, checks that
// every length in them lies within them, and passes on those with packets and
// those needed to read these. Options are left out, except the interface's that
// scale times.
type guard struct {
	in     *bufio.Reader
	order  binary.ByteOrder // of the section
	links  []LinkType       // of the section's interfaces
	first  uint32           // most bytes of a packet of the first one, 0 for no limit
	block  []byte           // scratch
	rest   []byte           // of block, not yet given
	offset int64            // in the capture
}

func (g *guard) link(iface int) LinkType { return g.links[iface] }

func (g *guard) Read(to []byte) (int, error) {
	for len(g.rest) == 0 {
		start := g.offset
		var err error
		if g.rest, err = g.next(); err != nil {
			var link *LinkError
			if err == io.EOF || errors.Is(err, ErrTruncated) || errors.As(err, &link) {
				return 0, err
			}
			return 0, fmt.Errorf("%w: block at byte %d: %w", ErrCorrupt, start, err)
		}
	}
	n := copy(to, g.rest)
	g.rest = g.rest[n:]
	return n, nil
}

// next reads one block and gives what pcapgo is to see of it.
func (g *guard) next() ([]byte, error) {
	head, err := g.in.Peek(8)
	if err != nil {
		if err == io.EOF && len(head) == 0 {
			return nil, io.EOF
		}
		return nil, cutOff(err)
	}
	typ := binary.LittleEndian.Uint32(head)
	if typ == blockSection {
		head, err = g.in.Peek(12)
		if err != nil {
			return nil, cutOff(err)
		}
		switch {
		case binary.LittleEndian.Uint32(head[8:]) == orderMagic:
			g.order = binary.LittleEndian
		case binary.BigEndian.Uint32(head[8:]) == orderMagic:
			g.order = binary.BigEndian
		default:
			return nil, errors.New("no byte order in the section header")
		}
	}
	typ = g.order.Uint32(head)
	length := g.order.Uint32(head[4:])
	if length < 12 || length%4 != 0 {
		return nil, fmt.Errorf("length %d", length)
	}
	switch typ {
	case blockSection, blockInterface, blockPacket, blockSimple, blockEnhanced:
	default:
		n, err := g.in.Discard(int(length))
		g.offset += int64(n)
		return nil, cutOff(err)
	}
	if length > maxBlock {
		return nil, fmt.Errorf("length %d, over %d", length, maxBlock)
	}
	if cap(g.block) < int(length) {
		g.block = make([]byte, length, 2*length)
	}
	b := g.block[:length]
	n, err := io.ReadFull(g.in, b)
	g.offset += int64(n)
	if err != nil {
		return nil, cutOff(err)
	}
	if again := g.order.Uint32(b[length-4:]); again != length {
		return nil, fmt.Errorf("length %d at its beginning and %d at its end", length, again)
	}
	body := b[8 : length-4]
	switch typ {
	case blockSection:
		return g.section(b, body)
	case blockInterface:
		return g.iface(body)
	case blockSimple:
		return b, g.simple(body)
	case blockPacket:
		if len(body) >= 20 {
			return b, g.packet(body, int(g.order.Uint16(body)))
		}
	case blockEnhanced:
		if len(body) >= 20 {
			return b, g.packet(body, int(g.order.Uint32(body)))
		}
	}
	return nil, errors.New("shorter than its fixed part")
}

func cutOff(err error) error {
	if err == nil || err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	return ErrTruncated
}

func (g *guard) section(b, body []byte) ([]byte, error) {
	if len(body) < 16 {
		return nil, errors.New("shorter than its fixed part")
	}
	major, minor := g.order.Uint16(body[4:]), g.order.Uint16(body[6:])
	// 1.2 is to be read as 1.0 (section 4.1).
	if major != 1 || minor != 0 && minor != 2 {
		return nil, fmt.Errorf("version %d.%d of the format, want 1.0", major, minor)
	}
	g.order.PutUint16(body[6:], 0)
	g.links = g.links[:0]
	return g.seal(b[:8+16]), nil
}

// seal ends a block that was shortened or built anew in place.
func (g *guard) seal(b []byte) []byte {
	length := uint32(len(b) + 4)
	b = b[:length]
	g.order.PutUint32(b[4:], length)
	g.order.PutUint32(b[length-4:], length)
	return b
}

func (g *guard) iface(body []byte) ([]byte, error) {
	if len(body) < 8 {
		return nil, errors.New("shorter than its fixed part")
	}
	resolution, offset, err := g.scale(body[8:])
	if err != nil {
		return nil, err
	}
	g.links = append(g.links, LinkType(g.order.Uint16(body)))
	snaplen := g.order.Uint32(body[4:])
	if snaplen > MaxPacket { // pcapgo allocates it
		snaplen = MaxPacket
	}
	if len(g.links) == 1 {
		g.first = snaplen
	}
	b := make([]byte, 0, 64)
	for _, v := range []uint32{blockInterface, 0} {
		b = g.append32(b, v)
	}
	b = append(b, body[:4]...)
	b = g.append32(b, snaplen)
	if resolution != 0 {
		b = g.append16(g.append16(b, optionResolution), 1)
		b = append(b, resolution, 0, 0, 0)
	}
	if offset != 0 {
		b = g.append16(g.append16(b, optionOffset), 8)
		b = append(b, make([]byte, 8)...)
		g.order.PutUint64(b[len(b)-8:], offset)
	}
	b = g.append32(b, optionEnd)
	return g.seal(b), nil
}

func (g *guard) append32(b []byte, v uint32) []byte {
	b = append(b, 0, 0, 0, 0)
	g.order.PutUint32(b[len(b)-4:], v)
	return b
}

func (g *guard) append16(b []byte, v uint16) []byte {
	b = append(b, 0, 0)
	g.order.PutUint16(b[len(b)-2:], v)
	return b
}

// scale reads the options of an interface that scale times; 0 where not stated.
func (g *guard) scale(options []byte) (resolution byte, offset uint64, err error) {
	for len(options) >= 4 {
		code, length := g.order.Uint16(options), int(g.order.Uint16(options[2:]))
		options = options[4:]
		if code == optionEnd {
			break
		}
		if length > len(options) {
			return 0, 0, fmt.Errorf("option %d is longer than its block", code)
		}
		value := options[:length]
		switch code {
		case optionResolution:
			if length != 1 || value[0]&0x7f > 18 {
				return 0, 0, fmt.Errorf("resolution of times % x", value)
			}
			resolution = value[0]
		case optionOffset:
			if length != 8 {
				return 0, 0, fmt.Errorf("offset of times of %d bytes", length)
			}
			offset = g.order.Uint64(value)
		}
		options = options[min(len(options), (length+3)&^3):]
	}
	return resolution, offset, nil
}

// packet checks an enhanced packet block, or an obsolete one, whose fixed parts
// have the same size.
func (g *guard) packet(body []byte, iface int) error {
	if iface >= len(g.links) {
		return fmt.Errorf("packet of interface %d, and %d were described", iface, len(g.links))
	}
	return fits(int(g.order.Uint32(body[12:])), len(body)-20)
}

func (g *guard) simple(body []byte) error {
	if len(g.links) == 0 {
		return errors.New("a packet before the first interface")
	}
	if len(body) < 4 {
		return errors.New("shorter than its fixed part")
	}
	captured := g.order.Uint32(body) // the length on the wire, cut as the interface says
	if g.first != 0 {
		captured = min(captured, g.first)
	}
	return fits(int(captured), len(body)-4)
}

// fits tells whether a captured length fits into its block.
func fits(captured, room int) error {
	switch {
	case captured > MaxPacket:
		return fmt.Errorf("a packet of %d bytes, over %d", captured, MaxPacket)
	case captured > room:
		return fmt.Errorf("a packet of %d bytes in %d bytes", captured, room)
	}
	return nil
}
