package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/types/known/structpb"
)

// Config is what Envoy's listener and its ext_authz filter are configured with. The
// zero values of settings are Envoy's defaults.
type Config struct {
	// Authorization is asked. Dial connects to the backend.
	Authorization authv3.AuthorizationClient
	Dial          func() (net.Conn, error)
	// TLS is nil for plain text. Permissive takes both, as Istio's mode PERMISSIVE.
	TLS        *tls.Config
	Permissive bool
	// Certificate is the proxy's own, of TLS, from which its principal is told.
	Certificate *tls.Certificate
	// TCP asks once for a connection, and does not look into it.
	TCP bool

	Timeout          time.Duration // of a check; 200 ms
	FailureModeAllow bool
	StatusOnError    int // 403
	// PackAsBytes and MaxBody send up to so much of the body along.
	PackAsBytes            bool
	MaxBody                int
	IncludePeerCertificate bool
	IncludeTLSSession      bool
	ContextExtensions      map[string]string
	Metadata               map[string]*structpb.Struct
	DestinationLabels      map[string]string

	// Decided is told of every answer; nil for nobody. Any goroutine may call it.
	Decided func(Decision)
}

// Decision is what became of a check.
type Decision struct {
	Allowed bool
	// Reason is the one in the dynamic metadata of the answer; empty without an answer.
	Reason string
	// Err is why there was no answer.
	Err error
}

// Proxy is a running stand-in. Close ends it.
type Proxy struct {
	cfg      Config
	listener net.Listener
	requests atomic.Uint64

	mu    sync.Mutex
	conns map[net.Conn]bool // nil once closed
	done  sync.WaitGroup
}

// Start takes connections of a listener, which Close closes.
func Start(l net.Listener, cfg Config) *Proxy {
	if cfg.Timeout == 0 {
		cfg.Timeout = 200 * time.Millisecond
	}
	if cfg.StatusOnError == 0 {
		cfg.StatusOnError = 403
	}
	p := &Proxy{cfg: cfg, listener: l, conns: map[net.Conn]bool{}}
	p.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.done.Go(func() { p.serve(c) })
		}
	})
	return p
}

// Close ends the listener and all connections.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.conns = nil
	p.mu.Unlock()
	p.done.Wait()
	return err
}

// own closes a connection with the proxy, and tells false if that is closed.
func (p *Proxy) own(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) disown(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	c.Close()
}

// connection is one of a client.
type connection struct {
	net.Conn
	in  *bufio.Reader        // what Conn brings
	tls *tls.ConnectionState // nil for plain text
}

func (c *connection) Read(b []byte) (int, error) { return c.in.Read(b) }

func (p *Proxy) serve(raw net.Conn) {
	if !p.own(raw) {
		return
	}
	defer p.disown(raw)
	c := &connection{Conn: raw, in: bufio.NewReaderSize(raw, 64<<10)}
	encrypted := p.cfg.TLS != nil
	if p.cfg.Permissive {
		first, err := c.in.Peek(1)
		if err != nil {
			return
		}
		encrypted = first[0] == 0x16 // a TLS handshake record (RFC 8446, section 5.1)
	}
	if encrypted {
		t := tls.Server(c, p.cfg.TLS)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if t.HandshakeContext(ctx) != nil {
			return
		}
		state := t.ConnectionState()
		c = &connection{Conn: t, in: bufio.NewReaderSize(t, 64<<10), tls: &state}
	}
	switch {
	case p.cfg.TCP:
		p.serveTCP(c)
	case c.tls != nil && c.tls.NegotiatedProtocol == http2.NextProtoTLS || isHTTP2(c):
		p.serveHTTP2(c)
	default:
		p.serveHTTP1(c)
	}
}

// isHTTP2 finds the preface of HTTP/2 with prior knowledge (RFC 9113, section 3.4).
func isHTTP2(c *connection) bool {
	for n := 1; n <= len(http2.ClientPreface); n++ {
		b, err := c.in.Peek(n)
		if err != nil || string(b) != http2.ClientPreface[:n] {
			return false
		}
	}
	return true
}

func (p *Proxy) serveTCP(c *connection) {
	if !p.ask(p.check(c, nil)).Allowed {
		return
	}
	b, err := p.cfg.Dial()
	if err != nil || !p.own(b) {
		return
	}
	defer p.disown(b)
	splice(c, b, b)
}

// splice carries bytes both ways until one end is closed. What the backend sends is
// read from in.
func splice(client, backend net.Conn, in io.Reader) {
	var both sync.WaitGroup
	carry := func(to net.Conn, from io.Reader) {
		io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
			return
		}
		to.Close()
	}
	both.Go(func() { carry(backend, client) })
	both.Go(func() { carry(client, in) })
	both.Wait()
}

// answer is what the client gets where a check does not allow.
type answer struct {
	Decision
	status int
	header map[string]string
	body   string
}

// ask asks, and decides in place of who does not answer.
func (p *Proxy) ask(r *authv3.CheckRequest) (a answer) {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.Timeout)
	defer cancel()
	got, err := p.cfg.Authorization.Check(ctx, r)
	switch {
	case err != nil:
		a = answer{Decision: Decision{Allowed: p.cfg.FailureModeAllow, Err: err}, status: p.cfg.StatusOnError}
	case got.GetStatus().GetCode() == 0:
		a.Allowed = true
	default:
		a.status = 403
		if s := got.GetDeniedResponse().GetStatus().GetCode(); s != 0 {
			a.status = int(s)
		}
		a.body, a.header = got.GetDeniedResponse().GetBody(), map[string]string{}
		for _, h := range got.GetDeniedResponse().GetHeaders() {
			a.header[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
		}
	}
	a.Reason = got.GetDynamicMetadata().GetFields()["reason"].GetStringValue()
	if err == nil && got.GetStatus() == nil {
		a.Decision = Decision{Err: errors.New("an answer without status")}
	}
	if p.cfg.Decided != nil {
		p.cfg.Decided(a.Decision)
	}
	return a
}
