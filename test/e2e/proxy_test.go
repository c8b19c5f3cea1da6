package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"

	"github.com/postern-project/postern/filter/authz"
	"github.com/postern-project/postern/test/lab"
)

// mesh issues X.509-SVIDs.
type mesh struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (m *mesh) issue(t *testing.T, id string) *x509svid.SVID {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true}
	parent, signer := m.cert, m.key
	if id == "" { // the authority itself
		tmpl.IsCA, tmpl.KeyUsage, parent, signer = true, x509.KeyUsageCertSign, tmpl, key
	} else {
		u, err := url.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		tmpl.URIs, tmpl.KeyUsage = []*url.URL{u}, x509.KeyUsageDigitalSignature
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if id == "" {
		m.cert, m.key = cert, key
		return nil
	}
	return &x509svid.SVID{ID: spiffeid.RequireFromString(id), Certificates: []*x509.Certificate{cert}, PrivateKey: key}
}

// GetX509BundleForTrustDomain implements x509bundle.Source: one authority for all
// trust domains, so that which of them count is for postern to say.
func (m *mesh) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return x509bundle.FromX509Authorities(td, []*x509.Certificate{m.cert}), nil
}

// proxy stands in for Envoy in front of a pod: it ends TLS, or takes plain text, asks
// about each request with the addresses and the URI of the certificate that it sees
// itself, and denies what it gets no answer for.
func proxy(t *testing.T, pod *lab.Host, port uint16, tlsConfig *tls.Config, ownID, socket string) {
	t.Helper()
	var l net.Listener
	if err := pod.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(pod.Addr4(), port).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	client, err := authz.NewClient(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	s := &http.Server{TLSConfig: tlsConfig, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := &authz.Question{
			Source: netip.MustParseAddrPort(r.RemoteAddr), Destination: r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr).AddrPort(),
			Method: r.Method, Path: r.RequestURI, DestinationPrincipal: ownID,
		}
		if r.TLS != nil {
			q.SourcePrincipal = r.TLS.PeerCertificates[0].URIs[0].String()
		}
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		a, err := client.Ask(ctx, q)
		if err != nil || a.Status != codes.OK {
			w.Header().Set("Reason", a.Reason)
			w.WriteHeader(http.StatusForbidden)
		}
	})}
	t.Cleanup(func() { s.Close() })
	if tlsConfig == nil {
		go s.Serve(l)
		return
	}
	tlsConfig.NextProtos = []string{"h2", "http/1.1"}
	go s.ServeTLS(l, "", "")
}

// TestTwoFactors sends requests through stand-in proxies in pods' namespaces, with
// the daemon deciding packets as well: nothing passes unless both factors agree.
func TestTwoFactors(t *testing.T) {
	b := setup(t, examples)
	socket := filepath.Join(t.TempDir(), "authz.sock")
	b.start("--authz-socket", socket, "--authz-trust-domain", "cluster.local")
	m := &mesh{}
	m.issue(t, "")
	const prefix = "spiffe://cluster.local/ns/prod-engineering/sa/"
	db := b.pods["prod-engineering/db"]
	proxy(t, db, 5432, tlsconfig.MTLSServerConfig(m.issue(t, prefix+"db-sa"), m, tlsconfig.AuthorizeAny()), prefix+"db-sa", socket)
	proxy(t, db, 5433, nil, "", socket)

	for _, tc := range []struct {
		name, from, id string
		http2          bool
		want           string // a reason, "pass", or "no connection"
	}{
		{"account and address", "prod-engineering/api", prefix + "api-service", false, "pass"},
		{"account and address, HTTP/2", "prod-engineering/api", prefix + "api-service", true, "pass"},
		{"stolen certificate, another pod that may connect", "prod-engineering/auth", prefix + "api-service", true, "identity-mismatch"},
		{"stolen certificate, a pod that may not", "prod-engineering/reports", prefix + "api-service", false, "no connection"},
		{"certificate of an account that may not", "prod-engineering/api", prefix + "reports-sa", false, "identity-mismatch"},
		{"other trust domain", "prod-engineering/api", "spiffe://evil.example/ns/prod-engineering/sa/api-service", false, "invalid-principal"},
		{"account of another namespace", "prod-engineering/api", "spiffe://cluster.local/ns/staging/sa/api-service", false, "identity-mismatch"},
		{"plain text, right address", "prod-engineering/api", "", false, "pass"},
		{"plain text, wrong address", "prod-engineering/reports", "", false, "no connection"},
	} {
		pod := b.pods[tc.from]
		transport := &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: tc.http2, DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			wait := patience
			if tc.want == "no connection" {
				wait = impatience
			}
			return pod.DialTCP(netip.MustParseAddrPort(addr), wait)
		}}
		where := "http://" + netip.AddrPortFrom(db.Addr4(), 5433).String()
		if tc.id != "" {
			where = "https://" + netip.AddrPortFrom(db.Addr4(), 5432).String()
			transport.TLSClientConfig = tlsconfig.MTLSClientConfig(m.issue(t, tc.id), m, tlsconfig.AuthorizeAny())
		}
		req, err := http.NewRequest(http.MethodGet, where+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		// A forged report of another proxy, which must say nothing.
		req.Header.Set("X-Forwarded-Client-Cert", "URI="+prefix+"api-service")
		got := "pass"
		r, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Do(req)
		switch {
		case err != nil:
			got = "no connection"
		default:
			r.Body.Close()
			if r.StatusCode != http.StatusOK {
				got = r.Header.Get("Reason")
			}
			if tc.http2 != (r.ProtoMajor == 2) {
				t.Errorf("%s: %s", tc.name, r.Proto)
			}
		}
		if got != tc.want {
			t.Errorf("%s: %s (%v), want %s", tc.name, got, err, tc.want)
		}
	}
	if text := b.daemon.Text(); !strings.Contains(text, `"message":"request"`) {
		t.Error("no denied request was logged")
	}
}
