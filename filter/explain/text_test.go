package explain

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

var update = flag.Bool("update", false, "rewrite the golden transcripts")

// golden compares with testdata/name, or rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// internPolicy is the third example of Calico's documentation on service
// account rules: interns talk to interns only.
func internPolicy() *policy.Policy {
	interns := policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Selector: sel(`role == "intern"`)}}
	p := np("restrict-intern-access", policy.Unordered, from(policy.Allow, interns))
	p.Selector, p.ServiceAccountSelector = nil, sel(`role == "intern"`)
	p.AppliesEgress = true
	p.Egress = []policy.Rule{{Action: policy.Allow, Destination: interns}}
	return p
}

// TestText holds what an operator reads. The first three are the documented
// examples; review changes of the files as text.
func TestText(t *testing.T) {
	t.Parallel()
	byNames := np("demo-calico", policy.Unordered, from(policy.Allow, policy.EntityRule{ServiceAccounts: names("api-service", "user-auth-service")}))
	byLabel := np("allow-web-frontend", policy.Unordered, from(policy.Allow, policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Selector: sel(`app == "web"`)}}))
	tests := []struct {
		name     string
		policies []*policy.Policy
		tuple    flow.Tuple
	}{
		{"names-deny.txt", []*policy.Policy{byNames}, tcp("web", "db", 5432)},
		{"labels-allow.txt", []*policy.Policy{byLabel}, tcp("web", "db", 5432)},
		{"interns-deny.txt", []*policy.Policy{internPolicy()}, tcp("intern", "db", 5432)},
		{"tiers-staged-external.txt", []*policy.Policy{
			in(policy.AdminTier, gnp("first", 1, only(policy.Log), from(policy.Deny, policy.EntityRule{Nets: prefixes("10.0.0.0/8")}), only(policy.Pass))),
			in("ghost", gnp("never-read", 1, only(policy.Allow))),
			np("block", 10, policy.Rule{Action: policy.Deny, Source: policy.EntityRule{Selector: sel("has(net)"), NamespaceSelector: sel("global()")}}, only(policy.Allow)),
			np("late", 20),
			staged(policy.StagedDelete, np("block", 10)),
		}, tcp("vpn", "db", 22)},
		{"unknown-ipv6.txt", []*policy.Policy{byNames}, icmp("ext.6", "db.6", 128, 0)},
		{"nobody-here.txt", nil, tcp("ext", "vpn", 80)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var b strings.Builder
			if err := New(worldWith(tt.policies...), Options{}).Explain(tt.tuple).Text(&b); err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name, b.String())
		})
	}
}

func TestRequestText(t *testing.T) {
	t.Parallel()
	rule := from(policy.Allow, policy.EntityRule{ServiceAccounts: names("api-service")})
	rule.HTTP = &policy.HTTPMatch{Methods: []string{"GET"}, Paths: []policy.HTTPPath{{Exact: "/health"}, {Prefix: "/public"}}}
	e := New(worldWith(np("p", 1, rule)), Options{})
	var b strings.Builder
	for _, req := range []Request{
		{Source: spiffe("prod", "api-service"), HTTP: &HTTP{Method: "PUT", Path: "/public/../admin"}},
		{Source: spiffe("prod", "web-sa"), HTTP: &HTTP{Method: "GET", Path: "/health"}},
	} {
		if err := e.ExplainRequest(tcp("api", "db", 80), req).Text(&b); err != nil {
			t.Fatal(err)
		}
		b.WriteString("----\n")
	}
	golden(t, "request.txt", b.String())
}

// TestJSON holds the field names, which other programs read.
func TestJSON(t *testing.T) {
	t.Parallel()
	tr := New(worldWith(internPolicy(), staged(policy.StagedDelete, internPolicy())), Options{}).Explain(tcp("intern", "db", 5432))
	got, err := json.MarshalIndent(tr, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "trace.json", string(got)+"\n")
}

// TestTextIsPrintable: no name, label, principal or selector brings a control
// character, a line of its own or a change of writing direction.
func TestTextIsPrintable(t *testing.T) {
	t.Parallel()
	const evil = "x\x1b[2J\r\nALLOW\u202e\u0085\x7f\xff"
	p := np(evil, 1, from(policy.Allow, policy.EntityRule{ServiceAccounts: names(evil), Selector: sel("has(x)")}))
	s := worldWith(in(evil, p))
	s.Endpoints = append(s.Endpoints, pod("prod", evil, evil, map[string]string{evil: evil}, "10.0.1.50"))
	e := New(s, Options{})
	tuple := tcp("web", "db", 80)
	tuple.Src = parseAddrs("10.0.1.50")[0]
	var b strings.Builder
	if err := e.Explain(tuple).Text(&b); err != nil {
		t.Fatal(err)
	}
	if err := e.ExplainRequest(tuple, Request{Source: Peer{Principal: evil}}).Text(&b); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "ALLOW") || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", line)
		}
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestTextError(t *testing.T) {
	t.Parallel()
	if err := New(worldWith(), Options{}).Explain(tcp("web", "db", 80)).Text(failingWriter{}); err == nil {
		t.Error("the writer's error is lost")
	}
}
