package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Mesh is an authority that issues certificates of any trust domain, so that which of
// them count is for who decides.
type Mesh struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewMesh makes an authority.
func NewMesh() (*Mesh, error) {
	m := &Mesh{}
	c, err := m.issue(&x509.Certificate{IsCA: true, KeyUsage: x509.KeyUsageCertSign})
	if err != nil {
		return nil, err
	}
	m.cert, m.key = c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)
	return m, nil
}

// Authority is the authority's own certificate.
func (m *Mesh) Authority() *x509.Certificate { return m.cert }

// Issue makes an X.509-SVID.
func (m *Mesh) Issue(id string) (tls.Certificate, error) { return m.IssueAny([]string{id}, nil, "") }

// IssueAny makes a certificate with URIs, DNS names and a subject, which need not be an
// X.509-SVID.
func (m *Mesh) IssueAny(uris, names []string, subject string) (tls.Certificate, error) {
	t := &x509.Certificate{DNSNames: names, Subject: pkix.Name{CommonName: subject}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	for _, text := range uris {
		u, err := url.Parse(text)
		if err != nil {
			return tls.Certificate{}, err
		}
		t.URIs = append(t.URIs, u)
	}
	return m.issue(t)
}

// issue signs a certificate for an hour; one of an authority by itself.
func (m *Mesh) issue(t *x509.Certificate) (c tls.Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	t.NotBefore, t.NotAfter, t.BasicConstraintsValid = time.Now().Add(-time.Hour), time.Now().Add(time.Hour), true
	if t.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		return c, err
	}
	parent, signer := m.cert, m.key
	if t.IsCA {
		parent, signer = t, key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer)
	if err != nil {
		return c, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// GetX509BundleForTrustDomain implements x509bundle.Source.
func (m *Mesh) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return x509bundle.FromX509Authorities(td, []*x509.Certificate{m.cert}), nil
}

// Server is the configuration of a proxy that shows a certificate, takes X.509-SVIDs
// and offers HTTP/2 and HTTP/1.1.
func (m *Mesh) Server(own tls.Certificate) (*tls.Config, error) {
	svid, err := svidOf(own)
	if err != nil {
		return nil, err
	}
	c := tlsconfig.MTLSServerConfig(svid, m, tlsconfig.AuthorizeAny())
	c.NextProtos = []string{"h2", "http/1.1"}
	return c, nil
}

// CarelessServer is a Server that takes every certificate of the authority, X.509-SVID
// or not.
func (m *Mesh) CarelessServer(own tls.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(m.cert)
	return &tls.Config{Certificates: []tls.Certificate{own}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2", "http/1.1"}}
}

// Client is the configuration of a client that shows a certificate, X.509-SVID or not,
// and takes every server of the authority.
func (m *Mesh) Client(own tls.Certificate) *tls.Config {
	c := tlsconfig.TLSClientConfig(m, tlsconfig.AuthorizeAny())
	c.Certificates = []tls.Certificate{own}
	return c
}

func svidOf(c tls.Certificate) (*x509svid.SVID, error) {
	id, err := x509svid.IDFromCert(c.Leaf)
	if err != nil {
		return nil, err
	}
	return &x509svid.SVID{ID: id, Certificates: []*x509.Certificate{c.Leaf}, PrivateKey: c.PrivateKey.(*ecdsa.PrivateKey)}, nil
}
