package assertion

import (
	"slices"
	"strings"
	"unicode"
)

// mapping gives the fields of a mapping, without those that are not known. It is
// nil if n is something else.
func (r *reader) mapping(n node, at string, known ...string) map[string]node {
	if !r.shaped(n, at, isMapping) {
		return nil
	}
	fields := map[string]node{}
	var unknown []string
	for k, v := range n.fields {
		if !slices.Contains(known, k) {
			unknown = append(unknown, k)
			continue
		}
		v.line = max(v.line, n.line) // null has none
		fields[k] = v
	}
	slices.Sort(unknown)
	for _, k := range unknown {
		v := n.fields[k]
		v.line = max(v.line, n.line)
		r.fail(v, join(at, k), "no such field; want %s", strings.Join(known, ", "))
	}
	return fields
}

// list gives the elements of a field that must be there and not be empty.
func (r *reader) list(parent node, fields map[string]node, at, field string) []node {
	n, ok := fields[field]
	switch {
	case fields == nil:
		return nil
	case !ok:
		r.fail(parent, join(at, field), "is required")
	case n.shape == isNull:
		r.fail(parent, join(at, field), "is empty")
	case r.shaped(n, join(at, field), isList) && len(n.list) == 0:
		r.fail(n, join(at, field), "is empty")
	}
	return n.list
}

// text gives a field that must be there and not be empty.
func (r *reader) text(parent node, fields map[string]node, at, field string) string {
	n, ok := fields[field]
	switch {
	case fields == nil:
	case !ok:
		r.fail(parent, join(at, field), "is required")
	case n.shape == isNull || n.shape == isScalar && n.text == "":
		r.fail(parent, join(at, field), "is empty")
	default:
		r.shaped(n, join(at, field), isScalar)
	}
	return n.text
}

// name reads the field name. Names are printed, so they are one line of what can
// be.
func (r *reader) name(parent node, fields map[string]node, at string) string {
	name := r.text(parent, fields, at, "name")
	switch {
	case len(name) > maxName:
		r.fail(fields["name"], join(at, "name"), "%d bytes; want at most %d", len(name), maxName)
	case strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }):
		r.fail(fields["name"], join(at, "name"), "%q holds characters that cannot be printed", name)
	default:
		return name
	}
	return ""
}

func (r *reader) shaped(n node, at string, want shape) bool {
	if n.shape != want {
		r.fail(n, at, "is %s; want %s", n.shape, want)
	}
	return n.shape == want
}

func join(at, field string) string {
	if at == "" {
		return field
	}
	return at + "." + field
}
