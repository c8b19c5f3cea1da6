package trie

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func prefixesOf(text ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range text {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestCovers(t *testing.T) {
	t.Parallel()
	list := prefixesOf("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "10.2.0.0/16",
		"11.0.0.0/8", "::/0", "2001:db8::/32", "2001:db8::1/128")
	want := [][]int{{}, {0}, {0, 1}, {0, 1, 2}, {0, 1}, {0}, {}, {6}, {6, 7}}
	var got [][]int
	err := Covers(list, func(i int, covers []int) {
		if i != len(got) {
			t.Errorf("call %d is for prefix %d", len(got), i)
		}
		got = append(got, append([]int{}, covers...))
	})
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("error %v, covers (-want +got):\n%s", err, diff)
	}
}

func TestCoversRefuses(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		list  []netip.Prefix
		calls int
		want  string
	}{
		{"unsorted", prefixesOf("10.0.0.0/8", "9.0.0.0/8"), 1, "prefix 1, 9.0.0.0/8: not sorted"},
		{"longer first", prefixesOf("10.0.0.0/16", "10.0.0.0/8"), 1, "not sorted"},
		{"IPv6 first", prefixesOf("::/0", "10.0.0.0/8"), 1, "not sorted"},
		{"twice", prefixesOf("10.0.0.0/8", "10.0.0.0/8"), 1, "not sorted"},
		{"unmasked", prefixesOf("10.0.0.0/8", "10.0.0.1/16"), 1, "bits beyond"},
		{"invalid", []netip.Prefix{{}}, 0, "invalid"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			err := Covers(c.list, func(int, []int) { calls++ })
			if err == nil || !strings.Contains(err.Error(), c.want) || calls != c.calls {
				t.Errorf("%d calls, error %v, want %d and %q", calls, err, c.calls, c.want)
			}
		})
	}
}

func TestCoversLikePairs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOf(rapid.Custom(drawPrefix)).Draw(t, "list")
		slices.SortFunc(list, netip.Prefix.Compare)
		list = slices.Compact(list)
		calls := 0
		err := Covers(list, func(i int, covers []int) {
			calls++
			var want []int
			for j, p := range list {
				if j != i && p.Bits() < list[i].Bits() && p.Contains(list[i].Addr()) {
					want = append(want, j)
				}
			}
			slices.SortFunc(want, func(a, b int) int { return list[a].Bits() - list[b].Bits() })
			if !slices.Equal(want, covers) {
				t.Fatalf("covers of %s = %v, want %v", list[i], covers, want)
			}
		})
		if err != nil || calls != len(list) {
			t.Fatalf("%d calls for %d prefixes, error %v", calls, len(list), err)
		}
	})
}
