package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	nfqueue "github.com/florianl/go-nfqueue/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter/nfq"
)

// The two null loops accept every packet and look at nothing but its id. Both ask
// the kernel for what postern asks for.

// queueNumber is the queue in every lab.
const queueNumber = 100

func nullConfig() *nfqueue.Config {
	return &nfqueue.Config{
		NfQueue: queueNumber, MaxQueueLen: nfq.DefaultMaxLen, MaxPacketLen: nfq.DefaultCopyRange,
		Copymode: nfqueue.NfQnlCopyPacket, Flags: nfqueue.NfQaCfgFlagGSO,
	}
}

func openNull() (*nfqueue.Nfqueue, error) {
	q, err := nfqueue.Open(nullConfig())
	if err != nil {
		return nil, err
	}
	if err := q.Con.SetOption(netlink.NoENOBUFS, true); err != nil {
		return nil, err
	}
	return q, q.Con.SetReadBuffer(nfq.DefaultMaxLen * 1024)
}

// callbackMain is go-nfqueue as its README uses it.
func callbackMain([]string) error {
	q, err := openNull()
	if err != nil {
		return err
	}
	err = q.RegisterWithErrorFunc(context.Background(), func(a nfqueue.Attribute) int {
		q.SetVerdict(*a.PacketID, nfqueue.NfAccept)
		return 0
	}, func(error) int { return 0 })
	if err != nil {
		return err
	}
	fmt.Println("listening")
	select {}
}

const (
	nullBatch = 64
	nullSlot  = 512
	// nlmsghdr 16 · nfgenmsg 4 · NFQA_VERDICT_HDR 4+8
	nullVerdict = 32
	// NFQA_PACKET_HDR is the first attribute of a packet message, and the id stands
	// at its front: nlmsghdr 16 · nfgenmsg 4 · nlattr 4.
	idAt = 24
)

// rawMain is the same on the bare socket: one recvmmsg, one send of all verdicts.
func rawMain([]string) error {
	fd, err := bind()
	if err != nil {
		return err
	}
	type mmsghdr struct {
		hdr unix.Msghdr
		n   uint32
		_   [4]byte
	}
	var (
		headers [nullBatch]mmsghdr
		iovecs  [nullBatch]unix.Iovec
		in      = make([]byte, nullBatch*nullSlot)
		out     = make([]byte, nullBatch*nullVerdict)
	)
	for i := range headers {
		iovecs[i].Base = &in[i*nullSlot]
		iovecs[i].SetLen(nullSlot)
		headers[i].hdr.Iov = &iovecs[i]
		headers[i].hdr.SetIovlen(1)
		v := out[i*nullVerdict:]
		binary.NativeEndian.PutUint32(v, nullVerdict)
		binary.NativeEndian.PutUint16(v[4:], unix.NFNL_SUBSYS_QUEUE<<8+1)
		binary.NativeEndian.PutUint16(v[6:], unix.NLM_F_REQUEST)
		binary.BigEndian.PutUint16(v[18:], queueNumber)
		binary.NativeEndian.PutUint16(v[20:], 12)
		binary.NativeEndian.PutUint16(v[22:], 2)
		binary.BigEndian.PutUint32(v[24:], nfqueue.NfAccept)
	}
	fmt.Println("listening")
	runtime.LockOSThread()
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&headers[0])), nullBatch, unix.MSG_WAITFORONE, 0, 0)
		if errno != 0 {
			continue
		}
		k := 0
		for i := range int(n) {
			m := in[i*nullSlot:]
			if binary.NativeEndian.Uint16(m[4:]) != unix.NFNL_SUBSYS_QUEUE<<8 {
				continue // the kernel's answer to a verdict that came too late
			}
			copy(out[k*nullVerdict+28:], m[idAt:idAt+4])
			k++
		}
		if k > 0 {
			unix.Write(fd, out[:k*nullVerdict])
		}
	}
}

// bind opens a socket that owns the queue, with what openNull asks for.
func bind() (fd int, err error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, err
	}
	cfg := nullConfig()
	be32 := func(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
	for _, attrs := range [][]netlink.Attribute{
		{{Type: 1, Data: []byte{1, 0, 0, 0}}},                                 // bind
		{{Type: 2, Data: append(be32(cfg.MaxPacketLen), byte(cfg.Copymode))}}, // copy
		{{Type: 3, Data: be32(cfg.MaxQueueLen)}},                              // length
		{{Type: 5, Data: be32(cfg.Flags)}, {Type: 4, Data: be32(cfg.Flags)}},  // flags and their mask
	} {
		data, err := netlink.MarshalAttributes(attrs)
		if err != nil {
			return 0, err
		}
		if _, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.NFNL_SUBSYS_QUEUE<<8 + 2, Flags: netlink.Request | netlink.Acknowledge},
			Data:   append([]byte{unix.AF_UNSPEC, 0, 0, queueNumber}, data...),
		}); err != nil {
			return 0, err
		}
	}
	if err := c.SetOption(netlink.NoENOBUFS, true); err != nil {
		return 0, err
	}
	if err := c.SetReadBuffer(nfq.DefaultMaxLen * 1024); err != nil {
		return 0, err
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var dup error
	if err := rc.Control(func(f uintptr) { fd, dup = unix.FcntlInt(f, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return 0, err
	}
	if dup != nil {
		return 0, dup
	}
	// Out of Go's poller, as postern's is.
	return fd, unix.SetNonblock(fd, false)
}
