package authz

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"

	"github.com/postern-project/postern/filter/unixsocket"
)

// DefaultSocket is where proxies look for postern in the examples of deploy/istio. It
// has a directory of its own, which pods may be given without the sockets beside.
const DefaultSocket = "/run/postern-authz/authz.sock"

// Listener is where clients come in, and what they must show.
type Listener struct {
	net.Listener
	creds credentials.TransportCredentials // nil on a Unix socket
}

// ListenUnix makes the Unix socket. Processes of root, of the daemon's own user and
// group, and of group, unless that is negative, may connect; group owns the socket.
func ListenUnix(path string, group int) (*Listener, error) {
	l, err := unixsocket.Listen(path)
	if err != nil {
		return nil, err
	}
	if group >= 0 {
		if err := os.Chown(path, -1, group); err != nil {
			l.Close()
			return nil, fmt.Errorf("listen: group %d: %w", group, err)
		}
	}
	return &Listener{Listener: unixsocket.NewGuard(l, maxConns, maxPerProcess, group)}, nil
}

// TLSFiles name the files of a server that clients reach over TCP. All are PEM, are
// read again when they change, and must hold X.509-SVIDs.
type TLSFiles struct {
	Certificate, Key string
	// ClientCA has the authorities that clients' certificates are verified by.
	ClientCA string
	// Clients are the SPIFFE IDs that may ask.
	Clients []string
}

// ListenTCP listens on an address, for clients with the right certificates.
func ListenTCP(addr string, files TLSFiles) (*Listener, error) {
	s := &svidFiles{TLSFiles: files}
	if _, err := s.GetX509SVID(); err != nil {
		return nil, err
	}
	if len(files.Clients) == 0 {
		return nil, errors.New("no client is allowed: want the SPIFFE IDs of those that may ask")
	}
	var clients []spiffeid.ID
	for _, text := range files.Clients {
		id, err := spiffeid.FromString(text)
		if err != nil {
			return nil, fmt.Errorf("client %q: %w", text, err)
		}
		clients = append(clients, id)
	}
	tls := tlsconfig.MTLSServerConfig(s, s, tlsconfig.AuthorizeOneOf(clients...))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Listener{&bounded{Listener: l, slots: make(chan struct{}, maxConns)}, credentials.NewTLS(tls)}, nil
}

// bounded accepts no more connections than it has slots.
type bounded struct {
	net.Listener
	slots chan struct{}
}

func (b *bounded) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	b.slots <- struct{}{}
	return &boundedConn{Conn: c, free: sync.OnceFunc(func() { <-b.slots })}, nil
}

type boundedConn struct {
	net.Conn
	free func()
}

func (c *boundedConn) Close() error {
	c.free()
	return c.Conn.Close()
}

// svidFiles reads certificate, key and authorities from files, again when they
// change: workload certificates live for hours. While a file is being replaced and
// cannot be read, what was read last goes on to be used.
type svidFiles struct {
	TLSFiles

	mu     sync.Mutex
	read   [3]time.Time // modification times of what was read
	svid   *x509svid.SVID
	bundle *x509bundle.Bundle
}

// GetX509SVID implements x509svid.Source.
func (s *svidFiles) GetX509SVID() (*x509svid.SVID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(); err != nil && s.svid == nil {
		return nil, err
	}
	return s.svid, nil
}

// GetX509BundleForTrustDomain implements x509bundle.Source. The authorities count
// for every trust domain: which of their clients may ask is a list of IDs.
func (s *svidFiles) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(); err != nil && s.bundle == nil {
		return nil, err
	}
	return x509bundle.FromX509Authorities(td, s.bundle.X509Authorities()), nil
}

func (s *svidFiles) refresh() error {
	var now [3]time.Time
	for i, path := range []string{s.Certificate, s.Key, s.ClientCA} {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		now[i] = info.ModTime()
	}
	if now == s.read {
		return nil
	}
	svid, err := x509svid.Load(s.Certificate, s.Key)
	if err != nil {
		return fmt.Errorf("%s, %s: %w", s.Certificate, s.Key, err)
	}
	bundle, err := x509bundle.Load(svid.ID.TrustDomain(), s.ClientCA)
	if err != nil {
		return fmt.Errorf("%s: %w", s.ClientCA, err)
	}
	if bundle.Empty() {
		return fmt.Errorf("%s: no certificate in it", s.ClientCA)
	}
	s.read, s.svid, s.bundle = now, svid, bundle
	return nil
}
