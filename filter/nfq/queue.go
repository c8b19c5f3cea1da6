package nfq

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	nfqueue "github.com/florianl/go-nfqueue/v2"
	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flowlog"
	"github.com/postern-project/postern/filter/packet"
)

// Config says what a Queue does.
type Config struct {
	Queue uint16
	// MaxLen is how many packets may wait for a verdict; the kernel drops and
	// counts what is over.
	MaxLen uint32
	// CopyRange is how many bytes of each packet are copied, from its network
	// header on. What does not show its ports within is dropped.
	CopyRange uint32

	// Marks are those of the rules in the kernel.
	Marks Marks
	// Holds says which packets wait for their pod; the zero value lets none wait.
	Holds Holds

	// FailOpen lets the kernel accept packets that it has no room for in the queue or the
	// socket, and AcceptUndecodable those that cannot be decoded. Neither teaches the
	// kernel anything about their flows.
	FailOpen, AcceptUndecodable bool

	// Ring takes a record of every decision; nil for none. The Queue is its only
	// producer.
	Ring *flowlog.Ring
}

// Marks are values under Mask of the packet mark. Package nft says what they mean.
type Marks struct {
	Mask uint32
	// On packets from the kernel.
	Reply, Taken, Doubt uint32
	// On answers to it, together with the epoch shifted left by EpochShift.
	Pass, Learn, Deny uint32
	EpochShift        int
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
	// turn is how often at most the loop lets Go's scheduler have its turn; see receive.
	turn = 5 * time.Millisecond
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
	cache  filter.Cache // of decisions, under the ruleset of the batch
	// granted: the socket's buffer holds a full queue.
	granted  bool
	record   flowlog.Record // scratch: on the heap once, not once a packet
	override atomic.Int32
	// working is the epoch of the decisions under way, plus 1; 0 between batches.
	working atomic.Uint32

	held   []waiting       // in the order in which they came; as long as Holds.Max at most
	looked *filter.InForce // by which they were last looked at
	wake   int             // eventfd

	patience patience
	done     time.Time // when the last batch was answered
	turned   time.Time // when the scheduler had its last turn
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
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open eventfd: %w", err)
	}
	return &Queue{
		cfg: cfg, engine: engine, fd: fd, granted: granted, wake: wake,
		held: make([]waiting, 0, cfg.Holds.Max),
		in:   newReceiver(batch, slotOverhead+int(cfg.CopyRange)),
		out:  make([]byte, batch*verdictLen),
	}, nil
}

// FD is the socket's descriptor, to hand a copy of it to whoever keeps the queue
// while this process is gone. It belongs to the Queue.
func (q *Queue) FD() int { return q.fd }

// Close closes the socket. With its last descriptor the queue goes, and the kernel
// drops the packets that wait. Run must have returned.
func (q *Queue) Close() error { return errors.Join(unix.Close(q.wake), unix.Close(q.fd)) }

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
		flags := unix.MSG_WAITFORONE
		if len(q.held) > 0 {
			if err := q.await(); err != nil {
				return fmt.Errorf("queue %d: %w", q.cfg.Queue, err)
			}
			flags |= unix.MSG_DONTWAIT
		}
		n, errno := q.receive(flags)
		start := time.Now()
		now := start.UnixNano()
		q.patience.waited(start.Sub(q.done))
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
		took := time.Since(start)
		q.done = start.Add(took)
		q.stats.Answered.Add(n, took)
	}
	return nil
}

