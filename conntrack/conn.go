package conntrack

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Conn reads and changes one network namespace's table. It is for one goroutine at
// a time.
type Conn struct {
	// A dump is read while changes are written, so they have a socket each.
	walk, change   *netlink.Conn
	marks, deletes []netlink.Message // that wait to be sent
	restOfWalk     bool              // a walk failed, and what it left may be in the socket
}

// batch is how many changes go out at once. If all of them fail, as many messages wait
// in the socket's buffer, at a kilobyte each.
const batch = 256

// bufferLen is the receive buffer in bytes that is asked for, above the host's limit
// for others (SO_RCVBUFFORCE).
const bufferLen = 2 << 20

// Dial opens a connection in the caller's network namespace.
func Dial() (*Conn, error) {
	walk, err := dial(bufferLen)
	if err != nil {
		return nil, err
	}
	change, err := dial(bufferLen)
	if err != nil {
		walk.Close()
		return nil, err
	}
	return &Conn{walk: walk, change: change}, nil
}

func dial(buffer int) (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open conntrack: %w", err)
	}
	if err := c.SetReadBuffer(buffer); err != nil {
		c.Close()
		return nil, fmt.Errorf("open conntrack: receive buffer: %w", err)
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return errors.Join(c.walk.Close(), c.change.Close()) }

// Filter says which entries a walk is about. The zero value means all of them.
type Filter struct {
	// Entries with mark & Mask == Mark.
	Mark, Mask uint32
	// Entries with status & StatusMask == Status.
	Status, StatusMask Status
	// Entries of Zone, if InZone.
	Zone   uint16
	InZone bool
}

// Matches tells whether an entry is meant.
func (f Filter) Matches(e *Entry) bool {
	return e.Mark&f.Mask == f.Mark && e.Status&f.StatusMask == f.Status && (!f.InZone || e.Zone == f.Zone)
}

// Action is what becomes of an entry. The zero value keeps it as it is.
type Action struct {
	remove     bool
	mark, mask uint32
}

// Keep leaves an entry alone.
func Keep() Action { return Action{} }

// Delete removes the entry. A flow that goes on begins anew for the kernel; TCP too,
// in the middle, unless net.netfilter.nf_conntrack_tcp_loose is 0.
func Delete() Action { return Action{remove: true} }

// SetMark changes the bits of the mark under mask to those of mark, which must have
// no others, and leaves the rest as it is at that moment.
func SetMark(mark, mask uint32) Action { return Action{mark: mark & mask, mask: mask} }

// Report counts what a sweep met.
type Report struct {
	Seen    int // entries that matched the filter
	Marked  int
	Deleted int
	Gone    int // ended before their action reached them
}

// Sweep shows every entry that matches f to judge, which says what becomes of it. The
// entry is judge's only until it returns. Actions are carried out
// while the walk goes on, and all have been when Sweep returns. An action that fails
// does not end the walk; the error names the first.
func (c *Conn) Sweep(f Filter, judge func(*Entry) Action) (r Report, err error) {
	if f.Mark&^f.Mask != 0 || f.Status&^f.StatusMask != 0 {
		return r, fmt.Errorf("conntrack: filter %+v wants bits outside its mask", f)
	}
	if err := c.discard(); err != nil {
		return r, fmt.Errorf("list conntrack entries: %w", err)
	}
	if _, err := c.walk.Send(f.request()); err != nil {
		return r, fmt.Errorf("list conntrack entries: %w", err)
	}
	var failed failures
	for m, err := range c.walk.ReceiveIter() {
		if err != nil {
			c.settle(&c.marks, &r.Marked, &r.Gone, &failed)
			c.settle(&c.deletes, &r.Deleted, &r.Gone, &failed)
			c.restOfWalk = true
			return r, errors.Join(fmt.Errorf("list conntrack entries: %w", err), failed.err())
		}
		if mark, _ := peek(m.Data); mark&f.Mask != f.Mark {
			continue
		}
		e, _, err := decode(m)
		if err != nil {
			failed.add(err)
			continue
		}
		if !f.Matches(&e) {
			continue
		}
		r.Seen++
		a := judge(&e)
		if a == Keep() {
			continue
		}
		list, done := &c.marks, &r.Marked
		if a.remove {
			list, done = &c.deletes, &r.Deleted
		}
		if *list = append(*list, a.change(&e)); len(*list) == batch {
			c.settle(list, done, &r.Gone, &failed)
		}
	}
	c.settle(&c.marks, &r.Marked, &r.Gone, &failed)
	c.settle(&c.deletes, &r.Deleted, &r.Gone, &failed)
	return r, failed.err()
}

// discard takes what a walk that failed has left out of the socket. The next walk would
// end where that one does, and be refused besides: the kernel has one at a time.
func (c *Conn) discard() error {
	const silence = 50 * time.Millisecond // the kernel sends more whenever somebody reads
	if !c.restOfWalk {
		return nil
	}
	for c.restOfWalk {
		if err := c.walk.SetReadDeadline(time.Now().Add(silence)); err != nil {
			return err
		}
		n := 0
		for _, err := range c.walk.ReceiveIter() {
			if err == nil {
				n++
			}
			c.restOfWalk = n > 0 || !errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
	return c.walk.SetReadDeadline(time.Time{})
}

// failures keeps the first error of many.
type failures struct {
	first error
	more  int
}

func (f *failures) add(err error) {
	if f.first == nil {
		f.first = err
	} else {
		f.more++
	}
}

func (f *failures) err() error {
	if f.more == 0 {
		return f.first
	}
	return fmt.Errorf("%w (and %d more)", f.first, f.more)
}

// settle sends changes of one kind and reads what became of them. Only what fails is
// answered, and a message behind the last that does nothing and asks for an answer:
// to receive one costs more than to make the change.
func (c *Conn) settle(list *[]netlink.Message, done, gone *int, failed *failures) {
	n := len(*list)
	if n == 0 {
		return
	}
	sent, err := c.change.SendMessages(append(*list, netlink.Message{Header: netlink.Header{Type: netlink.Noop, Flags: netlink.Request | netlink.Acknowledge}}))
	*list = sent[:0]
	if err != nil {
		failed.add(fmt.Errorf("change %d conntrack entries: %w", n, err))
		return
	}
	*done += n
	for range n + 1 {
		_, err := c.change.Receive()
		if err == nil {
			return
		}
		*done--
		switch {
		case errors.Is(err, unix.ENOENT):
			*gone++
		default:
			failed.add(fmt.Errorf("change conntrack entry: %w", err))
		}
	}
}

// Entries collects what matches f. A full table is some hundred megabytes; Sweep
// needs none.
func (c *Conn) Entries(f Filter) (es []Entry, err error) {
	_, err = c.Sweep(f, func(e *Entry) Action {
		es = append(es, *e)
		return Keep()
	})
	return es, err
}
