package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/mattn/go-isatty"
)

// readingBar shows on a terminal how far a capture has been read. A nil one shows
// nothing.
type readingBar struct {
	w          io.Writer
	name       string
	size, read int64
	count      uint64
	start      time.Time
	next       time.Time
	shown      bool
}

// newReadingBar gives nil where the output is no terminal.
func newReadingBar(stderr io.Writer) *readingBar {
	f, ok := stderr.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return nil
	}
	now := time.Now()
	return &readingBar{w: f, start: now, next: now.Add(time.Second)}
}

// watch counts what is read of a capture; size is 0 where it is not known.
func (p *readingBar) watch(name string, r io.Reader, size int64) io.Reader {
	if p == nil {
		return r
	}
	p.name, p.size, p.read = oneLine(filepath.Base(name)), size, 0
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
	p.next, p.shown = now.Add(time.Second/4), true
	rate := float64(p.count) / now.Sub(p.start).Seconds() / 1e6
	const width = 24
	if p.size == 0 {
		fmt.Fprintf(p.w, "\r%s: %d MB, %.1f M packets/s\x1b[K", p.name, p.read>>20, rate)
		return
	}
	bar := make([]byte, width)
	for i := range bar {
		bar[i] = '.'
		if int64(i)*p.size < p.read*width {
			bar[i] = '#'
		}
	}
	fmt.Fprintf(p.w, "\r%s: [%s] %3d %%, %.1f M packets/s\x1b[K", p.name, bar, p.read*100/p.size, rate)
}

// end takes the line away again.
func (p *readingBar) end() {
	if p != nil && p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
