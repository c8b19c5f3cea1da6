package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"

	nfqueue "github.com/florianl/go-nfqueue/v2"
	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter"
)

// A queue belongs to its socket and not to a process. Whoever else holds the socket
// keeps the queue: its packets wait while the process that answered them is gone,
// and the next one goes on where it ended. Adopt is that next one.

// Adopt takes over a queue from a descriptor of the socket that owns it, which
// another process has left, and owns the descriptor from then on. Packets that the
// other process had taken and not answered are put back: they meet the rules, and
// this Queue, again. What fails leaves the descriptor open, for the caller to close.
func Adopt(cfg Config, engine *filter.Engine, fd int) (*Queue, error) {
	q, err := adopt(cfg, engine, fd)
	if err != nil {
		return nil, fmt.Errorf("queue %d: adopt: %w", cfg.Queue, err)
	}
	return q, nil
}

func adopt(cfg Config, engine *filter.Engine, fd int) (*Queue, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if err := owns(fd, cfg.Queue); err != nil {
		return nil, err
	}
	if err := wait(fd); err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1); err != nil {
		return nil, fmt.Errorf("set NETLINK_NO_ENOBUFS: %w", err)
	}
	// It has the buffer that the process before was granted. If this one wants more and
	// does not get it, BufferGranted tells.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer(cfg))
	q, err := newQueue(cfg, engine, fd)
	if err != nil {
		return nil, err
	}
	if err := q.takeOver(); err != nil {
		unix.Close(q.wake)
		return nil, err
	}
	return q, nil
}

// takeOver puts back what was taken and not answered, and sets the queue up anew.
func (q *Queue) takeOver() error {
	fd, cfg := q.fd, q.cfg
	last, err := q.taken()
	if err != nil {
		return err
	}
	// Acknowledgements are not asked for: they would come among the packets that
	// wait in the socket. What the kernel refuses comes as an error message, and
	// the loop counts it.
	if err := send(fd, putBack(cfg.Queue, last)); err != nil {
		return fmt.Errorf("put packets back: %w", err)
	}
	for _, s := range settings(cfg) {
		m, err := configMessage(cfg.Queue, s.attrs)
		if err != nil {
			return err
		}
		if err := send(fd, m); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// ErrNotOwner: a descriptor is not that of the socket that owns the queue.
var ErrNotOwner = errors.New("the socket does not own it")

// owns checks that a descriptor is the netfilter socket that owns a queue.
func owns(fd int, queue uint16) error {
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return fmt.Errorf("descriptor %d: %w", fd, err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fmt.Errorf("descriptor %d: %w", fd, err)
	}
	sa, ok := name.(*unix.SockaddrNetlink)
	if !ok || proto != unix.NETLINK_NETFILTER {
		return fmt.Errorf("descriptor %d is no netfilter socket: %w", fd, ErrNotOwner)
	}
	k, bound, err := ReadKernelStats(queue)
	if err != nil {
		return err
	}
	if !bound || k.PortID != sa.Pid {
		return fmt.Errorf("netlink port id %d, and the queue's is %d: %w", sa.Pid, k.PortID, ErrNotOwner)
	}
	return nil
}

// taken gives the highest id that the process before may have taken out of the
// socket: that before the first one still in it, or if it is empty the last one the
// queue gave.
func (q *Queue) taken() (id uint32, err error) {
	n, _, err := unix.Recvfrom(q.fd, q.in.buffer[:q.in.slot], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	switch {
	case err == unix.EAGAIN:
		// A packet that comes in this moment may be put back too, and then its message
		// is about a packet that is gone: the kernel refuses the answer.
		k, _, err := ReadKernelStats(q.cfg.Queue)
		return k.LastID, err
	case err != nil:
		return 0, fmt.Errorf("look into socket: %w", err)
	}
	m, _, ok := nextMessage(q.in.buffer[:n])
	if !ok || m.typ != msgPacket {
		// An error message. All are put back, and those with a message in the socket
		// get another.
		k, _, err := ReadKernelStats(q.cfg.Queue)
		return k.LastID, err
	}
	p, _ := parsePacket(m.body)
	return p.id - 1, nil
}

// msgVerdictBatch is one verdict for all packets up to an id (enum
// nfqnl_msg_types: packet, verdict, config, verdict batch).
const msgVerdictBatch = msgConfig + 1

// putBack is the message that sends all packets up to an id through the rules
// again.
func putBack(queue uint16, id uint32) []byte {
	m := make([]byte, verdictLen)
	m = m[:putVerdict(m, queue, id, nfqueue.NfRepeat, 0, false)]
	binary.NativeEndian.PutUint16(m[4:], msgVerdictBatch)
	return m
}

func send(fd int, m []byte) error {
	for {
		if _, err := unix.Write(fd, m); err != unix.EINTR {
			return err
		}
	}
}
