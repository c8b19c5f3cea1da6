package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/authz"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
)

const authzWorld = `
{apiVersion: v1, kind: Namespace, metadata: {name: prod}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: prod, name: web}, spec: {serviceAccountName: web, containers: [{name: c}]}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: prod, name: db, labels: {app: db}}, spec: {serviceAccountName: db, containers: [{name: c}]}, status: {phase: Running, podIPs: [{ip: 10.0.0.3}]}}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {namespace: prod, name: db}
spec:
  selector: app == "db"
  ingress: [{action: Allow, source: {serviceAccounts: {names: [web]}}, http: {methods: [GET], paths: [{prefix: /public}]}}]
`

func postern(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	var b bytes.Buffer
	code = execute(t.Context(), args, &b, &b)
	return b.String(), code
}

func TestExplainRequest(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "world.yaml"), []byte(authzWorld), 0o600); err != nil {
		t.Fatal(err)
	}
	const web = "spiffe://cluster.local/ns/prod/sa/web"
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"--http|GET /public/x|--principal|" + web, 0, "OK tcp 10.0.0.1:40000 -> 10.0.0.3:80: ingress of prod/db: rule ingress[0] (Allow)"},
		{"--http|GET /public/../x", 1, "PERMISSION_DENIED"},
		{"--http|POST /public", 1, "method POST is not in [GET]"},
		{"--principal|" + web, 0, "OK"},
		{"--principal|spiffe://cluster.local/ns/prod/sa/db", 1, "certificate names service account prod/db"},
		{"--principal|" + web + "|--authz-trust-domain|other", 1, "trust domain cluster.local is not accepted"},
		{"--http|GET /public|--authz-plaintext|deny", 1, "shows no certificate"},
		{"--http|GET public", 1, "INVALID_ARGUMENT"},
		{"--http|GET /public|-o|json", 0, `"status": "OK"`},
		{"--http|/public", 2, `want a method and a path`},
		{"--http|GET /|--authz-plaintext|no", 2, "want address-only or deny"},
		{"--http|GET /|--authz-trust-domain|A/b", 2, "trust domain"},
	} {
		args := append([]string{"explain", "--source", dir, "--from", "prod/web", "--to", "prod/db", "--port", "tcp/80"}, strings.Split(tc.args, "|")...)
		if out, code := postern(t, args...); code != tc.code || !strings.Contains(out, tc.want) {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s", tc.args, code, tc.code, tc.want, out)
		}
	}
	if out, code := postern(t, "explain", "--source", dir, "--from", "prod/web", "--to", "prod/db", "--port", "udp/80", "--http", "GET /"); code != 2 || !strings.Contains(out, "TCP only") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func TestProbe(t *testing.T) {
	objects, err := file.Parse("world.yaml", []byte(authzWorld))
	if err != nil {
		t.Fatal(err)
	}
	store := k8ssync.NewStore()
	store.Replace(objects)
	rs, _ := compile.Compile(store.Snapshot(), compile.Options{})
	engine := &filter.Engine{}
	s, err := authz.New(engine, authz.Config{})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "authz.sock")
	l, err := authz.ListenUnix(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	defer func() { cancel(); <-done }()

	if out, code := postern(t, "authz", "probe", "--socket", path); code != 1 || !strings.Contains(out, "FAILED   policy is in force") || !strings.Contains(out, "not-ready") {
		t.Errorf("nothing in force: exit code %d:\n%s", code, out)
	}
	engine.Swap(rs)
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"", 0, "ok       policy is in force, and strangers are denied: PermissionDenied (no-local-endpoint)"},
		{"--from|10.0.0.1|--to|10.0.0.3:80|--http|GET /public", 0, "answer   OK (rule: rule 0 of NetworkPolicy prod/db in tier default)"},
		{"--from|10.0.0.1:7|--to|10.0.0.3:80|--http|PUT /public", 1, "answer   PermissionDenied (end-of-tier of tier default)"},
		{"--from|10.0.0.1|--to|10.0.0.3:80|--principal|spiffe://x/ns/prod/sa/db", 1, "identity-mismatch"},
		{"--from|10.0.0.1|--to|10.0.0.3", 2, "want an address and a port"},
		{"--http|GET /", 2, "--from and --to are required"},
	} {
		args := append([]string{"authz", "probe", "--socket", path}, strings.FieldsFunc(tc.args, func(r rune) bool { return r == '|' })...)
		if out, code := postern(t, args...); code != tc.code || !strings.Contains(out, tc.want) {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s", tc.args, code, tc.code, tc.want, out)
		}
	}
	if out, code := postern(t, "authz", "probe", "--socket", path+"x"); code != 3 {
		t.Errorf("no socket: exit code %d:\n%s", code, out)
	}
}

func TestAuthzFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--authz-socket|/x":                                "--authz-trust-domain is required",
		"--authz-trust-domain|x":                           "there is no --authz-socket",
		"--authz-socket-group|5":                           "there is no --authz-socket",
		"--authz-listen|:1|--authz-trust-domain|x":         "--authz-cert",
		"--authz-plaintext|x":                              "want address-only or deny",
		"--authz-identity-mismatch|x":                      "want deny or rules",
		"--authz-socket|/x|--authz-socket-group|-7":        "want the number of a group",
		"--authz-socket|/x|--authz-trust-domain|x|surplus": "flags only",
	} {
		out, code := postern(t, append([]string{"run", "--source", "."}, strings.Split(args, "|")...)...)
		if code != 2 || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d, want %q:\n%s", args, code, want, out)
		}
	}
}
