package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"
)

// judge answers checks as a test says, and keeps them.
type judge struct {
	authv3.UnimplementedAuthorizationServer
	mu     sync.Mutex
	asked  []*authv3.CheckRequest
	answer func(*authv3.CheckRequest) (*authv3.CheckResponse, error)
}

func (j *judge) Check(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	j.mu.Lock()
	j.asked = append(j.asked, r)
	answer := j.answer
	j.mu.Unlock()
	if answer == nil {
		<-ctx.Done() // never in time
		return nil, ctx.Err()
	}
	return answer(r)
}

func (j *judge) last(t *testing.T) *authv3.AttributeContext {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.asked) == 0 {
		t.Fatal("nothing was asked")
	}
	return j.asked[len(j.asked)-1].Attributes
}

func allow(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{Status: &rpc.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}}}, nil
}

func deny(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{Status: &rpc.Status{Code: int32(codes.PermissionDenied)}, HttpResponse: &authv3.CheckResponse_DeniedResponse{
		DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode_Locked}, Body: "no"},
	}}, nil
}

func fail(*authv3.CheckRequest) (*authv3.CheckResponse, error) { return nil, errors.New("broken") }

// start runs a proxy on loopback in front of a backend that says what it was asked.
func start(t *testing.T, j *judge, cfg Config) (addr string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "j.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, j)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	c, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.TCP {
		go func() {
			for {
				c, err := back.Accept()
				if err != nil {
					return
				}
				go func() { defer c.Close(); io.Copy(c, c) }()
			}
		}()
		t.Cleanup(func() { back.Close() })
	} else {
		h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				w.Header().Set("Upgrade", "echo")
				w.Header().Set("Connection", "upgrade")
				w.WriteHeader(http.StatusSwitchingProtocols)
				c, rw, err := w.(http.Hijacker).Hijack()
				if err != nil {
					return
				}
				defer c.Close()
				io.Copy(c, rw)
				return
			}
			b, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %s", r.Method, r.RequestURI, b)
		})}
		go h.Serve(back)
		t.Cleanup(func() { h.Close() })
	}
	cfg.Authorization = authv3.NewAuthorizationClient(c)
	cfg.Dial = func() (net.Conn, error) { return net.Dial("tcp", back.Addr().String()) }
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := Start(front, cfg)
	t.Cleanup(func() { p.Close() })
	return front.Addr().String()
}

