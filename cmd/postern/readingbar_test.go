package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// openTerminal makes a pseudo-terminal of so many columns: what is written to the
// terminal is read from the other end. Both are closed with the test.
func openTerminal(t *testing.T, columns uint16) (terminal, other *os.File) {
	t.Helper()
	other, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	if err := unix.IoctlSetPointerInt(int(other.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(other.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	return terminal, other
}

// shownBars splits what a terminal got into the texts that stood on its line.
func shownBars(s string) []string {
	var out []string
	for _, text := range strings.Split(s, "\r") {
		out = append(out, strings.ReplaceAll(text, "\x1b[K", ""))
	}
	return out
}

// A replay that takes longer than a moment shows on a terminal how far it is, in one
// line whatever the width, and takes it away before it says anything else. A stream
// has no known length; gzipped files are as far as what is stored of them.
func TestReadingBar(t *testing.T) {
	t.Parallel()
	whole, err := os.ReadFile(replayCaptures + "http.pcap")
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(whole)
	z.Close()
	for _, tc := range []struct {
		title   string
		columns uint16
		head    []byte
		tail    string // what the capture ends with
		want    string
	}{
		{"wide", 100, whole, "", `^traffic\.pcap: \d+ MB, \d+\.\d M packets/s$`},
		{"narrow", 20, whole, "", `^(traffic\.pcap: )?\d+ MB$`},
		{"no width", 0, zipped.Bytes(), "", `^traffic\.pcap: \d+ MB, \d+\.\d M packets/s$`},
		{"damaged at its end", 100, whole, "damage", `^traffic\.pcap: \d+ MB`},
	} {
		t.Run(tc.title, func(t *testing.T) {
			t.Parallel()
			terminal, other := openTerminal(t, tc.columns)
			path := filepath.Join(t.TempDir(), "traffic.pcap")
			if err := unix.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			got := make(chan string)
			var drawn atomic.Int64
			go func() {
				var all, b []byte
				b = make([]byte, 4096)
				for {
					n, err := other.Read(b)
					all = append(all, b[:n]...)
					drawn.Add(int64(bytes.Count(b[:n], []byte("\r"))))
					if err != nil { // EIO: the terminal is closed
						got <- string(all)
						return
					}
				}
			}()
			done := make(chan int)
			var stdout bytes.Buffer
			go func() {
				done <- execute(context.Background(), []string{"replay", path, "--policy", replayPolicy}, &stdout, terminal)
			}()
			w, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			// A capture as long as it takes: the packets again and again, or members of
			// gzip, one after the other.
			records, gz := tc.head[24:], tc.head[0] == 0x1f
			if !gz {
				w.Write(tc.head)
			}
			for end := time.Now().Add(time.Minute); drawn.Load() < 3 && time.Now().Before(end); time.Sleep(time.Millisecond) {
				b := bytes.Repeat(records, 20)
				if gz {
					var more bytes.Buffer
					z := gzip.NewWriter(&more)
					if records != nil {
						z.Write(whole[:24])
						records = nil
					}
					z.Write(bytes.Repeat(whole[24:], 20))
					z.Close()
					b = more.Bytes()
				}
				if _, err := w.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			io.WriteString(w, tc.tail)
			w.Close()
			code := <-done
			terminal.Close()
			seen := <-got
			bars := shownBars(seen)
			if matching := regexp.MustCompile(tc.want); len(bars) < 4 || !matching.MatchString(bars[1]) {
				t.Fatalf("shows %q", seen)
			}
			columns := int(tc.columns)
			if columns == 0 {
				columns = 80
			}
			for _, b := range bars[:len(bars)-1] {
				if n := utf8.RuneCountInString(b); n >= columns && !strings.HasPrefix(b, "postern:") {
					t.Errorf("%d columns: %d characters: %q", columns, n, b)
				}
			}
			if tc.tail == "" && (code != 0 || !strings.HasSuffix(seen, "\r\x1b[K")) {
				t.Errorf("code %d, ends with %q", code, bars[len(bars)-1])
			}
			if tc.tail != "" && (code != exitUsage || !regexp.MustCompile(`\r\x1b\[Kpostern: [^\r]*the capture ends in the middle`).MatchString(seen)) {
				t.Errorf("code %d, the message stands beside a bar: %q", code, seen)
			}
			if strings.Contains(stdout.String(), "\x1b") || !strings.Contains(stdout.String(), "allowed") {
				t.Errorf("stdout: %q", stdout.String())
			}
		})
	}
}

// What there is no room for is left out, in any width.
func TestReadingBarLine(t *testing.T) {
	t.Parallel()
	start := time.Now()
	for _, size := range []int64{0, 1 << 30} {
		p := readingBar{name: "größe.pcap", size: size, read: 600 << 20, count: 10e6, start: start, began: start}
		seen := map[string]bool{}
		for columns := range 120 {
			text := p.line(start.Add(2*time.Second), columns)
			if utf8.RuneCountInString(text) > columns {
				t.Errorf("%d columns: %q", columns, text)
			}
			seen[text] = true
		}
		for _, want := range map[int64][]string{
			0:       {"", "600 MB", "600 MB, 5.0 M packets/s", "größe.pcap: 600 MB, 5.0 M packets/s"},
			1 << 30: {"", " 58 %", " 58 %, 5.0 M packets/s, 1s left", "größe.pcap: [##############..........]  58 %, 5.0 M packets/s, 1s left"},
		}[size] {
			if !seen[want] {
				t.Errorf("never shows %q", want)
			}
		}
	}
	grown := readingBar{size: 10, read: 25, start: start, began: start}
	if text := grown.line(start.Add(time.Second), 80); !strings.Contains(text, "100 %") {
		t.Errorf("%q", text)
	}
}

// Where there is no terminal there is no bar, and none where the terminal is taken by a
// list of flows.
func TestNoReadingBar(t *testing.T) {
	t.Parallel()
	if newReadingBar(&bytes.Buffer{}) != nil || newReadingBar(os.Stdin) != nil && !isTerminal(os.Stdin) {
		t.Error("a bar without a terminal")
	}
	var none *readingBar
	none.packets(1)
	none.end()
	if r := none.watch("x", os.Stdin, 1); r != os.Stdin {
		t.Error("a bar that is not there reads along")
	}
}
