package metrics

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

// Bounds on what clients may do to the daemon.
const (
	maxConns     = 32
	readTimeout  = 5 * time.Second
	writeTimeout = 20 * time.Second
	idleTimeout  = 30 * time.Second
	maxHeader    = 1 << 13
)

// Health is asked by /livez, /readyz and /startupz. Each returns "" if all is well, and
// otherwise a sentence that says what is not.
type Health struct{ Live, Ready, Started func() string }

// Register adds the paths of health to a mux.
func (h Health) Register(mux *http.ServeMux) {
	for path, ask := range map[string]func() string{"/livez": h.Live, "/healthz": h.Live, "/readyz": h.Ready, "/startupz": h.Started} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Cache-Control", "no-store")
			if why := ask(); why != "" {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = io.WriteString(w, why+"\n") // an error is the client's
				return
			}
			_, _ = io.WriteString(w, "ok\n")
		})
	}
}

// Serve answers on a listener until ctx ends, and returns nil then. It closes the
// listener. Connections are bounded in number, and requests in size and time.
func Serve(ctx context.Context, l net.Listener, handler http.Handler) error {
	s := &http.Server{
		Handler: handler, ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	err := s.Serve(netutil.LimitListener(l, maxConns))
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve on %s: %w", l.Addr(), err)
}
