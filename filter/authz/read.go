package authz

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
)

// reader turns checks into requests.
type reader struct{ trustDomains []spiffeid.TrustDomain }

// read gives the request that a check asks about. The error is of a check that asks
// nothing that could be answered.
func (r *reader) read(c *check) (req filter.Request, err error) {
	if c.err != nil {
		return req, c.err
	}
	if !c.attributes {
		return req, fmt.Errorf("no attributes")
	}
	t := &req.Tuple
	var proto, other flow.Proto
	if t.Src, t.SrcPort, proto, err = c.source.address.read(); err != nil {
		return req, fmt.Errorf("source address: %w", err)
	}
	if t.Dst, t.DstPort, other, err = c.destination.address.read(); err != nil {
		return req, fmt.Errorf("destination address: %w", err)
	}
	if proto != other {
		return req, fmt.Errorf("addresses of two protocols, %s and %s", proto, other)
	}
	t.Proto, t.Ported = proto, true
	req.Source, req.Destination = r.peer(&c.source), r.peer(&c.destination)
	req.HTTP, req.Method, req.Path = c.http, c.method, c.path
	return req, nil
}

func (a *address) read() (addr netip.Addr, port uint16, proto flow.Proto, err error) {
	switch {
	case a.kind == 0:
		return addr, 0, 0, fmt.Errorf("none")
	case a.kind != socketAddress:
		return addr, 0, 0, fmt.Errorf("not one of a socket")
	}
	switch a.protocol {
	case 0:
		proto = flow.TCP
	case 1:
		proto = flow.UDP
	default:
		return addr, 0, 0, fmt.Errorf("protocol %d is not known", a.protocol)
	}
	addr, err = netip.ParseAddr(a.text)
	switch {
	case err != nil:
		return addr, 0, 0, fmt.Errorf("not an IP address")
	case addr.Zone() != "":
		// It means another host on each link.
		return addr, 0, 0, fmt.Errorf("an address with a zone")
	case a.portKind != socketPort || a.port > 1<<16-1:
		return addr, 0, 0, fmt.Errorf("no port number")
	}
	// A proxy that listens on IPv6 and IPv4 at once may tell the one as the other.
	return addr.Unmap(), uint16(a.port), proto, nil
}

// peer reads what an end of the connection showed.
func (r *reader) peer(p *peer) filter.Peer {
	out := filter.Peer{Labels: p.labels}
	if p.principal == "" && p.certificate == "" {
		return out
	}
	out.Certificate = filter.InvalidCertificate
	if p.certificate != "" && !certifies(p.certificate, p.principal) {
		return out
	}
	if namespace, name, ok := r.account(p.principal); ok {
		out.Certificate, out.Namespace, out.Name = filter.ValidCertificate, namespace, name
	}
	return out
}

// account reads spiffe://<trust domain>/ns/<namespace>/sa/<name>, with nothing
// after it, whose trust domain is accepted.
func (r *reader) account(principal string) (namespace, name string, ok bool) {
	id, err := spiffeid.FromString(principal)
	if err != nil || len(r.trustDomains) > 0 && !slices.Contains(r.trustDomains, id.TrustDomain()) {
		return "", "", false
	}
	rest, found := strings.CutPrefix(id.Path(), "/ns/")
	if !found {
		return "", "", false
	}
	namespace, rest, _ = strings.Cut(rest, "/")
	name, found = strings.CutPrefix(rest, "sa/")
	// go-spiffe accepts no empty segment and no slash at the end.
	if !found || strings.Contains(name, "/") {
		return "", "", false
	}
	return namespace, name, true
}

// certifies tells whether a certificate, in PEM and URL encoding, is an X.509-SVID
// of the principal: one with that URI and no other. The proxy has verified it.
func certifies(certificate, principal string) bool {
	text, err := url.PathUnescape(certificate)
	if err != nil {
		return false
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return false
	}
	id, err := x509svid.IDFromCert(cert)
	return err == nil && id.String() == principal
}
