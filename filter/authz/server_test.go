package authz

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flowlog"
)

// TestL7_13Swap: while policy goes back and forth between two that disagree, each of
// 10,000 concurrent answers is that of the generation it names.
func TestL7_13Swap(t *testing.T) {
	generations := []*filter.Ruleset{compiled(t, 2, world+policyAPI), compiled(t, 3, world+policyWeb)}
	engine := engineOf(generations[0])
	_, path := serve(t, engine, Config{})
	ctx, stop := context.WithCancel(t.Context())
	swapping := make(chan struct{})
	var swaps atomic.Int64
	go func() {
		defer close(swapping)
		for i := 1; ctx.Err() == nil; i++ {
			engine.Swap(generations[i%2])
			swaps.Add(1)
			time.Sleep(50 * time.Microsecond)
		}
	}()
	var seen [2]atomic.Int64
	var clients sync.WaitGroup
	for c := range 8 { // a connection each, with 25 checks under way
		client := dial(t, path)
		for range 25 {
			clients.Go(func() {
				for i := range 50 {
					r := ask("GET", "/health")
					web := (c+i)%2 == 1
					if web {
						r.Attributes.Source.Principal, r.Attributes.Source.Address = idWeb, socket("10.0.0.2", 1)
					}
					got, err := client.Check(t.Context(), r)
					if err != nil {
						t.Error(err)
						return
					}
					g := int(got.DynamicMetadata.Fields["generation"].GetNumberValue()) - 2
					if want := web == (g == 1); want != (got.Status.Code == int32(codes.OK)) {
						t.Errorf("generation %d answers %v where web is %v", g+2, got, web)
					}
					seen[g].Add(1)
				}
			})
		}
	}
	clients.Wait()
	stop()
	<-swapping
	if seen[0].Load()+seen[1].Load() != 10_000 || seen[0].Load() < 500 || seen[1].Load() < 500 {
		t.Errorf("%d and %d answers in %d swaps: too one-sided to say anything", seen[0].Load(), seen[1].Load(), swaps.Load())
	}
}

func TestL7_14Socket(t *testing.T) {
	_, path := serve(t, &filter.Engine{}, Config{})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, want 0660", info.Mode())
	}
	if _, err := ListenUnix(path, -1); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a second server: %v", err)
	}
	other := filepath.Join(t.TempDir(), "x.sock")
	l, err := ListenUnix(other, 1337)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err = os.Stat(other); err != nil || info.Sys().(*syscall.Stat_t).Gid != 1337 || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestL7_14Peers: even if anybody could open the socket, only a known group is answered.
func TestL7_14Peers(t *testing.T) {
	if path := os.Getenv("POSTERN_TEST_ASK"); path != "" { // the other process
		_, err := dial(t, path).Check(t.Context(), ask("GET", "/health"))
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root, to be somebody else")
	}
	// Everybody may reach the socket and the program.
	dir, err := os.MkdirTemp("", "authz")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program, path := filepath.Join(dir, "ask"), filepath.Join(dir, "s.sock")
	if err := errors.Join(os.Chmod(dir, 0o777), os.WriteFile(program, self, 0o755)); err != nil {
		t.Fatal(err)
	}
	s, err := New(engineOf(compiled(t, 1, world+policyAPI)), Config{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := ListenUnix(path, 1337)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, l)
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		uid, gid uint32
		answered bool
	}{{0, 0, true}, {1337, 1337, true}, {4000, 1337, true}, {1337, 4000, false}, {65534, 65534, false}} {
		cmd := exec.Command(program, "-test.run", "^TestL7_14Peers$")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "POSTERN_TEST_ASK="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tc.uid, Gid: tc.gid}}
		out, err := cmd.CombinedOutput()
		if (err == nil) != tc.answered {
			t.Errorf("uid %d gid %d: %v\n%s", tc.uid, tc.gid, err, out)
		}
	}
}

// TestHostileClients: whatever a client sends or keeps back, others are answered.
func TestHostileClients(t *testing.T) {
	s, err := New(engineOf(compiled(t, 1, world+policyAPI)), Config{})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := ListenUnix(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, l)
	for i := range maxPerProcess - 2 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		switch i % 4 {
		case 0: // silent
		case 1:
			c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		case 2: // a preface and no more
			c.Write([]byte(http2.ClientPreface))
		case 3: // streams that never send what they announce
			c.Write([]byte(http2.ClientPreface))
			f := http2.NewFramer(c, c)
			f.WriteSettings()
			f.WriteData(1, false, []byte{0, 0, 15, 255, 255})
		}
	}
	client := dial(t, path)
	for range 100 {
		if _, err := client.Check(t.Context(), ask("GET", "/health")); err != nil {
			t.Fatal(err)
		}
	}
	// A message over the bound is denied in words; one that no proxy makes is refused.
	r := ask("GET", "/health")
	for _, headers := range []int{MaxMessage, 8 << 20} {
		r.Attributes.Request.Http.Headers = map[string]string{"x": strings.Repeat("y", headers)}
		if a, err := client.Check(t.Context(), r); err != nil || a.GetStatus().GetCode() != int32(codes.InvalidArgument) || a.GetDeniedResponse() == nil {
			t.Errorf("a message with %d bytes of headers: %v, %v", headers, a, err)
		}
	}
	r.Attributes.Request.Http.RawBody = make([]byte, maxReceived)
	if _, err := client.Check(t.Context(), r); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message of more than %d bytes: %v", maxReceived, err)
	}
	// One process cannot take all the connections there are.
	var open []net.Conn
	for range 4 * maxPerProcess {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	for _, c := range open {
		defer c.Close()
	}
	last := open[len(open)-1]
	last.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := last.Read(make([]byte, 1)); err == nil {
		t.Errorf("connection %d of one process is served: %d bytes", len(open)+maxPerProcess, n)
	}
}

