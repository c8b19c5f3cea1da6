package proxy

import (
	"io"
	"net"
	"net/http"
	"strings"

	"golang.org/x/net/http2"
)

// serveHTTP2 forwards the streams of a connection as requests of HTTP/1.1.
func (p *Proxy) serveHTTP2(c *connection) {
	to := &http.Transport{DisableKeepAlives: true, DisableCompression: true, Dial: func(string, string) (net.Conn, error) { return p.cfg.Dial() }}
	defer to.CloseIdleConnections()
	(&http2.Server{}).ServeConn(c, &http2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
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
	})})
}
