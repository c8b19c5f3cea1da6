package capture

import (
	"bufio"
	"encoding/binary"
	"io"
	"strings"
	"time"
)

// maxComment is what an option's 16 bits of length leave, rounded down to words.
const maxComment = 65532

// Writer writes a pcapng whose packets carry comments (opt_comment), which Wireshark
// and tshark show as frame.comment. It is not safe for concurrent use.
type Writer struct {
	w     *bufio.Writer
	links []LinkType // one interface each
	block []byte
}

// NewWriter begins a capture. The application is named in its header.
func NewWriter(w io.Writer, application string) (*Writer, error) {
	out := &Writer{w: bufio.NewWriterSize(w, 64<<10)}
	b := out.begin(blockSection)
	b = le32(b, orderMagic)
	b = le32(b, 1)                                   // version 1.0
	b = le32(le32(b, 1<<32-1), 1<<32-1)              // length of the section: not stated
	b = option(b, 4 /* shb_userappl */, application) // then the end of options
	return out, out.end(le32(b, optionEnd))
}

// Write writes a packet as it was captured, with a comment unless that is empty. Its
// number is that of its place in this capture.
func (w *Writer) Write(p *Packet, comment string) error {
	iface := -1
	for i, l := range w.links {
		if l == p.Link {
			iface = i
		}
	}
	if iface < 0 {
		iface = len(w.links)
		if err := w.describe(p.Link); err != nil {
			return err
		}
	}
	stamp := uint64(0)
	if p.Time.After(time.Unix(0, 0)) {
		stamp = uint64(p.Time.UnixNano())
	}
	b := w.begin(blockEnhanced)
	b = le32(b, uint32(iface))
	b = le32(le32(b, uint32(stamp>>32)), uint32(stamp))
	b = le32(le32(b, uint32(len(p.Frame))), uint32(p.Length))
	b = padded(b, string(p.Frame))
	if comment != "" {
		b = le32(option(b, optionComment, comment), optionEnd)
	}
	return w.end(b)
}

// Flush writes what is buffered. It must be called at the end.
func (w *Writer) Flush() error { return w.w.Flush() }

// describe adds an interface for a link type, with times in nanoseconds.
func (w *Writer) describe(l LinkType) error {
	w.links = append(w.links, l)
	b := w.begin(blockInterface)
	b = le32(b, uint32(l)) // and 16 reserved bits
	b = le32(b, MaxPacket)
	b = option(b, optionResolution, "\x09")
	return w.end(le32(b, optionEnd))
}

func (w *Writer) begin(typ uint32) []byte { return le32(le32(w.block[:0], typ), 0) }

func (w *Writer) end(b []byte) error {
	length := uint32(len(b) + 4)
	binary.LittleEndian.PutUint32(b[4:], length)
	b = le32(b, length)
	w.block = b[:0]
	_, err := w.w.Write(b)
	return err
}

func le32(b []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }

func option(b []byte, code uint16, value string) []byte {
	if len(value) > maxComment {
		value = strings.ToValidUTF8(value[:maxComment], "")
	}
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return padded(b, value)
}

func padded(b []byte, value string) []byte {
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
