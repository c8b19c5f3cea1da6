package proxy

import (
	"io"
	"net"
	"net/http"
	"strings"
)

// single is a listener of one connection.
type single struct {
	net.Listener
	conns chan net.Conn
}

func (s single) Accept() (net.Conn, error) {
	if c, ok := <-s.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (s single) Close() error { return nil }

// serveHTTP2 forwards the streams of a connection as requests of HTTP/1.1.
func (p *Proxy) serveHTTP2(c *connection) {
	to := &http.Transport{DisableKeepAlives: true, DisableCompression: true, Dial: func(string, string) (net.Conn, error) { return p.cfg.Dial() }}
	defer to.CloseIdleConnections()
	one := single{p.listener, make(chan net.Conn, 1)}
	one.conns <- c
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true) // TLS has been ended
	server := &http.Server{Protocols: &protocols, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			close(one.conns)
		}
	}, Handler: http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		r := &request{method: in.Method, path: in.RequestURI, host: in.Host, protocol: "HTTP/2", size: in.ContentLength}
		for name, values := range in.Header {
			for _, v := range values {
				r.header = append(r.header, field{name, v})
			}
		}
		var err error
		if in.ContentLength != 0 && p.cfg.MaxBody > 0 {
			if r.body, err = io.ReadAll(io.LimitReader(in.Body, int64(p.cfg.MaxBody))); err != nil {
				return
			}
		}
		if a := p.ask(p.check(c, r)); !a.Allowed {
			for k, v := range a.header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(a.status)
			io.WriteString(w, a.body)
			return
		}
		out := in.Clone(in.Context())
		out.URL.Scheme, out.URL.Host, out.RequestURI = "http", "backend", ""
		out.Body = io.NopCloser(io.MultiReader(strings.NewReader(string(r.body)), in.Body))
		got, err := to.RoundTrip(out)
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		defer got.Body.Close()
		for k, v := range got.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(got.StatusCode)
		io.Copy(w, got.Body)
	})}
	server.Serve(one)
}
