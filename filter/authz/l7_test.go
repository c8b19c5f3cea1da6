package authz

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/postern-project/postern/filter"
)

// The tests TestL7_NN… send what an attacker, or a proxy on a bad day, may send,
// through the socket. Every answer is a CheckResponse; none is a gRPC error. Those of
// them that need packets or a proxy are in test/e2e, under the same numbers.

// TestL7Complete: each of the fifteen cases has a test.
func TestL7Complete(t *testing.T) {
	t.Parallel()
	number := regexp.MustCompile(`^TestL7_(\d\d)\D`)
	found := map[string]bool{}
	for _, dir := range []string{".", "../../test/e2e"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no tests: %v", dir, err)
		}
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					if m := number.FindStringSubmatch(fn.Name.Name); m != nil {
						found[m[1]] = true
					}
				}
			}
		}
	}
	for i := 1; i <= 15; i++ {
		if n := fmt.Sprintf("%02d", i); !found[n] {
			t.Errorf("no test of case %s", n)
		}
	}
}

const ok, denied, invalid = codes.OK, codes.PermissionDenied, codes.InvalidArgument

// attempt is a check and the answer it must get.
type attempt struct {
	name   string
	ask    *authv3.CheckRequest
	code   codes.Code
	reason string
}

// try sends attempts to a server with the policy that world and policyAPI make.
func try(t *testing.T, attempts ...attempt) {
	t.Helper()
	_, path := serve(t, engineOf(compiled(t, 5, world+policyAPI)), Config{TrustDomains: []string{"cluster.local", "alias.example"}})
	client := dial(t, path)
	for _, a := range attempts {
		got, err := client.Check(t.Context(), a.ask)
		if err != nil {
			t.Errorf("%s: %v", a.name, err)
			continue
		}
		expect(t, a.name, got, a.code, a.reason)
	}
}

// expect compares an answer, which must be one that Envoy accepts.
func expect(t *testing.T, name string, got *authv3.CheckResponse, code codes.Code, reason string) {
	t.Helper()
	if c, r := codes.Code(got.GetStatus().GetCode()), text(got.GetDynamicMetadata(), "reason"); c != code || r != reason {
		t.Errorf("%s: %s, %s; want %s, %s", name, c, r, code, reason)
	}
	if (got.GetOkResponse() != nil) != (code == ok) || (got.GetDeniedResponse() != nil) != (code != ok) {
		t.Errorf("%s: response %v", name, got)
	}
	if err := got.ValidateAll(); err != nil {
		t.Errorf("%s: Envoy would not accept the answer: %v", name, err)
	}
}

func get(path string) *authv3.CheckRequest { return ask("GET", path) }

// with changes a request that is allowed.
func with(change func(*authv3.AttributeContext)) *authv3.CheckRequest {
	r := get("/health")
	change(r.Attributes)
	return r
}

func from(principal string) *authv3.CheckRequest {
	return with(func(a *authv3.AttributeContext) { a.Source.Principal = principal })
}

func at(src, dst *corev3.Address) *authv3.CheckRequest {
	return with(func(a *authv3.AttributeContext) { a.Source.Address, a.Destination.Address = src, dst })
}

var addrAPI, addrDB = socket("10.0.0.1", 40000), socket("10.0.0.3", 80)

// TestL7_00Allowed: what the other cases are variations of.
func TestL7_00Allowed(t *testing.T) {
	try(t,
		attempt{"both factors", get("/health"), ok, "rule"},
		attempt{"both factors, IPv6", at(socket("fd00::1", 1), socket("fd00::3", 80)), ok, "rule"},
		attempt{"IPv4 as an IPv6 listener may tell it", at(socket("::ffff:10.0.0.1", 1), socket("::ffff:10.0.0.3", 80)), ok, "rule"},
	)
}

// TestL7_01StolenCertificate: certificate and address must name one account.
func TestL7_01StolenCertificate(t *testing.T) {
	try(t,
		attempt{"stolen certificate, from another pod", at(socket("10.0.0.2", 40000), addrDB), denied, "identity-mismatch"},
		attempt{"stolen certificate, from outside", at(socket("203.0.113.9", 40000), addrDB), denied, "end-of-tier"},
		attempt{"own certificate, from the wrong pod", from(idWeb), denied, "identity-mismatch"},
		attempt{"proxy of another pod answers", with(func(a *authv3.AttributeContext) { a.Destination.Principal = idWeb }), denied, "identity-mismatch"},
	)
}

