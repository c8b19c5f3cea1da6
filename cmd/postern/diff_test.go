package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/diff"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

const diffWorld = `
{apiVersion: v1, kind: Namespace, metadata: {name: prod}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: prod}, spec: {serviceAccountName: db}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: prod}, spec: {serviceAccountName: web}, status: {phase: Running, podIPs: [{ip: 10.0.0.2}]}}
`

// diffPolicy lets accounts reach db.
func diffPolicy(account string) string {
	return `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: p, namespace: prod}, spec: {serviceAccountSelector: 'projectcalico.org/name == "db"', ingress: [{action: Allow, protocol: TCP, source: {serviceAccounts: {names: [` + account + `]}}, destination: {ports: [5432]}}]}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: db, namespace: prod}}
`
}

// diffDir writes files into a new directory.
func diffDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDiffCommand(t *testing.T) {
	t.Parallel()
	world := diffDir(t, map[string]string{"cluster.yaml": diffWorld})
	web := diffDir(t, map[string]string{"policy.yaml": diffPolicy("web")})
	api := diffDir(t, map[string]string{"policy.yaml": diffPolicy("api")})
	bad := diffDir(t, map[string]string{"policy.yaml": strings.Replace(diffPolicy("web"), "TCP", "TCPX", 1)})
	broken := diffDir(t, map[string]string{"policy.yaml": "kind: ["})
	tests := []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string // parts
	}{
		{"no change", []string{web, web, "--world", world}, 0, "no verdict changes between 3 identities", ""},
		{"a change", []string{web, api, "--world", world}, 1, "now denied\n\n  from  account prod/web\n  to    account prod/db\n  on    tcp/5432\n", ""},
		{"a filter that leaves nothing", []string{web, api, "--world", world, "--port", "udp"}, 0, "no verdict changes", ""},
		{"filters", []string{web, api, "--world", world, "--port", "tcp/5000-6000", "--from", "sa:prod/web", "--to", "prod/db"}, 1, "on    tcp/5432", ""},
		{"an invalid object", []string{web, bad, "--world", world}, 1, "tcp/5432", "postern: warning: " + filepath.Join(bad, "policy.yaml") + ": NetworkPolicy prod/p: spec.ingress[0].protocol"},
		{"no pods", []string{web, api}, exitUsage, "", "--world"},
		{"over the limit", []string{web, api, "--world", world, "--limit", "3"}, exitUsage, "", "raise --limit"},
		{"a limit of nothing", []string{web, api, "--limit", "0"}, exitUsage, "", "--limit 0"},
		{"one directory", []string{web}, exitUsage, "", "want two directories"},
		{"a directory that is not there", []string{web, filepath.Join(api, "none")}, exitUsage, "", "no such file"},
		{"a file that cannot be parsed", []string{web, broken, "--world", world}, exitUsage, "", "policy.yaml"},
		{"nobody", []string{web, api, "--world", world, "--from", "prod/none"}, exitUsage, "", "--from prod/none: no pod or address"},
		{"a bad end", []string{web, api, "--to", "x"}, exitUsage, "", `--to "x"`},
		{"a bad port", []string{web, api, "--port", "tcp/x"}, exitUsage, "", `--port "tcp/x"`},
		{"a bad format", []string{web, api, "-o", "xml"}, exitUsage, "", `--output "xml"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			code := execute(context.Background(), append([]string{"diff"}, tt.args...), &stdout, &stderr)
			if code != tt.code || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("code %d, want %d\nstdout: %s\nstderr: %s", code, tt.code, &stdout, &stderr)
			}
			if tt.stderr == "" && stderr.Len() > 0 || tt.stdout == "" && stdout.Len() > 0 {
				t.Errorf("stdout: %s\nstderr: %s", &stdout, &stderr)
			}
		})
	}
}

// A warning that both sides share is given once.
func TestDiffWarnsOnce(t *testing.T) {
	t.Parallel()
	world := diffDir(t, map[string]string{"cluster.yaml": diffWorld, "bad.yaml": strings.Replace(diffPolicy("web"), "5432", "0", 1)})
	empty := diffDir(t, nil)
	var stdout, stderr bytes.Buffer
	if code := execute(context.Background(), []string{"diff", empty, empty, "--world", world}, &stdout, &stderr); code != 0 {
		t.Errorf("code %d: %s", code, &stderr)
	}
	if n := strings.Count(stderr.String(), "warning"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, &stderr)
	}
}

func TestDiffJSON(t *testing.T) {
	t.Parallel()
	before := diffDir(t, map[string]string{"a.yaml": diffWorld + "---\n" + diffPolicy("web")})
	after := diffDir(t, map[string]string{"a.yaml": diffWorld + "---\n" + diffPolicy("db")})
	var stdout, stderr bytes.Buffer
	if code := execute(context.Background(), []string{"diff", before, after, "-o", "json"}, &stdout, &stderr); code != exitNo {
		t.Fatalf("code %d: %s", code, &stderr)
	}
	var got struct {
		Changes []struct {
			Now      string
			From, To []int
			Traffic  []diff.Traffic
			After    diff.Side
			Example  struct {
				From, To string
				After    struct{ Source string }
			}
		}
		Identities []diff.Identity
	}
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Changes) != 2 || got.Changes[1].Now != "deny" {
		t.Fatalf("%+v", got.Changes)
	}
	c := got.Changes[1]
	if from := got.Identities[c.From[0]]; from.ServiceAccount != "web" || !cmp.Equal(from.Pods, []string{"prod/web"}) {
		t.Errorf("from %+v", from)
	}
	if d := cmp.Diff([]diff.Traffic{{Protocol: "tcp", Ports: []flow.PortRange{{Min: 5432, Max: 5432}}}}, c.Traffic); d != "" {
		t.Errorf("traffic (-want +got):\n%s", d)
	}
	if c.After.Reason != "end-of-tier" || c.After.Tier != policy.DefaultTier || c.Example.From != "prod/web" || c.Example.After.Source != "10.0.0.2" {
		t.Errorf("%+v", c)
	}
}

func TestParseDiffPort(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want *diff.Port // nil: refused
	}{
		{"tcp", &diff.Port{Proto: flow.TCP, Range: flow.PortRange{Max: 65535}}},
		{"tcp/80", &diff.Port{Proto: flow.TCP, Range: flow.PortRange{Min: 80, Max: 80}}},
		{"UDP/53-60", &diff.Port{Proto: flow.UDP, Range: flow.PortRange{Min: 53, Max: 60}}},
		{"icmp", &diff.Port{Proto: flow.ICMP, Range: flow.PortRange{Max: 65535}}},
		{"icmp:8", &diff.Port{Proto: flow.ICMP, Range: flow.PortRange{Min: 0x800, Max: 0x8ff}}},
		{"icmpv6:255/255", &diff.Port{Proto: flow.ICMPv6, Range: flow.PortRange{Min: 0xffff, Max: 0xffff}}},
		{"47", &diff.Port{Proto: 47, Range: flow.PortRange{Max: 65535}}},
		{"tcp/", nil}, {"tcp:80", nil}, {"tcp/90-80", nil}, {"tcp/65536", nil}, {"icmp/8", nil}, {"icmp:256", nil}, {"icmp:8/x", nil}, {"47/1", nil}, {"x", nil}, {"/80", nil},
	}
	for _, tt := range tests {
		got, err := parseDiffPort(tt.text)
		if (err == nil) != (tt.want != nil) || err == nil && *got != *tt.want {
			t.Errorf("%s: %+v, %v", tt.text, got, err)
		}
	}
}
