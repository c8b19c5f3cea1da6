package nfq

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"unsafe"

	nfqueue "github.com/florianl/go-nfqueue/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Configuration attributes (uapi nfnetlink_queue.h, enum nfqnl_attr_config) and
// the one command used.
const (
	cfgCommand = 1 // struct nfqnl_msg_config_cmd: u8 command, pad, be16 family
	cfgParams  = 2 // struct nfqnl_msg_config_params: be32 copy range, u8 mode
	cfgMaxLen  = 3 // be32
	cfgMask    = 4 // be32
	cfgFlags   = 5 // be32

	commandBind = 1
)

// Errors of Open that callers tell apart.
var (
	// ErrPermission: the process may not configure netfilter here.
	ErrPermission = errors.New("no permission to use netfilter queues: run as root, or give the process CAP_NET_ADMIN in this network namespace")
	// ErrUnsupported: the kernel has no nfnetlink_queue.
	ErrUnsupported = errors.New("the kernel has no netfilter queues: load the module nfnetlink_queue (CONFIG_NETFILTER_NETLINK_QUEUE)")
	// ErrTaken: another socket owns the queue number.
	ErrTaken = errors.New("another program owns it")
)

// open makes the socket, takes the queue number, configures it and returns its
// descriptor, which the caller owns. Whatever fails, no queue is left behind.
func open(cfg Config) (fd int, err error) {
	q, err := nfqueue.Open(&nfqueue.Config{NfQueue: cfg.Queue})
	if err != nil {
		return -1, fmt.Errorf("open netlink: %w", explain(err, cfg.Queue))
	}
	// The socket outlives the library's handle, and so does the queue: see detach.
	defer q.Close()
	if err := configure(q.Con, cfg); err != nil {
		return -1, err
	}
	return detach(q.Con)
}

