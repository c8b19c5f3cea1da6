package authz

import (
	"fmt"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/postern-project/postern/filter"
)

// TestChecks sends what an attacker, or a proxy on a bad day, may send, through the
// socket. Every answer is a CheckResponse; none is a gRPC error.
func TestChecks(t *testing.T) {
	_, path := serve(t, engineOf(compiled(t, 5, world+policyAPI)), Config{TrustDomains: []string{"cluster.local", "alias.example"}})
	client := dial(t, path)

	const ok, denied, invalid = codes.OK, codes.PermissionDenied, codes.InvalidArgument
	get := func(path string) *authv3.CheckRequest { return ask("GET", path) }
	with := func(change func(*authv3.AttributeContext)) *authv3.CheckRequest {
		r := get("/health")
		change(r.Attributes)
		return r
	}
	from := func(principal string) *authv3.CheckRequest {
		return with(func(a *authv3.AttributeContext) { a.Source.Principal = principal })
	}
	at := func(src, dst *corev3.Address) *authv3.CheckRequest {
		return with(func(a *authv3.AttributeContext) { a.Source.Address, a.Destination.Address = src, dst })
	}
	api, db := socket("10.0.0.1", 40000), socket("10.0.0.3", 80)
	protocol := func(n int32) *corev3.Address {
		a := socket("10.0.0.3", 80)
		a.GetSocketAddress().Protocol = corev3.SocketAddress_Protocol(n)
		return a
	}
	for _, tc := range []struct {
		name   string
		ask    *authv3.CheckRequest
		code   codes.Code
		reason string
	}{
		{"both factors", get("/health"), ok, "rule"},
		{"both factors, IPv6", at(socket("fd00::1", 1), socket("fd00::3", 80)), ok, "rule"},
		{"IPv4 as an IPv6 listener may tell it", at(socket("::ffff:10.0.0.1", 1), socket("::ffff:10.0.0.3", 80)), ok, "rule"},

		// 01 certificate and address.
		{"stolen certificate, from another pod", at(socket("10.0.0.2", 40000), db), denied, "identity-mismatch"},
		{"stolen certificate, from outside", at(socket("203.0.113.9", 40000), db), denied, "end-of-tier"},
		{"own certificate, from the wrong pod", from(idWeb), denied, "identity-mismatch"},
		{"proxy of another pod answers", with(func(a *authv3.AttributeContext) { a.Destination.Principal = idWeb }), denied, "identity-mismatch"},
		// 02 plain text leaves the address.
		{"plain text", from(""), ok, "rule"},
		{"plain text, wrong pod", with(func(a *authv3.AttributeContext) {
			a.Source = &authv3.AttributeContext_Peer{Address: socket("10.0.0.2", 1)}
		}), denied, "end-of-tier"},
		// 03 principals.
		{"trust domain alias", from("spiffe://alias.example/ns/prod/sa/api"), ok, "rule"},
		{"other trust domain", from("spiffe://evil.example/ns/prod/sa/api"), denied, "invalid-principal"},
		{"trust domain that begins alike", from("spiffe://cluster.local.evil/ns/prod/sa/api"), denied, "invalid-principal"},
		{"trust domain in capitals", from("spiffe://Cluster.Local/ns/prod/sa/api"), denied, "invalid-principal"},
		{"scheme in capitals", from("SPIFFE://cluster.local/ns/prod/sa/api"), denied, "invalid-principal"},
		{"trailing slash", from(idAPI + "/"), denied, "invalid-principal"},
		{"more segments", from(idAPI + "/x"), denied, "invalid-principal"},
		{"empty namespace", from("spiffe://cluster.local/ns//sa/api"), denied, "invalid-principal"},
		{"empty account", from("spiffe://cluster.local/ns/prod/sa/"), denied, "invalid-principal"},
		{"percent encoding", from("spiffe://cluster.local/ns/prod/sa/%61pi"), denied, "invalid-principal"},
		{"port", from("spiffe://cluster.local:443/ns/prod/sa/api"), denied, "invalid-principal"},
		{"query", from(idAPI + "?x"), denied, "invalid-principal"},
		{"user", from("spiffe://u@cluster.local/ns/prod/sa/api"), denied, "invalid-principal"},
		{"two URIs", from(idAPI + "," + idWeb), denied, "invalid-principal"},
		{"DNS name only", from("api.prod.svc"), denied, "invalid-principal"},
		{"subject only", from("CN=api,O=prod"), denied, "invalid-principal"},
		{"account in other case", from("spiffe://cluster.local/ns/prod/sa/API"), denied, "identity-mismatch"},
		{"dots are dots", from("spiffe://cluster.local/ns/prod/sa/api.v2"), denied, "identity-mismatch"},
		{"longest principal", from("spiffe://cluster.local/ns/prod/sa/" + strings.Repeat("a", 1<<16)), denied, "identity-mismatch"},
		// 04 headers say nothing.
		{"forged XFCC", with(func(a *authv3.AttributeContext) {
			a.Source = &authv3.AttributeContext_Peer{Address: socket("10.0.0.2", 1), Principal: idWeb}
			a.Request.Http.Headers["x-forwarded-client-cert"] = "By=" + idDB + ";URI=" + idAPI
			a.Request.Http.Headers["x-forwarded-for"] = "10.0.0.1"
		}), denied, "end-of-tier"},
		// 05 addresses.
		{"source is the proxy itself", at(socket("127.0.0.1", 1), db), denied, "end-of-tier"},
		{"destination is loopback", at(api, socket("127.0.0.1", 80)), denied, "no-local-endpoint"},
		{"zone", at(socket("fd00::1%eth0", 1), socket("fd00::3", 80)), invalid, "invalid-request"},
		{"two families", at(api, socket("fd00::3", 80)), denied, "invalid-tuple"},
		{"host name", at(socket("api.prod", 1), db), invalid, "invalid-request"},
		{"no address", at(nil, nil), invalid, "invalid-request"},
		{"empty address", at(socket("", 1), db), invalid, "invalid-request"},
		{"pipe", at(&corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/run/x"}}}, db), invalid, "invalid-request"},
		{"internal listener", at(&corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{}}, db), invalid, "invalid-request"},
		{"named port", at(api, &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: "10.0.0.3", PortSpecifier: &corev3.SocketAddress_NamedPort{NamedPort: "http"}}}}), invalid, "invalid-request"},
		{"port out of range", at(api, socket("10.0.0.3", 65536+80)), invalid, "invalid-request"},
		{"other port than the named one", at(api, socket("10.0.0.3", 81)), denied, "end-of-tier"},
		{"unknown protocol", at(api, protocol(77)), invalid, "invalid-request"},
		{"negative protocol", at(api, protocol(-1)), invalid, "invalid-request"},
		{"UDP on one end", at(api, protocol(1)), invalid, "invalid-request"},
		// 06 paths.
		{"prefix", get("/public"), ok, "rule"},
		{"below the prefix", get("/public/a/b?x=/../admin"), ok, "rule"},
		{"slash behind", get("/public/"), ok, "rule"},
		{"like the prefix", get("/publicity"), denied, "end-of-tier"},
		{"dots", get("/public/../admin"), denied, "end-of-tier"},
		{"encoded dots", get("/public/%2e%2e/admin"), denied, "end-of-tier"},
		{"dots encoded twice", get("/public/%252e%252e/admin"), denied, "end-of-tier"},
		{"encoded slash", get("/public/..%2fadmin"), denied, "end-of-tier"},
		{"slash encoded twice", get("/public%252fadmin"), denied, "end-of-tier"},
		{"backslash", get(`/public\..\admin`), denied, "end-of-tier"},
		{"encoded backslash", get("/public/..%5cadmin"), denied, "end-of-tier"},
		{"parameters", get("/public/..;a/admin"), denied, "end-of-tier"},
		{"two slashes", get("//public//x"), ok, "rule"},
		{"dot", get("/./public/./x"), ok, "rule"},
		{"NUL", get("/public/%00"), denied, "end-of-tier"},
		{"fragment", get("/admin#/../public"), denied, "end-of-tier"},
		{"broken encoding", get("/public/%"), denied, "end-of-tier"},
		{"case of the path", get("/Public"), denied, "end-of-tier"},
		{"absolute form", get("http://db.prod/public"), invalid, "invalid-request"},
		{"asterisk form", ask("OPTIONS", "*"), invalid, "invalid-request"},
		{"authority form", ask("CONNECT", "db.prod:80"), invalid, "invalid-request"},
		{"empty path", get(""), invalid, "invalid-request"},
		{"backslash first", get(`\public`), invalid, "invalid-request"},
		// 07 methods.
		{"method in small letters", ask("get", "/health"), denied, "end-of-tier"},
		{"unknown method", ask("BREW", "/health"), denied, "end-of-tier"},
		{"no method", ask("", "/health"), denied, "end-of-tier"},
		// 08, 09 host and headers have no say.
		{"host and headers", with(func(a *authv3.AttributeContext) {
			a.Request.Http.Host = "DB.Prod:80"
			a.Request.Http.Headers = map[string]string{":path": "/admin", ":method": "DELETE", "x-original-url": "/public", "x-http-method-override": "GET", "host": "other"}
		}), ok, "rule"},
		{"headers do not help", with(func(a *authv3.AttributeContext) {
			a.Request.Http.Path = "/admin"
			a.Request.Http.Headers = map[string]string{":path": "/public", "x-original-url": "/public", "x-envoy-original-path": "/public"}
		}), denied, "end-of-tier"},
		{"HTTP/2", with(func(a *authv3.AttributeContext) { a.Request.Http.Protocol = "HTTP/2" }), ok, "rule"},
		// 10 an upgrade is a request like any other.
		{"websocket", with(func(a *authv3.AttributeContext) {
			a.Request.Http.Headers["upgrade"], a.Request.Http.Headers["connection"] = "websocket", "upgrade"
			a.Request.Http.Path = "/admin"
		}), denied, "end-of-tier"},
		{"plain TCP", with(func(a *authv3.AttributeContext) { a.Request.Http = nil }), ok, "rule"},
		// 11 what is no request.
		{"nothing", &authv3.CheckRequest{}, invalid, "invalid-request"},
		{"empty attributes", &authv3.CheckRequest{Attributes: &authv3.AttributeContext{}}, invalid, "invalid-request"},
		{"no request", with(func(a *authv3.AttributeContext) { a.Request = nil }), ok, "rule"},
		{"huge headers", with(func(a *authv3.AttributeContext) {
			for i := range 900 {
				a.Request.Http.Headers[fmt.Sprint("x-", i)] = strings.Repeat("x", 1000)
			}
		}), ok, "rule"},
		{"huge path", get("/public/" + strings.Repeat("../", 150_000)), denied, "end-of-tier"},
		{"huge body", with(func(a *authv3.AttributeContext) { a.Request.Http.RawBody = make([]byte, 1000_000) }), ok, "rule"},
	} {
		got, err := client.Check(t.Context(), tc.ask)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		reason := text(got.DynamicMetadata, "reason")
		if code := codes.Code(got.Status.Code); code != tc.code || reason != tc.reason {
			t.Errorf("%s: %s, %s; want %s, %s", tc.name, code, reason, tc.code, tc.reason)
		}
		if (got.GetOkResponse() != nil) != (tc.code == ok) || (got.GetDeniedResponse() != nil) != (tc.code != ok) {
			t.Errorf("%s: response %v", tc.name, got)
		}
		if err := got.ValidateAll(); err != nil {
			t.Errorf("%s: Envoy would not accept the answer: %v", tc.name, err)
		}
	}
}

