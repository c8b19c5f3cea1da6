package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// newTerminalJSON makes an encoder whose output is safe for a terminal:
// encoding/json escapes control characters up to 0x1f, and there are others
// (DEL, and C1 from U+0080 to U+009F, of which U+009B begins an escape sequence).
func newTerminalJSON(w io.Writer) *json.Encoder {
	enc := json.NewEncoder(controlEscaper{w})
	enc.SetEscapeHTML(false)
	return enc
}

// controlEscaper expects whole values in a Write, as an Encoder writes them.
type controlEscaper struct{ w io.Writer }

func (e controlEscaper) Write(b []byte) (int, error) {
	out := b
	if bytes.ContainsFunc(b, isLateControl) {
		out = nil
		for _, r := range string(b) {
			if isLateControl(r) {
				out = fmt.Appendf(out, `\u%04x`, r)
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

func isLateControl(r rune) bool { return r >= 0x7f && r <= 0x9f }