// TestPanic: a fault of ours denies.
func TestPanic(t *testing.T) {
	s, err := New(engineOf(&filter.Ruleset{}), Config{}) // a Ruleset that nobody made
	if err != nil {
		t.Fatal(err)
	}
	run := func() answer {
		c := check{attributes: true}
		c.source.address = address{kind: socketAddress, text: "10.0.0.1", portKind: socketPort}
		c.destination.address = c.source.address
		return s.answer(&c)
	}
	if a := run(); len(a) == 0 || s.Stats().Panics.Load() != 1 {
		t.Errorf("answer %q after %d panics", a, s.Stats().Panics.Load())
	}
}

// TestLog: a check is logged like a packet, with what it asked.
func TestLog(t *testing.T) {
	ring := flowlog.NewRing(16)
	_, path := serve(t, engineOf(compiled(t, 9, world+policyAPI)), Config{Ring: ring})
	client := dial(t, path)
	for _, r := range []*authv3.CheckRequest{ask("POST", "/public?token=secret"), {}, ask("GET", "/health")} {
		if _, err := client.Check(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	flowlog.NewWriter(zerolog.New(&b), flowlog.Config{Which: flowlog.Denied}, ring).Drain()
	d := json.NewDecoder(&b)
	var lines []map[string]any
	for d.More() {
		var l map[string]any
		if err := d.Decode(&l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	if len(lines) != 2 {
		t.Fatalf("%d lines, want the two denials: %v", len(lines), lines)
	}
	for k, want := range map[string]any{
		"message": "request", "verdict": "deny", "reason": "end-of-tier", "direction": "ingress", "tier": "default", "src_pod": "prod/api", "dst_account": "db",
		"src_principal": idAPI, "dst_principal": idDB, "method": "POST", "path": "/public", "generation": 9.0, "dport": 80.0,
	} {
		if lines[0][k] != want {
			t.Errorf("%s: %v, want %v", k, lines[0][k], want)
		}
	}
	if lines[1]["reason"] != "invalid-request" || lines[1]["problem"] != "no attributes" {
		t.Errorf("%v", lines[1])
	}
}

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{}
	a.cert, a.key = a.issue(t, "")
	return a
}

// issue makes a certificate with URIs, for an hour; without any, the authority's own.
func (a *authority) issue(t *testing.T, ids ...string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	return a.issueUntil(t, time.Now().Add(time.Hour), ids...)
}

func (a *authority) issueUntil(t *testing.T, end time.Time, ids ...string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "x"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: end, BasicConstraintsValid: true}
	parent, signer := a.cert, a.key
	if len(ids) == 1 && ids[0] == "" {
		tmpl.IsCA, tmpl.KeyUsage = true, x509.KeyUsageCertSign
		parent, signer = tmpl, key
	} else {
		tmpl.KeyUsage = x509.KeyUsageDigitalSignature
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
		for _, id := range ids {
			u, err := url.Parse(id)
			if err != nil {
				t.Fatal(err)
			}
			tmpl.URIs = append(tmpl.URIs, u)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func pemOf(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

// files writes certificate and key.
func (a *authority) files(t *testing.T, dir, id string) (f TLSFiles) {
	t.Helper()
	cert, key := a.issue(t, id)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	f = TLSFiles{Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), ClientCA: filepath.Join(dir, "ca.pem")}
	if err := errors.Join(os.WriteFile(f.Certificate, pemOf(cert), 0o600), os.WriteFile(f.ClientCA, pemOf(a.cert), 0o600),
		os.WriteFile(f.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestTCP: over TCP both ends show certificates, and only listed clients are
// answered. Files that changed are read again.
func TestTCP(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	files := ca.files(t, dir, "spiffe://cluster.local/ns/kube-system/sa/postern")
	const allowed = "spiffe://cluster.local/ns/prod/sa/db"
	if _, err := ListenTCP("127.0.0.1:0", files); err == nil {
		t.Error("no client is listed, and it listens")
	}
	files.Clients = []string{allowed}
	l, err := ListenTCP("127.0.0.1:0", files)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(engineOf(compiled(t, 1, world+policyAPI)), Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	validity := time.Hour
	try := func(by *authority, id string) (serial *big.Int, err error) {
		cfg := &tls.Config{InsecureSkipVerify: true, VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			c, err := x509.ParseCertificate(raw[0])
			if err == nil {
				serial = c.SerialNumber
				err = c.CheckSignatureFrom(ca.cert)
			}
			return err
		}}
		if by != nil {
			cert, key := by.issueUntil(t, time.Now().Add(validity), id)
			cfg.Certificates = []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}
		}
		c, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		within, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = authv3.NewAuthorizationClient(c).Check(within, ask("GET", "/health"))
		return serial, err
	}
	first, err := try(ca, allowed)
	if err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"no certificate":     errOf(try(nil, "")),
		"other client":       errOf(try(ca, "spiffe://cluster.local/ns/prod/sa/web")),
		"other trust domain": errOf(try(ca, "spiffe://evil/ns/prod/sa/db")),
		"other authority":    errOf(try(stranger, allowed)),
	} {
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	validity = -time.Minute
	if _, err := try(ca, allowed); status.Code(err) != codes.Unavailable {
		t.Errorf("an expired certificate: %v", err)
	}
	validity = time.Hour
	if c, err := net.Dial("tcp", l.Addr().String()); err != nil {
		t.Error(err)
	} else { // without TLS
		c.SetDeadline(time.Now().Add(time.Minute))
		io.WriteString(c, http2.ClientPreface)
		if b, err := io.ReadAll(c); len(b) > 0 && b[0] != 0x15 || err != nil && !errors.Is(err, syscall.ECONNRESET) { // at most a TLS alert
			t.Errorf("plain text gets %q, %v", b, err)
		}
		c.Close()
	}
	// Renewed.
	ca.files(t, dir, "spiffe://cluster.local/ns/kube-system/sa/postern")
	later := time.Now().Add(time.Minute)
	if err := errors.Join(os.Chtimes(files.Certificate, later, later), os.Chtimes(files.Key, later, later)); err != nil {
		t.Fatal(err)
	}
	if second, err := try(ca, allowed); err != nil || second.Cmp(first) == 0 {
		t.Errorf("the old certificate is shown: %v", err)
	}
	// Another authority of clients.
	if err := errors.Join(os.WriteFile(files.ClientCA, pemOf(stranger.cert), 0o600), os.Chtimes(files.ClientCA, later, later)); err != nil {
		t.Fatal(err)
	}
	if _, err := try(stranger, allowed); err != nil {
		t.Errorf("the authority that was replaced still counts, and the new one does not: %v", err)
	}
	if _, err := try(ca, allowed); status.Code(err) != codes.Unavailable {
		t.Errorf("the authority before still counts: %v", err)
	}
	if err := errors.Join(os.WriteFile(files.ClientCA, pemOf(ca.cert), 0o600), os.Chtimes(files.ClientCA, later.Add(time.Minute), later.Add(time.Minute))); err != nil {
		t.Fatal(err)
	}
	if _, err := try(ca, allowed); err != nil {
		t.Error(err)
	}
	// Broken: the last good ones go on.
	if err := os.WriteFile(files.Certificate, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := try(ca, allowed); err != nil {
		t.Errorf("a broken file: %v", err)
	}
}

func errOf(_ *big.Int, err error) error { return err }

// TestCertificates: where the proxy sends the certificate along, it must be an SVID
// of the principal.
func TestCertificates(t *testing.T) {
	ca := newAuthority(t)
	_, path := serve(t, engineOf(compiled(t, 1, world+policyAPI)), Config{})
	client := dial(t, path)
	sent := func(ids ...string) string {
		cert, _ := ca.issue(t, ids...)
		return url.QueryEscape(string(pemOf(cert)))
	}
	ascii := strings.ReplaceAll(sent(idAPI), "+", "%20")
	for _, tc := range []struct {
		name, principal, certificate string
		code                         codes.Code
	}{
		{"its own", idAPI, ascii, codes.OK},
		{"another's", idAPI, strings.ReplaceAll(sent(idWeb), "+", "%20"), codes.PermissionDenied},
		{"two URIs", idAPI, strings.ReplaceAll(sent(idAPI, idWeb), "+", "%20"), codes.PermissionDenied},
		{"no principal", "", ascii, codes.PermissionDenied},
		{"two certificates", idAPI, ascii + ascii, codes.PermissionDenied},
		{"garbage", idAPI, "%", codes.PermissionDenied},
		{"no PEM", idAPI, "x", codes.PermissionDenied},
	} {
		r := ask("GET", "/health")
		r.Attributes.Source.Principal, r.Attributes.Source.Certificate = tc.principal, tc.certificate
		got, err := client.Check(t.Context(), r)
		if err != nil || codes.Code(got.Status.Code) != tc.code {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
	}
}
