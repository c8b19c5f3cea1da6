package trie

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func keysOf(n *Names[int], prefix string) []string {
	var out []string
	for key := range n.WalkPrefix(prefix) {
		out = append(out, key)
	}
	return out
}

func TestNames(t *testing.T) {
	t.Parallel()
	var n Names[int]
	if _, found := n.Get("a"); found || n.Delete("a") || n.Len() != 0 || keysOf(&n, "") != nil {
		t.Error("the zero index holds something")
	}
	for i, key := range []string{
		"policy/shop/web", "policy/shop/api", "policy/shop", "policy/shopping/x", "pod/shop/web-0", "policy/", "",
	} {
		if !n.Put(key, i) {
			t.Errorf("put %q: not new", key)
		}
	}
	if n.Put("policy/shop/api", 42) {
		t.Error("a replaced key is new")
	}
	if v, found := n.Get("policy/shop/api"); v != 42 || !found {
		t.Errorf("get = %d, %v, want 42", v, found)
	}
	cases := []struct {
		prefix string
		want   []string
	}{
		{"policy/shop/", []string{"policy/shop/api", "policy/shop/web"}},
		{"policy/shop", []string{"policy/shop", "policy/shop/api", "policy/shop/web", "policy/shopping/x"}},
		{"pod/", []string{"pod/shop/web-0"}},
		{"tier/", nil},
		{"policy/shop/web/", nil},
		{"", []string{"", "pod/shop/web-0", "policy/", "policy/shop", "policy/shop/api", "policy/shop/web", "policy/shopping/x"}},
	}
	for _, c := range cases {
		if diff := cmp.Diff(c.want, keysOf(&n, c.prefix)); diff != "" {
			t.Errorf("walk %q (-want +got):\n%s", c.prefix, diff)
		}
	}
	for range n.WalkPrefix("policy/") {
		break
	}
	if !n.Delete("policy/shop") || n.Delete("policy/shop") || n.Delete("policy/sho") {
		t.Error("delete does not tell present from absent")
	}
	if v, found := n.Get("policy/shop/web"); v != 0 || !found || n.Len() != 6 {
		t.Errorf("after delete: get = %d, %v, Len = %d", v, found, n.Len())
	}
}

// TestNamesHoldsNil: a nil of an interface type comes back as such.
func TestNamesHoldsNil(t *testing.T) {
	t.Parallel()
	var n Names[error]
	n.Put("a", nil)
	if v, found := n.Get("a"); v != nil || !found {
		t.Errorf("get = %v, %v, want nil, true", v, found)
	}
	for _, v := range n.WalkPrefix("") {
		if v != nil {
			t.Errorf("walk yields %v, want nil", v)
		}
	}
}

func TestNamesLikeMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var n Names[int]
		model := map[string]int{}
		keys := rapid.StringMatching(`[ab/]{0,6}`)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				key, v := keys.Draw(t, "key"), rapid.Int().Draw(t, "value")
				_, had := model[key]
				if fresh := n.Put(key, v); fresh == had {
					t.Fatalf("put %q: new = %v", key, fresh)
				}
				model[key] = v
			},
			"delete": func(t *rapid.T) {
				key := keys.Draw(t, "key")
				_, had := model[key]
				if found := n.Delete(key); found != had {
					t.Fatalf("delete %q = %v, want %v", key, found, had)
				}
				delete(model, key)
			},
			"": func(t *rapid.T) {
				prefix := keys.Draw(t, "prefix")
				var want []string
				for key, v := range model {
					if strings.HasPrefix(key, prefix) {
						want = append(want, key)
					}
					if got, found := n.Get(key); got != v || !found {
						t.Fatalf("get %q = %d, %v, want %d", key, got, found, v)
					}
				}
				slices.Sort(want)
				if diff := cmp.Diff(want, keysOf(&n, prefix)); diff != "" || n.Len() != len(model) {
					t.Fatalf("Len = %d, want %d; walk %q (-want +got):\n%s", n.Len(), len(model), prefix, diff)
				}
			},
		})
	})
}