// TestL7_02PlainText: without a certificate the address is left.
func TestL7_02PlainText(t *testing.T) {
	try(t,
		attempt{"plain text", from(""), ok, "rule"},
		attempt{"plain text, wrong pod", with(func(a *authv3.AttributeContext) {
			a.Source = &authv3.AttributeContext_Peer{Address: socket("10.0.0.2", 1)}
		}), denied, "end-of-tier"},
	)
}

// TestL7_03Principals: one form of principal, of the accepted trust domains, and no other.
func TestL7_03Principals(t *testing.T) {
	try(t,
		attempt{"trust domain alias", from("spiffe://alias.example/ns/prod/sa/api"), ok, "rule"},
		attempt{"other trust domain", from("spiffe://evil.example/ns/prod/sa/api"), denied, "invalid-principal"},
		attempt{"trust domain that begins alike", from("spiffe://cluster.local.evil/ns/prod/sa/api"), denied, "invalid-principal"},
		attempt{"trust domain in capitals", from("spiffe://Cluster.Local/ns/prod/sa/api"), denied, "invalid-principal"},
		attempt{"scheme in capitals", from("SPIFFE://cluster.local/ns/prod/sa/api"), denied, "invalid-principal"},
		attempt{"trailing slash", from(idAPI + "/"), denied, "invalid-principal"},
		attempt{"more segments", from(idAPI + "/x"), denied, "invalid-principal"},
		attempt{"empty namespace", from("spiffe://cluster.local/ns//sa/api"), denied, "invalid-principal"},
		attempt{"empty account", from("spiffe://cluster.local/ns/prod/sa/"), denied, "invalid-principal"},
		attempt{"percent encoding", from("spiffe://cluster.local/ns/prod/sa/%61pi"), denied, "invalid-principal"},
		attempt{"port", from("spiffe://cluster.local:443/ns/prod/sa/api"), denied, "invalid-principal"},
		attempt{"query", from(idAPI + "?x"), denied, "invalid-principal"},
		attempt{"user", from("spiffe://u@cluster.local/ns/prod/sa/api"), denied, "invalid-principal"},
		attempt{"two URIs", from(idAPI + "," + idWeb), denied, "invalid-principal"},
		attempt{"DNS name only", from("api.prod.svc"), denied, "invalid-principal"},
		attempt{"subject only", from("CN=api,O=prod"), denied, "invalid-principal"},
		attempt{"account in other case", from("spiffe://cluster.local/ns/prod/sa/API"), denied, "identity-mismatch"},
		attempt{"dots are dots", from("spiffe://cluster.local/ns/prod/sa/api.v2"), denied, "identity-mismatch"},
		attempt{"longest principal", from("spiffe://cluster.local/ns/prod/sa/" + strings.Repeat("a", 1<<16)), denied, "identity-mismatch"},
	)
}

// TestL7_04ForgedHeaders: headers say nothing of who asks.
func TestL7_04ForgedHeaders(t *testing.T) {
	try(t,
		attempt{"forged XFCC", with(func(a *authv3.AttributeContext) {
			a.Source = &authv3.AttributeContext_Peer{Address: socket("10.0.0.2", 1), Principal: idWeb}
			a.Request.Http.Headers["x-forwarded-client-cert"] = "By=" + idDB + ";URI=" + idAPI
			a.Request.Http.Headers["x-forwarded-for"] = "10.0.0.1"
		}), denied, "end-of-tier"},
	)
}

