package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const captures = "../replay/testdata/captures"

// readAll gives the IP parts of a capture, nil for packets without, and the error it
// ends with.
func readAll(name string, in io.Reader) (ips [][]byte, end error) {
	r, err := NewReader(name, in)
	if err != nil {
		return nil, err
	}
	for {
		p, err := r.Next()
		if err != nil {
			return ips, err
		}
		ips = append(ips, bytes.Clone(p.IP))
	}
}

func file(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(captures, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The same packets in another format or below another link layer are the same.
func TestFormats(t *testing.T) {
	t.Parallel()
	for _, same := range [][]string{
		{"http.pcap", "http.pcapng", "http.pcapng.gz"},
		{"raw.pcap", "vlan.pcap", "qinq.pcap", "null.pcap", "loop.pcap"},
	} {
		var want [][]byte
		for i, name := range same {
			got, err := readAll(name, bytes.NewReader(file(t, name)))
			if err != io.EOF {
				t.Errorf("%s: %v", name, err)
			}
			if i == 0 {
				want = got
			}
			if len(got) != len(want) || len(got) < 30 {
				t.Errorf("%s: %d packets, want %d", name, len(got), len(want))
				continue
			}
			for n := range got {
				// An Ethernet frame may end in padding.
				if !bytes.HasPrefix(got[n], want[n]) {
					t.Errorf("%s: packet %d differs", name, n+1)
				}
			}
		}
	}
}

// The written capture of every one here holds the same packets, times and lengths.
func TestWriter(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob(captures + "/*.pcap*")
	if err != nil || len(names) < 15 {
		t.Fatalf("%d captures, %v", len(names), err)
	}
	for _, name := range names {
		var out bytes.Buffer
		w, err := NewWriter(&out, "test")
		if err != nil {
			t.Fatal(err)
		}
		type seen struct {
			at     time.Time
			link   LinkType
			frame  string
			length int
		}
		var want, got []seen
		for i, to := range []*[]seen{&want, &got} {
			in := io.Reader(bytes.NewReader(file(t, filepath.Base(name))))
			if i == 1 {
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
				in = &out
			}
			r, err := NewReader(name, in)
			if err != nil {
				t.Fatal(err)
			}
			for {
				p, err := r.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				*to = append(*to, seen{p.Time, p.Link, string(p.Frame), p.Length})
				if i == 0 {
					if err := w.Write(p, strings.Repeat("comment ", int(p.Number%5))); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %d packets, want %d", name, len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: packet %d differs", name, i+1)
			}
		}
	}
}

// A capture that is cut off anywhere gives the packets before the cut, and says that
// it was cut off, unless the cut is between two packets.
func TestEveryTruncation(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"dns.pcap", "sctp.pcap", "mixed.pcapng"} {
		whole := file(t, name)
		whole = whole[:min(len(whole), 2500)]
		all, _ := readAll(name, bytes.NewReader(whole))
		clean := 0
		for n := range len(whole) {
			got, err := readAll(name, bytes.NewReader(whole[:n]))
			if len(got) > len(all) {
				t.Fatalf("%s: %d packets in the first %d bytes", name, len(got), n)
			}
			for i := range got {
				if !bytes.Equal(got[i], all[i]) {
					t.Fatalf("%s: first %d bytes: packet %d differs", name, n, i+1)
				}
			}
			switch {
			case err == io.EOF:
				clean++
			case n == 0 && errors.Is(err, ErrEmpty), errors.Is(err, ErrTruncated):
				var e *Error
				if !errors.As(err, &e) || e.Packet != 0 && e.Packet != uint64(len(got))+1 {
					t.Fatalf("%s: first %d bytes, %d packets: %v", name, n, len(got), err)
				}
			default:
				t.Fatalf("%s: first %d bytes: %v", name, n, err)
			}
		}
		if clean > len(all)+8 { // after the header, each packet, and each block without one
			t.Errorf("%s: %d truncations look like an end", name, clean)
		}
	}
}

func TestGzipDamage(t *testing.T) {
	t.Parallel()
	whole := file(t, "http.pcapng.gz")
	got, err := readAll("x", bytes.NewReader(whole[:len(whole)/2]))
	if !errors.Is(err, ErrTruncated) || len(got) == 0 {
		t.Errorf("cut: %d packets, %v", len(got), err)
	}
	damaged := bytes.Clone(whole)
	damaged[len(damaged)-6] ^= 1 // checksum
	got, err = readAll("x", bytes.NewReader(damaged))
	if !errors.Is(err, ErrCorrupt) || len(got) != 95 {
		t.Errorf("checksum: %d packets, %v", len(got), err)
	}
	// Two members one after the other are one capture.
	var twice bytes.Buffer
	plain := file(t, "dns.pcap")
	for _, part := range [][]byte{plain[:100], plain[100:]} {
		z := gzip.NewWriter(&twice)
		z.Write(part)
		z.Close()
	}
	if got, err = readAll("x", &twice); err != io.EOF || len(got) != 8 {
		t.Errorf("two members: %d packets, %v", len(got), err)
	}
}

func pcap(link uint32, packets ...[]byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, magicMicro)
	b = le.AppendUint16(le.AppendUint16(b, 2), 4)
	b = append(b, make([]byte, 8)...)
	b = le.AppendUint32(le.AppendUint32(b, 65535), link)
	for _, p := range packets {
		b = append(b, make([]byte, 8)...)
		b = le.AppendUint32(le.AppendUint32(b, uint32(len(p))), uint32(len(p)))
		b = append(b, p...)
	}
	return b
}

