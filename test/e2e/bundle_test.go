package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestBundle collects an archive beside a daemon, and looks for secrets in it that lie
// all around: in a kubeconfig, in the log, in labels and annotations.
func TestBundle(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.serve(5432)
	b.editBefore("pods.yaml", "{app: db}", "{app: db, canary: label-canary}")
	b.writeOnly("policy-0-log.yaml", `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: watch, namespace: prod-engineering}
spec:
  order: 1
  selector: 'app == "db"'
  ingress: [{action: Deny, protocol: TCP, destination: {ports: [81]}, metadata: {annotations: {example.org/note: annotation-canary}}}]
`)
	b.writeOnly("broken.yaml", `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: broken, namespace: staging}
spec: {selector: 'canary == == "selector-canary"'}
`)
	b.start()
	b.reaches("prod-engineering/api", "prod-engineering/db", false, true)
	b.reaches("prod-engineering/reports", "prod-engineering/db", false, false)

	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	// A journal of a machine on which something logged what it should not.
	for path, text := range map[string]string{
		kubeconfig: "users: [{user: {token: kubeconfig-canary, client-key-data: kubeconfig-canary}}]",
		filepath.Join(bin, "journalctl"): `#!/bin/sh
echo '{"level":"info","message":"enforcing"}'
echo '{"level":"error","message":"list pods: Authorization: Bearer journal-canary-1"}'
echo '{"level":"error","message":"selector \"a == '"'journal-canary-2'"'\" does not parse","password":"journal-canary-3"}'
echo "$POSTERN_SECRET"
`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	collect := func(args ...string) map[string]string {
		t.Helper()
		var out, errs bytes.Buffer
		cmd := exec.Command(program, append([]string{"bundle", "--socket", b.socket, "--kubeconfig", kubeconfig, "--file", "-", "-o", "json"}, args...)...)
		cmd.Stdout, cmd.Stderr = &out, &errs
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "SOME_TOKEN=environment-canary")
		if err := b.Node.Start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, errs.String())
		}
		var told struct{ Files []string }
		if err := json.Unmarshal(errs.Bytes(), &told); err != nil {
			t.Fatalf("%v: %s", err, errs.String())
		}
		files := unpack(t, &out)
		for _, name := range told.Files {
			if _, ok := files[name]; !ok {
				t.Errorf("%s was told of and is not there", name)
			}
		}
		return files
	}
	has := func(files map[string]string, text string) (where []string) {
		for name, content := range files {
			if strings.Contains(content, text) {
				where = append(where, name)
			}
		}
		slices.Sort(where)
		return where
	}

	files := collect()
	for name, text := range map[string]string{
		"version.txt": "postern ", "settings.json": kubeconfig, "doctor.json": `"check": "kernel"`, "status.json": `"enforcing": true`,
		"state.json": `"pods": 8`, "decisions.jsonl": `"src_pod":"prod-engineering/reports"`, "log.txt": "enforcing", "table.txt": "table inet postern",
		"conntrack.txt": "entries", "queues.txt": "100 ", "sysctls.json": "nf_conntrack_max", "notes.txt": "What is not",
	} {
		if !strings.Contains(files[name], text) {
			t.Errorf("%s does not hold %q:\n%s", name, text, files[name])
		}
	}
	if where := has(files, "canary"); where != nil {
		t.Errorf("leaks in %v", where)
		for _, name := range where {
			t.Log(files[name])
		}
	}
	if !strings.Contains(files["status.json"], "broken") {
		t.Errorf("status does not tell of the broken policy: %s", files["status.json"])
	}

	// With the state, which was asked for, labels are there, and nothing else.
	files = collect("--snapshot")
	if where := has(files, "label-canary"); !slices.Equal(where, []string{"snapshot.json"}) {
		t.Errorf("labels are in %v, want snapshot.json", where)
	}
	for _, secret := range []string{"kubeconfig-canary", "journal-canary-1", "journal-canary-3", "environment-canary"} {
		if where := has(files, secret); where != nil {
			t.Errorf("%s is in %v", secret, where)
		}
	}
}

// editBefore changes a manifest before the daemon starts.
func (b *bench) editBefore(name, old, new string) {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil || !strings.Contains(string(text), old) {
		b.Fatalf("%s: %v, or no %q in it", name, err, old)
	}
	b.writeOnly(name, strings.Replace(string(text), old, new, 1))
}

// unpack gives the files of an archive by name, without its directory.
func unpack(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name[strings.IndexByte(h.Name, '/')+1:]] = string(text)
	}
}