// TestL7_05Addresses: addresses that are not those of the connection, or are none.
func TestL7_05Addresses(t *testing.T) {
	protocol := func(n int32) *corev3.Address {
		a := socket("10.0.0.3", 80)
		a.GetSocketAddress().Protocol = corev3.SocketAddress_Protocol(n)
		return a
	}
	try(t,
		attempt{"source is the proxy itself", at(socket("127.0.0.1", 1), addrDB), denied, "end-of-tier"},
		attempt{"destination is loopback", at(addrAPI, socket("127.0.0.1", 80)), denied, "no-local-endpoint"},
		attempt{"zone", at(socket("fd00::1%eth0", 1), socket("fd00::3", 80)), invalid, "invalid-request"},
		attempt{"two families", at(addrAPI, socket("fd00::3", 80)), denied, "invalid-tuple"},
		attempt{"host name", at(socket("api.prod", 1), addrDB), invalid, "invalid-request"},
		attempt{"no address", at(nil, nil), invalid, "invalid-request"},
		attempt{"empty address", at(socket("", 1), addrDB), invalid, "invalid-request"},
		attempt{"pipe", at(&corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/run/x"}}}, addrDB), invalid, "invalid-request"},
		attempt{"internal listener", at(&corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{}}, addrDB), invalid, "invalid-request"},
		attempt{"named port", at(addrAPI, &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: "10.0.0.3", PortSpecifier: &corev3.SocketAddress_NamedPort{NamedPort: "http"}}}}), invalid, "invalid-request"},
		attempt{"port out of range", at(addrAPI, socket("10.0.0.3", 65536+80)), invalid, "invalid-request"},
		attempt{"other port than the named one", at(addrAPI, socket("10.0.0.3", 81)), denied, "end-of-tier"},
		attempt{"unknown protocol", at(addrAPI, protocol(77)), invalid, "invalid-request"},
		attempt{"negative protocol", at(addrAPI, protocol(-1)), invalid, "invalid-request"},
		attempt{"UDP on one end", at(addrAPI, protocol(1)), invalid, "invalid-request"},
	)
}

// TestL7_06Paths: tricks with paths.
func TestL7_06Paths(t *testing.T) {
	try(t,
		attempt{"prefix", get("/public"), ok, "rule"},
		attempt{"below the prefix", get("/public/a/b?x=/../admin"), ok, "rule"},
		attempt{"slash behind", get("/public/"), ok, "rule"},
		attempt{"like the prefix", get("/publicity"), denied, "end-of-tier"},
		attempt{"dots", get("/public/../admin"), denied, "end-of-tier"},
		attempt{"encoded dots", get("/public/%2e%2e/admin"), denied, "end-of-tier"},
		attempt{"dots encoded twice", get("/public/%252e%252e/admin"), denied, "end-of-tier"},
		attempt{"encoded slash", get("/public/..%2fadmin"), denied, "end-of-tier"},
		attempt{"slash encoded twice", get("/public%252fadmin"), denied, "end-of-tier"},
		attempt{"backslash", get(`/public\..\admin`), denied, "end-of-tier"},
		attempt{"encoded backslash", get("/public/..%5cadmin"), denied, "end-of-tier"},
		attempt{"parameters", get("/public/..;a/admin"), denied, "end-of-tier"},
		attempt{"two slashes", get("//public//x"), ok, "rule"},
		attempt{"dot", get("/./public/./x"), ok, "rule"},
		attempt{"NUL", get("/public/%00"), denied, "end-of-tier"},
		attempt{"fragment", get("/admin#/../public"), denied, "end-of-tier"},
		attempt{"broken encoding", get("/public/%"), denied, "end-of-tier"},
		attempt{"case of the path", get("/Public"), denied, "end-of-tier"},
		attempt{"absolute form", get("http://db.prod/public"), invalid, "invalid-request"},
		attempt{"asterisk form", ask("OPTIONS", "*"), invalid, "invalid-request"},
		attempt{"authority form", ask("CONNECT", "db.prod:80"), invalid, "invalid-request"},
		attempt{"empty path", get(""), invalid, "invalid-request"},
		attempt{"backslash first", get(`\public`), invalid, "invalid-request"},
	)
}

// TestL7_07Methods: methods are compared as they are.
func TestL7_07Methods(t *testing.T) {
	try(t,
		attempt{"method in small letters", ask("get", "/health"), denied, "end-of-tier"},
		attempt{"unknown method", ask("BREW", "/health"), denied, "end-of-tier"},
		attempt{"no method", ask("", "/health"), denied, "end-of-tier"},
	)
}

