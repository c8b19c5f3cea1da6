package filter

import "strings"

// NormalizePath gives the form of a request's path in which paths are compared
// (spec section 9.7), with a slash behind every segment, such as "/a/b/"; the root
// is "/". In order: cut at the first ? or #; percent-decode once; refuse what a
// server behind might decode a second time into a dot, a slash or a backslash,
// overlong UTF-8 included, and NUL; take a backslash for a slash; drop path parameters; resolve empty segments,
// "." and "..", of which none leads above the root.
//
// The form is a path itself, which normalises to itself: what of %, ? and # was
// decoded is encoded again. It is false for a path that is refused or does not
// begin with a slash; such a path is none that a rule allows.
func NormalizePath(path string) (normal string, ok bool) {
	if path == "" || path[0] != '/' {
		return "", false
	}
	if isNormal(path) {
		if path[len(path)-1] != '/' {
			path += "/"
		}
		return path, true
	}
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		path = path[:i]
	}
	decoded, ok := decodePath(path)
	if !ok {
		return "", false
	}
	out := append(make([]byte, 0, len(decoded)+8), '/')
	for rest, more := decoded, true; more; {
		var segment string
		segment, rest, more = cutSegment(rest)
		if i := strings.IndexByte(segment, ';'); i >= 0 {
			segment = segment[:i]
		}
		switch segment {
		case "", ".":
		case "..":
			if len(out) > 1 {
				out = out[:strings.LastIndexByte(string(out[:len(out)-1]), '/')+1]
			}
		default:
			out = appendEscaped(out, segment)
			out = append(out, '/')
		}
	}
	return string(out), true
}

// isNormal tells, for most paths that people use, that they need no work.
func isNormal(path string) bool {
	for i := 0; i < len(path); i++ {
		switch path[i] {
		case '%', '?', '#', ';', '\\', 0, 0xc0, 0xc1, 0xe0, 0xf0:
			return false
		case '/':
			if i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.') {
				return false
			}
		}
	}
	return true
}

// cutSegment splits at the first slash or backslash.
func cutSegment(path string) (segment, rest string, more bool) {
	if i := strings.IndexAny(path, `/\`); i >= 0 {
		return path[:i], path[i+1:], true
	}
	return path, "", false
}

// decodePath decodes once, and is false for what must be refused.
func decodePath(path string) (string, bool) {
	if strings.IndexByte(path, '%') < 0 {
		return path, strings.IndexByte(path, 0) < 0 && !hasOverlong(path)
	}
	out := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if i+2 >= len(path) {
				return "", false
			}
			high, ok1 := unhex(path[i+1])
			low, ok2 := unhex(path[i+2])
			if !ok1 || !ok2 {
				return "", false
			}
			c = high<<4 | low
			i += 2
		}
		if c == 0 {
			return "", false
		}
		out = append(out, c)
	}
	for i := 0; i+2 < len(out); i++ {
		if out[i] != '%' {
			continue
		}
		switch string([]byte{out[i+1], out[i+2] | 0x20}) {
		case "2e", "2f", "5c":
			return "", false
		}
	}
	return string(out), !hasOverlong(string(out))
}

// overlong are a dot, a slash and a backslash in more bytes of UTF-8 than they need
// (RFC 3629, section 3): no text has them, and careless decoders read them.
var overlong = [...]string{
	"\xc0\xae", "\xe0\x80\xae", "\xf0\x80\x80\xae",
	"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf",
	"\xc1\x9c", "\xe0\x81\x9c", "\xf0\x80\x81\x9c",
}

func hasOverlong(path string) bool {
	for _, s := range overlong {
		if strings.Contains(path, s) {
			return true
		}
	}
	return false
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	default:
		return 0, false
	}
}

// appendEscaped encodes the characters that normalising would read.
func appendEscaped(out []byte, segment string) []byte {
	for i := 0; i < len(segment); i++ {
		switch c := segment[i]; c {
		case '%':
			out = append(out, "%25"...)
		case '?':
			out = append(out, "%3F"...)
		case '#':
			out = append(out, "%23"...)
		default:
			out = append(out, c)
		}
	}
	return out
}