// send writes bytes to the proxy and gives the answer.
func send(t *testing.T, addr, text string) (status int, body string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// TestCheckRequest: what is told of a request of HTTP/1.1, in plain text.
func TestCheckRequest(t *testing.T) {
	j := &judge{answer: allow}
	addr := start(t, j, Config{Timeout: 10 * time.Second, MaxBody: 4, PackAsBytes: true, ContextExtensions: map[string]string{"virtual_host": "x"}, DestinationLabels: map[string]string{"app": "db"},
		Metadata: map[string]*structpb.Struct{"istio_authn": {Fields: map[string]*structpb.Value{"a": structpb.NewStringValue("b")}}}})
	status, body := send(t, addr, "POST /a/../b%2e?q HTTP/1.1\r\nHost: H:80\r\nX-A: 1\r\nx-a: 2\r\nX-Bad: \xff\xc0\r\nX-Envoy-Downstream-Service-Cluster: s\r\nContent-Length: 6\r\nConnection: close\r\n\r\nabcdef")
	if status != 200 || body != "POST /a/../b%2e?q abcdef" {
		t.Errorf("%d %q", status, body)
	}
	a := j.last(t)
	h := a.Request.Http
	if h.Method != "POST" || h.Path != "/a/../b%2e?q" || h.Host != "H:80" || h.Scheme != "http" || h.Protocol != "HTTP/1.1" || h.Size != 6 || string(h.RawBody) != "abcd" || h.Body != "" || h.Id == "" {
		t.Errorf("%v", h)
	}
	for name, want := range map[string]string{":method": "POST", ":path": h.Path, ":authority": "H:80", ":scheme": "http", "x-a": "1,2", "x-bad": "!!", "x-envoy-auth-partial-body": "true"} {
		if h.Headers[name] != want {
			t.Errorf("%s is %q, want %q", name, h.Headers[name], want)
		}
	}
	if _, there := h.Headers["host"]; there {
		t.Error("host is told twice")
	}
	if a.Source.Principal != "" || a.Source.Service != "s" || a.Source.Address.GetSocketAddress().GetAddress() != "127.0.0.1" || a.Destination.Labels["app"] != "db" ||
		fmt.Sprintf("127.0.0.1:%d", a.Destination.Address.GetSocketAddress().GetPortValue()) != addr || a.ContextExtensions["virtual_host"] != "x" ||
		a.MetadataContext.FilterMetadata["istio_authn"] == nil || a.Request.Time == nil {
		t.Errorf("%v", a)
	}
	for text, want := range map[string][3]string{
		"GET http://other/p?q HTTP/1.1\r\nHost: h\r\n\r\n": {"GET", "/p?q", "other"},
		"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n":            {"OPTIONS", "*", "h"},
		"CONNECT a:1 HTTP/1.1\r\nHost: h\r\n\r\n":          {"CONNECT", "", "a:1"},
	} {
		j.answer = deny
		if status, body := send(t, addr, text); status != 423 || body != "no" {
			t.Errorf("%q: %d %q", text, status, body)
		}
		if h := j.last(t).Request.Http; [3]string{h.Method, h.Path, h.Host} != want {
			t.Errorf("%q: %v", text, h)
		}
	}
	before := len(j.asked)
	for _, text := range []string{"GET /a#b HTTP/1.1\r\n\r\n", "GET  / HTTP/1.1\r\n\r\n", "GET / HTTP/2\r\n\r\n", "GET / HTTP/1.1\r\nA b: c\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n",
		"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n"} {
		if status, _ := send(t, addr, text); status != 400 {
			t.Errorf("%q: %d", text, status)
		}
	}
	if len(j.asked) != before {
		t.Error("a malformed request was asked about")
	}
}

// TestMutualTLS: what is told of certificates, over HTTP/1.1 and HTTP/2.
func TestMutualTLS(t *testing.T) {
	m, err := NewMesh()
	if err != nil {
		t.Fatal(err)
	}
	issue := func(uris, names []string, subject string) tls.Certificate {
		c, err := m.IssueAny(uris, names, subject)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	own := issue([]string{"spiffe://a/server"}, nil, "")
	strict, err := m.Server(own)
	if err != nil {
		t.Fatal(err)
	}
	j := &judge{answer: allow}
	cfg := Config{Timeout: 10 * time.Second, TLS: m.CarelessServer(own), Certificate: &own, Permissive: true, IncludePeerCertificate: true, IncludeTLSSession: true}
	addr := start(t, j, cfg)
	cfg.TLS, cfg.Permissive = strict, false
	strictAddr := start(t, j, cfg)
	for _, tc := range []struct {
		cert      tls.Certificate
		principal string
		strict    bool
	}{
		{issue([]string{"spiffe://a/x"}, []string{"n"}, "s"), "spiffe://a/x", true},
		{issue([]string{"spiffe://a/x", "spiffe://a/y"}, nil, "s"), "spiffe://a/x", false},
		{issue(nil, []string{"n", "m"}, "s"), "n", false},
		{issue(nil, nil, "s"), "CN=s", false},
	} {
		for _, two := range []bool{false, true} {
			cl := m.Client(tc.cert)
			cl.ServerName = "db.example"
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: cl, ForceAttemptHTTP2: two, DisableKeepAlives: true}, Timeout: 20 * time.Second}
			r, err := client.Post("https://"+addr+"/x?y", "", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(r.Body)
			if string(b) != "POST /x?y body" || (r.ProtoMajor == 2) != two {
				t.Errorf("%s %q", r.Proto, b)
			}
			a := j.last(t)
			if a.Source.Principal != tc.principal || a.Destination.Principal != "spiffe://a/server" || a.TlsSession.Sni != "db.example" || a.Request.Http.Scheme != "https" ||
				a.Request.Http.Path != "/x?y" || two != (a.Request.Http.Protocol == "HTTP/2") || a.Request.Http.Size != 4 {
				t.Errorf("%v", a)
			}
			if text, err := url.PathUnescape(a.Source.Certificate); err != nil || !strings.HasPrefix(text, "-----BEGIN CERTIFICATE-----\n") {
				t.Errorf("certificate %q", a.Source.Certificate)
			}
			if _, err = client.Transport.(*http.Transport).Clone().RoundTrip(request1(t, "https://"+strictAddr+"/")); (err == nil) != tc.strict {
				t.Errorf("%s at a strict proxy: %v", tc.principal, err)
			}
		}
	}
	if status, _ := send(t, addr, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); status != 200 || j.last(t).Source.Principal != "" {
		t.Errorf("plain text at a permissive proxy: %d, %v", status, j.last(t))
	}
}

func request1(t *testing.T, url string) *http.Request {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestFailure: errors and silence are for the failure mode.
func TestFailure(t *testing.T) {
	for _, answer := range []func(*authv3.CheckRequest) (*authv3.CheckResponse, error){fail, nil} {
		for _, open := range []bool{false, true} {
			j := &judge{answer: answer}
			var told Decision
			var once sync.Once
			addr := start(t, j, Config{FailureModeAllow: open, StatusOnError: 503, Decided: func(d Decision) { once.Do(func() { told = d }) }})
			want := 503
			if open {
				want = 200
			}
			if status, _ := send(t, addr, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); status != want || told.Err == nil || told.Allowed != open {
				t.Errorf("allow %v: %d, %+v", open, status, told)
			}
		}
	}
}

// TestConnections: TCP, and upgrades.
func TestConnections(t *testing.T) {
	j := &judge{answer: allow}
	addr := start(t, j, Config{TCP: true, Timeout: 10 * time.Second})
	echo := func(c net.Conn) error {
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write([]byte("ping")); err != nil {
			return err
		}
		b := make([]byte, 4)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping" {
			return fmt.Errorf("%q: %w", b, err)
		}
		return nil
	}
	dial := func(addr string) net.Conn {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	if err := echo(dial(addr)); err != nil || j.last(t).Request.Http != nil {
		t.Errorf("%v, %v", err, j.last(t))
	}
	j.mu.Lock()
	j.answer = deny
	j.mu.Unlock()
	if err := echo(dial(addr)); err == nil {
		t.Error("a denied connection carries data")
	}
	up := dial(start(t, &judge{answer: allow}, Config{Timeout: 10 * time.Second}))
	up.Write([]byte("GET /s HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"))
	head := make([]byte, len("HTTP/1.1 101"))
	if _, err := io.ReadFull(up, head); err != nil || string(head) != "HTTP/1.1 101" {
		t.Fatalf("%q, %v", head, err)
	}
	for last := ""; last != "\r\n\r\n"; { // the rest of the head
		b := make([]byte, 1)
		if _, err := up.Read(b); err != nil {
			t.Fatal(err)
		}
		if last += string(b); len(last) > 4 {
			last = last[len(last)-4:]
		}
	}
	if err := echo(up); err != nil {
		t.Error(err)
	}
}