// TestL7_08Host: host and headers have no say.
func TestL7_08Host(t *testing.T) {
	try(t,
		attempt{"host and headers", with(func(a *authv3.AttributeContext) {
			a.Request.Http.Host = "DB.Prod:80"
			a.Request.Http.Headers = map[string]string{":path": "/admin", ":method": "DELETE", "x-original-url": "/public", "x-http-method-override": "GET", "host": "other"}
		}), ok, "rule"},
		attempt{"headers do not help", with(func(a *authv3.AttributeContext) {
			a.Request.Http.Path = "/admin"
			a.Request.Http.Headers = map[string]string{":path": "/public", "x-original-url": "/public", "x-envoy-original-path": "/public"}
		}), denied, "end-of-tier"},
	)
}

// TestL7_09Duplicates: HTTP/2 is as HTTP/1.1, and what is there twice counts as
// protocol buffers say, the last one, whatever the headers say.
func TestL7_09Duplicates(t *testing.T) {
	try(t,
		attempt{"HTTP/2", with(func(a *authv3.AttributeContext) { a.Request.Http.Protocol = "HTTP/2" }), ok, "rule"},
		attempt{"pseudo-headers that differ", with(func(a *authv3.AttributeContext) {
			a.Request.Http.Headers = map[string]string{":path": "/public", ":method": "GET", ":authority": "a"}
			a.Request.Http.Method, a.Request.Http.Path, a.Request.Http.Protocol = "DELETE", "/admin", "HTTP/2"
		}), denied, "end-of-tier"},
		attempt{"headers that the proxy merged", with(func(a *authv3.AttributeContext) {
			a.Request.Http.Path = "/admin"
			a.Request.Http.Headers["x-original-url"], a.Request.Http.Headers["host"] = "/public,/public", "db.prod,other"
		}), denied, "end-of-tier"},
	)
	// A second path, in a second attributes field: the message is read as one.
	again := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Path: "/admin"}}}}
	first, second := encoded(t, get("/health")), encoded(t, again)
	_, path := serve(t, engineOf(compiled(t, 5, world+policyAPI)), Config{})
	c := connect(t, path)
	expect(t, "the second is forbidden", raw(t, c, append(first, second...)), denied, "end-of-tier")
	expect(t, "the second is allowed", raw(t, c, append(second, first...)), ok, "rule")
}

// TestL7_10Upgrade: an upgrade is a request like any other.
func TestL7_10Upgrade(t *testing.T) {
	try(t,
		attempt{"websocket", with(func(a *authv3.AttributeContext) {
			a.Request.Http.Headers["upgrade"], a.Request.Http.Headers["connection"] = "websocket", "upgrade"
			a.Request.Http.Path = "/admin"
		}), denied, "end-of-tier"},
		attempt{"plain TCP", with(func(a *authv3.AttributeContext) { a.Request.Http = nil }), ok, "rule"},
	)
}

