package main

import (
	"io"
	"os"

	"github.com/mattn/go-isatty"
)

// palette colours words for people. The zero palette leaves them as they are.
type palette struct{ on bool }

// paletteOf colours on a terminal only, and not where NO_COLOR is set (no-color.org) or
// the terminal cannot.
func paletteOf(w io.Writer) palette {
	f, ok := w.(*os.File)
	return palette{ok && isatty.IsTerminal(f.Fd()) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (p palette) good(s string) string { return p.in("32", s) }
func (p palette) warn(s string) string { return p.in("33", s) }
func (p palette) bad(s string) string  { return p.in("1;31", s) }

func (p palette) in(code, s string) string {
	if !p.on {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
