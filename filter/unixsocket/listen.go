package unixsocket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Listen makes the socket, for its owner and group only. A socket that a daemon
// which is gone left behind is replaced; one that is in use is an error.
func Listen(path string) (*net.UnixListener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("listen on %s: another daemon answers there", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen: remove the old socket: %w", err)
	}
	// Nobody may connect before the mode is right. The mask is the process's, so
	// this is for its start, when nothing else makes files.
	old := unix.Umask(0o117)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// Guard accepts connections of root, of this process's own user and group, and of
// one group more, and a bounded number at once.
type Guard struct {
	*net.UnixListener
	group      int // besides the own; negative for none
	perProcess int
	slots      chan struct{}

	mu    sync.Mutex
	peers map[int32]int // connections by process
}

// NewGuard guards a listener. No more than max connections are open at once; the
// next wait. No more than perProcess of one process are; what is over is closed.
// 0 does not bound processes. group is a group besides the own whose processes may
// connect, or negative.
func NewGuard(l *net.UnixListener, max, perProcess, group int) *Guard {
	return &Guard{UnixListener: l, group: group, perProcess: perProcess, slots: make(chan struct{}, max), peers: make(map[int32]int)}
}

// Accept implements net.Listener.
func (g *Guard) Accept() (net.Conn, error) {
	for {
		c, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		peer, err := credentials(c)
		if err != nil || !g.welcome(peer) || !g.enter(peer.Pid) {
			c.Close()
			continue
		}
		g.slots <- struct{}{}
		return &conn{UnixConn: c, free: func() { <-g.slots; g.leave(peer.Pid) }}, nil
	}
}

func credentials(c *net.UnixConn) (peer *unix.Ucred, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := rc.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return peer, errors.Join(cerr, err)
}

// welcome tells whether such a process may connect.
func (g *Guard) welcome(peer *unix.Ucred) bool {
	return peer.Uid == 0 || int(peer.Uid) == os.Geteuid() || int(peer.Gid) == os.Getegid() || g.group >= 0 && int(peer.Gid) == g.group
}

func (g *Guard) enter(pid int32) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.perProcess > 0 && g.peers[pid] >= g.perProcess {
		return false
	}
	g.peers[pid]++
	return true
}

func (g *Guard) leave(pid int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.peers[pid]--; g.peers[pid] == 0 {
		delete(g.peers, pid)
	}
}

type conn struct {
	*net.UnixConn
	once sync.Once
	free func()
}

// Close may be called more than once, by several goroutines.
func (c *conn) Close() error {
	c.once.Do(c.free)
	return c.UnixConn.Close()
}
