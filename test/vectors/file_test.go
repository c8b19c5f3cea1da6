package vectors

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// parseOK parses a file that must be right.
func parseOK(t *testing.T, path, text string) File {
	t.Helper()
	f, err := Parse(path, text)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range f.Vectors {
		if v.Err != nil {
			t.Errorf("%s: %v", v.ID, v.Err)
		}
	}
	return f
}

func TestParseMarkdown(t *testing.T) {
	t.Parallel()
	f := parseOK(t, "x.md", "# Prose\n```yaml\n- id: NOT\n```\n````md\n```yaml vectors\n- id: NEITHER\n```\n````\n"+
		"```yaml world\nns: {a: {on: yes, k: v}}\n```\n```yaml vectors\n# comment\n- id: V1   # the title\n  flows: [1.1.1.1 -> 2.2.2.2 tcp/1 => allow]\n- id: V2\n  objs: [{GNP: n}]\n```\n")
	if diff := cmp.Diff(map[string]map[string]string{"a": {"on": "yes", "k": "v"}}, f.World.Namespaces); diff != "" {
		t.Error(diff)
	}
	if len(f.Vectors) != 2 {
		t.Fatalf("got %d vectors, want 2", len(f.Vectors))
	}
	v := f.Vectors[0]
	if v.ID != "V1" || v.Title != "the title" || v.Line != 15 || v.File != "x.md" || len(v.Flows) != 1 {
		t.Errorf("got %+v", v)
	}
	if o := f.Vectors[1].Objects[0]; o.Name != "n" {
		t.Errorf("got name %q, want n: only true and false are booleans", o.Name)
	}
}

func TestParsePlain(t *testing.T) {
	t.Parallel()
	f := parseOK(t, "x.yaml", "ns: {a: {}}\n---\n- id: S\n  sel: ['a == \"@ x => y\" @ {a: \"x\"} => false']\n- {id: V, steps: [{noValidate: true, objs: [{NP: a/b}]}]}\n")
	if f.World == nil || len(f.Vectors) != 2 {
		t.Fatalf("got %+v", f)
	}
	want := SelectorCase{Text: `a == "@ x => y" @ {a: "x"} => false`, Expression: `a == "@ x => y"`, Labels: map[string]string{"a": "x"}, Want: "false"}
	if diff := cmp.Diff([]SelectorCase{want}, f.Vectors[0].Selectors); diff != "" {
		t.Error(diff)
	}
	if !f.Vectors[1].Steps[0].NoValidate {
		t.Error("noValidate of the step is lost")
	}
}

// Every mistake is reported, with the file, and with id and text where there is one.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		want       []string // parts of the messages
	}{
		{"YAML", "- id: V1\n  flows: [a\n- id: V2\n", []string{"x.yaml", "line 2"}},
		{"repeated key", "- id: V1\n  id: V2\n  objs: []\n", []string{"x.yaml", "id"}},
		{"no list", "just text", []string{"x.yaml", "just text"}},
		{"nothing", "# empty\n", []string{"x.yaml"}},
		{"two worlds", "ns: {}\n---\nns: {}\n", []string{"x.yaml", "second world"}},
		{"world expects", "flows: [a -> b tcp/1 => allow]\n", []string{"x.yaml", "world"}},
		{"unknown world field", "nss: {}\n", []string{"x.yaml", "nss"}},
		{"unknown field", "- id: V1\n  flow: [a -> b tcp/1 => allow]\n", []string{"V1", "flow"}},
		{"field of a step", "- id: V1\n  steps: [{delobjs: []}]\n", []string{"V1", "delobjs"}},
		{"no id", "- flows: [a -> b tcp/1 => allow]\n", []string{"#1", "no id", "tcp/1"}},
		{"twice", "- id: V1\n  objs: [{GNP: a}]\n- id: V1\n  objs: [{GNP: a}]\n", []string{"V1", "second"}},
		{"expects nothing", "- id: V1\n  ns: {a: {}}\n", []string{"V1", "expects nothing"}},
		{"flow", "- id: V1\n  flows: [a -> b tcp/1 = allow]\n", []string{"V1", "a -> b tcp/1 = allow"}},
		{"flow in a step", "- id: V1\n  steps: [{flows: [a -> b]}]\n", []string{"V1", "step 1", "a -> b"}},
		{"label", "- id: V1\n  ns: {a: {k: 1}}\n  objs: [{GNP: a}]\n", []string{"V1"}},
		{"object kind", "- id: V1\n  objs: [{XNP: a}]\n", []string{"V1", "XNP"}},
		{"object of two kinds", "- id: V1\n  objs: [{GNP: a, NP: a/b}]\n", []string{"V1", "two kinds"}},
		{"object name", "- id: V1\n  objs: [{NP: a}]\n", []string{"V1", "NP", "namespace/name"}},
		{"object namespace", "- id: V1\n  rejects: [{GNP: a/b}]\n", []string{"V1", "GNP"}},
		{"pod", "- id: V1\n  pods: [{name: a}]\n  objs: [{GNP: a}]\n", []string{"V1", "pod"}},
		{"reject", "- id: V1\n  reject: true\n  flows: [a -> b tcp/1 => allow]\n", []string{"V1", "reject"}},
		{"selector answer", "- id: V1\n  sel: ['a @ {} => yes']\n", []string{"V1", "yes"}},
		{"selector labels", "- id: V1\n  sel: ['a @ x => true']\n", []string{"V1", "labels"}},
		{"selector separator", "- id: V1\n  sel: ['a => true']\n", []string{"V1", "no labels"}},
	} {
		f, err := Parse("x.yaml", c.text)
		got := ""
		if err != nil {
			got = err.Error()
		}
		for _, v := range f.Vectors {
			if v.Err != nil {
				got += "\n" + v.ID + ": " + v.Err.Error()
			}
		}
		if got == "" {
			t.Errorf("%s: no error", c.name)
		}
		for _, part := range c.want {
			if !strings.Contains(got, part) {
				t.Errorf("%s: %q does not tell %q", c.name, got, part)
			}
		}
	}
}

func TestParseMarkdownRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"```yaml vector\n- id: V1\n```\n",
		"```yaml vectors\n- id: V1\n  objs: [{GNP: a}]\n",
		"```yaml vectors\nns: {}\n```\n",
		"```yaml world\n- id: V1\n```\n",
		"```go\n```\n",
	} {
		if _, err := Parse("x.md", text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestLoadWorlds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const list = "- {id: V, objs: [{GNP: a}]}\n"
	const standard = "kube-system other prod-engineering staging"
	write("beside/world.yaml", "ns: {beside: {}}")
	beside := write("beside/list.yaml", list)
	own := write("beside/own.yaml", "ns: {own: {}}\n---\n"+list)
	other := write("world-of-its-own.yaml", "ns: {given: {}}")
	lonely := write("lonely/list.yaml", list)

	for _, c := range []struct {
		paths []string
		want  string
	}{
		{[]string{beside}, "beside"},
		{[]string{own}, "own"},
		{[]string{other, beside}, "given"},
		{[]string{other, own}, "own"},
		{[]string{lonely}, standard},
	} {
		files, err := Load(c.paths...)
		if err != nil || len(files) != 1 {
			t.Errorf("%v: %d files, %v", c.paths, len(files), err)
			continue
		}
		got := strings.Join(slices.Sorted(maps.Keys(files[0].World.Namespaces)), " ")
		if got != c.want {
			t.Errorf("%v: world of %q, want %q", c.paths, got, c.want)
		}
	}
	if _, err := Load(filepath.Join(dir, "missing.yaml")); err == nil {
		t.Error("a missing file is no error")
	}
}

// No text makes the parser panic, and no vector is lost: what it returns has an
// id and either asks something or says what is wrong.
func FuzzParse(f *testing.F) {
	f.Add("x.yaml", "ns: {a: {}}\n---\n- id: V # t\n  flows: [a -> b tcp/1 => allow]\n")
	f.Add("x.md", "```yaml world\nns: {a: {on: y}}\n```\n~~~yaml vectors\n- {id: V, steps: [{objs: [{GNP: a}]}]}\n~~~\n")
	f.Add("x.yaml", "- id: S\n  sel: ['a @ {} => error']\n- {sel: 1}\n- &a [*a]\n")
	f.Fuzz(func(t *testing.T, path, text string) {
		file, err := Parse(path, text)
		if err == nil && file.World == nil && len(file.Vectors) == 0 {
			t.Error("neither an error nor anything read")
		}
		for _, v := range file.Vectors {
			if v.ID == "" || v.Err == nil && !v.asks() {
				t.Errorf("got %+v", v)
			}
		}
	})
}