// TestAnswer: what the proxy is told of a rule, and what its client is not.
func TestAnswer(t *testing.T) {
	_, path := serve(t, engineOf(compiled(t, 5, world+policyAPI)), Config{})
	client := dial(t, path)
	got, err := client.Check(t.Context(), ask("GET", "/health"))
	if err != nil {
		t.Fatal(err)
	}
	m := got.DynamicMetadata
	if text(m, "policy") != "NetworkPolicy prod/db" || text(m, "tier") != "default" || m.Fields["rule"].GetNumberValue() != 0 || m.Fields["generation"].GetNumberValue() != 5 {
		t.Errorf("metadata %v", m)
	}
	got, err = client.Check(t.Context(), ask("POST", "/health"))
	if err != nil {
		t.Fatal(err)
	}
	if d := got.GetDeniedResponse(); d.GetStatus().GetCode() != 403 || d.Body != "denied by policy: end-of-tier\n" {
		t.Errorf("denied response %v", d)
	}
}

func TestSettings(t *testing.T) {
	rs := compiled(t, 1, world+policyAPI)
	plain := ask("GET", "/health")
	plain.Attributes.Source.Principal = ""
	stolen := ask("GET", "/health")
	stolen.Attributes.Source.Principal = idWeb
	for _, tc := range []struct {
		name   string
		engine *filter.Engine
		opt    filter.RequestOptions
		ask    *authv3.CheckRequest
		code   codes.Code
		reason string
	}{
		{"plain text refused", engineOf(rs), filter.RequestOptions{RefusePlaintext: true}, plain, codes.PermissionDenied, "plaintext"},
		{"mismatch to rules", engineOf(rs), filter.RequestOptions{MismatchToRules: true}, stolen, codes.PermissionDenied, "end-of-tier"},
		// 12 nothing in force.
		{"no policy yet", &filter.Engine{}, filter.RequestOptions{}, ask("GET", "/health"), codes.Internal, "not-ready"},
		{"no policy yet, and nothing asked", &filter.Engine{}, filter.RequestOptions{}, &authv3.CheckRequest{}, codes.InvalidArgument, "invalid-request"},
	} {
		s, path := serve(t, tc.engine, Config{Options: tc.opt})
		got, err := dial(t, path).Check(t.Context(), tc.ask)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if codes.Code(got.Status.Code) != tc.code || text(got.DynamicMetadata, "reason") != tc.reason {
			t.Errorf("%s: %v", tc.name, got)
		}
		if s.Stats().Total(filter.Drop) != 1 || s.Stats().Total(filter.Accept) != 0 {
			t.Errorf("%s: not counted", tc.name)
		}
	}
	if _, err := New(&filter.Engine{}, Config{TrustDomains: []string{"spiffe://x"}}); err == nil {
		t.Error("a trust domain with a scheme is accepted")
	}
}

