package explain

import (
	"testing"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

func spiffe(namespace, name string) Peer {
	return Peer{Principal: "spiffe://td/ns/" + namespace + "/sa/" + name}
}

func TestExplainRequest(t *testing.T) {
	t.Parallel()
	api := policy.EntityRule{ServiceAccounts: names("api-service")}
	allowAPI := []policy.Rule{from(policy.Allow, api)}
	get := func(path string) *HTTP { return &HTTP{Method: "GET", Path: path} }
	httpRule := []policy.Rule{{Action: policy.Allow, HTTP: &policy.HTTPMatch{Methods: []string{"GET"}, Paths: []policy.HTTPPath{{Prefix: "/pub"}}}}}
	fromAPI := tcp("api", "db", 80)

	const ok, denied, invalid = StatusOK, StatusPermissionDenied, StatusInvalidArgument
	tests := []struct {
		name   string
		global bool
		rules  []policy.Rule
		opt    Options
		tuple  flow.Tuple
		req    Request
		status Status
		reason Reason
	}{
		{"both factors", false, allowAPI, Options{}, fromAPI, Request{Source: spiffe("prod", "api-service"), Destination: spiffe("prod", "db-sa")}, ok, ByRule},
		{"plain text leaves the address", false, allowAPI, Options{}, fromAPI, Request{}, ok, ByRule},
		{"plain text, wrong address", false, allowAPI, Options{}, tcp("web", "db", 80), Request{}, denied, EndOfTier},
		{"plain text refused", false, allowAPI, Options{RefusePlaintext: true}, fromAPI, Request{Destination: spiffe("prod", "db-sa")}, denied, Plaintext},
		{"certificate of another account", false, allowAPI, Options{}, fromAPI, Request{Source: spiffe("prod", "web-sa")}, denied, IdentityMismatch},
		{"certificate of another namespace", false, allowAPI, Options{}, fromAPI, Request{Source: spiffe("staging", "api-service")}, denied, IdentityMismatch},
		{"destination certificate of another account", false, allowAPI, Options{}, fromAPI, Request{Destination: spiffe("prod", "web-sa")}, denied, IdentityMismatch},
		{"certificate of a pod without account", false, []policy.Rule{only(policy.Allow)}, Options{}, tcp("bare", "db", 80), Request{Source: spiffe("other", "default")}, denied, IdentityMismatch},
		{"mismatch left to the rules", false, []policy.Rule{only(policy.Allow)}, Options{MismatchToRules: true}, fromAPI, Request{Source: spiffe("prod", "web-sa")}, ok, ByRule},
		{"mismatch left to the rules, names", false, allowAPI, Options{MismatchToRules: true}, fromAPI, Request{Source: spiffe("prod", "web-sa")}, denied, EndOfTier},
		{"mismatch left to the rules, namespace", false, allowAPI, Options{MismatchToRules: true}, fromAPI, Request{Source: spiffe("staging", "api-service")}, denied, EndOfTier},
		{"no namespace to keep in a global policy", true, allowAPI, Options{MismatchToRules: true}, fromAPI, Request{Source: spiffe("staging", "api-service")}, ok, ByRule},
		{"certificate behind an unknown address needs the address too", false, allowAPI, Options{}, tcp("ext", "db", 80), Request{Source: spiffe("prod", "api-service")}, denied, EndOfTier},
		{"certificate behind a set's address", true, []policy.Rule{from(policy.Allow, policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Selector: sel(`app != "web"`)}})},
			Options{}, tcp("vpn", "db", 80), Request{Source: spiffe("prod", "web-sa")}, denied, EndOfTier},
		{"nets alone leave the certificate free", false, []policy.Rule{from(policy.Allow, policy.EntityRule{Nets: prefixes("10.0.1.2/32")})},
			Options{MismatchToRules: true}, fromAPI, Request{Source: spiffe("staging", "web-sa")}, ok, ByRule},
		{"account labels overlay reported ones", true, []policy.Rule{from(policy.Allow, policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Selector: sel(`app == "api"`)}})},
			Options{}, fromAPI, Request{Source: Peer{Principal: spiffe("prod", "api-service").Principal, Labels: map[string]string{"app": "x"}}}, ok, ByRule},
		{"reported labels are no account name", true, []policy.Rule{from(policy.Allow, policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Selector: sel(`projectcalico.org/name == "x"`)}})},
			Options{}, fromAPI, Request{Source: Peer{Principal: spiffe("prod", "api-service").Principal, Labels: map[string]string{"projectcalico.org/name": "x"}}}, denied, EndOfTier},
		{"namespaceSelector on the certificate", true, []policy.Rule{from(policy.Allow, policy.EntityRule{NamespaceSelector: sel(`env == "prod"`)})},
			Options{MismatchToRules: true}, fromAPI, Request{Source: spiffe("staging", "api-service")}, denied, EndOfTier},
		{"namespaceSelector all() on the certificate", true, []policy.Rule{from(policy.Allow, policy.EntityRule{NamespaceSelector: sel("all()")})},
			Options{}, fromAPI, Request{Source: spiffe("prod", "api-service")}, ok, ByRule},
		{"a certificate is not global()", true, []policy.Rule{from(policy.Allow, policy.EntityRule{NamespaceSelector: sel("global()")})},
			Options{}, tcp("vpn", "db", 80), Request{Source: spiffe("prod", "api-service")}, denied, EndOfTier},
		{"destination names", false, []policy.Rule{{Action: policy.Allow, Destination: policy.EntityRule{ServiceAccounts: names("db-sa")}}},
			Options{}, fromAPI, Request{Destination: spiffe("prod", "db-sa")}, ok, ByRule},

		{"not SPIFFE", false, allowAPI, Options{}, fromAPI, Request{Source: Peer{Principal: "http://td/ns/prod/sa/api-service"}}, denied, InvalidPrincipal},
		{"more path", false, allowAPI, Options{}, fromAPI, Request{Source: Peer{Principal: "spiffe://td/ns/prod/sa/api-service/x"}}, denied, InvalidPrincipal},
		{"destination not SPIFFE", false, allowAPI, Options{}, fromAPI, Request{Destination: Peer{Principal: "x"}}, denied, InvalidPrincipal},
		{"trust domain accepted", false, allowAPI, Options{TrustDomains: []string{"a", "td"}}, fromAPI, Request{Source: spiffe("prod", "api-service")}, ok, ByRule},
		{"trust domain refused", false, allowAPI, Options{TrustDomains: []string{"a"}}, fromAPI, Request{Source: spiffe("prod", "api-service")}, denied, InvalidPrincipal},

		{"http", false, httpRule, Options{}, fromAPI, Request{HTTP: get("/pub/a")}, ok, ByRule},
		{"http path", false, httpRule, Options{}, fromAPI, Request{HTTP: get("/public")}, denied, EndOfTier},
		{"http method is case sensitive", false, httpRule, Options{}, fromAPI, Request{HTTP: &HTTP{Method: "get", Path: "/pub"}}, denied, EndOfTier},
		{"http method *", false, []policy.Rule{{Action: policy.Allow, HTTP: &policy.HTTPMatch{Methods: []string{"*"}}}}, Options{}, fromAPI, Request{HTTP: &HTTP{Method: "BREW", Path: "/"}}, ok, ByRule},
		{"http empty lists", false, []policy.Rule{{Action: policy.Allow, HTTP: &policy.HTTPMatch{}}}, Options{}, fromAPI, Request{HTTP: get("/%252e")}, ok, ByRule},
		{"not http", false, httpRule, Options{}, fromAPI, Request{}, ok, ByRule},
		{"path without slash", false, httpRule, Options{}, fromAPI, Request{HTTP: get("a/b")}, invalid, InvalidRequest},
		{"no path", false, httpRule, Options{}, fromAPI, Request{HTTP: get("")}, invalid, InvalidRequest},

		{"named ports are honoured", false, []policy.Rule{{Action: policy.Allow, Destination: policy.EntityRule{Ports: []policy.Port{{Name: "pg"}}}}}, Options{}, tcp("api", "db", 5432), Request{}, ok, ByRule},
		{"no policy", false, nil, Options{}, tcp("api", "web", 80), Request{Source: spiffe("prod", "api-service")}, ok, ByProfile},
		{"not a local pod", false, nil, Options{}, tcp("api", "ext", 80), Request{}, denied, NoLocalEndpoint},
		{"zero tuple", false, nil, Options{}, flow.Tuple{}, Request{}, denied, InvalidTuple},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := np("p", 1, tt.rules...)
			if tt.global {
				p = gnp("p", 1, tt.rules...)
			}
			got := New(worldWith(p), tt.opt).ExplainRequest(tt.tuple, tt.req)
			if got.Status != tt.status || got.Reason != tt.reason {
				t.Errorf("got %s, %s, want %s, %s (%s)", got.Status, got.Reason, tt.status, tt.reason, got.Detail)
			}
		})
	}
}

// TestRequestIgnoresStagedAndEgress: only enforced ingress policy counts.
func TestRequestIgnoresStagedAndEgress(t *testing.T) {
	t.Parallel()
	out := &policy.Policy{Kind: policy.NetworkPolicy, Namespace: "prod", Name: "out", Tier: "default", AppliesEgress: true}
	e := New(worldWith(staged(policy.StagedSet, np("p", 1)), out), Options{})
	if got := e.ExplainRequest(tcp("api", "db", 80), Request{}); got.Status != StatusOK {
		t.Errorf("got %s, %s", got.Status, got.Reason)
	}
}

func FuzzParsePrincipal(f *testing.F) {
	for _, s := range []string{"spiffe://td/ns/a/sa/b", "spiffe://td/ns//sa/b", "spiffe:///ns/a/sa/b", "spiffe://td/ns/a/sa/b/", "SPIFFE://td/ns/a/sa/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		domain, namespace, name, ok := parsePrincipal(s)
		if !ok {
			return
		}
		if domain == "" || namespace == "" || name == "" || "spiffe://"+domain+"/ns/"+namespace+"/sa/"+name != s {
			t.Fatalf("%q gives %q, %q, %q", s, domain, namespace, name)
		}
	})
}