// TestL7_11Bytes: bytes that are no CheckRequest, and that no client library would
// send, are answered like the rest.
func TestL7_11Bytes(t *testing.T) {
	_, path := serve(t, engineOf(compiled(t, 5, world+policyAPI)), Config{})
	c, good := connect(t, path), encoded(t, get("/health"))
	// field replaces the attributes by a field within them, by way of its numbers.
	field := func(b []byte, numbers ...protowire.Number) []byte {
		for i := len(numbers) - 1; i >= 0; i-- {
			b = append(protowire.AppendTag(nil, numbers[i], protowire.BytesType), protowire.AppendBytes(nil, b)...)
		}
		return append(append([]byte{}, good...), b...)
	}
	bad := []byte("/public\xff\xfe")
	for name, message := range map[string][]byte{
		"invalid UTF-8 in the path":          field(bad, requestAttributes, attributesRequest, requestHTTP, httpPath),
		"invalid UTF-8 in the method":        field(bad, requestAttributes, attributesRequest, requestHTTP, httpMethod),
		"invalid UTF-8 in the host":          field(bad, requestAttributes, attributesRequest, requestHTTP, 5),
		"invalid UTF-8 in a header":          field(bad, requestAttributes, attributesRequest, requestHTTP, httpHeaders, entryValue),
		"invalid UTF-8 in a header's name":   field(bad, requestAttributes, attributesRequest, requestHTTP, httpHeaders, entryKey),
		"invalid UTF-8 in the principal":     field(bad, requestAttributes, attributesSource, peerPrincipal),
		"invalid UTF-8 in a label":           field(bad, requestAttributes, attributesSource, peerLabels, entryValue),
		"invalid UTF-8 in the address":       field(bad, requestAttributes, attributesSource, peerAddress, socketAddress, socketText),
		"overlong UTF-8 in the path":         field([]byte("/public/\xc0\xae\xc0\xae/admin"), requestAttributes, attributesRequest, requestHTTP, httpPath),
		"a surrogate in the path":            field([]byte("/public/\xed\xa0\x80"), requestAttributes, attributesRequest, requestHTTP, httpPath),
		"nothing":                            {},
		"not a protocol buffer":              []byte("GET / HTTP/1.1\r\n\r\n"),
		"a field longer than the message":    {1<<3 | 2, 0xff, 0xff, 0xff, 0x7f, 1},
		"a message that ends within a field": good[:len(good)-3],
		"a number longer than any":           {1 << 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		"a group without end":                append(append([]byte{}, good...), 9<<3|3),
		"the field number 0":                 append(append([]byte{}, good...), 2, 0),
		"attributes that are a number":       {1 << 3, 1},
	} {
		expect(t, name, raw(t, c, message), invalid, "invalid-request")
	}
	expect(t, "fields that nobody knows", raw(t, c, field([]byte("x"), 4711)), ok, "rule")
}

// bytesCodec sends and receives bytes as they are.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// raw sends bytes as a CheckRequest.
func raw(t *testing.T, c *grpc.ClientConn, message []byte) *authv3.CheckResponse {
	t.Helper()
	var b []byte
	if err := c.Invoke(t.Context(), authv3.Authorization_Check_FullMethodName, message, &b, grpc.ForceCodecV2(bytesCodec{})); err != nil {
		t.Fatal(err)
	}
	out := &authv3.CheckResponse{}
	if err := proto.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func encoded(t *testing.T, r *authv3.CheckRequest) []byte {
	t.Helper()
	b, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestL7_12NothingInForce: while no policy is in force everything is denied, as the
// fault of postern, and the reason is told.
func TestL7_12NothingInForce(t *testing.T) {
	engine := &filter.Engine{}
	s, path := serve(t, engine, Config{})
	client := dial(t, path)
	check := func(name string, r *authv3.CheckRequest, code codes.Code, reason string) {
		got, err := client.Check(t.Context(), r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		expect(t, name, got, code, reason)
	}
	check("a request", get("/health"), codes.Internal, "not-ready")
	check("a connection", with(func(a *authv3.AttributeContext) { a.Request = nil }), codes.Internal, "not-ready")
	check("nothing asked", &authv3.CheckRequest{}, invalid, "invalid-request")
	engine.Swap(compiled(t, 1, world))
	check("a cluster without policy", get("/health"), ok, "profile")
	engine.Swap(compiled(t, 2, world+policyAPI))
	check("policy", get("/health"), ok, "rule")
	if s.Stats().Total(filter.Drop) != 3 || s.Stats().Total(filter.Accept) != 2 {
		t.Errorf("%d denied and %d allowed, want 3 and 2", s.Stats().Total(filter.Drop), s.Stats().Total(filter.Accept))
	}
}

// TestL7_11Malformed: what is no request is denied in words.
func TestL7_11Malformed(t *testing.T) {
	try(t,
		attempt{"nothing", &authv3.CheckRequest{}, invalid, "invalid-request"},
		attempt{"empty attributes", &authv3.CheckRequest{Attributes: &authv3.AttributeContext{}}, invalid, "invalid-request"},
		attempt{"no request", with(func(a *authv3.AttributeContext) { a.Request = nil }), ok, "rule"},
		attempt{"huge headers", with(func(a *authv3.AttributeContext) {
			for i := range 900 {
				a.Request.Http.Headers[fmt.Sprint("x-", i)] = strings.Repeat("x", 1000)
			}
		}), ok, "rule"},
		attempt{"huge path", get("/public/" + strings.Repeat("../", 150_000)), denied, "end-of-tier"},
		attempt{"huge body", with(func(a *authv3.AttributeContext) { a.Request.Http.RawBody = make([]byte, 1000_000) }), ok, "rule"},
	)
}