// FuzzCheck: any bytes get an answer that allows or denies, and what proto.Unmarshal
// can read is read alike.
func FuzzCheck(f *testing.F) {
	for _, r := range []*authv3.CheckRequest{ask("GET", "/health"), {}, {Attributes: &authv3.AttributeContext{Source: &authv3.AttributeContext_Peer{
		Labels: map[string]string{"a": "b", "": ""}, Address: &corev3.Address{Address: &corev3.Address_Pipe{}}, Certificate: "%41", Service: "s"}}}} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, b...))
	}
	s, err := New(engineOf(compiled(f, 1, world+policyAPI)), Config{Log: func(p any, stack []byte) { panic(fmt.Sprint(p, string(stack))) }})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := decode(b)
		var m authv3.CheckRequest
		if err := proto.Unmarshal(b, &m); err == nil {
			if want := reference(&m); c.err != nil || fmt.Sprintf("%+v", c) != fmt.Sprintf("%+v", want) {
				t.Fatalf("read %+v, want %+v", c, want)
			}
		}
		var r authv3.CheckResponse
		if err := proto.Unmarshal(s.answer(&c), &r); err != nil || r.Status == nil || r.HttpResponse == nil {
			t.Fatalf("%v: %v", &r, err)
		}
		if c.err != nil && r.Status.Code != int32(codes.InvalidArgument) {
			t.Fatalf("unreadable, and answered %v", &r)
		}
	})
}

