package keeper

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// mailbox is the socket that processes send their messages to. It is abstract: there
// is no file to place, to guard or to leave behind.
type mailbox struct {
	name     string
	fd       int
	messages chan message // closed when the socket is
}

// message is one datagram with who sent it, as the kernel says, and what came with
// it.
type message struct {
	pid   int
	text  string
	files []*os.File
}

func (m message) close() {
	for _, f := range m.files {
		f.Close()
	}
}

func openMailbox() (*mailbox, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("keeper's socket: %w", err)
	}
	// An address of no length makes the kernel choose a free abstract name (unix(7),
	// "Autobind feature").
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1),
		bindAny(fd),
	)
	name, nerr := unix.Getsockname(fd)
	sa, ok := name.(*unix.SockaddrUnix)
	if err = errors.Join(err, nerr); err != nil || !ok || sa.Name == "" {
		unix.Close(fd)
		return nil, fmt.Errorf("keeper's socket: bind: %w", err)
	}
	b := &mailbox{name: sa.Name, fd: fd, messages: make(chan message)}
	go b.receive()
	return b, nil
}

// bindAny is bind(2) with the family alone.
func bindAny(fd int) error {
	family := [2]byte{unix.AF_UNIX, 0}
	if _, _, e := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptrOf(&family), uintptr(len(family))); e != 0 {
		return e
	}
	return nil
}

// close closes the socket; messages that nobody has read are thrown away.
func (b *mailbox) close() {
	_ = unix.Shutdown(b.fd, unix.SHUT_RDWR)
	for m := range b.messages {
		m.close()
	}
	unix.Close(b.fd)
}

// receive hands on messages until the socket is shut down.
func (b *mailbox) receive() {
	defer close(b.messages)
	text, control := make([]byte, 4096), make([]byte, 1024)
	for {
		n, cn, _, _, err := unix.Recvmsg(b.fd, text, control, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		b.messages <- read(text[:n], control[:cn])
	}
}

func read(text, control []byte) (m message) {
	m.text = string(text)
	list, err := syscall.ParseSocketControlMessage(control)
	if err != nil {
		return m
	}
	for _, c := range list {
		if fds, err := syscall.ParseUnixRights(&c); err == nil {
			for _, fd := range fds {
				m.files = append(m.files, os.NewFile(uintptr(fd), "stored"))
			}
		}
		if cred, err := syscall.ParseUnixCredentials(&c); err == nil {
			m.pid = int(cred.Pid)
		}
	}
	return m
}
