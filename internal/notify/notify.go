package notify

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Supervisor is who started the process. Its methods do nothing, without an error,
// where there is none. They may be called by any goroutine.
type Supervisor struct {
	addr     *unix.SockaddrUnix
	watchdog time.Duration
}

// FromEnvironment finds the supervisor, and the descriptors that it stored for us by
// the names they were stored under; the caller owns them. The variables are removed,
// so that child processes do not take them for theirs.
func FromEnvironment() (*Supervisor, map[string]int, error) {
	s := &Supervisor{}
	path := take("NOTIFY_SOCKET")
	if path != "" {
		if path[0] != '/' && path[0] != '@' {
			return nil, nil, fmt.Errorf("NOTIFY_SOCKET %q: want a path, or @ and the name of an abstract socket", path)
		}
		s.addr = &unix.SockaddrUnix{Name: path}
	}
	usec, pid := take("WATCHDOG_USEC"), take("WATCHDOG_PID")
	if usec != "" && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n, err := strconv.ParseUint(usec, 10, 63)
		if err != nil || n == 0 || n > uint64((1<<63-1)/time.Microsecond) {
			return nil, nil, fmt.Errorf("WATCHDOG_USEC %q: want microseconds", usec)
		}
		s.watchdog = time.Duration(n) * time.Microsecond
	}
	stored, err := storedFDs(take("LISTEN_PID"), take("LISTEN_FDS"), take("LISTEN_FDNAMES"))
	return s, stored, err
}

func take(name string) string {
	v := os.Getenv(name)
	os.Unsetenv(name)
	return v
}

// firstFD is SD_LISTEN_FDS_START.
const firstFD = 3

// maxStored bounds the descriptors that a supervisor may hand over.
const maxStored = 1024

func storedFDs(pid, count, names string) (map[string]int, error) {
	stored := map[string]int{}
	if count == "" || pid != strconv.Itoa(os.Getpid()) {
		return stored, nil
	}
	n, err := strconv.ParseUint(count, 10, 16)
	if err != nil || n > maxStored {
		return nil, fmt.Errorf("LISTEN_FDS %q: want a number up to %d", count, maxStored)
	}
	list := strings.Split(names, ":")
	for i := range int(n) {
		fd := firstFD + i
		unix.CloseOnExec(fd)
		name := ""
		if i < len(list) {
			name = list[i]
		}
		if old, twice := stored[name]; twice { // the one stored last is the valid one
			unix.Close(old)
		}
		stored[name] = fd
	}
	return stored, nil
}

// Present tells whether there is one.
func (s *Supervisor) Present() bool { return s.addr != nil }

// Watchdog is how long the supervisor waits for Alive before it takes the process for
// stuck; 0 if it does not.
func (s *Supervisor) Watchdog() time.Duration { return s.watchdog }

// Ready says that the process does what it is there for.
func (s *Supervisor) Ready() error { return s.send("READY=1") }

// Alive feeds the watchdog.
func (s *Supervisor) Alive() error { return s.send("WATCHDOG=1") }

// Stopping says that the process is about to end.
func (s *Supervisor) Stopping() error { return s.send("STOPPING=1") }

// Status is one line for people.
func (s *Supervisor) Status(text string) error {
	return s.send("STATUS=" + strings.ReplaceAll(text, "\n", " "))
}

// Store leaves a copy of a descriptor with the supervisor, under a name of up to 255
// printable characters without a colon. FDPOLL=0 keeps systemd from
// dropping it when the descriptor reports an error, as a netlink socket does that
// overran.
func (s *Supervisor) Store(name string, fd int) error {
	return s.send("FDSTORE=1\nFDNAME="+name+"\nFDPOLL=0", fd)
}

// Forget takes a descriptor out of the store.
func (s *Supervisor) Forget(name string) error {
	return s.send("FDSTOREREMOVE=1\nFDNAME=" + name)
}

// send makes a socket for each message: there are few, and none is left open.
func (s *Supervisor) send(text string, fds ...int) error {
	if s.addr == nil {
		return nil
	}
	err := func() error {
		sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(sock)
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		// One of its own: encoding writes into it, and several goroutines send.
		return unix.Sendmsg(sock, []byte(text), rights, &unix.SockaddrUnix{Name: s.addr.Name}, unix.MSG_NOSIGNAL)
	}()
	if err != nil {
		first, _, _ := strings.Cut(text, "\n")
		return fmt.Errorf("notify supervisor of %s: %w", first, err)
	}
	return nil
}