// section begins a pcapng with one interface.
func section(link uint16, options ...byte) []byte {
	b := ngBlock(blockSection, append([]byte{0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0}, bytes.Repeat([]byte{0xff}, 8)...))
	body := append([]byte{byte(link), byte(link >> 8), 0, 0, 0, 0, 0, 0}, options...)
	return append(b, ngBlock(blockInterface, body)...)
}

func ngBlock(typ uint32, body []byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(le.AppendUint32(nil, typ), uint32(len(body)+12))
	return le.AppendUint32(append(b, body...), uint32(len(body)+12))
}

func enhanced(iface, captured, length uint32, data ...byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, iface)
	b = append(b, make([]byte, 8)...)
	b = le.AppendUint32(le.AppendUint32(b, captured), length)
	return ngBlock(blockEnhanced, append(b, data...))
}

// What a file may claim that pcapgo would believe, panic on or take for the end.
func TestDamage(t *testing.T) {
	t.Parallel()
	ip := []byte{0x45, 0, 0, 20}
	good := enhanced(0, 4, 4, ip...)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	wrongEnd := bytes.Clone(good)
	wrongEnd[len(wrongEnd)-4]++
	long := pcap(101, ip)
	binary.LittleEndian.PutUint32(long[24+8:], 1<<31)
	inconsistent := pcap(101, ip, ip)
	binary.LittleEndian.PutUint32(inconsistent[24+16+4+12:], 2)
	for _, tc := range []struct {
		name    string
		data    []byte
		packets int
		text    string // part of the message
	}{
		{"empty", nil, 0, "x: the capture is empty"},
		{"text", []byte("hello, this is no capture at all"), 0, "x: not a capture"},
		{"three bytes", []byte{0xd4, 0xc3, 0xb2}, 0, "ends in the middle"},
		{"link type 105", pcap(105, ip), 0, "x: link type 105 is not known here"},
		{"length of 2 GB", long, 0, "x: packet 1: the capture is damaged"},
		{"captured more than there was", inconsistent, 1, "x: packet 2: the capture is damaged"},
		{"block of 4 GB", join(section(101), good, []byte{6, 0, 0, 0, 0xfc, 0xff, 0xff, 0xff, 0, 0, 0, 0}), 1, "x: packet 2: the capture is damaged: block at byte"},
		{"block of 3 bytes", join(section(101), good, []byte{6, 0, 0, 0, 3, 0, 0, 0}), 1, "length 3"},
		{"wrong length at the end", join(section(101), good, wrongEnd), 1, "packet 2"},
		{"packet longer than its block", join(section(101), good, enhanced(0, 4000, 4000, ip...)), 1, "4000 bytes in 4"},
		{"packet of 1 MB", join(section(101), enhanced(0, 1<<20, 1<<20, ip...)), 0, "over 262144"},
		{"interface that is not there", join(section(101), good, enhanced(1, 4, 4, ip...)), 1, "interface 1"},
		{"packet before the interface", join(section(101)[:28], good), 0, "interface 0, and 0"},
		{"short packet block", join(section(101), ngBlock(blockEnhanced, ip)), 0, "shorter"},
		{"resolution of 2^-127", join(section(101, 9, 0, 1, 0, 0xff, 0, 0, 0), good), 0, "resolution"},
		{"resolution of 10^-30", join(section(101, 9, 0, 1, 0, 30, 0, 0, 0), good), 0, "resolution"},
		{"option longer than its block", join(section(101, 9, 0, 0xff, 0xff), good), 0, "longer than its block"},
		{"unknown link type of one interface", join(section(101), good, section(147), good), 1, "x: packet 2: link type 147"},
		{"version 2", ngBlock(blockSection, append([]byte{0x4d, 0x3c, 0x2b, 0x1a, 2, 0, 0, 0}, bytes.Repeat([]byte{0xff}, 8)...)), 0, "version 2.0"},
		{"modified pcap", []byte{0x34, 0xcd, 0xb2, 0xa1, 0, 0, 0, 0}, 0, "editcap"},
	} {
		got, err := readAll("x", bytes.NewReader(tc.data))
		if len(got) != tc.packets || err == nil || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %d packets, %v; want %d and %q", tc.name, len(got), err, tc.packets, tc.text)
		}
	}
}

