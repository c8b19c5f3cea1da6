package nfq

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// LockQueue is a queue number to which no rule sends anything. Who owns it is the postern
// of the network namespace: like any queue it belongs to a socket, only one
// that may configure netfilter can take it, and it goes with the socket's last
// descriptor, so that none is left behind by a process that was killed.
const LockQueue = 65535

// ErrRunning: another postern is at work in the network namespace.
var ErrRunning = errors.New("another postern enforces in this network namespace")

// Lock keeps a second postern away, whatever queues it would use: the two would
// replace each other's rules, and answer by each other's marks.
type Lock struct{ fd int }

// TakeLock takes it in the caller's network namespace. If another has it the error is
// ErrRunning, and names it.
func TakeLock() (*Lock, error) {
	fd, err := open(lockConfig)
	switch {
	case err == nil:
		return &Lock{fd}, nil
	case errors.Is(err, ErrTaken):
		return nil, fmt.Errorf("%w%s; the two would replace each other's rules, so stop that one first", ErrRunning, OwnerText(LockQueue))
	case errors.Is(err, ErrPermission), errors.Is(err, ErrUnsupported):
		return nil, err
	}
	return nil, fmt.Errorf("lock (queue %d): %w", LockQueue, err)
}

// AdoptLock goes on with the lock of a process before, and owns the descriptor then.
func AdoptLock(fd int) (*Lock, error) {
	if err := owns(fd, LockQueue); err != nil {
		return nil, fmt.Errorf("lock (queue %d): %w", LockQueue, err)
	}
	return &Lock{fd}, nil
}

// What somebody else's rule sends there waits for nobody: the kernel drops it from the second
// packet on.
var lockConfig = Config{Queue: LockQueue, MaxLen: 1, CopyRange: 1}

// FD is the socket's descriptor, for whoever keeps it while this process is gone.
func (l *Lock) FD() int { return l.fd }

// Close gives the lock back, unless somebody else has a copy of the descriptor.
func (l *Lock) Close() error { return unix.Close(l.fd) }
