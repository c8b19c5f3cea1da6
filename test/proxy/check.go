package proxy

import (
	"encoding/pem"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"crypto/x509"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// request is the head of a request, as it was written, and how much of its body is
// sent along.
type request struct {
	method, path, host, protocol string
	header                       []field
	size                         int64 // -1 if it is not known
	body                         []byte
}

type field struct{ name, value string }

// get gives the first value of a header.
func (r *request) get(name string) string {
	for _, h := range r.header {
		if strings.EqualFold(h.name, name) {
			return h.value
		}
	}
	return ""
}

// check fills in the message about a request, or about a connection if that is nil.
func (p *Proxy) check(c *connection, r *request) *authv3.CheckRequest {
	a := &authv3.AttributeContext{
		Source:          &authv3.AttributeContext_Peer{Address: addressOf(c.RemoteAddr())},
		Destination:     &authv3.AttributeContext_Peer{Address: addressOf(c.LocalAddr()), Labels: p.cfg.DestinationLabels},
		Request:         &authv3.AttributeContext_Request{Time: timestamppb.Now()},
		MetadataContext: &corev3.Metadata{FilterMetadata: p.cfg.Metadata}, ContextExtensions: p.cfg.ContextExtensions,
	}
	if c.tls != nil {
		if len(c.tls.PeerCertificates) > 0 {
			peer := c.tls.PeerCertificates[0]
			a.Source.Principal = text(principal(peer))
			if p.cfg.IncludePeerCertificate {
				a.Source.Certificate = encodeCertificate(peer)
			}
		}
		if p.cfg.Certificate != nil {
			if own, err := x509.ParseCertificate(p.cfg.Certificate.Certificate[0]); err == nil {
				a.Destination.Principal = text(principal(own))
			}
		}
		if p.cfg.IncludeTLSSession {
			a.TlsSession = &authv3.AttributeContext_TLSSession{Sni: c.tls.ServerName}
		}
	}
	if r == nil {
		return &authv3.CheckRequest{Attributes: a}
	}
	a.Source.Service = text(r.get("x-envoy-downstream-service-cluster"))
	h := &authv3.AttributeContext_HttpRequest{
		Id: strconv.FormatUint(p.requests.Add(1), 10), Method: text(r.method), Path: text(r.path), Host: text(r.host), Scheme: "http", Protocol: r.protocol, Size: r.size,
		Headers: map[string]string{":method": text(r.method), ":path": text(r.path), ":authority": text(r.host)},
	}
	if c.tls != nil {
		h.Scheme = "https"
	}
	h.Headers[":scheme"] = h.Scheme
	for _, f := range r.header {
		name := text(strings.ToLower(f.name))
		if name == "host" {
			continue // it is :authority
		}
		if before, twice := h.Headers[name]; twice {
			h.Headers[name] = before + "," + text(f.value)
			continue
		}
		h.Headers[name] = text(f.value)
	}
	if p.cfg.MaxBody > 0 {
		h.Headers["x-envoy-auth-partial-body"] = strconv.FormatBool(int64(len(r.body)) < r.size)
		if p.cfg.PackAsBytes {
			h.RawBody = r.body
		} else {
			h.Body = text(string(r.body))
		}
	}
	a.Request.Http = h
	return &authv3.CheckRequest{Attributes: a}
}

// principal is what Envoy calls so: the certificate's first URI, or DNS name, or its
// subject.
func principal(c *x509.Certificate) string {
	switch {
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	}
	return c.Subject.String()
}

func encodeCertificate(c *x509.Certificate) string {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	return strings.ReplaceAll(url.QueryEscape(string(text)), "+", "%20")
}

func addressOf(a net.Addr) *corev3.Address {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return nil
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: at.Addr().Unmap().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(at.Port())},
	}}}
}

// text replaces what is not UTF-8, as Envoy has done since CVE-2023-27488.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			b.WriteByte('!')
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}
