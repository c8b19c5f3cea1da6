package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Names, labels, errors and captured data are other people's, and most output ends on
// a terminal: none of it may move the cursor, change colours or hide text. So every
// command writes foreign text through sanitize or oneLine, and JSON through newJSON.

// unsafeRune tells whether a terminal or an editor may take a character for more than
// itself: control characters, C1 included (U+009B begins an escape sequence), marks
// that turn the direction of text (CVE-2021-42574), and separators of lines. A line
// feed is none: to keep text on one line is up to oneLine.
func unsafeRune(r rune) bool {
	return r != '\n' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// sanitize makes foreign text safe for a terminal. Bytes that are no UTF-8 become
// U+FFFD.
func sanitize(s string) string {
	return strings.Map(func(r rune) rune {
		if unsafeRune(r) {
			return '?'
		}
		return r
	}, s)
}

// oneLine makes foreign text safe for one line of a terminal.
func oneLine(s string) string { return strings.ReplaceAll(sanitize(s), "\n", " ") }

// newJSON makes the encoder of all JSON that commands print. encoding/json escapes
// control characters up to 0x1f, and this the others. Selectors hold && and quotes,
// which stay readable.
func newJSON(w io.Writer) *json.Encoder {
	enc := json.NewEncoder(escaper{w, `\u%04x`})
	enc.SetEscapeHTML(false)
	return enc
}

// writeJSON writes one value for people and programs, indented.
func writeJSON(w io.Writer, v any) error {
	enc := newJSON(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// escaper writes unsafe characters as the format says. It expects whole values in a
// Write, as an Encoder writes them.
type escaper struct {
	w      io.Writer
	format string
}

func (e escaper) Write(b []byte) (int, error) {
	out := b
	if bytes.ContainsFunc(b, unsafeRune) {
		out = nil
		for _, r := range string(b) {
			if unsafeRune(r) {
				out = fmt.Appendf(out, e.format, r)
			} else {
				out = append(out, string(r)...)
			}
		}
	}
	if _, err := e.w.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}
