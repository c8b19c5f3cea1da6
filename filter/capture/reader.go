package capture

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/pcapgo"
)

// Bounds of what is believed.
const (
	// MaxPacket is the largest captured packet, as for tcpdump (MAXIMUM_SNAPLEN).
	MaxPacket = 256 << 10
	// maxBlock is the largest block of a pcapng that is looked into.
	maxBlock = 16 << 20
)

// Packet is one captured packet. Its slices are the Reader's, and good until the
// next call of Next.
type Packet struct {
	// Number counts from 1 in each capture, as Wireshark shows it.
	Number uint64
	// Time is when it was captured; the zero Time where the capture does not say.
	Time time.Time
	Link LinkType
	// Frame is what was captured, from the link header on.
	Frame []byte
	// Length is the packet's length on the wire, Frame's or more.
	Length int
	// IP is the part of Frame from the IP header on; nil if Content is not IP.
	IP      []byte
	Content Content
}

// Cut tells whether less was captured than was on the wire.
func (p *Packet) Cut() bool { return len(p.Frame) < p.Length }

// Error tells where a capture could not be read on.
type Error struct {
	Name string
	// Packet is the number of the packet that could not be read; 0 if the capture
	// did not come so far.
	Packet uint64
	Err    error
}

func (e *Error) Error() string {
	if e.Packet == 0 {
		return fmt.Sprintf("%s: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("%s: packet %d: %v", e.Name, e.Packet, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// What is wrong with a capture. Their texts are whole explanations.
var (
	ErrEmpty     = errors.New("the capture is empty: not even a header")
	ErrNoCapture = errors.New("not a capture: neither pcap nor pcapng, gzipped or not")
	ErrTruncated = errors.New("the capture ends in the middle; it was cut off, or is still being written")
	ErrCorrupt   = errors.New("the capture is damaged")
)

// Reader reads one capture. It is not safe for concurrent use.
type Reader struct {
	name   string
	next   func() ([]byte, gopacket.CaptureInfo, error)
	link   func(iface int) LinkType
	packet Packet
	failed error
}

// NewReader begins to read a capture; the name is for messages. The error is an
// *Error.
func NewReader(name string, r io.Reader) (*Reader, error) {
	out := &Reader{name: name}
	if err := out.open(bufio.NewReaderSize(r, 64<<10)); err != nil {
		return nil, &Error{Name: name, Err: explain(err)}
	}
	return out, nil
}

// Magic numbers, as a little-endian host reads them.
const (
	magicMicro        = 0xa1b2c3d4
	magicMicroSwapped = 0xd4c3b2a1
	magicNano         = 0xa1b23c4d
	magicNanoSwapped  = 0x4d3cb2a1
	magicSection      = 0x0a0d0d0a // of pcapng, the same from both ends
	magicModified     = 0xa1b2cd34 // Kuznetzov's, of kernels of 1999
)

func (r *Reader) open(b *bufio.Reader) error {
	head, err := b.Peek(2)
	if err != nil {
		return short(err, len(head))
	}
	if head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return fmt.Errorf("%w: gzip: %w", ErrCorrupt, err)
		}
		b = bufio.NewReaderSize(z, 64<<10)
	}
	head, err = b.Peek(4)
	if err != nil {
		return short(err, len(head))
	}
	switch binary.LittleEndian.Uint32(head) {
	case magicMicro, magicNano:
		return r.openPcap(b, binary.LittleEndian)
	case magicMicroSwapped, magicNanoSwapped:
		return r.openPcap(b, binary.BigEndian)
	case magicSection:
		return r.openNG(b)
	case magicModified:
		return errors.New("a modified pcap with longer packet headers; convert it with editcap -F pcap")
	}
	return ErrNoCapture
}

// short explains a header that is not there.
func short(err error, n int) error {
	if errors.Is(err, io.EOF) && n == 0 {
		return ErrEmpty
	}
	return err
}

const pcapHeader = 24

func (r *Reader) openPcap(b *bufio.Reader, order binary.ByteOrder) error {
	head, err := b.Peek(pcapHeader)
	if err != nil {
		return short(err, len(head))
	}
	// Of the last field 16 bits are the link type; the rest says whether frames end
	// in a checksum (draft-ietf-opsawg-pcap section 4), which no reader here looks
	// at: IP states its length. pcapgo keeps 8 bits.
	link := LinkType(order.Uint32(head[20:]))
	if err := link.check(); err != nil {
		return err
	}
	p, err := pcapgo.NewReader(b)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	// What the header says is not believed: programs write longer packets, and
	// pcapgo allocates what it says.
	p.SetSnaplen(MaxPacket)
	r.next = p.ZeroCopyReadPacketData
	r.link = func(int) LinkType { return link }
	return nil
}

func (r *Reader) openNG(b *bufio.Reader) error {
	g := &guard{in: b}
	p, err := pcapgo.NewNgReader(g, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		return err
	}
	r.next = p.ZeroCopyReadPacketData
	r.link = g.link
	return nil
}

// Next gives the next packet, io.EOF after the last, or an *Error, which it then
// goes on to give.
func (r *Reader) Next() (*Packet, error) {
	if r.failed != nil {
		return nil, r.failed
	}
	p := &r.packet
	frame, info, err := r.next()
	if err == nil {
		p.Link = r.link(info.InterfaceIndex)
		err = p.Link.check()
	}
	if err != nil {
		if r.failed = io.EOF; err != io.EOF {
			r.failed = &Error{Name: r.name, Packet: p.Number + 1, Err: explain(err)}
		}
		return nil, r.failed
	}
	p.Number++
	p.Time, p.Frame, p.Length = info.Timestamp, frame, max(info.Length, len(frame))
	p.IP, p.Content = p.Link.network(frame)
	return p, nil
}

// explain turns what libraries say into what went wrong.
func explain(err error) error {
	var link *LinkError
	var file *fs.PathError
	switch {
	case errors.As(err, &file): // reading failed, whatever is in the capture
		return err
	case errors.Is(err, ErrEmpty), errors.Is(err, ErrNoCapture), errors.Is(err, ErrCorrupt), errors.Is(err, ErrTruncated), errors.As(err, &link):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ErrTruncated
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}
