package check

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/postern-project/postern/test/apiserver"
)

// kustomized is what "kubectl kustomize" gives of directories in deploy.
func kustomized(t *testing.T, dirs ...string) (list []*unstructured.Unstructured) {
	t.Helper()
	for _, dir := range dirs {
		m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), deploy+dir)
		if err != nil {
			t.Fatal(err)
		}
		text, err := m.AsYaml()
		if err != nil {
			t.Fatal(err)
		}
		of, err := apiserver.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, of...)
	}
	return list
}

// plain names objects, without the labels and annotations of Helm.
func plain(t *testing.T, list []*unstructured.Unstructured) map[string]any {
	t.Helper()
	out := map[string]any{}
	for _, o := range list {
		name := o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
		if out[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		out[name] = o.Object
		for _, at := range [][]string{{"metadata"}, {"spec", "selector"}, {"spec", "template", "metadata"}} {
			m, ok, err := unstructured.NestedMap(o.Object, at...)
			if err != nil || !ok {
				continue
			}
			for _, of := range []string{"labels", "matchLabels", "annotations"} {
				if labels, ok := m[of].(map[string]any); ok {
					maps.DeleteFunc(labels, func(k string, _ any) bool {
						return strings.HasPrefix(k, "helm.sh/") || strings.HasPrefix(k, "app.kubernetes.io/")
					})
					if len(labels) == 0 {
						delete(m, of)
					}
				}
			}
			if err := unstructured.SetNestedMap(o.Object, m, at...); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

// TestSame: the chart and the kustomizations say the same.
func TestSame(t *testing.T) {
	for _, c := range []struct {
		values string
		dirs   []string
	}{
		{`{}`, []string{"kubernetes"}},
		{`{crds: {install: true}}`, []string{"kubernetes", "crds"}},
		{`{guards: {tiers: true, serviceAccounts: true}}`, []string{"kubernetes", "guards"}},
		{`{roles: {create: true}}`, []string{"kubernetes", "roles"}},
	} {
		want := plain(t, kustomized(t, c.dirs...))
		// Helm keeps the release in its namespace, which so is there before.
		namespace := "Namespace /postern"
		if want[namespace] == nil {
			t.Fatalf("there is no %s: %v", namespace, slices.Sorted(maps.Keys(want)))
		}
		delete(want, namespace)
		if len(want) < 4 {
			t.Fatalf("only %v", slices.Sorted(maps.Keys(want)))
		}
		if d := cmp.Diff(want, plain(t, objects(t, parse(t, c.values)))); d != "" {
			t.Errorf("%s (-kustomize +helm):\n%s", c.values, d)
		}
	}
}

// TestLabels: whatever the chart makes has the usual labels, and the pods those that
// the selector asks for.
func TestLabels(t *testing.T) {
	for name, text := range variants {
		for _, o := range objects(t, parse(t, text)) {
			l := o.GetLabels()
			for _, k := range []string{"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"} {
				if l[k] == "" {
					t.Errorf("%s: %s %s has no label %s", name, o.GetKind(), o.GetName(), k)
				}
			}
			if o.GetKind() != "DaemonSet" {
				continue
			}
			selector, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector", "matchLabels")
			pods, _, _ := unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels")
			for k, v := range selector {
				if pods[k] != v || len(selector) != 2 {
					t.Errorf("%s: the selector is %v, and pods have %v", name, selector, pods)
				}
			}
		}
	}
}
