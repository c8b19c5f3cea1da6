package nfq

import (
	"context"
	"fmt"
	"runtime"
	"time"

	nfqueue "github.com/florianl/go-nfqueue/v2"
	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flowlog"
	"github.com/postern-project/postern/filter/packet"
)

// Config says what a Queue does. The marks are those that the rules in the kernel
// use.
type Config struct {
	Queue uint16
	// MaxLen is how many packets may wait for a verdict; the kernel drops and
	// counts what is over.
	MaxLen uint32
	// CopyRange is how many bytes of each packet are copied, from its network
	// header on. What does not show its ports within is dropped.
	CopyRange uint32

	MarkMask   uint32 // the bits of a packet mark that are ours
	AcceptMark uint32 // set under MarkMask on an accepted packet
	ReplyMark  uint32 // found under MarkMask on packets against their flow's direction

	// Ring takes a record of every decision; nil for none. The Queue is its only
	// producer.
	Ring *flowlog.Ring
}

// Defaults for Config.
const (
	// DefaultMaxLen is worth half a second at 16,000 new flows a second.
	DefaultMaxLen = 8192
	// DefaultCopyRange holds an IPv6 header, two short extension headers and the
	// transport header; up to 128 bytes the kernel need not linearise the packet.
	DefaultCopyRange = 128
)

const (
	// batch is how many messages one system call takes in and answers.
	batch = 64
	// What the kernel puts around the copied part of a packet comes to less than
	// 300 bytes.
	slotOverhead = 512
	// wakeUp bounds how long the loop sleeps, so that it sees a stop.
	wakeUp = 200 * time.Millisecond
)

// Queue is a bound queue. Packets wait in the kernel from Open on, and Run
// answers them.
type Queue struct {
	cfg    Config
	engine *filter.Engine
	fd     int
	in     *receiver
	out    []byte // verdicts of the batch
	len    int    // bytes of out in use
	stats  Stats
	// granted: the socket's buffer holds a full queue.
	granted bool
	record  flowlog.Record // scratch: on the heap once, not once a packet
}

// Open binds a queue number in the caller's network namespace. Its errors are one
// sentence each for the cases an operator meets: ErrPermission, ErrUnsupported,
// ErrTaken.
func Open(cfg Config, engine *filter.Engine) (*Queue, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	fd, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("queue %d: %w", cfg.Queue, err)
	}
	q, err := newQueue(cfg, engine, fd)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("queue %d: %w", cfg.Queue, err)
	}
	return q, nil
}

func (c Config) check() error {
	if c.MaxLen == 0 || c.CopyRange == 0 {
		return fmt.Errorf("queue %d: length %d and copy range %d must not be 0", c.Queue, c.MaxLen, c.CopyRange)
	}
	return nil
}

// newQueue makes the Queue of a socket that is set up.
func newQueue(cfg Config, engine *filter.Engine, fd int) (*Queue, error) {
	granted, err := bufferGranted(fd, cfg)
	if err != nil {
		return nil, err
	}
	return &Queue{
		cfg: cfg, engine: engine, fd: fd, granted: granted,
		in:  newReceiver(batch, slotOverhead+int(cfg.CopyRange)),
		out: make([]byte, batch*verdictLen),
	}, nil
}

// FD is the socket's descriptor, to hand a copy of it to whoever keeps the queue
// while this process is gone. It belongs to the Queue.
func (q *Queue) FD() int { return q.fd }

// Close closes the socket. With its last descriptor the queue goes, and the kernel
// drops the packets that wait. Run must have returned.
func (q *Queue) Close() error { return unix.Close(q.fd) }

// Stats gives the counters, which may be read while Run is at work.
func (q *Queue) Stats() *Stats { return &q.stats }

// BufferGranted tells whether the socket's receive buffer holds a full queue. If
// not, the kernel drops packets before MaxLen wait, and counts them as UserDropped.
func (q *Queue) BufferGranted() bool { return q.granted }

