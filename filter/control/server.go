package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/observe"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/unixsocket"
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

// Daemon is what is asked. Its functions are called by several goroutines at once.
type Daemon struct {
	// Current gives what is in force, or false before anything is.
	Current func() (State, bool)
	// Status gives how the daemon is.
	Status func() Status
	// Feed has the decisions that are taken.
	Feed *observe.Feed
	// Flows lists flows that live.
	Flows Lister
}

// Listen makes the socket: see unixsocket.Listen.
func Listen(path string) (*net.UnixListener, error) { return unixsocket.Listen(path) }

// Serve answers until ctx ends, and returns nil then. It closes the listener, which
// removes the socket.
func Serve(ctx context.Context, l *net.UnixListener, d Daemon) error {
	s := &http.Server{
		Handler:           handler(&d),
		ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: readTimeout,
		MaxHeaderBytes: 1 << 13,
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	err := s.Serve(unixsocket.NewGuard(l, maxConns, 0, -1))
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("control socket: %w", err)
}

func handler(d *Daemon) http.Handler {
	with := func(f func(State, http.ResponseWriter, *http.Request)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			s, ok := d.Current()
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
		_ = json.NewEncoder(w).Encode(d.Status())
	})
	mux.HandleFunc("GET /v1/flows", listFlows(d.Flows))
	mux.HandleFunc("GET /v1/snapshot", with(func(s State, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(nodeHeader, s.Node)
		// An error here is the client's connection; there is no one to tell.
		_ = policy.WriteJSON(w, s.Snapshot)
	}))
	mux.HandleFunc("POST /v1/decide", with(func(s State, w http.ResponseWriter, r *http.Request) {
		var t flow.Tuple
		body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
		body.DisallowUnknownFields()
		if err := body.Decode(&t); err != nil {
			http.Error(w, "decode the flow: "+err.Error(), http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(Decide(s.Ruleset, t))
	}))
	mux.HandleFunc("GET /v1/observe", d.observe)
	return mux
}

// nodeHeader carries State.Node beside the snapshot.
const nodeHeader = "Postern-Node"
