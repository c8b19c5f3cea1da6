package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/k8ssync/access"
)

// accessManifests makes a directory of the example's manifests, the guards and roles of
// deploy, and people who have the roles.
func accessManifests(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i, from := range []string{"../../docs/examples/service-accounts", "../../deploy/guards", "../../deploy/roles"} {
		if err := os.CopyFS(filepath.Join(dir, string(rune('a'+i))), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		os.Remove(filepath.Join(dir, string(rune('a'+i)), "kustomization.yaml")) // is about the manifests, and none
	}
	if err := os.CopyFS(filepath.Join(dir, "d"), os.DirFS("testdata/access")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestAccessText holds the report of the documentation to what the command prints.
func TestAccessText(t *testing.T) {
	out, errs, code := command("access", "--source", accessManifests(t), "rule ingress[0] (Allow) of NetworkPolicy prod-engineering/demo-calico in tier default")
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	doc, err := os.ReadFile("../../docs/rbac.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), "\n"+out+"```") {
		t.Errorf("docs/rbac.md does not show this:\n%s", out)
	}
}

// TestAccessJSON: every way tells of whom, what, rights and bindings.
func TestAccessJSON(t *testing.T) {
	dir := accessManifests(t)
	for _, about := range [][]string{{"prod-engineering/api-service"}, {"ingress", "rule", "0", "of", "NetworkPolicy", "prod-engineering/demo-calico", "in", "tier", "default"}} {
		out, errs, code := command(append([]string{"access", "--source", dir, "-o", "json"}, about...)...)
		if code != 0 || errs != "" {
			t.Fatalf("exit code %d: %s", code, errs)
		}
		var r access.Report
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		if len(r.Ways) == 0 || len(r.Warnings) != 0 || (len(about) > 1) != (len(r.Ends) == 2) {
			t.Errorf("%v: %+v", about, r)
		}
		for _, f := range r.Ways {
			if f.Subject.Name == "" || f.What == "" || len(f.Rights) == 0 || len(f.Through) == 0 {
				t.Errorf("%v: %+v", about, f)
			}
		}
	}
}

func TestAccessErrors(t *testing.T) {
	dir := accessManifests(t)
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{}, 2, "want a service account, a rule or a policy"},
		{[]string{"a/b"}, 2, "want --source or --kubeconfig"},
		{[]string{"a/b", "--source", dir, "--kubeconfig", "x"}, 2, "--source and --kubeconfig: give one of them"},
		{[]string{"a/b", "--source", dir, "-o", "yaml"}, 2, `--output "yaml": want text or json`},
		{[]string{"a/b", "--source", dir}, 1, "no service account and no policy a/b"},
		{[]string{"nonsense of words", "--source", dir}, 2, "want NAMESPACE/ACCOUNT"},
		{[]string{"NetworkPolicy", "prod-engineering/none", "--source", dir}, 1, "no NetworkPolicy prod-engineering/none"},
		{[]string{"prod-engineering/demo-calico", "egress[0]", "--source", dir}, 1, "has no egress rule 0, but ingress[0] (Allow)"},
		{[]string{"a/b", "--source", filepath.Join(dir, "none")}, 4, "no such file"},
		{[]string{"a/b", "--kubeconfig", filepath.Join(dir, "none")}, 4, "kubeconfig"},
	} {
		out, errs, code := command(append([]string{"access"}, tc.args...)...)
		if code != tc.code || out != "" || !strings.Contains(errs, tc.says) {
			t.Errorf("%v: exit code %d, %q, %q; want %d and %q", tc.args, code, out, errs, tc.code, tc.says)
		}
	}
}