// reference reads what decode reads, from a message that was read whole.
func reference(m *authv3.CheckRequest) (c check) {
	a := m.GetAttributes()
	end := func(p *authv3.AttributeContext_Peer) (out peer) {
		out = peer{labels: p.GetLabels(), principal: p.GetPrincipal(), certificate: p.GetCertificate()}
		switch x := p.GetAddress().GetAddress().(type) {
		case *corev3.Address_SocketAddress:
			out.address = address{kind: socketAddress, text: x.SocketAddress.GetAddress(), protocol: uint64(uint32(x.SocketAddress.GetProtocol()))}
			switch y := x.SocketAddress.GetPortSpecifier().(type) {
			case *corev3.SocketAddress_PortValue:
				out.address.portKind, out.address.port = socketPort, uint64(y.PortValue)
			case *corev3.SocketAddress_NamedPort:
				out.address.portKind = socketNamedPort
			}
		case *corev3.Address_Pipe:
			out.address.kind = pipeAddress
		case *corev3.Address_EnvoyInternalAddress:
			out.address.kind = internalAddress
		}
		return out
	}
	c.attributes = a != nil
	c.source, c.destination = end(a.GetSource()), end(a.GetDestination())
	c.http = a.GetRequest().GetHttp() != nil
	c.method, c.path = a.GetRequest().GetHttp().GetMethod(), a.GetRequest().GetHttp().GetPath()
	return c
}
