package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// DefaultSocket is where a daemon listens unless told otherwise.
const DefaultSocket = "/run/postern/postern.sock"

// Bounds on what clients may do to the daemon.
const (
	maxConns   = 16      // at once; more wait to be accepted
	maxRequest = 1 << 16 // bytes of a request's body
	// A snapshot of 100,000 pods is some 60 MB; a client that reads slower than
	// this is cut off.
	writeTimeout = 30 * time.Second
	readTimeout  = 5 * time.Second
)

// State is what is in force: the snapshot and the ruleset made of it.
type State struct {
	Snapshot *policy.Snapshot
	Ruleset  *filter.Ruleset
	Node     string
}

// Decision is an engine's answer for one flow. Texts are those of filter.
type Decision struct {
	Generation uint64 `json:"generation"`
	Verdict    string `json:"verdict"`
	Reason     string `json:"reason"`
	Side       string `json:"side"`
}

// Decide asks a ruleset, and words the answer.
func Decide(rs *filter.Ruleset, t flow.Tuple) Decision {
	d := rs.Decide(t)
	return Decision{rs.Generation(), d.Verdict.String(), d.Reason.String(), d.Side.String()}
}

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

// Serve answers until ctx ends, and returns nil then. current gives what is in
// force, or false before anything is; status gives how the daemon is. They are
// called by several goroutines at once. Serve closes the listener, which removes
// the socket.
func Serve(ctx context.Context, l *net.UnixListener, current func() (State, bool), status func() Status) error {
	s := &http.Server{
		Handler:           handler(current, status),
		ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: readTimeout,
		MaxHeaderBytes: 1 << 13,
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	err := s.Serve(&guard{UnixListener: l, slots: make(chan struct{}, maxConns)})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("control socket: %w", err)
}

func handler(current func() (State, bool), status func() Status) http.Handler {
	with := func(f func(State, http.ResponseWriter, *http.Request)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			s, ok := current()
			if !ok {
				http.Error(w, "nothing is in force yet", http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			f(s, w, r)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status())
	})
	mux.HandleFunc("GET /v1/snapshot", with(func(s State, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(nodeHeader, s.Node)
		// An error here is the client's connection; there is no one to tell.
		_ = policy.WriteJSON(w, s.Snapshot)
	}))
	mux.HandleFunc("POST /v1/decide", with(func(s State, w http.ResponseWriter, r *http.Request) {
		var t flow.Tuple
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
		d.DisallowUnknownFields()
		if err := d.Decode(&t); err != nil {
			http.Error(w, "decode the flow: "+err.Error(), http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(Decide(s.Ruleset, t))
	}))
	return mux
}

// nodeHeader carries State.Node beside the snapshot.
const nodeHeader = "Postern-Node"

// guard accepts connections of root and of the daemon's own user and group, and a
// bounded number at once.
type guard struct {
	*net.UnixListener
	slots chan struct{}
}

func (g *guard) Accept() (net.Conn, error) {
	for {
		c, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if !welcome(c) {
			c.Close()
			continue
		}
		g.slots <- struct{}{}
		return &guarded{UnixConn: c, free: func() { <-g.slots }}, nil
	}
}

func welcome(c *net.UnixConn) bool {
	rc, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var peer *unix.Ucred
	if cerr := rc.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil || err != nil {
		return false
	}
	return peer.Uid == 0 || int(peer.Uid) == os.Geteuid() || int(peer.Gid) == os.Getegid()
}

type guarded struct {
	*net.UnixConn
	once sync.Once
	free func()
}

// Close may be called more than once, by several goroutines.
func (c *guarded) Close() error {
	c.once.Do(c.free)
	return c.UnixConn.Close()
}
