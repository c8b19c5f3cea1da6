package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/filter/live"
	"github.com/postern-project/postern/filter/observe"
	"github.com/postern-project/postern/filter/policy"
)

// hostile is text as an attacker would put it into an object: an escape sequence of
// C0 and one of C1, a carriage return, DEL and a turn of direction, as YAML escapes
// them. harmful is what of it must never be printed.
const (
	hostile = `evil\e[31m\u009b2J\r\u007f\u202eend`
	harmful = "\x1b\x07\r\x7f\u009b\u202e"
)

// No character that a terminal obeys reaches it, from any object, by any command in
// any format, in answers and in errors.
func TestNoEscapes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(replayPolicy)); err != nil {
		t.Fatal(err)
	}
	edit := func(name, old, new string) {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), old) {
			t.Fatalf("%s: %v, or no %q in it", name, err, old)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), old, new, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// What a pod says of its account, and what an account's annotations, roles and
	// bindings say, nobody validates here.
	edit("pods.yaml", "serviceAccountName: reports-sa", `serviceAccountName: "`+hostile+`"`)
	if err := os.WriteFile(filepath.Join(dir, "roles.yaml"), []byte(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "role`+hostile+`"}
rules: [{apiGroups: [""], resources: [serviceaccounts], verbs: [update]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "binding`+hostile+`"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "role`+hostile+`"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "`+hostile+`"}]
`), 0o644); err != nil {
		t.Fatal(err)
	}
	invalid := write("invalid.yaml", `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p, namespace: prod-engineering}
spec:
  selector: "`+hostile+`"
  ingress: [{action: "`+hostile+`", "`+hostile+`": 1}]
`)
	assertions := write("assertions.yaml", `
apiVersion: postern.dev/v1alpha1
kind: Assertions
metadata: {name: a}
spec:
  assertions:
  - name: broken
    allow: [{from: prod-engineering/reports, to: prod-engineering/db, port: tcp/5432}]
