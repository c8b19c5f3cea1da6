package trie

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestPaths(t *testing.T) {
	t.Parallel()
	var p Paths
	if got := p.Find("/", nil); got != nil {
		t.Errorf("empty: %v", got)
	}
	p.Put("/", false, 1)
	p.Put("/v1/", true, 2)
	p.Put("/v1/", false, 3)
	p.Put("/v1/users/", true, 4)
	p.Put("/v10/", true, 5)
	for path, want := range map[string][]int32{
		"/":               {1},
		"/v1/":            {2, 3},
		"/v1/users/":      {2, 4},
		"/v1/users/x/":    {2, 4},
		"/v10/":           {5},
		"/v100/":          nil,
		"/v/":             nil,
		"/x/v1/":          nil,
		"/v1/usersbut/x/": {2},
	} {
		got := p.Find(path, nil)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	if p.Len() != 4 {
		t.Errorf("Len %d, want 4", p.Len())
	}
}

// TestPathsOracle compares with asking every path in turn.
func TestPathsOracle(t *testing.T) {
	t.Parallel()
	path := rapid.Custom(func(t *rapid.T) string {
		return "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a/", "ab/", "b/", "%2F/", "é/"}), 0, 4).Draw(t, "segments"), "")
	})
	rapid.Check(t, func(t *rapid.T) {
		type put struct {
			path  string
			below bool
		}
		var p Paths
		puts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) put { return put{path.Draw(t, "path"), rapid.Bool().Draw(t, "below")} }), 0, 12).Draw(t, "puts")
		for i, x := range puts {
			p.Put(x.path, x.below, int32(i))
		}
		for range 10 {
			q := path.Draw(t, "asked")
			var want []int32
			for i, x := range puts {
				if x.path == q || x.below && strings.HasPrefix(q, x.path) {
					want = append(want, int32(i))
				}
			}
			got := p.Find(q, nil)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Fatalf("%s: %v, want %v of %v", q, got, want, puts)
			}
		}
	})
}
