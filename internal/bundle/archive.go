package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// maxFile bounds one file; what is over is cut off at the beginning, since the end of
// a log is what matters.
const maxFile = 2 << 20

// Archive collects files and notes. It is not safe for concurrent use.
type Archive struct {
	// Values takes quoted texts out of what is added by Text: values of labels that an
	// error quotes are among them.
	Values bool
	files  map[string][]byte
	notes  []string
}

// Text adds a file after taking secrets out of it.
func (a *Archive) Text(name string, text []byte) {
	if n := len(text) - maxFile; n > 0 {
		a.Note(name, fmt.Errorf("the first %d bytes are left out", n))
		text = text[n:]
	}
	text = Redact(text)
	if a.Values {
		text = Unquote(text)
	}
	a.put(name, text)
}

// Whole adds a file of any length as it is, for what was asked for by name.
func (a *Archive) Whole(name string, text []byte) { a.put(name, text) }

// JSON adds a value, indented, after taking secrets out of it.
func (a *Archive) JSON(name string, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		a.Note(name, err)
		return
	}
	a.Text(name, b.Bytes())
}

// Note says why a file is not there, or not whole.
func (a *Archive) Note(name string, err error) {
	a.notes = append(a.notes, name+": "+err.Error())
}

func (a *Archive) put(name string, text []byte) {
	if a.files == nil {
		a.files = map[string][]byte{}
	}
	a.files[name] = text
}

// Names lists the files, sorted.
func (a *Archive) Names() (names []string) {
	for name := range a.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Notes lists what is not there, and why.
func (a *Archive) Notes() []string { return a.notes }

// Write writes the archive, under a directory of its own, with all times at. Equal
// content makes equal archives.
func (a *Archive) Write(w io.Writer, dir string, at time.Time) error {
	a.put("notes.txt", Redact([]byte(strings.Join(append([]string{"What is not in this archive, and why:"}, a.notes...), "\n")+"\n")))
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	for _, name := range a.Names() {
		h := &tar.Header{Name: dir + "/" + name, Mode: 0o600, Size: int64(len(a.files[name])), ModTime: at, Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("write archive: %s: %w", name, err)
		}
		if _, err := t.Write(a.files[name]); err != nil {
			return fmt.Errorf("write archive: %s: %w", name, err)
		}
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}