// What is unusual and right.
func TestUnusual(t *testing.T) {
	t.Parallel()
	ip := []byte{0x45, 0, 0, 20}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	simple := ngBlock(blockSimple, append([]byte{4, 0, 0, 0}, ip...))
	for _, tc := range []struct {
		name    string
		data    []byte
		packets int
		link    LinkType
	}{
		{"header alone", pcap(1), 0, 0},
		{"link type with the length of a checksum", pcap(1|0x14<<24, make([]byte, 14)), 1, Ethernet},
		{"cooked v2, above 255", pcap(276, make([]byte, 20)), 1, CookedV2},
		{"blocks of unknown types", join(section(276), ngBlock(0x40000bad, ip), ngBlock(10, nil), enhanced(0, 4, 60, ip...)), 1, CookedV2},
		{"simple packet", join(section(101), simple), 1, Raw},
		{"two sections", join(section(1), enhanced(0, 4, 4, ip...), section(101), enhanced(0, 4, 4, ip...)), 2, Raw},
		{"version 1.2", join(ngBlock(blockSection, append([]byte{0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 2, 0}, bytes.Repeat([]byte{0xff}, 8)...)), section(101)[28:], enhanced(0, 4, 4, ip...)), 1, Raw},
		{"nanoseconds and an offset", join(section(101, 9, 0, 1, 0, 9, 0, 0, 0, 14, 0, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0), enhanced(0, 4, 4, ip...)), 1, Raw},
	} {
		r, err := NewReader("x", bytes.NewReader(tc.data))
		n, link := 0, LinkType(0)
		for err == nil {
			var p *Packet
			if p, err = r.Next(); err == nil {
				n, link = n+1, p.Link
			}
		}
		if err != io.EOF || n != tc.packets || link != tc.link {
			t.Errorf("%s: %d packets, link type %d, %v", tc.name, n, link, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, name := range []string{"dns.pcap", "sctp.pcap", "icmp.pcap"} {
		b, err := os.ReadFile(filepath.Join(captures, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(append(section(1, 9, 0, 1, 0, 9, 0, 0, 0), enhanced(0, 4, 4, 1, 2, 3, 4)...))
	f.Add(append(section(101), ngBlock(blockSimple, []byte{4, 0, 0, 0, 1, 2, 3, 4})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readAll("x", bytes.NewReader(b))
		if err == nil {
			t.Fatal("no error and no end")
		}
		size := 0
		for _, ip := range got {
			size += len(ip)
		}
		if !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) && size > len(b) {
			t.Fatalf("%d bytes of packets in %d", size, len(b))
		}
	})
}
