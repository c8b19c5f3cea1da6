package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/postern-project/postern/filter/authz"
	"github.com/postern-project/postern/test/lab"
	"github.com/postern-project/postern/test/proxy"
)

// The tests TestL7_NN… run the documented examples through both factors: packets by
// the daemon's queue, requests by stand-ins for Envoy in the pods' namespaces, with
// backends on the pods' loopback behind them.

const (
	domain = "spiffe://cluster.local/ns/prod-engineering/sa/"

	httpsPort, httpPort, tcpPort uint16 = 8443, 8080, 5432 // mutual TLS, plain text, TCP in mutual TLS
	carelessPort                 uint16 = 8444             // mutual TLS by a proxy that takes any certificate
)

// webPolicy lets api ask web for what is below /public.
const webPolicy = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: prod-engineering}
spec:
  selector: app == "web"
  ingress:
  - action: Allow
    protocol: TCP
    source: {serviceAccounts: {names: [api-service]}}
    http: {methods: [GET], paths: [{prefix: /public}]}
`

// factors is a bench whose daemon answers proxies.
type factors struct {
	*bench
	mesh   *proxy.Mesh
	client authv3.AuthorizationClient

	mu   sync.Mutex
	last map[string]proxy.Decision // by pod, of its proxies
}

func newFactors(t *testing.T, args ...string) *factors {
	t.Helper()
	f := &factors{bench: setup(t, examples), last: map[string]proxy.Decision{}}
	if err := os.WriteFile(filepath.Join(f.dir, "web.yaml"), []byte(webPolicy), 0o644); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "authz.sock")
	f.start(append([]string{"--authz-socket", socket, "--authz-trust-domain", "cluster.local"}, args...)...)
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	f.client = authv3.NewAuthorizationClient(conn)
	if f.mesh, err = proxy.NewMesh(); err != nil {
		t.Fatal(err)
	}
	return f
}

// listen opens a port in a pod.
func (f *factors) listen(pod, addr string) (l net.Listener) {
	f.Helper()
	if err := f.pods[pod].Do(func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	}); err != nil {
		f.Fatal(err)
	}
	return l
}

// proxies puts proxies on all ports of a pod, and backends behind them.
func (f *factors) proxies(pod, account string, change func(*proxy.Config)) {
	f.Helper()
	own, err := f.mesh.Issue(domain + account)
	if err != nil {
		f.Fatal(err)
	}
	strict, err := f.mesh.Server(own)
	if err != nil {
		f.Fatal(err)
	}
	web, echo := f.listen(pod, "127.0.0.1:0"), f.listen(pod, "127.0.0.1:0")
	f.Cleanup(func() { web.Close(); echo.Close() })
	go serveCareless(web)
	go serveEcho(echo)
	for port, tlsConfig := range map[uint16]*tls.Config{httpsPort: strict, carelessPort: f.mesh.CarelessServer(own), httpPort: nil, tcpPort: strict.Clone()} {
		backend := web.Addr().String()
		cfg := proxy.Config{
			Authorization: f.client, TLS: tlsConfig, Certificate: &own, TCP: port == tcpPort, Timeout: 10 * time.Second, StatusOnError: 503, IncludePeerCertificate: true, IncludeTLSSession: true,
			Decided: func(d proxy.Decision) { f.mu.Lock(); f.last[pod] = d; f.mu.Unlock() },
		}
		if cfg.TCP {
			backend = echo.Addr().String()
			tlsConfig.NextProtos = nil
		}
		cfg.Dial = func() (c net.Conn, err error) {
			err = f.pods[pod].Do(func() (err error) {
				c, err = net.Dial("tcp", backend)
				return err
			})
			return c, err
		}
		if change != nil {
			change(&cfg)
		}
		p := proxy.Start(f.listen(pod, netip.AddrPortFrom(f.pods[pod].Addr4(), port).String()), cfg)
		f.Cleanup(func() { p.Close() })
	}
}

func serveEcho(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { defer c.Close(); io.Copy(c, c) }()
	}
}

// serveCareless is a backend that understands a path in the worst of all ways: what
// any reading takes to /admin gets the secret. An upgrade echoes.
func serveCareless(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			in := bufio.NewReader(c)
			first, err := in.ReadString('\n')
			if err != nil {
				return
			}
			upgrade := false
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				if line = strings.TrimSpace(line); line == "" {
					break
				}
				upgrade = upgrade || strings.EqualFold(line, "upgrade: websocket")
			}
			if upgrade {
				io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
				io.Copy(c, in)
				return
			}
			body := "welcome"
			if parts := strings.Fields(first); len(parts) > 1 && reachesAdmin(parts[1]) {
				body = "secret"
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}()
	}
}

// reachesAdmin tells whether some server would take a path to /admin: one that decodes
// more than once, that reads overlong UTF-8, backslashes or small letters, and with
// parameters dropped before or after.
func reachesAdmin(target string) bool {
	path, _, _ := strings.Cut(target, "?")
	overlong := strings.NewReplacer("\xc0\xae", ".", "\xc0\xaf", "/", "\xc1\x9c", `\`, "\xe0\x80\xae", ".", "\xe0\x80\xaf", "/")
	for range 4 {
		for _, p := range []string{path, overlong.Replace(path)} {
			for _, drop := range []bool{false, true} {
				var at []string
				for _, s := range strings.FieldsFunc(strings.ToLower(p), func(r rune) bool { return r == '/' || r == '\\' }) {
					if drop {
						s, _, _ = strings.Cut(s, ";")
					}
					switch s {
					case "", ".":
					case "..":
						at = at[:max(0, len(at)-1)]
					default:
						at = append(at, s)
					}
				}
				if len(at) > 0 && strings.HasPrefix(at[0], "admin") {
					return true
				}
			}
		}
		if again, err := url.PathUnescape(path); err == nil {
			path = again
		}
	}
	return false
}

// result is what a client got.
type result struct {
	status int
	body   string
	proto  string
	err    error
}

// is tells in a word what it was: pass, the reason of a denial that the proxy was
// told, or no connection.
func (f *factors) is(pod string, r result) string {
	switch {
	case r.err != nil:
		return "no connection"
	case r.status == http.StatusOK && r.body == "welcome":
		return "pass"
	case r.status == http.StatusOK:
		return r.body
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last[pod].Reason
}

// open connects from a pod, with a certificate of an identity, or of plain text.
func (f *factors) open(from, to string, port uint16, cert *tls.Certificate, wait time.Duration) (net.Conn, error) {
	c, err := f.pods[from].DialTCP(netip.AddrPortFrom(f.pods[to].Addr4(), port), wait)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if cert == nil {
		return c, nil
	}
	t := tls.Client(c, f.mesh.Client(*cert))
	if err := t.Handshake(); err != nil {
		c.Close()
		return nil, err
	}
	return t, nil
}

// send writes a request of HTTP/1.1 as it is.
func (f *factors) send(from, to string, port uint16, cert *tls.Certificate, wait time.Duration, text string) (r result) {
	c, err := f.open(from, to, port, cert, wait)
	if err != nil {
		return result{err: err}
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		return result{err: err}
	}
	return readResult(bufio.NewReader(c))
}

func readResult(in *bufio.Reader) result {
	got, err := http.ReadResponse(in, nil)
	if err != nil {
		return result{err: err}
	}
	defer got.Body.Close()
	b, err := io.ReadAll(got.Body)
	return result{status: got.StatusCode, body: string(b), proto: got.Proto, err: err}
}

// send2 sends a request of HTTP/2.
func (f *factors) send2(from, to string, cert tls.Certificate, path string, header http.Header) result {
	transport := &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: true, TLSClientConfig: f.mesh.Client(cert), DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
		return f.pods[from].DialTCP(netip.MustParseAddrPort(addr), patience)
	}}
	req, err := http.NewRequest(http.MethodGet, "https://"+netip.AddrPortFrom(f.pods[to].Addr4(), httpsPort).String()+path, nil)
	if err != nil {
		f.Fatal(err)
	}
	req.Header = header
	got, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		return result{err: err}
	}
	defer got.Body.Close()
	b, err := io.ReadAll(got.Body)
	return result{status: got.StatusCode, body: string(b), proto: got.Proto, err: err}
}

func (f *factors) issue(id string) *tls.Certificate {
	f.Helper()
	c, err := f.mesh.Issue(id)
	if err != nil {
		f.Fatal(err)
	}
	return &c
}

const getRoot = "GET / HTTP/1.1\r\nHost: db\r\nConnection: close\r\n"

// TestL7_01BothFactors runs the three examples: nothing passes unless packets and
// requests, addresses and certificates agree.
func TestL7_01BothFactors(t *testing.T) {
	f := newFactors(t)
	f.proxies("prod-engineering/db", "db-sa", nil)
	f.proxies("prod-engineering/intern-2", "intern-b", nil)
	const db, intern = "prod-engineering/db", "prod-engineering/intern-2"
	// What every request claims, and what must say nothing (case 04).
	const forged = "X-Forwarded-Client-Cert: By=" + domain + "db-sa;URI=" + domain + "api-service\r\nX-Forwarded-For: 10.244.0.11\r\nX-Envoy-Downstream-Service-Cluster: api\r\n\r\n"
	for _, tc := range []struct {
		name, from, to, id string
		want               string
	}{
		// policy-1-names.yaml
		{"names: account and address", "prod-engineering/api", db, domain + "api-service", "pass"},
		{"names: the other account", "prod-engineering/auth", db, domain + "user-auth-service", "pass"},
		{"names: not listed", "prod-engineering/reports", db, domain + "reports-sa", "no connection"},
		{"names: listed account of another namespace", "staging/api", db, "spiffe://cluster.local/ns/staging/sa/api-service", "no connection"},
		{"stolen certificate, another pod that may connect", "prod-engineering/auth", db, domain + "api-service", "identity-mismatch"},
		{"stolen certificate, a pod that may not", "prod-engineering/reports", db, domain + "api-service", "no connection"},
		{"certificate of an account that may not", "prod-engineering/api", db, domain + "reports-sa", "identity-mismatch"},
		{"account of another namespace", "prod-engineering/api", db, "spiffe://cluster.local/ns/staging/sa/api-service", "identity-mismatch"},
		{"wrong trust domain", "prod-engineering/api", db, "spiffe://evil.example/ns/prod-engineering/sa/api-service", "invalid-principal"},
		{"more segments", "prod-engineering/api", db, domain + "api-service/x", "invalid-principal"},
		{"plain text, right address", "prod-engineering/api", db, "", "pass"},
		{"plain text, wrong address", "prod-engineering/reports", db, "", "no connection"},
		// policy-2-labels.yaml
		{"labels: of the account", "prod-engineering/web", db, domain + "web-sa", "pass"},
		{"labels: of the pod only", "prod-engineering/reports", db, domain + "web-sa", "no connection"},
		{"labels: a labelled account's certificate, stolen", "prod-engineering/api", db, domain + "web-sa", "identity-mismatch"},
		// policy-3-selector.yaml
		{"selector: among interns", "prod-engineering/intern-1", intern, domain + "intern-a", "pass"},
		{"selector: from outside", "prod-engineering/api", intern, domain + "api-service", "no connection"},
		{"selector: to outside", "prod-engineering/intern-1", db, domain + "intern-a", "no connection"},
		{"selector: stolen certificate", "prod-engineering/intern-1", intern, domain + "api-service", "identity-mismatch"},
	} {
		wait := patience
		if tc.want == "no connection" {
			wait = impatience
		}
		var cert *tls.Certificate
		port := httpPort
		if tc.id != "" {
			cert, port = f.issue(tc.id), httpsPort
		}
		if got := f.is(tc.to, f.send(tc.from, tc.to, port, cert, wait, getRoot+forged)); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		if cert == nil || tc.want == "no connection" {
			continue
		}
		r := f.send2(tc.from, tc.to, *cert, "/", http.Header{"X-Forwarded-Client-Cert": {"URI=" + domain + "api-service"}})
		if got := f.is(tc.to, r); got != tc.want || r.proto != "HTTP/2.0" {
			t.Errorf("%s: %s over %s, want %s", tc.name, got, r.proto, tc.want)
		}
		// A connection that is not HTTP carries bytes, or ends.
		c, err := f.open(tc.from, tc.to, tcpPort, cert, wait)
		if err == nil {
			err = lab.Echo(c, []byte("ping"), 20*time.Second)
			c.Close()
		}
		if (err == nil) != (tc.want == "pass") {
			t.Errorf("%s: TCP: %v, want %s", tc.name, err, tc.want)
		}
	}
	eventually(t, "requests are logged", func() bool {
		text := f.daemon.Text()
		return strings.Contains(text, `"message":"request"`) && strings.Contains(text, `"reason":"identity-mismatch"`)
	})
}

// TestL7_03Certificates: certificates that are no X.509-SVID, through a proxy that
// takes them.
func TestL7_03Certificates(t *testing.T) {
	f := newFactors(t)
	const db = "prod-engineering/db"
	f.proxies(db, "db-sa", nil)
	for _, tc := range []struct {
		name        string
		uris, names []string
		subject     string
		want        string
	}{
		{"one URI", []string{domain + "api-service"}, nil, "", "pass"},
		{"and a DNS name", []string{domain + "api-service"}, []string{"api"}, "x", "pass"},
		{"two URIs", []string{domain + "api-service", domain + "web-sa"}, nil, "", "invalid-principal"},
		{"two URIs, the other way", []string{"https://x/", domain + "api-service"}, nil, "", "invalid-principal"},
		{"a DNS name that looks like one", nil, []string{"cluster.local"}, "", "invalid-principal"},
		{"a subject that looks like one", nil, nil, domain + "api-service", "invalid-principal"},
		{"nothing at all", nil, nil, "", "invalid-principal"},
	} {
		cert, err := f.mesh.IssueAny(tc.uris, tc.names, tc.subject)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.is(db, f.send("prod-engineering/api", db, carelessPort, &cert, patience, getRoot+"\r\n")); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestL7_06PathsEndToEnd: whatever the way to write a path, nobody gets by way of the
// proxy to where the policy does not let them, not even where the backend decodes twice.
func TestL7_06PathsEndToEnd(t *testing.T) {
	f := newFactors(t)
	const from, web = "prod-engineering/api", "prod-engineering/web"
	f.proxies(web, "web-sa", nil)
	cert := f.issue(domain + "api-service")
	passed := 0
	for _, tc := range []struct{ method, target, want string }{
		{"GET", "/public", "pass"},
		{"GET", "/public/a?x=/../../admin", "pass"},
		{"GET", "//public///a", "pass"},
		{"GET", "/public/%2e%2e/public/x", "pass"},
		{"GET", "/admin/../public", "pass"},
		{"GET", "http://web/public", "pass"},
		{"GET", "http://admin/public", "pass"}, // the authority is no path
		{"GET", "/publicity", "end-of-tier"},
		{"GET", "/Public", "end-of-tier"},
		{"GET", "/admin", "end-of-tier"},
		{"GET", "/public/../admin", "end-of-tier"},
		{"GET", "/public/./../admin", "end-of-tier"},
		{"GET", "/public//../admin", "end-of-tier"},
		{"GET", "/public/%2e%2e/admin", "end-of-tier"},
		{"GET", "/public/%2E%2E/admin", "end-of-tier"},
		{"GET", "/public/.%2e/admin", "end-of-tier"},
		{"GET", "/public%2F..%2Fadmin", "end-of-tier"},
		{"GET", "/public/%252e%252e/admin", "end-of-tier"},
		{"GET", "/public/%25%32%65%25%32%65/admin", "end-of-tier"},
		{"GET", "/public%252f..%252fadmin", "end-of-tier"},
		{"GET", `/public\..\admin`, "end-of-tier"},
		{"GET", "/public/..%5cadmin", "end-of-tier"},
		{"GET", "/public/..%255cadmin", "end-of-tier"},
		{"GET", "/public/..;/admin", "end-of-tier"},
		{"GET", "/public/..;a=b/admin", "end-of-tier"},
		{"GET", "/public/%2e%2e%3b/admin", "end-of-tier"},
		{"GET", "/public/%c0%ae%c0%ae/admin", "end-of-tier"},
		{"GET", "/public/%e0%80%ae%e0%80%ae/admin", "end-of-tier"},
		{"GET", "/public/..%c0%afadmin", "end-of-tier"},
		{"GET", "/public/..%c1%9cadmin", "end-of-tier"},
		{"GET", "/public/%00/../../admin", "end-of-tier"},
		{"GET", "/public/%/../../admin", "end-of-tier"},
		{"GET", "/public/%zz/../../admin", "end-of-tier"},
		{"GET", "http://web/public/../admin", "end-of-tier"},
		{"GET", "http://web", "invalid-request"},
		{"GET", "public", "invalid-request"},
		{"GET", "*", "invalid-request"},
		{"OPTIONS", "*", "invalid-request"},
		{"CONNECT", "web:80", "invalid-request"},
		{"get", "/public", "end-of-tier"},
		{"POST", "/public", "end-of-tier"},
		{"GET", "/public#/../admin", "400"},
	} {
		r := f.send(from, web, httpsPort, cert, patience, tc.method+" "+tc.target+" HTTP/1.1\r\nHost: Web.Example:443\r\nX-Original-Url: /public\r\nX-Http-Method-Override: GET\r\nConnection: close\r\n\r\n")
		got := f.is(web, r)
		if r.status == http.StatusBadRequest && tc.want == "400" {
			got = "400"
		}
		if got == "secret" || got != tc.want {
			t.Errorf("%s %s: %s, want %s", tc.method, tc.target, got, tc.want)
		}
		if got == "pass" {
			passed++
		}
	}
	if passed < 5 {
		t.Errorf("%d requests passed: the rest proves little", passed)
	}
	for path, want := range map[string]string{"/public/x?y": "pass", "/public/%2e%2e/admin": "end-of-tier", "/public/..%2fadmin": "end-of-tier", "/publicity": "end-of-tier"} {
		if got := f.is(web, f.send2(from, web, *cert, path, nil)); got != want {
			t.Errorf("HTTP/2, %s: %s, want %s", path, got, want)
		}
	}
}

// TestL7_10LongLivedStreams: a stream that is open is asked about no more, also when
// the policy has no path for it any more, while the next request of the connection is;
// and when the address loses its right, packets end both.
func TestL7_10LongLivedStreams(t *testing.T) {
	f := newFactors(t)
	const from, web = "prod-engineering/api", "prod-engineering/web"
	f.proxies(web, "web-sa", nil)
	cert := f.issue(domain + "api-service")
	open := func() (net.Conn, *bufio.Reader) {
		c, err := f.open(from, web, httpsPort, cert, patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c, bufio.NewReader(c)
	}
	socket, in := open()
	io.WriteString(socket, "GET /public/live HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
	if r, err := http.ReadResponse(in, nil); err != nil || r.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", r, err)
	}
	echo := func(wait time.Duration) error { return lab.Echo(streamOf(socket, in), []byte("frame"), wait) }
	kept, keptIn := open()
	again := func() string {
		if _, err := io.WriteString(kept, "GET /public HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
			return err.Error()
		}
		return f.is(web, readResult(keptIn))
	}
	if err := echo(patience); err != nil {
		t.Fatal(err)
	}
	if got := again(); got != "pass" {
		t.Fatal(got)
	}
	f.edit("web.yaml", "prefix: /public", "prefix: /other")
	if err := echo(patience); err != nil {
		t.Errorf("a stream whose path is not allowed any more: %v", err)
	}
	if got := again(); got != "end-of-tier" {
		t.Errorf("the next request of an open connection: %s", got)
	}
	f.edit("web.yaml", "names: [api-service]", "names: [user-auth-service]")
	if err := echo(impatience); err == nil {
		t.Error("a stream goes on although its packets are denied")
	}
}

// stream reads what was buffered first.
type stream struct {
	net.Conn
	in io.Reader
}

func streamOf(c net.Conn, in io.Reader) net.Conn { return &stream{c, in} }

func (s *stream) Read(b []byte) (int, error) { return s.in.Read(b) }

// TestL7_12DaemonGone: where nobody answers, the proxy's failure mode decides, and the
// one that the documentation forbids is the one that opens.
func TestL7_12DaemonGone(t *testing.T) {
	f := newFactors(t)
	const from, db, web = "prod-engineering/api", "prod-engineering/db", "prod-engineering/web"
	f.proxies(db, "db-sa", nil)
	f.proxies(web, "web-sa", func(c *proxy.Config) { c.FailureModeAllow = true })
	cert := f.issue(domain + "api-service")
	var kept [2]net.Conn
	for i, to := range []string{db, web} { // packets need an established flow once the daemon is gone
		c, err := f.open(from, to, httpsPort, cert, patience)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		kept[i] = c
	}
	if got := f.is(db, f.send(from, db, httpsPort, cert, patience, getRoot+"\r\n")); got != "pass" {
		t.Fatal(got)
	}
	if err := f.daemon.Stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{http.StatusServiceUnavailable, http.StatusOK} {
		if _, err := io.WriteString(kept[i], "GET /admin HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if r := readResult(bufio.NewReader(kept[i])); r.status != want {
			t.Errorf("failure_mode_allow %v: %d (%v), want %d", i == 1, r.status, r.err, want)
		}
	}
}

// TestL7_15UnderLoad: while the queue is flooded with new flows, checks are all
// answered, and right. How long they take is for the log of the test, and for
// docs/performance-authz.md.
func TestL7_15UnderLoad(t *testing.T) {
	f := newFactors(t)
	const db = "prod-engineering/db"
	attacker := f.pods["prod-engineering/reports"]
	ctx, stop := context.WithCancel(t.Context())
	var sent atomic.Uint64
	var flood sync.WaitGroup
	defer flood.Wait()
	defer stop()
	target := f.pods[db].Addr4()
	for range 4 {
		flood.Go(func() {
			var c net.PacketConn
			if err := attacker.Do(func() (err error) {
				c, err = net.ListenPacket("udp4", "")
				return err
			}); err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for port := 1; ctx.Err() == nil; port = port%65000 + 1 { // each port is a new flow
				if _, err := c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(target, uint16(port)))); err == nil {
					sent.Add(1)
				}
				if port%16 == 0 {
					time.Sleep(time.Millisecond) // some 50,000 a second at most: a flood, and not the end of the machine
				}
			}
		})
	}
	before := f.kernel().LastID
	ask := func(principal string) *authv3.CheckRequest {
		q := authz.Question{Source: netip.AddrPortFrom(f.pods["prod-engineering/api"].Addr4(), 40000), Destination: netip.AddrPortFrom(target, 5432), SourcePrincipal: principal, Method: "GET", Path: "/"}
		return q.CheckRequest()
	}
	good, bad := ask(domain+"api-service"), ask(domain+"reports-sa")
	took := make([]time.Duration, 0, 4000)
	for i := range cap(took) {
		r, want := good, int32(0)
		if i%2 == 1 {
			r, want = bad, 7
		}
		within, cancel := context.WithTimeout(ctx, 30*time.Second)
		start := time.Now()
		got, err := f.client.Check(within, r)
		took = append(took, time.Since(start))
		cancel()
		if err != nil || got.GetStatus().GetCode() != want {
			t.Fatalf("check %d: %v, %v; want %d", i, got, err, want)
		}
	}
	queued := f.kernel().LastID - before
	slices.Sort(took)
	t.Logf("%d checks beside %d packets sent and %d queued: median %s, 99.9%% %s, slowest %s", len(took), sent.Load(), queued, took[len(took)/2], took[len(took)*999/1000], took[len(took)-1])
	if queued < 1000 {
		t.Errorf("%d packets were queued meanwhile: that is no load", queued)
	}
}

// TestPlaintextDenied: with --authz-plaintext deny, the right address is not enough.
func TestPlaintextDenied(t *testing.T) {
	f := newFactors(t, "--authz-plaintext", "deny")
	const db = "prod-engineering/db"
	f.proxies(db, "db-sa", nil)
	if got := f.is(db, f.send("prod-engineering/api", db, httpPort, nil, patience, getRoot+"\r\n")); got != "plaintext" {
		t.Errorf("plain text: %s", got)
	}
	if got := f.is(db, f.send("prod-engineering/api", db, httpsPort, f.issue(domain+"api-service"), patience, getRoot+"\r\n")); got != "pass" {
		t.Errorf("with a certificate: %s", got)
	}
	eventually(t, "the denial is logged", func() bool { return strings.Contains(f.daemon.Text(), `"reason":"plaintext"`) })
}
