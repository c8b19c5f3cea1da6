package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The live flows are UDP: streamPorts ports of the server, and as many source ports
// for each as it takes. The stream sends a packet of each in turn.
const (
	streamPorts  = 50
	streamServer = 7100
	streamClient = 10_000
	// streamRate is packets a second: each flow has one every 200 ms, and some flow
	// every 20 µs.
	streamRate = 50_000
	// streamMost bounds the stream, whatever becomes of who started it.
	streamMost = 3 * time.Minute
)

type batchHeader struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// streamMain sends until it is killed.
func streamMain(args []string) error {
	var from, to netip.Addr
	f := flag.NewFlagSet("stream", flag.ExitOnError)
	f.TextVar(&to, "to", netip.Addr{}, "")
	f.TextVar(&from, "from", netip.Addr{}, "")
	f.Parse(args)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.As4()}); err != nil {
		return err
	}
	const batch, size = 32, 32
	var (
		headers [batch]batchHeader
		iovecs  [batch]unix.Iovec
		packets [batch][size]byte
	)
	for i := range headers {
		b := &packets[i]
		b[0], b[3], b[8], b[9] = 0x45, size, 64, unix.IPPROTO_UDP
		copy(b[12:], from.AsSlice())
		copy(b[16:], to.AsSlice())
		b[25] = size - 20 // UDP length; no checksum (RFC 768)
		iovecs[i].Base = &b[0]
		iovecs[i].SetLen(size)
		headers[i].hdr.Iov = &iovecs[i]
		headers[i].hdr.SetIovlen(1)
	}
	fmt.Println("listening")
	sent, start := 0, time.Now()
	for {
		elapsed := time.Since(start)
		if elapsed > streamMost {
			return nil
		}
		due := min(int(streamRate*elapsed.Seconds())-sent, batch)
		if due <= 0 {
			time.Sleep(200 * time.Microsecond)
			continue
		}
		for i := range due {
			flow := (sent + i) % liveFlows
			binary.BigEndian.PutUint16(packets[i][20:], uint16(streamClient+flow/streamPorts))
			binary.BigEndian.PutUint16(packets[i][22:], uint16(streamServer+flow%streamPorts))
		}
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&headers[0])), uintptr(due), 0, 0, 0)
		if errno != 0 {
			return errno
		}
		sent += int(n)
	}
}

// seen is what arrived since it was taken last.
type seen struct {
	Packets, Flows int
	Last           int64 // when the last packet arrived, by the kernel's real-time clock
}

// watchMain counts what arrives of the stream, on a packet socket, by the time at which
// the kernel received it. It answers each line with a seen.
func watchMain([]string) error {
	const protoIPv4 = unix.ETH_P_IP<<8&0xff00 | unix.ETH_P_IP>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, protoIPv4)
	if err != nil {
		return err
	}
	tv := unix.NsecToTimeval(int64(10 * time.Millisecond))
	for _, err := range []error{
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
	} {
		if err != nil {
			return err
		}
	}
	var (
		mu   sync.Mutex
		s    seen
		live = make([]bool, liveFlows)
	)
	go func() {
		const batch, slot, control = 64, 64, 64
		var (
			headers  [batch]batchHeader
			iovecs   [batch]unix.Iovec
			packets  [batch][slot]byte
			controls [batch][control]byte
		)
		for {
			for i := range headers {
				iovecs[i].Base = &packets[i][0]
				iovecs[i].SetLen(slot)
				h := &headers[i].hdr
				h.Iov, h.Control = &iovecs[i], &controls[i][0]
				h.SetIovlen(1)
				h.SetControllen(control)
			}
			n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&headers[0])), batch, unix.MSG_WAITFORONE, 0, 0)
			if errno != 0 {
				continue
			}
			mu.Lock()
			for i := range int(n) {
				b := packets[i][:headers[i].n]
				if len(b) < 28 || b[9] != unix.IPPROTO_UDP {
					continue
				}
				from, to := int(binary.BigEndian.Uint16(b[20:]))-streamClient, int(binary.BigEndian.Uint16(b[22:]))-streamServer
				if to < 0 || to >= streamPorts || from < 0 || from >= liveFlows/streamPorts {
					continue
				}
				s.Packets++
				if f := from*streamPorts + to; !live[f] {
					live[f] = true
					s.Flows++
				}
				// struct cmsghdr 16 · struct timespec 16
				c := controls[i][:]
				s.Last = max(s.Last, int64(binary.NativeEndian.Uint64(c[16:]))*1e9+int64(binary.NativeEndian.Uint64(c[24:])))
			}
			mu.Unlock()
		}
	}()
	fmt.Println("listening")
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		mu.Lock()
		now := s
		s = seen{}
		clear(live)
		mu.Unlock()
		if err := out.Encode(now); err != nil {
			return err
		}
	}
	return nil
}