// Number is the queue's number.
func (q *Queue) Number() uint16 { return q.cfg.Queue }

// Run answers packets until ctx ends, and returns nil then. It returns an error
// if the socket fails for good.
func (q *Queue) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for ctx.Err() == nil {
		n, errno := q.in.receive(q.fd)
		now := time.Now().UnixNano()
		q.stats.Alive.Store(now)
		switch errno {
		case 0:
		case unix.EAGAIN, unix.EINTR, unix.ENOBUFS: // a timeout, a signal, or lost messages
			continue
		default:
			return fmt.Errorf("queue %d: receive: %w", q.cfg.Queue, errno)
		}
		if err := q.answer(n, now); err != nil {
			return fmt.Errorf("queue %d: send verdicts: %w", q.cfg.Queue, err)
		}
	}
	return nil
}

// answer decides the n datagrams of a batch, in the order of their ids, and sends
// the verdicts.
func (q *Queue) answer(n int, now int64) error {
	q.stats.Batches.Add(1)
	rs := q.engine.Ruleset() // one ruleset for the whole batch
	for i := range n {
		for rest := q.in.datagram(i); ; {
			m, next, ok := nextMessage(rest)
			if !ok {
				break
			}
			rest = next
			q.take(m, rs, now)
		}
	}
	return q.flush()
}

func (q *Queue) take(m message, rs *filter.Ruleset, now int64) {
	switch m.typ {
	case msgPacket:
		p, ok := parsePacket(m.body)
		if !ok {
			q.stats.Malformed.Add(1)
			return
		}
		q.decide(&p, rs, now)
	case unix.NLMSG_ERROR:
		// Acknowledgements are not asked for, so this is a verdict the kernel
		// would not take: the packet has gone, with its device or a flush.
		if errno(m.body) != 0 {
			q.stats.Refused.Add(1)
		}
	}
}

func (q *Queue) decide(p *packetMessage, rs *filter.Ruleset, now int64) {
	t, status := packet.Decode(p.payload)
	if status != packet.OK {
		q.stats.Undecodable[status].Add(1)
		q.verdict(p, filter.Drop)
		return
	}
	if p.mark&q.cfg.MarkMask == q.cfg.ReplyMark {
		t = t.Reverse()
	}
	d := filter.Decision{Reason: filter.NotReady}
	if rs != nil {
		d = rs.Decide(t)
	}
	q.verdict(p, d.Verdict)
	q.stats.Decided[d.Verdict][d.Reason].Add(1)
	if q.cfg.Ring != nil {
		q.record = flowlog.Record{UnixNano: now, Tuple: t, Decision: d, Ruleset: rs}
		q.cfg.Ring.Put(&q.record)
	}
}

// verdict appends the answer for one packet.
func (q *Queue) verdict(p *packetMessage, v filter.Verdict) {
	if q.len+verdictLen > len(q.out) {
		// More than one message came in a datagram, which the kernel does not do.
		if q.flush() != nil {
			return // the next flush meets the same error and reports it
		}
	}
	if v == filter.Accept {
		q.len += putVerdict(q.out[q.len:], q.cfg.Queue, p.id, nfqueue.NfRepeat, p.mark&^q.cfg.MarkMask|q.cfg.AcceptMark, true)
		return
	}
	q.len += putVerdict(q.out[q.len:], q.cfg.Queue, p.id, nfqueue.NfDrop, 0, false)
}

// flush sends the verdicts of the batch. The kernel takes them one by one within
// the call, so a call that fails has settled none, and is made again.
func (q *Queue) flush() error {
	for q.len > 0 {
		_, err := unix.Write(q.fd, q.out[:q.len])
		switch err {
		case nil:
			q.len = 0
		case unix.EINTR:
		case unix.ENOMEM, unix.ENOBUFS, unix.EAGAIN:
			q.stats.Retries.Add(1)
			time.Sleep(time.Millisecond)
		default:
			return err
		}
	}
	return nil
}
