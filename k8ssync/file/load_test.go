package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/policy"
)

// TestRead reads a directory and files beside it, one of them in the directory too.
func TestRead(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for path, text := range map[string]string{
		"dir/a.yaml":      set("a", "10.0.0.0/8"),
		"dir/sub/b.yaml":  set("b", "10.0.0.0/8") + "---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}\n",
		"dir/broken.yaml": "{",
		"dir/notes.txt":   "no manifest",
		"policy":          set("c", "10.0.0.0/8") + "---\n" + set("a", "10.0.0.0/9"),
		"broken":          "a: b: c",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := func(path string) string { return filepath.Join(root, path) }

	r, err := Read(at("dir"), at("policy"), at("dir")+"/./a.yaml", at("broken"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"!GlobalNetworkSet a", "GlobalNetworkSet b", "GlobalNetworkSet c"}, keys(r.Objects)); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	if p := r.Objects[0].Problems[0]; p.Origin != at("policy") {
		t.Errorf("the second place of a is %q", p.Origin)
	}
	set := func(name string) policy.Key { return policy.Key{Kind: policy.GlobalNetworkSet, Name: name} }
	want := map[policy.Key]string{set("a"): at("dir/a.yaml"), set("b"): at("dir/sub/b.yaml"), set("c"): at("policy")}
	if diff := cmp.Diff(want, r.Origins); diff != "" {
		t.Errorf("origins (-want +got):\n%s", diff)
	}
	if r.Files != 5 || r.Ignored != 1 {
		t.Errorf("%d files and %d objects ignored, want 5 and 1", r.Files, r.Ignored)
	}
	var failed []string
	for _, e := range r.Errors {
		failed = append(failed, e.Path)
		if e.Unwrap() == nil || !strings.HasPrefix(e.Error(), e.Path+": ") {
			t.Errorf("error of %s: %v", e.Path, e)
		}
	}
	if diff := cmp.Diff([]string{at("broken"), at("dir/broken.yaml")}, failed); diff != "" {
		t.Errorf("files that cannot be read (-want +got):\n%s", diff)
	}

	if _, err := Read(at("dir"), at("missing")); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("Read of a path that does not exist: %v", err)
	}
}
