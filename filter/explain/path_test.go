package explain

import (
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/filter/policy"
)

func TestSegments(t *testing.T) {
	t.Parallel()
	refused := []string{"<refused>"}
	tests := []struct {
		path string
		want []string
	}{
		{"/", nil}, {"", nil}, {"//", nil}, {"/.", nil}, {"/..", nil}, {"/../..", nil},
		{"/a", []string{"a"}}, {"/a/", []string{"a"}}, {"//a///b", []string{"a", "b"}},
		{"/a?b=/c", []string{"a"}}, {"/a#b/c", []string{"a"}}, {"/a?b#c", []string{"a"}},
		{"/a/./b/../c", []string{"a", "c"}}, {"/a/../../b", []string{"b"}}, {"/...", []string{"..."}},
		{"/%61", []string{"a"}}, {"/a%2Fb", []string{"a", "b"}}, {"/a/%2e%2E/b", []string{"b"}}, {"/a%3fb", []string{"a?b"}},
		{`/a\b`, []string{"a", "b"}}, {"/a/..%5cb", []string{"b"}},
		{"/a;x/y", []string{"a", "y"}}, {"/a/..;x/b", []string{"b"}}, {"/;x/a", []string{"a"}}, {"/a%3bx", []string{"a"}},
		{"/%252e%252e/a", refused}, {"/%252F", refused}, {"/%255C", refused}, {"/a%00", refused}, {"/a\x00", refused},
		{"/%c0%ae/a", refused}, {"/a%c0%afb", refused}, {"/a%C1%9Cb", refused}, {"/%e0%80%ae", refused}, {"/a%f0%80%80%af", refused}, {"/a\xc0\xaf", refused},
		{"/%c0/%ae%e0%a4%85%c0", []string{"\xc0", "\xae\u0905\xc0"}},
		{"/%", refused}, {"/%zz", refused}, {"/%2", refused},
		{"/%25", []string{"%"}}, {"/a+b", []string{"a+b"}}, {"/A", []string{"A"}},
	}
	for _, tt := range tests {
		got, ok := segments(tt.path)
		if !ok {
			got = refused
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.path, got, tt.want)
		}
	}
}

func TestMatchesPath(t *testing.T) {
	t.Parallel()
	exact := func(p string) policy.HTTPPath { return policy.HTTPPath{Exact: p} }
	prefix := func(p string) policy.HTTPPath { return policy.HTTPPath{Prefix: p} }
	tests := []struct {
		rule  policy.HTTPPath
		yes   []string
		never []string
	}{
		{exact("/health"), []string{"/health", "/health/", "//health", "/x/../health", "/health?a"}, []string{"/", "/health/a", "/Health", "/healthy"}},
		{exact("/"), []string{"/", "//", "/a/.."}, []string{"/a"}},
		{prefix("/v1/"), []string{"/v1", "/v1/", "/v1/a", "/%76%31"}, []string{"/v10", "/", "/a/v1", "/v1/../a", "/v1/%2e%2e/a"}},
		{prefix("/"), []string{"/", "/a/b"}, []string{"/%252e"}},
		{prefix("/a%"), nil, []string{"/a%", "/a%25", "/a"}},
		{policy.HTTPPath{}, nil, []string{"/", "/a"}},
	}
	for _, tt := range tests {
		for _, p := range tt.yes {
			if !matchesPath([]policy.HTTPPath{exact("/never"), tt.rule}, p) {
				t.Errorf("%+v does not match %q", tt.rule, p)
			}
		}
		for _, p := range tt.never {
			if matchesPath([]policy.HTTPPath{tt.rule}, p) {
				t.Errorf("%+v matches %q", tt.rule, p)
			}
		}
	}
}

// FuzzSegments: no input panics, and what is accepted is a plain path.
func FuzzSegments(f *testing.F) {
	for _, s := range []string{"/a/../b", "/%2e%2e/;a", `/\..\a`, "/%252e", "/a?b#c", "/%00", "/a;b/c", "0/.."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		list, ok := segments(path)
		if !ok {
			return
		}
		for _, s := range list {
			lower := strings.ToLower(s)
			if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\\;\x00") ||
				strings.Contains(lower, "%2e") || strings.Contains(lower, "%2f") || strings.Contains(lower, "%5c") {
				t.Fatalf("%q gives segment %q", path, s)
			}
		}
		escape := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23")
		again, ok := segments("/" + escape.Replace(strings.Join(list, "/")))
		if !ok || !slices.Equal(list, again) {
			t.Fatalf("%q gives %q, which gives %q, %t", path, list, again, ok)
		}
	})
}
