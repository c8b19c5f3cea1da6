package explain

import (
	"net/url"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/policy"
)

// matchesPath tells whether a request's path is one of a rule's. Paths are
// compared as lists of segments after normalisation; one that is refused, the
// request's or the rule's, matches nothing.
func matchesPath(rule []policy.HTTPPath, request string) bool {
	req, ok := segments(request)
	if !ok {
		return false
	}
	return slices.ContainsFunc(rule, func(p policy.HTTPPath) bool {
		if p.Exact != "" {
			want, ok := segments(p.Exact)
			return ok && slices.Equal(want, req)
		}
		want, ok := segments(p.Prefix)
		return ok && p.Prefix != "" && len(want) <= len(req) && slices.Equal(want, req[:len(want)])
	})
}

// segments normalises a path, in the order of section 9.7. "/" has none.
func segments(path string) (list []string, ok bool) {
	// 1. Cut at the first ? or #.
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		path = path[:i]
	}
	// 2. Percent-decode once.
	path, err := url.PathUnescape(path)
	if err != nil {
		return nil, false
	}
	// 3. Refuse what would decode to a dot or a separator at the next hop, and NUL.
	lower := strings.ToLower(path)
	for _, bad := range []string{"%2e", "%2f", "%5c", "\x00"} {
		if strings.Contains(lower, bad) {
			return nil, false
		}
	}
	if hidesSeparator(path) {
		return nil, false
	}
	// 4. A backslash is a slash to many servers.
	path = strings.ReplaceAll(path, `\`, "/")
	for _, s := range strings.Split(path, "/") {
		// 5. Drop path parameters.
		s, _, _ = strings.Cut(s, ";")
		// 6. Resolve "", "." and ".."; there is nothing above the root.
		switch s {
		case "", ".":
		case "..":
			if len(list) > 0 {
				list = list[:len(list)-1]
			}
		default:
			list = append(list, s)
		}
	}
	return list, true
}

// hidesSeparator finds a dot, a slash or a backslash that is written in two to four
// bytes of UTF-8. Nothing valid is, and some servers read it.
func hidesSeparator(path string) bool {
	for i := range len(path) {
		more, value := 0, rune(path[i])
		switch lead := path[i]; {
		case lead>>5 == 0b110:
			more, value = 1, rune(lead&0x1f)
		case lead>>4 == 0b1110:
			more, value = 2, rune(lead&0x0f)
		case lead>>3 == 0b11110:
			more, value = 3, rune(lead&0x07)
		}
		if more == 0 || i+more >= len(path) {
			continue
		}
		for _, b := range []byte(path[i+1 : i+1+more]) {
			if b>>6 != 0b10 {
				more = 0
			}
			value = value<<6 | rune(b&0x3f)
		}
		if more > 0 && strings.ContainsRune(`./\`, value) {
			return true
		}
	}
	return false
}
