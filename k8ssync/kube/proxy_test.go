package kube

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
)

// proxy stands between a source and the real API server, and answers in its place
// where a test needs an answer that the real one will not give when asked to.
type proxy struct {
	*httptest.Server
	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request) bool
}

// newProxy gives a proxy and what a source needs to go through it.
func newProxy(t *testing.T, config *rest.Config) (*proxy, *rest.Config) {
	t.Helper()
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{}
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.Transport = transport
	forward.FlushInterval = -1 // watches
	forward.ErrorLog = nil
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		answer := p.answer
		p.mu.Unlock()
		if answer == nil || !answer(w, r) {
			defer func() {
				// The proxy panics so when a client goes.
				if err := recover(); err != nil && err != http.ErrAbortHandler {
					panic(err)
				}
			}()
			forward.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
	})
	return p, &rest.Config{Host: p.URL, QPS: -1}
}

// reply makes the proxy answer requests for which the function says true.
func (p *proxy) reply(answer func(w http.ResponseWriter, r *http.Request) bool) {
	p.mu.Lock()
	p.answer = answer
	p.mu.Unlock()
}

// status is an API server's answer.
func status(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": "injected " + reason})
}