// receive takes in a batch. Where packets come one close behind the other it looks for the
// next some times before it sleeps: to wake a thread costs who sends the packet more than all rules, so
// much that a sender and a loop that take turns to sleep settle at a fraction of what either can do.
// In between it yields, so that nobody waits who could run.
//
// Go's monitor thread (sysmon, retake) takes the processor away from a goroutine that has not met the
// scheduler for 10 ms, system calls or not, and then looks every 20 us at what it does, which cost a
// tenth of the time of a busy loop. A goroutine that calls Gosched more often is left alone.
func (q *Queue) receive(flags int) (n int, errno unix.Errno) {
	if flags&unix.MSG_DONTWAIT != 0 {
		return q.in.receive(q.fd, flags)
	}
	for first := true; q.patience > 0; first = false {
		if n, errno = q.in.receive(q.fd, flags|unix.MSG_DONTWAIT); errno != unix.EAGAIN {
			if !first {
				q.patience.found()
			}
			return n, errno
		}
		q.patience.missed()
		_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
	if q.done.Sub(q.turned) > turn {
		q.turned = q.done
		runtime.Gosched()
	}
	return q.in.receive(q.fd, flags)
}

// answer decides the n datagrams of a batch, in the order of their ids, and sends
// the verdicts.
func (q *Queue) answer(n int, now int64) error {
	q.stats.Batches.Add(1)
	f := q.begin() // one ruleset for the whole batch
	for i := range n {
		for rest := q.in.datagram(i); ; {
			m, next, ok := nextMessage(rest)
			if !ok {
				break
			}
			rest = next
			q.take(m, f, now)
		}
	}
	return q.end()
}

// begin takes the ruleset for a batch, and says so where Answering looks.
func (q *Queue) begin() *filter.InForce {
	for {
		f := q.engine.InForce()
		if f == nil {
			return nil
		}
		q.working.Store(f.Epoch + 1)
		if q.engine.InForce() == f { // nobody looked before it was said
			return f
		}
	}
}

func (q *Queue) end() error {
	err := q.flush()
	q.working.Store(0)
	return err
}

// Answering tells in which epoch decisions are under way that the kernel has not got
// yet; ok is false if there are none. Any goroutine may ask.
func (q *Queue) Answering() (epoch uint32, ok bool) {
	n := q.working.Load()
	return n - 1, n != 0
}

func (q *Queue) take(m message, f *filter.InForce, now int64) {
	switch m.typ {
	case msgPacket:
		p, ok := parsePacket(m.body)
		if !ok {
			q.stats.Malformed.Add(1)
			return
		}
		q.decide(&p, f, now)
	case unix.NLMSG_ERROR:
		// Acknowledgements are not asked for, so this is a verdict the kernel
		// would not take: the packet has gone, with its device or a flush.
		if errno(m.body) != 0 {
			q.stats.Refused.Add(1)
		}
	}
}

func (q *Queue) decide(p *packetMessage, f *filter.InForce, now int64) {
	t, status := packet.Decode(p.payload)
	if status != packet.OK {
		q.stats.Undecodable[status].Add(1)
		if q.cfg.AcceptUndecodable {
			q.pass(p.id, p.mark)
		} else {
			q.drop(p.id)
		}
		return
	}
	w := waiting{id: p.id, mark: p.mark, tuple: t}
	w.orient(&q.cfg.Marks)
	if q.hold(&w, f, now) {
		return
	}
	q.settle(&w, f, now)
}

// settle decides a packet and appends its answer.
func (q *Queue) settle(w *waiting, f *filter.InForce, now int64) {
	d := filter.Decision{Reason: filter.NotReady}
	if f == nil {
		q.refuse(w, d.Reason)
		q.count(w, &d, nil, now)
		return
	}
	switch Override(q.override.Load()) {
	case DenyAll:
		d.Reason = filter.Stale
		q.refuse(w, d.Reason)
		q.count(w, &d, f, now)
		return
	case AllowAll:
		d = filter.Decision{Verdict: filter.Accept, Reason: filter.Stale}
		q.pass(w.id, w.mark)
		q.count(w, &d, f, now)
		return
	}
	q.cache.DecideInto(f.Ruleset, &w.tuple, &d)
	if w.doubtful && d.Verdict == filter.Accept {
		// The direction is conntrack's guess: both must be allowed.
		if back := f.Decide(w.tuple.Reverse()); back.Verdict == filter.Drop {
			d = back
		}
	}
	q.answerWith(w, &d, f.Epoch)
	q.count(w, &d, f, now)
}

// answerWith appends the answer for a decision. The kernel learns from it if it is the
// same for every flow like this one, and if it is certain how the flow began.
func (q *Queue) answerWith(w *waiting, d *filter.Decision, epoch uint32) {
	m := &q.cfg.Marks
	repeats := !w.taken && !w.doubtful && d.Repeats()
	mark := m.Pass
	switch {
	case d.Verdict == filter.Accept && repeats && w.tuple.Ported:
		mark = m.Learn
	case d.Verdict == filter.Accept:
	case repeats:
		mark = m.Deny
	default:
		q.refuse(w, d.Reason)
		return
	}
	q.repeat(w.id, w.mark&^m.Mask|mark|epoch<<m.EpochShift)
}

func (q *Queue) count(w *waiting, d *filter.Decision, f *filter.InForce, now int64) {
	q.stats.Decided[d.Verdict][d.Reason].Add(1)
	if q.cfg.Ring != nil {
		q.record = flowlog.Record{UnixNano: now, Tuple: w.tuple, Decision: *d}
		if f != nil {
			q.record.Ruleset, q.record.Epoch = f.Ruleset, f.Epoch
		}
		q.cfg.Ring.Put(&q.record)
	}
}

// repeat appends the answer that sends a packet through the rules once more.
func (q *Queue) repeat(id, mark uint32) {
	if q.room() {
		q.len += putVerdict(q.out[q.len:], q.cfg.Queue, id, nfqueue.NfRepeat, mark, true)
	}
}

// refuse appends the answer that drops a decided packet at once.
func (q *Queue) refuse(w *waiting, why filter.Reason) {
	q.stats.Dropped[why].Add(1)
	q.drop(w.id)
}

// pass appends the answer that lets one packet go on and says nothing of its flow.
func (q *Queue) pass(id, mark uint32) {
	if q.room() {
		q.len += putVerdict(q.out[q.len:], q.cfg.Queue, id, nfqueue.NfAccept, mark&^q.cfg.Marks.Mask, true)
	}
}

func (q *Queue) drop(id uint32) {
	if q.room() {
		q.len += putVerdict(q.out[q.len:], q.cfg.Queue, id, nfqueue.NfDrop, 0, false)
	}
}

// room makes room for one more answer. It is false if the answers so far cannot be
// sent; the next flush meets the same error and reports it.
func (q *Queue) room() bool { return q.len+verdictLen <= len(q.out) || q.flush() == nil }

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
