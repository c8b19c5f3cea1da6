package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
	"golang.org/x/sys/unix"
)

// readingBar shows on a terminal how far a capture has been read. A nil one shows
// nothing.
type readingBar struct {
	w          *os.File
	name       string
	size, read int64 // bytes of the capture as it is stored
	count      uint64
	start      time.Time // of all captures, and of this one
	began      time.Time
	next       time.Time
	shown      bool
}

// barAfter is how long a replay may take before it shows a bar, barEvery how often
// it does then.
const (
	barAfter = time.Second
	barEvery = time.Second / 4
)

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// newReadingBar gives nil where the output is no terminal.
func newReadingBar(stderr io.Writer) *readingBar {
	if !isTerminal(stderr) {
		return nil
	}
	now := time.Now()
	return &readingBar{w: stderr.(*os.File), start: now, next: now.Add(barAfter)}
}

// watch counts what is read of a capture; size is 0 where it is not known.
func (p *readingBar) watch(name string, r io.Reader, size int64) io.Reader {
	if p == nil {
		return r
	}
	p.name, p.size, p.read, p.began = oneLine(filepath.Base(name)), size, 0, time.Now()
	return counted{r, &p.read}
}

type counted struct {
	io.Reader
	n *int64
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	*c.n += int64(n)
	return n, err
}

func (p *readingBar) packets(n uint64) {
	if p == nil {
		return
	}
	p.count += n
	now := time.Now()
	if now.Before(p.next) {
		return
	}
	p.next, p.shown = now.Add(barEvery), true
	columns := 80
	if ws, err := unix.IoctlGetWinsize(int(p.w.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 {
		columns = int(ws.Col)
	}
	// Not in the last column, after which terminals go to the next line.
	fmt.Fprintf(p.w, "\r%s\x1b[K", p.line(now, columns-1))
}

// line words the state in so many columns: what there is no room for is left out,
// least important first.
func (p *readingBar) line(now time.Time, columns int) string {
	rate := fmt.Sprintf("%.1f M packets/s", float64(p.count)/now.Sub(p.start).Seconds()/1e6)
	done := fmt.Sprintf("%d MB", p.read>>20)
	left := ""
	if p.size > 0 {
		read := min(p.read, p.size) // a file may grow
		done = fmt.Sprintf("%3d %%", read*100/p.size)
		if read > 0 {
			wait := time.Duration(float64(now.Sub(p.began)) * float64(p.size-read) / float64(read))
			left = wait.Round(time.Second).String() + " left"
		}
	}
	room := func(s string) bool { return utf8.RuneCountInString(s) <= columns }
	text := done
	if s := text + ", " + rate; room(s) {
		text = s
	}
	if s := text + ", " + left; left != "" && room(s) {
		text = s
	}
	const width = 24
	if p.size > 0 {
		full := int(min(p.read, p.size) * width / p.size)
		if s := "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "] " + text; room(s) {
			text = s
		}
	}
	if s := p.name + ": " + text; room(s) {
		text = s
	}
	if !room(text) {
		return ""
	}
	return text
}

// end takes the line away again.
func (p *readingBar) end() {
	if p != nil && p.shown {
		p.shown = false
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
