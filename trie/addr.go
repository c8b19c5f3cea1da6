package trie

import (
	"net/netip"
	"unsafe"
)

// addrBits is the memory of a netip.Addr: its 128 bits, an IPv4 address in the
// lower 32 of them. The methods that give octets go through memory twice, which
// takes a third as long as the look-up; netip has none that gives a number.
type addrBits struct {
	hi, lo uint64
	_      uintptr
}

var _ [unsafe.Sizeof(netip.Addr{})]byte = [unsafe.Sizeof(addrBits{})]byte{}

// Of another Go, which might keep addresses otherwise, nothing is assumed.
func init() {
	four, six := netip.AddrFrom4([4]byte{1, 2, 3, 4}), netip.AddrFrom16([16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	hi, lo := Bits6(&six)
	if Bits4(&four) != 0x01020304 || hi != 0x0102030405060708 || lo != 0x090a0b0c0d0e0f10 {
		panic("trie: net/netip keeps addresses in another way than this package reads them")
	}
}

// Bits4 gives an IPv4 address as a number: 10.0.0.1 is 0x0a000001. Of another
// address it means nothing.
func Bits4(a *netip.Addr) uint32 { return uint32((*addrBits)(unsafe.Pointer(a)).lo) }

// Bits6 gives the upper and the lower 64 bits of an IPv6 address. Of another address
// they mean nothing.
func Bits6(a *netip.Addr) (hi, lo uint64) {
	b := (*addrBits)(unsafe.Pointer(a))
	return b.hi, b.lo
}
