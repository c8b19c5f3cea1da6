package apiserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	programs "github.com/postern-project/postern/test/kubernetes"
)

// patience is how long a program may take to start or to stop.
const patience = 90 * time.Second

// Server is an API server and its etcd. Its methods may be called from one goroutine
// at a time; the configurations that it gives may be used from many.
type Server struct {
	dir       directory
	etcd, api *process
	program   string
	args      []string
	url       string
	etcdURL   string
	token     string
}

// Main runs the tests of a binary with a server of their own, and returns their exit
// code. Arguments are added to those of kube-apiserver.
func Main(m *testing.M, server **Server, args ...string) int {
	s, err := Start(args...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	*server = s
	code := m.Run()
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

// Start starts Debian's etcd and an API server, and waits until it is ready. Arguments
// are added to those of kube-apiserver.
func Start(args ...string) (*Server, error) { return StartWith(Options{Args: args}) }

// Options are what a server may be started with.
type Options struct {
	Args []string // added to those of kube-apiserver
	// NewEtcd takes the etcd that this Kubernetes is made for, in the place of
	// Debian's older one, and so the API server has watch lists.
	NewEtcd bool
	// Data is a directory that Save wrote: the server begins with a copy of it.
	Data string
}

// StartWith is Start with other options.
func StartWith(o Options) (_ *Server, err error) {
	etcd, err := exec.LookPath("etcd")
	if o.NewEtcd {
		if etcd, err = programs.Program("etcd"); err != nil {
			return nil, fmt.Errorf("apiserver: %w", err)
		}
	} else if err != nil {
		return nil, errors.New("apiserver: the program etcd is missing; Debian has it in the package etcd-server")
	}
	program, err := programs.Program("kube-apiserver")
	if err != nil {
		return nil, fmt.Errorf("apiserver: %w", err)
	}
	dir, err := newDirectory()
	if err != nil {
		return nil, fmt.Errorf("apiserver: %w", err)
	}
	s := &Server{dir: dir, program: program, token: rand.Text()}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if o.Data != "" {
		if err := os.CopyFS(s.path("etcd"), os.DirFS(o.Data)); err != nil {
			return nil, fmt.Errorf("apiserver: %w", err)
		}
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, fmt.Errorf("apiserver: %w", err)
	}
	client, peer := "http://"+ports[0], "http://"+ports[1]
	s.url, s.etcdURL = "https://"+ports[2], client
	s.etcd, err = start(s.path("etcd.log"), etcd, "--data-dir", s.path("etcd"),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer,
		"--unsafe-no-fsync", "--quota-backend-bytes", fmt.Sprint(8<<30))
	if err != nil {
		return nil, fmt.Errorf("apiserver: %w", err)
	}
	if err := writeKey(s.path("sa.key")); err != nil {
		return nil, fmt.Errorf("apiserver: %w", err)
	}
	if err := os.WriteFile(s.path("tokens.csv"), []byte(s.token+",admin,admin,system:masters\n"), 0o600); err != nil {
		return nil, fmt.Errorf("apiserver: %w", err)
	}
	_, port, _ := net.SplitHostPort(ports[2])
	s.args = slices.Concat([]string{
		"--etcd-servers", client,
		"--bind-address", "127.0.0.1", "--secure-port", port, "--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none",
		"--cert-dir", s.path("certs"), "--token-auth-file", s.path("tokens.csv"), "--authorization-mode", "RBAC",
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-signing-key-file", s.path("sa.key"), "--service-account-key-file", s.path("sa.key"),
		"--service-cluster-ip-range", "10.96.0.0/16,fd00:96::/112", "--allow-privileged",
	}, o.Args)
	return s, s.Continue()
}

// Save ends both programs and copies what etcd holds to a directory, which must not
// exist.
func (s *Server) Save(dir string) error {
	for _, p := range []*process{s.api, s.etcd} {
		if err := p.stop(syscall.SIGTERM); err != nil {
			return fmt.Errorf("apiserver: %w", err)
		}
	}
	aside := dir + ".new" // one that is interrupted must not be taken for whole
	if err := errors.Join(os.RemoveAll(aside), os.CopyFS(aside, os.DirFS(s.path("etcd"))), os.Rename(aside, dir)); err != nil {
		return fmt.Errorf("apiserver: %w", err)
	}
	return nil
}

// Stop ends the API server; etcd keeps its data.
func (s *Server) Stop() error { return s.api.stop(syscall.SIGTERM) }

// Kill ends the API server at once, as a crash would: open connections are cut.
func (s *Server) Kill() error { return s.api.stop(syscall.SIGKILL) }

// Continue starts the API server again, at the same address and with the same data,
// and waits until it is ready.
func (s *Server) Continue() error {
	var err error
	if s.api, err = start(s.path("apiserver.log"), s.program, s.args...); err != nil {
		return fmt.Errorf("apiserver: %w", err)
	}
	if err := s.ready(); err != nil {
		return fmt.Errorf("apiserver: not ready: %w; the end of its log:\n%s\nand of etcd's:\n%s", err, tail(s.path("apiserver.log")), tail(s.path("etcd.log")))
	}
	return nil
}

// ready waits until the API server says that it is, and for what it creates after
// that: the namespace default.
func (s *Server) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var last error
	for {
		if last = s.check(ctx); last == nil {
			return nil
		}
		select {
		case <-s.api.exited:
			return fmt.Errorf("kube-apiserver ended: %w", s.api.err)
		case <-s.etcd.exited:
			return fmt.Errorf("etcd ended: %w", s.etcd.err)
		case <-ctx.Done():
			return last
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *Server) check(ctx context.Context) error {
	ca, err := os.ReadFile(s.path("certs", "apiserver.crt"))
	if err != nil {
		return err
	}
	if _, err := os.Stat(s.path("certs", "apiserver.key")); err != nil {
		return err
	}
	c := s.Admin()
	c.CAData = ca
	set, err := kubernetes.NewForConfig(c)
	if err != nil {
		return err
	}
	if _, err := set.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
		return err
	}
	_, err = set.CoreV1().Namespaces().Get(ctx, "default", get)
	return err
}

// Close ends both programs and removes all that they wrote.
func (s *Server) Close() error {
	var err error
	for _, p := range []*process{s.api, s.etcd} {
		if p != nil {
			err = errors.Join(err, p.stop(syscall.SIGKILL))
		}
	}
	return errors.Join(err, s.dir.remove())
}

func (s *Server) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir.path}, parts...)...)
}

// Admin is the configuration of a client that may do everything. Its rate is not
// limited.
func (s *Server) Admin() *rest.Config {
	c := &rest.Config{Host: s.url, BearerToken: s.token, QPS: -1}
	c.CAFile = s.path("certs", "apiserver.crt")
	return c
}

// Etcd is where etcd serves its clients, without authentication.
func (s *Server) Etcd() string { return s.etcdURL }

// freePorts gives n loopback addresses with ports that are free now.
func freePorts(n int) (addresses []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// writeKey makes the key that service account tokens are signed with.
func writeKey(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}