// detach gives the socket a second descriptor. Closing the first one, which is
// Go's, takes the socket out of Go's poller; there every packet would wake a
// thread besides the one that waits for it.
func detach(c *netlink.Conn) (fd int, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := rc.Control(func(f uintptr) {
		fd, err = unix.FcntlInt(f, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(cerr, err); err != nil {
		return -1, fmt.Errorf("duplicate socket: %w", err)
	}
	if err := wait(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// wait makes receive wait in the kernel, for at most wakeUp: one system call a
// batch.
func wait(fd int) error {
	tv := unix.NsecToTimeval(int64(wakeUp))
	if err := errors.Join(unix.SetNonblock(fd, false), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)); err != nil {
		return fmt.Errorf("set socket to wait: %w", err)
	}
	return nil
}

// setting is one step of configuring a queue.
type setting struct {
	name  string
	attrs []netlink.Attribute
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// settings are the steps after the bind, which can be repeated.
func settings(cfg Config) []setting {
	flags := uint32(nfqueue.NfQaCfgFlagGSO)
	if cfg.FailOpen {
		flags |= nfqueue.NfQaCfgFlagFailOpen
	}
	return []setting{
		{"set copy range", []netlink.Attribute{{Type: cfgParams, Data: append(be32(cfg.CopyRange), nfqueue.NfQnlCopyPacket)}}},
		{"set length", []netlink.Attribute{{Type: cfgMaxLen, Data: be32(cfg.MaxLen)}}},
		// Without GSO the kernel cuts large packets up before it queues them, and
		// segments of a flow that conntrack has not confirmed are dropped.
		{"set flags", []netlink.Attribute{
			{Type: cfgFlags, Data: be32(flags)},
			{Type: cfgMask, Data: be32(nfqueue.NfQaCfgFlagGSO | nfqueue.NfQaCfgFlagFailOpen)},
		}},
	}
}

func configure(c *netlink.Conn, cfg Config) error {
	bind := setting{"bind", []netlink.Attribute{{Type: cfgCommand, Data: []byte{commandBind, 0, 0, 0}}}}
	for _, step := range append([]setting{bind}, settings(cfg)...) {
		if err := request(c, cfg.Queue, step.attrs); err != nil {
			return fmt.Errorf("%s: %w", step.name, explain(err, cfg.Queue))
		}
	}
	// A full socket must not end the loop: the kernel counts what it could not
	// deliver (user_dropped), and recv goes on.
	if err := c.SetOption(netlink.NoENOBUFS, true); err != nil {
		return fmt.Errorf("set NETLINK_NO_ENOBUFS: %w", err)
	}
	// Tries SO_RCVBUFFORCE first, which net.core.rmem_max does not limit.
	if err := c.SetReadBuffer(receiveBuffer(cfg)); err != nil {
		return fmt.Errorf("set receive buffer: %w", err)
	}
	return nil
}

// bytesPerPacket is what one waiting packet message is charged to the receive
// buffer: 832 B of truesize for small packets (measured on Linux 6.18).
const bytesPerPacket = 1024

// receiveBuffer is how many bytes must fit into the socket for the queue, and not
// the socket, to be what fills up first. What is copied beyond the default takes as
// much again. The kernel doubles the value and takes no more than half an int.
func receiveBuffer(cfg Config) int {
	each := bytesPerPacket + int(max(cfg.CopyRange, DefaultCopyRange)) - DefaultCopyRange
	return min(int(cfg.MaxLen)*each, math.MaxInt32/2)
}

// bufferGranted tells whether a socket has the receive buffer that was asked for.
// Without CAP_NET_ADMIN in the first user namespace net.core.rmem_max limits it.
func bufferGranted(fd int, cfg Config) (bool, error) {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return false, fmt.Errorf("read receive buffer: %w", err)
	}
	return n/2 >= receiveBuffer(cfg), nil
}

func request(c *netlink.Conn, queue uint16, attrs []netlink.Attribute) error {
	data, err := configBody(queue, attrs)
	if err != nil {
		return err
	}
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: msgConfig, Flags: netlink.Request | netlink.Acknowledge},
		Data:   data,
	})
	return err
}

func configBody(queue uint16, attrs []netlink.Attribute) ([]byte, error) {
	data, err := netlink.MarshalAttributes(attrs)
	return append([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, byte(queue >> 8), byte(queue)}, data...), err
}

// configMessage is a request that the kernel answers only if it refuses it.
func configMessage(queue uint16, attrs []netlink.Attribute) ([]byte, error) {
	data, err := configBody(queue, attrs)
	if err != nil {
		return nil, err
	}
	return netlink.Message{
		Header: netlink.Header{Length: uint32(headerLen + len(data)), Type: msgConfig, Flags: netlink.Request},
		Data:   data,
	}.MarshalBinary()
}

// explain turns the kernel's answer into the sentence an operator needs. The
// kernel says EPERM both to the unprivileged and where another socket owns the
// queue, EBUSY where two ask at once, and EINVAL where it knows no such subsystem.
func explain(err error, queue uint16) error {
	switch {
	case errors.Is(err, unix.EPERM) && owner(queue) == 0:
		return fmt.Errorf("%w (%v)", ErrPermission, unix.EPERM)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w%s; choose another number or stop it", ErrTaken, OwnerText(queue))
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("%w (%v)", ErrUnsupported, err)
	default:
		return err
	}
}

// procQueues lists the queues of this network namespace, one a line: number,
// port id of the owner, packets waiting, copy mode, copy range, dropped because
// the queue was full, dropped because the socket was, last packet id.
const procQueues = "/proc/thread-self/net/netfilter/nfnetlink_queue"

// KernelStats is what the kernel says of one queue.
type KernelStats struct {
	PortID  uint32
	Waiting uint32
	// QueueDropped: the queue was full. UserDropped: the socket was.
	QueueDropped, UserDropped uint32
	// LastID counts the packets that were ever queued since the queue was bound.
	LastID uint32
}

// ReadKernelStats reads the kernel's line for a queue of this network namespace.
// ok is false if nobody has bound it.
func ReadKernelStats(queue uint16) (s KernelStats, ok bool, err error) {
	f, err := os.Open(procQueues)
	if err != nil {
		return s, false, fmt.Errorf("queue %d: %w", queue, err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) < 8 || fields[0] != strconv.Itoa(int(queue)) {
			continue
		}
		for i, to := range map[int]*uint32{1: &s.PortID, 2: &s.Waiting, 5: &s.QueueDropped, 6: &s.UserDropped, 7: &s.LastID} {
			n, err := strconv.ParseUint(fields[i], 10, 32)
			if err != nil {
				return s, false, fmt.Errorf("queue %d: %s: field %d: %w", queue, procQueues, i, err)
			}
			*to = uint32(n)
		}
		return s, true, nil
	}
	return s, false, nil
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// receiver holds what recvmmsg writes to.
type receiver struct {
	headers []mmsghdr
	iovecs  []unix.Iovec
	buffer  []byte
	slot    int
}

func newReceiver(batch, slot int) *receiver {
	r := &receiver{make([]mmsghdr, batch), make([]unix.Iovec, batch), make([]byte, batch*slot), slot}
	for i := range r.headers {
		r.iovecs[i].Base = &r.buffer[i*slot]
		r.iovecs[i].SetLen(slot)
		r.headers[i].hdr.Iov = &r.iovecs[i]
		r.headers[i].hdr.SetIovlen(1)
	}
	return r
}

// receive takes datagrams, up to the batch; with MSG_WAITFORONE it waits for the first.
func (r *receiver) receive(fd, flags int) (n int, err unix.Errno) {
	got, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.headers[0])), uintptr(len(r.headers)), uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), 0
}

// datagram is the i-th one received, cut to its slot. It is valid until the next
// receive.
func (r *receiver) datagram(i int) []byte {
	n := min(int(r.headers[i].n), r.slot)
	return r.buffer[i*r.slot : i*r.slot+n]
}
