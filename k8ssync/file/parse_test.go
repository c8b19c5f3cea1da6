package file

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
)

// set writes a GlobalNetworkSet.
func set(name, net string) string {
	return "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata:\n  name: " + name + "\nspec:\n  nets: [" + net + "]\n"
}

// keys lists objects by key, with "!" before those that have problems.
func keys(objects []k8ssync.Object) (out []string) {
	for _, o := range objects {
		mark := ""
		if len(o.Problems) > 0 {
			mark = "!"
		}
		out = append(out, mark+o.Key.String())
	}
	return out
}

func TestParse(t *testing.T) {
	t.Parallel()
	const jsonPod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "%"}}`
	pod := func(name string) string { return strings.Replace(jsonPod, "%", name, 1) }
	tests := []struct {
		title, text   string
		want, ignored []string
	}{
		{"nothing", "", nil, nil},
		{"comments and empty documents", "# a\n---\n---\n# b\n\n---\nnull\n", nil, nil},
		{"one", set("a", "10.0.0.0/8"), []string{"GlobalNetworkSet a"}, nil},
		{"several", set("a", "10.0.0.0/8") + "---\n" + set("b", "10.0.0.0/8") + "--- # comment\n" + set("c", "10.0.0.0/8"),
			[]string{"GlobalNetworkSet a", "GlobalNetworkSet b", "GlobalNetworkSet c"}, nil},
		{"ended by dots", set("a", "10.0.0.0/8") + "...\n---\n" + set("b", "10.0.0.0/8") + "...\n" + set("c", "10.0.0.0/8"),
			[]string{"GlobalNetworkSet a", "GlobalNetworkSet b", "GlobalNetworkSet c"}, nil},
		{"directive, byte order mark, carriage returns", "\ufeff%YAML 1.1\r\n---\r\n" + strings.ReplaceAll(set("a", "10.0.0.0/8"), "\n", "\r\n"), []string{"GlobalNetworkSet a"}, nil},
		{"on the marker's line", "--- " + pod("a") + "\n", []string{"Pod default/a"}, nil},
		{"JSON", pod("a"), []string{"Pod default/a"}, nil},
		{"JSON one after the other", pod("a") + pod("b") + "\n" + pod("c"), []string{"Pod default/a", "Pod default/b", "Pod default/c"}, nil},
		{"JSON between markers", pod("a") + "\n---\n" + pod("b"), []string{"Pod default/a", "Pod default/b"}, nil},
		{"list", `{apiVersion: v1, kind: List, items: [` + pod("a") + `, {apiVersion: v1, kind: Secret}, {apiVersion: v1, kind: List, items: [` + pod("b") + `]}]}`,
			[]string{"Pod default/a", "Pod default/b"}, []string{"v1 Secret"}},
		{"typed list", `{apiVersion: projectcalico.org/v3, kind: TierList, items: [{metadata: {name: a}}, {metadata: {name: b}}]}`, []string{"Tier a", "Tier b"}, nil},
		{"empty list", `{apiVersion: v1, kind: List, items: []}`, nil, nil},
		{"ignored", "apiVersion: apps/v1\nkind: Deployment\n---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\n", nil, []string{"apps/v1 Deployment", "projectcalico.org/v3 IPPool"}},
		{"default namespace", `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, spec: {podSelector: {}}}`, []string{"KubernetesNetworkPolicy default/p"}, nil},
		{"namespace on a global kind", `{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: t, namespace: a}}`, []string{"Tier t"}, nil},
		{"the same twice", set("a", "10.0.0.0/8") + "---\n" + set("a", "10.0.0.0/9") + "---\n" + set("a", "10.0.0.0/9"), []string{"!GlobalNetworkSet a"}, nil},
		{"an invalid object leaves the others", set("a", "x") + "---\n" + set("b", "10.0.0.0/8"), []string{"!GlobalNetworkSet a", "GlobalNetworkSet b"}, nil},
	}
	for _, tt := range tests {
		m, err := ParseManifest("f.yaml", []byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", tt.title, err)
			continue
		}
		if d := cmp.Diff(tt.want, keys(m.Objects)) + cmp.Diff(tt.ignored, m.Ignored); d != "" {
			t.Errorf("%s: -want +got:\n%s", tt.title, d)
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	tests := []struct{ title, text, want string }{
		{"syntax", set("a", "10.0.0.0/8") + "---\na: [\n", "parse f.yaml: document 2 (line 7): yaml: line 2: did not find expected node content"},
		{"tab", "a:\n\tb: c\n", "parse f.yaml: document 1 (line 1): yaml: line 2: found character that cannot start any token"},
		{"no object", "hello\n", "parse f.yaml: document 1 (line 1): decode object: want a mapping with the strings apiVersion and kind"},
		{"no kind", "# c\n---\n\na: b\n", "parse f.yaml: document 1 (line 2): decode object: apiVersion and kind: both must be given"},
		{"no name", "apiVersion: v1\nkind: Pod\n", "parse f.yaml: document 1 (line 1): decode Pod: metadata.name: not given; every object needs a name"},
		{"version", "apiVersion: networking.k8s.io/v1beta1\nkind: NetworkPolicy\n", `parse f.yaml: document 1 (line 1): decode object: NetworkPolicy: apiVersion "networking.k8s.io/v1beta1" is not supported; write "networking.k8s.io/v1"`},
		{"item", `{"apiVersion": "v1", "kind": "List", "items": [{"kind": "Pod"}]}`, "parse f.yaml: document 1 (line 1): items[0]: decode object: apiVersion and kind: both must be given"},
		{"items", `{"apiVersion": "v1", "kind": "List", "items": {}}`, "parse f.yaml: document 1 (line 1): List: items: want a list"},
		{"item of a typed list", `{"apiVersion": "v1", "kind": "PodList", "items": [1]}`, "parse f.yaml: document 1 (line 1): items[0]: want a mapping"},
		{"text after the end", `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}} x`, "parse f.yaml: document 1 (line 1): there is text after the end of the document; put a line --- between documents"},
		{"two in braces", "{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n{apiVersion: v1, kind: Namespace, metadata: {name: b}}\n", "parse f.yaml: document 1 (line 1): there is text after the end of the document; put a line --- between documents"},
		{"nested lists", strings.Repeat(`{apiVersion: v1, kind: List, items: [`, 6) + strings.Repeat("]}", 6), "parse f.yaml: document 1 (line 1): items[0]: items[0]: items[0]: items[0]: lists within lists, more than 4 deep"},
	}
	for _, tt := range tests {
		objects, err := Parse("f.yaml", []byte(tt.text))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s:\n got %v\nwant %s", tt.title, err, tt.want)
		}
		if len(objects) != 0 {
			t.Errorf("%s: %d objects beside the error", tt.title, len(objects))
		}
	}
}

func TestParseProblems(t *testing.T) {
	t.Parallel()
	const policyHead = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n"
	tests := []struct{ title, text, want string }{
		{"repeated field in YAML", policyHead + "  selector: has(a)\n  selector: all()\n",
			`f.yaml: NetworkPolicy shop/p: line 6: key "selector" already set in map (the document starts at line 1); keep one of them`},
		{"repeated field in JSON", `{"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": {"selector": "has(a)", "selector": "all()"}}`,
			"f.yaml: NetworkPolicy default/p: spec.selector: stated twice; keep one"},
		{"unknown field", policyHead + "  ingress:\n  - action: Allow\n    source: {net: [10.0.0.0/8]}\n",
			"f.yaml: NetworkPolicy shop/p: spec.ingress[0].source.net: unknown field; the fields here are namespaceSelector, nets, notNets, notPorts, notSelector, ports, selector, serviceAccounts, services"},
		{"the same twice", set("a", "10.0.0.0/8") + "---\n" + set("a", "10.0.0.0/9"),
			"f.yaml:7: GlobalNetworkSet a: is also in f.yaml:1, which counts; remove one of the two"},
	}
	for _, tt := range tests {
		objects, err := Parse("f.yaml", []byte(tt.text))
		if err != nil || len(objects) != 1 || len(objects[0].Problems) != 1 {
			t.Errorf("%s: objects %v, error %v; want one with one problem", tt.title, objects, err)
			continue
		}
		if got := objects[0].Problems[0].Error(); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.title, got, tt.want)
		}
	}
}

// Of an object that is stated twice the first counts.
func TestFirstOfTwoCounts(t *testing.T) {
	t.Parallel()
	objects, err := Parse("f.yaml", []byte(set("a", "10.0.0.0/8")+"---\n"+set("a", "10.0.0.0/9")))
	if err != nil {
		t.Fatal(err)
	}
	if got := objects[0].Value.(*policy.NetworkSet).Nets[0].String(); got != "10.0.0.0/8" {
		t.Errorf("net %s, want the first one's", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{set("a", "10.0.0.0/8"), set("a", "x") + "---\n" + set("a", "10.0.0.0/8"), `{"apiVersion": "v1", "kind": "List", "items": [{}]}`,
		"a: &a [x, x]\nb: *a\n", "--- |\n  a\n...\n", "%YAML 1.1\n---\n", "\ufeff{", "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: a}\n- {}\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseManifest("f.yaml", text)
		if err != nil && len(m.Objects) > 0 {
			t.Errorf("objects beside error %v", err)
		}
		seen := map[policy.Key]bool{}
		for _, o := range m.Objects {
			if o.Key.Name == "" || o.Key.Kind == "" || seen[o.Key] {
				t.Errorf("key %v is incomplete or repeated", o.Key)
			}
			seen[o.Key] = true
			for _, p := range o.Problems {
				if p.Object != o.Key || p.Origin == "" || p.Message == "" {
					t.Errorf("problem %+v of %v", p, o.Key)
				}
			}
		}
	})
}
