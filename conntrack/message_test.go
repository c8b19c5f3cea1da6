package conntrack

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
)

// TestRequests fixes the bytes that go to the kernel: nfgenmsg, then attributes.
func TestRequests(t *testing.T) {
	t.Parallel()
	e := Entry{Zone: 7, id: 0xdeadbeef, key: key{n: 4}}
	copy(e.key.data[:], "\x01\x02\x03\x04")
	six := Entry{key: key{n: 4, six: true}}
	for name, tc := range map[string]struct {
		m     netlink.Message
		typ   netlink.HeaderType
		flags netlink.HeaderFlags
		data  string
	}{
		"all": {Filter{}.request(), 0x101, netlink.Request | netlink.Dump, "00000000"},
		"by mark, status and zone": {
			Filter{Mark: 0x05000000, Mask: 0xff000000, Status: 0, StatusMask: Assured, Zone: 3, InZone: true}.request(), 0x101, netlink.Request | netlink.Dump,
			"00000000" + "08000800" + "05000000" + "08001500" + "ff000000" + "08000300" + "00000000" + "08001a00" + "00000004" + "06001200" + "00030000",
		},
		"set mark": {
			SetMark(0x05ffffff, 0xff000000).change(&e), 0x100, netlink.Request,
			"02000000" + "08000180" + "01020304" + "06001200" + "00070000" + "08000800" + "05000000" + "08001500" + "ff000000",
		},
		"delete": {
			Delete().change(&six), 0x102, netlink.Request,
			"0a000000" + "08000180" + "00000000" + "08000c00" + "00000000",
		},
	} {
		if got := hex.EncodeToString(tc.m.Data); tc.m.Header.Type != tc.typ || tc.m.Header.Flags != tc.flags || got != tc.data {
			t.Errorf("%s: type %#x flags %v data %s,\nwant type %#x flags %v data %s", name, tc.m.Header.Type, tc.m.Header.Flags, got, tc.typ, tc.flags, tc.data)
		}
	}
}

// real is a message of Linux 6.18: tcp 10.0.0.1:1000 -> 10.0.0.2:80, mark 0x1000001.
const real = "02000000" +
	"34000180" + "14000180" + "08000100" + "0a000001" + "08000200" + "0a000002" + "1c000280" + "05000100" + "06000000" + "06000200" + "03e80000" + "06000300" + "00500000" +
	"34000280" + "14000180" + "08000100" + "0a000002" + "08000200" + "0a000001" + "1c000280" + "05000100" + "06000000" + "06000200" + "00500000" + "06000300" + "03e80000" +
	"08000c00" + "11223344" + "08000300" + "0000018a" + "08000700" + "00000078" + "08000800" + "01000001" +
	"2c000980" + "0c000100" + "0000000000000005" + "0c000200" + "0000000000000190" + "10000480" + "0c000100" + "0000000000000000"

func entryMessage(t testing.TB, text string) netlink.Message {
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return netlink.Message{Header: netlink.Header{Type: 0x100, Flags: netlink.Multi}, Data: b}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	whole := strings.TrimSuffix(real, "10000480"+"0c000100"+"0000000000000000")
	whole = strings.Replace(whole, "2c000980", "1c000980", 1)
	m := entryMessage(t, whole)
	e, kind, err := decode(m)
	if err != nil || kind != Changed {
		t.Fatal(kind, err)
	}
	if e.String() != "tcp 10.0.0.1:1000 -> 10.0.0.2:80 mark 0x1000001" || !e.Counted || e.Sent != (Count{5, 400}) || e.Left.Seconds() != 120 {
		t.Errorf("%v: %+v", &e, e)
	}
	for n := range m.Data {
		if n%4 != 0 {
			continue
		}
		short := m
		short.Data = m.Data[:n]
		if e, _, err := decode(short); err == nil && !e.Tuple().Valid() {
			t.Errorf("cut to %d bytes: %+v", n, e)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(entryMessage(f, real).Data)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, typ := range []netlink.HeaderType{0x100, 0x102} {
			e, _, err := decode(netlink.Message{Header: netlink.Header{Type: typ}, Data: b})
			if err == nil && (!e.Tuple().Valid() || e.key.n == 0) {
				t.Errorf("%x: %+v", b, e)
			}
		}
	})
}
