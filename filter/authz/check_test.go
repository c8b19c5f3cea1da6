package authz

import (
	"fmt"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/postern-project/postern/filter"
)

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