`)
	unreadable := write("unreadable.yaml", `{"apiVersion": "postern.dev/v1alpha1", "kind": "`+hostile+`", "`+hostile+`": {`)
	result := write("result.json", `{"format": 1, "bench": "\u001b[31m", "version": "\u009b2J\u202e", "unit": "\u007f", "machine": {"processor": "\u009b"}, "rows": [{"name": "\u009b", "perSecond": 1}]}`)
	state := filepath.Join(t.TempDir(), "state.json")
	if out, errs, code := command("snapshot", "--source", dir); code != 0 {
		t.Fatal(errs)
	} else if err := os.WriteFile(state, []byte(out), 0o644); err != nil {
		t.Fatal(err)
	}
	raw := "\x1b[31m\u009b2J\u202e" // an argument of a script that trusts its input
	flow := []string{"--from", "prod-engineering/reports", "--to", "prod-engineering/db", "--port", "tcp/5432"}
	capture := replayCaptures + "http.pcap"
	for _, tc := range []struct {
		args  []string
		named bool // the hostile text is part of the answer
	}{
		{append([]string{"explain", "--source", dir}, flow...), true},
		{append([]string{"explain", "--source", dir, "-o", "json"}, flow...), true},
		{append([]string{"explain", "--state", state, "-o", "json"}, flow...), true},
		{[]string{"explain", "--source", dir, "--from", "a/" + raw, "--to", "10.0.0.1", "--port", "tcp/1"}, false},
		{[]string{"snapshot", "--source", dir}, true},
		{[]string{"get", "endpoints", "--source", dir}, true},
		{[]string{"get", "endpoints", "--source", dir, "-o", "wide"}, true},
		{[]string{"get", "endpoints", "--source", dir, "-o", "json"}, true},
		{[]string{"get", "endpoints", raw, "--source", dir}, false},
		{[]string{"get", "accounts", "--all", "--source", dir}, true},
		{[]string{"get", "accounts", "--all", "--source", dir, "-o", "json"}, true},
		{[]string{"get", "endpoints", "--source", dir}, true},
		{[]string{"get", "endpoints", "--source", dir, "-o", "json"}, true},
		{[]string{"get", "accounts", "--source", dir, "-o", "wide"}, true},
		{[]string{"get", "accounts", raw, "--source", dir}, false},
		{[]string{"observe", "--pod", raw}, false},
		{[]string{"lint", dir, invalid}, true},
		{[]string{"lint", dir, invalid, "-o", "json"}, true},
		{[]string{"lint", unreadable}, false},
		{[]string{"diff", dir, replayPolicy}, false},
		{[]string{"diff", dir, replayPolicy, "-o", "json"}, false},
		{[]string{"diff", dir, invalid}, false},
		{[]string{"test", assertions, "--source", dir, "-v"}, false},
		{[]string{"test", assertions, "--source", dir, "-o", "json"}, false},
		{[]string{"test", assertions, "--source", dir, "-o", "junit"}, false},
		{[]string{"test", unreadable, "--source", dir}, false},
		{[]string{"test", assertions, "--source", invalid}, false},
		{[]string{"access", "prod-engineering/db-sa", "--source", dir}, true},
		{[]string{"access", "prod-engineering/db-sa", "--source", dir, "--output", "json"}, true},
		{[]string{"replay", capture, "--policy", dir}, true},
		{[]string{"replay", capture, "--policy", dir, "-o", "json"}, true},
		{[]string{"replay", capture, "--policy", dir, "-o", "jsonl"}, true},
		{[]string{"replay", capture, "--policy", dir, "-o", "csv"}, true},
		{[]string{"replay", capture, "--policy", dir, "--baseline", replayPolicy}, true},
		{[]string{"replay", raw, "--policy", dir, "--map", raw}, false},
		{[]string{"config", "show", "--origin", "--node", raw}, false},
		{[]string{"config", "show", "-o", "json", "--node", raw}, false},
		{[]string{"status", "--socket", raw}, false},
		{[]string{"bench", "report", result, "--output", "-"}, false},
		{[]string{"bench", "decide", "--against", result}, false},
		{[]string{raw}, false},
	} {
		out, errs, _ := command(tc.args...)
		for _, s := range []string{out, errs} {
			if i := strings.IndexAny(s, harmful); i >= 0 {
				t.Errorf("%.90q prints %q", tc.args, s[max(i-40, 0):min(i+40, len(s))])
			}
		}
		if out+errs == "" {
			t.Errorf("%.90q prints nothing", tc.args)
		}
		if tc.named && !strings.Contains(out, "evil") {
			t.Errorf("%.90q does not name what is hostile:\n%s", tc.args, out)
		}
	}
}

// What is escaped is not lost: a program reads the same text back.
func TestEscaperKeepsText(t *testing.T) {
	t.Parallel()
	text := "a\x1b\x7f\u009b\u202e\u2028<&>ü\n"
	var b bytes.Buffer
	if err := writeJSON(&b, text); err != nil {
		t.Fatal(err)
	}
	var back string
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || back != text || strings.ContainsAny(b.String(), harmful) {
		t.Errorf("%q came back as %q, %v", b.String(), back, err)
	}
	b.Reset()
	if err := writeJUnit(&b, report{}); err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(&b); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// All JSON goes through newJSON.
func TestOneJSONWriter(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if name != "terminal.go" && !strings.HasSuffix(name, "_test.go") && regexp.MustCompile(`json\.(NewEncoder|Marshal)`).Match(text) {
			t.Errorf("%s writes JSON by itself: use newJSON or writeJSON", name)
		}
	}
}

// The daemon's own words: its status and its log.
func TestNoEscapesOfDaemon(t *testing.T) {
	t.Parallel()
	evil := "x\x1b[31m\u009b2J\r\x7f\u202e"
	var b bytes.Buffer
	st := control.Status{
		Enforcing: true, Node: evil, Source: evil, Degraded: []string{evil}, Kinds: []control.Kind{{Resource: evil, State: evil, Error: evil}},
		Unusable: []control.Unusable{{Problem: policy.Problem{Message: evil}}}, UnusableTotal: 1,
	}
	if err := errors.Join(printStatus(&b, &st, time.Now()), writeJSON(&b, st)); err != nil {
		t.Fatal(err)
	}
	end := live.End{Pod: evil, Account: evil}
	flows := []live.Flow{{Src: end, Dst: end, Policy: evil, Tier: evil}}
	line := observe.Line{Kind: "request", SrcPod: evil, SrcAccount: evil, DstPod: evil, Method: evil, Path: evil, Policy: evil, Tier: evil, Problem: evil, Pending: "deny", PendingPolicy: evil}
	if err := errors.Join(printFlows(&b, flows), writeJSON(&b, flows), textLines(&b)(line), newJSON(&b).Encode(line)); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"json", "console", "auto"} {
		log, err := newLogger(&b, format, "info")
		if err != nil {
			t.Fatal(err)
		}
		log.Info().Str("pod", evil).Strs("pods", []string{evil}).Err(errors.New(evil)).Interface("any", map[string]string{evil: evil}).Msg("a flow")
	}
	if s := b.String(); strings.ContainsAny(s, harmful) || strings.Count(s, "[31m") < 10 {
		t.Errorf("%q", s)
	}
}
