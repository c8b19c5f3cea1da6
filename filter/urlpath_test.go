package filter

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

// TestNormalizePath has the tricks by which a path passes for another one. An empty
// want is a refusal.
func TestNormalizePath(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ path, want string }{
		{"/", "/"},
		{"/a", "/a/"},
		{"/a/", "/a/"},
		{"/a//b///", "/a/b/"},
		{"/a/./b/.", "/a/b/"},
		{"/a/../b", "/b/"},
		{"/a/b/../..", "/"},
		{"/../../a", "/a/"},
		{"/...", "/.../"},
		{"/.a", "/.a/"},
		{"/a?b=/c/../d", "/a/"},
		{"/a#b?c", "/a/"},
		{"/?", "/"},
		{"/a%3Fb", "/a%3Fb/"},
		{"/a%23b", "/a%23b/"},
		{"/a%2e%2e/b", "/a../b/"},
		{"/a/%2e%2e/b", "/b/"},
		{"/a/%2E%2E/b", "/b/"},
		{"/a/.%2e/b", "/b/"},
		{"/a%2fb", "/a/b/"},
		{"/a%5cb", "/a/b/"},
		{`/a\b`, "/a/b/"},
		{`/a\..\b`, "/b/"},
		{"/a%252e", ""},
		{"/a%252E", ""},
		{"/a%252fb", ""},
		{"/a%255Cb", ""},
		{"/a%25%32%65", ""}, // decodes to %2e
		{"/a%2500", "/a%2500/"},
		{"/a%00", ""},
		{"/a\x00", ""},
		{"/a%", ""},
		{"/a%2", ""},
		{"/a%zz", ""},
		{"/a%2575", "/a%2575/"},
		{"/a;b", "/a/"},
		{"/a;b/c;d=e;f", "/a/c/"},
		{"/a/..;b/c", "/c/"},
		{"/a/;/c", "/a/c/"},
		{"/a%3bb/c", "/a/c/"},
		{"/a/%2e%2e%3bx/c", "/c/"},
		{"/%e9\xff", "/\xe9\xff/"},
		{"/a/%c0%ae%c0%ae/b", ""},
		{"/a/%e0%80%ae./b", ""},
		{"/a%c0%afb", ""},
		{"/a%F0%80%80%AFb", ""},
		{"/a%c1%9cb", ""},
		{"/a\xc0\xafb", ""},
		{"/%c0/%e0%a4%85/%f0%9f%98%80", "/\xc0/\u0905/\U0001f600/"},
		{"/a b", "/a b/"},
		{"", ""},
		{"a/b", ""},
		{"*", ""},
		{"http://h/a", ""},
		{"host:443", ""},
		{"?a", ""},
		{`\a`, ""},
	} {
		got, ok := NormalizePath(tc.path)
		if got != tc.want || ok != (tc.want != "") {
			t.Errorf("%q: %q %v, want %q", tc.path, got, ok, tc.want)
		}
	}
}

// FuzzNormalizePath: the form normalises to itself, and no path comes out below a
// prefix that it does not resolve into.
func FuzzNormalizePath(f *testing.F) {
	for _, s := range []string{"/", "/public/../admin", "/public/%2e%2e/admin", "/public/..;a/admin", `/public\..\admin`, "/public/%252e%252e/", "/a?b#c", "/%3f%23%25", "//public", "/public%2f..%2fadmin", "/;/..;/public"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := NormalizePath(s)
		if !ok {
			if got != "" {
				t.Fatalf("%q: refused as %q", s, got)
			}
			return
		}
		if !strings.HasPrefix(got, "/") || !strings.HasSuffix(got, "/") || strings.Contains(got, "//") {
			t.Fatalf("%q: %q has empty segments", s, got)
		}
		if again, ok := NormalizePath(got); !ok || again != got {
			t.Fatalf("%q: %q becomes %q, %v", s, got, again, ok)
		}
		// What a server makes of it, by other means: decode, drop parameters, resolve.
		if i := strings.IndexAny(s, "?#"); i >= 0 {
			s = s[:i]
		}
		decoded, err := url.PathUnescape(s)
		if err != nil {
			t.Fatalf("%q: accepted, and does not decode: %v", s, err)
		}
		segments := strings.Split(strings.ReplaceAll(decoded, `\`, "/"), "/")
		for i := range segments {
			segments[i], _, _ = strings.Cut(segments[i], ";")
		}
		resolved := path.Clean(strings.Join(segments, "/"))
		form, err := url.PathUnescape(got)
		if err != nil || path.Clean(form) != resolved {
			t.Fatalf("%q resolves to %q, and its form %q to %q", s, resolved, got, path.Clean(form))
		}
		// A server that decodes twice must not get elsewhere.
		if twice, err := url.PathUnescape(form); err == nil && strings.Count(twice, "/") != strings.Count(form, "/") {
			t.Fatalf("%q: %q decodes again to other segments, %q", s, form, twice)
		}
	})
}
