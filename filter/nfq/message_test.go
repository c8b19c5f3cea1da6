package nfq

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// packetDatagram builds a message as the kernel sends it.
func packetDatagram(t testing.TB, id, mark uint32, payload []byte) []byte {
	t.Helper()
	attrs := []netlink.Attribute{{Type: attrPacketHeader, Data: append(binary.BigEndian.AppendUint32(nil, id), 0x08, 0x00, 4)}}
	if mark != 0 {
		attrs = append(attrs, netlink.Attribute{Type: attrMark, Data: binary.BigEndian.AppendUint32(nil, mark)})
	}
	// Attributes that the loop has no use for: in- and out-device, length.
	attrs = append(attrs,
		netlink.Attribute{Type: 5, Data: []byte{0, 0, 0, 2}},
		netlink.Attribute{Type: 6, Data: []byte{0, 0, 0, 3}},
		netlink.Attribute{Type: 13, Data: []byte{0, 0, 0, 60}},
		netlink.Attribute{Type: attrPayload, Data: payload},
	)
	body, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		t.Fatal(err)
	}
	body = append([]byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 100}, body...)
	b := make([]byte, headerLen, headerLen+len(body))
	binary.NativeEndian.PutUint32(b, uint32(headerLen+len(body)))
	binary.NativeEndian.PutUint16(b[4:], msgPacket)
	return append(b, body...)
}

func TestParsePacket(t *testing.T) {
	t.Parallel()
	payload := []byte{0x45, 1, 2, 3, 4}
	m, rest, ok := nextMessage(packetDatagram(t, 7, 0x2000abcd, payload))
	if !ok || m.typ != msgPacket || len(rest) != 0 {
		t.Fatalf("nextMessage: %v %v %v", m, rest, ok)
	}
	p, ok := parsePacket(m.body)
	want := packetMessage{id: 7, mark: 0x2000abcd, payload: payload}
	if !ok || cmp.Diff(want, p, cmp.AllowUnexported(packetMessage{})) != "" {
		t.Errorf("parsePacket = %+v, %v; want %+v", p, ok, want)
	}
}

// TestParsePacketCut: whatever is cut off the end, a packet whose id was read can
// be answered, and no other id ever comes out.
func TestParsePacketCut(t *testing.T) {
	t.Parallel()
	whole := packetDatagram(t, 7, 0x2000abcd, []byte{0x45, 1, 2, 3, 4, 5, 6, 7})
	answered := 0
	for n := range whole {
		m, _, ok := nextMessage(whole[:n])
		if !ok {
			continue
		}
		p, ok := parsePacket(m.body)
		if !ok {
			continue
		}
		answered++
		if p.id != 7 {
			t.Errorf("cut to %d bytes: id %d", n, p.id)
		}
		if len(p.payload) != 0 {
			t.Errorf("cut to %d bytes: payload %x", n, p.payload)
		}
	}
	if answered == 0 {
		t.Error("no cut message could be answered")
	}
}

func TestPutVerdict(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		verdict uint32
		setMark bool
		want    string // nlmsghdr, nfgenmsg, attributes, on a little-endian machine
	}{
		{"repeat with mark", 4, true, "28000000 0103 0100 00000000 00000000  00 00 0064  0c00 0200 00000004 00000007  0800 0300 03004000"},
		{"drop", 0, false, "20000000 0103 0100 00000000 00000000  00 00 0064  0c00 0200 00000000 00000007"},
	} {
		buf := make([]byte, verdictLen)
		for i := range buf {
			buf[i] = 0xee // a buffer that was used before
		}
		n := putVerdict(buf, 100, 7, tc.verdict, 0x03004000, tc.setMark)
		want, err := hex.DecodeString(strings.ReplaceAll(tc.want, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, buf[:n]); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, d)
		}
	}
}

// FuzzDatagram: no input makes the reader panic or loop.
func FuzzDatagram(f *testing.F) {
	whole := packetDatagram(f, 7, 1, []byte{0x45, 1, 2, 3})
	f.Add(whole)
	f.Add(append(whole, whole...))
	f.Add(whole[:len(whole)-3])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		for n := 0; ; n++ {
			m, rest, ok := nextMessage(b)
			if !ok {
				return
			}
			if len(rest) >= len(b) || n > len(b) {
				t.Fatalf("no progress: %d bytes left of %d", len(rest), len(b))
			}
			if p, ok := parsePacket(m.body); ok && len(p.payload) > len(b) {
				t.Fatalf("payload of %d bytes in %d", len(p.payload), len(b))
			}
			errno(m.body)
			b = rest
		}
	})
}
