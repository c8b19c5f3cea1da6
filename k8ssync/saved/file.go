package saved

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-project/postern/filter/policy"
)

// format is the version of the lines around the objects; policy.Format is that of
// the objects.
const format = 1

// maxLine bounds one object: the API server takes none above 3 MB or so.
const maxLine = 64 << 20

// Header is what a file says of itself.
type Header struct {
	Format int `json:"format"`
	Policy int `json:"policy"`
	// Node is the node whose daemon wrote it, Boot the kernel's boot id then.
	Node string `json:"node"`
	Boot string `json:"boot"`
	// Time is when it was written.
	Time       time.Time `json:"time"`
	Generation uint64    `json:"generation"`
}

// Write writes a snapshot in the place of whatever path holds. The directory is
// made if need be. After an error the old file is as it was.
func Write(path, node string, s *policy.Snapshot) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save the state: %w", err)
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return fmt.Errorf("save the state: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("save the state: %w", err)
			f.Close()
			os.Remove(f.Name())
		}
	}()
	h := Header{Format: format, Policy: policy.Format, Node: node, Boot: bootID(), Time: time.Now().UTC(), Generation: s.Generation}
	if err := encode(f, h, s); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Read reads what Write wrote. The error wraps os.ErrNotExist if there is no file.
func Read(path string) (*policy.Snapshot, Header, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, Header{}, fmt.Errorf("read the saved state: %w", err)
	}
	defer f.Close()
	s, h, err := decode(f)
	if err != nil {
		return nil, h, fmt.Errorf("read the saved state: %s: %w", path, err)
	}
	return s, h, nil
}

// ThisBoot tells whether the header was written since the kernel booted.
func (h Header) ThisBoot() bool { return h.Boot != "" && h.Boot == bootID() }

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // no boot is this one then
	}
	return string(bytes.TrimSpace(b))
}

// encode writes the lines.
func encode(w io.Writer, h Header, s *policy.Snapshot) error {
	sum := sha256.New()
	out := bufio.NewWriterSize(w, 1<<16)
	lines := newLineWriter(io.MultiWriter(out, sum))
	lines.put("postern-state", h)
	for i := range s.Tiers {
		lines.put("tier", &s.Tiers[i])
	}
	putAll(lines, "policy", s.Policies)
	putAll(lines, "profile", s.Profiles)
	putAll(lines, "namespace", s.Namespaces)
	putAll(lines, "account", s.ServiceAccounts)
	putAll(lines, "pod", s.Endpoints)
	putAll(lines, "host", s.HostEndpoints)
	putAll(lines, "set", s.NetworkSets)
	putAll(lines, "slice", s.EndpointSlices)
	if lines.err != nil {
		return lines.err
	}
	if _, err := fmt.Fprintf(out, "end %d %s\n", lines.count-1, hex.EncodeToString(sum.Sum(nil))); err != nil {
		return err
	}
	return out.Flush()
}

type lineWriter struct {
	w     io.Writer
	buf   bytes.Buffer
	json  *json.Encoder // into buf
	count int
	err   error // the first
}

func newLineWriter(w io.Writer) *lineWriter {
	l := &lineWriter{w: w}
	l.json = json.NewEncoder(&l.buf)
	return l
}

func (l *lineWriter) put(word string, v any) {
	if l.err != nil {
		return
	}
	l.buf.Reset()
	l.buf.WriteString(word)
	l.buf.WriteByte(' ')
	if l.err = l.json.Encode(v); l.err == nil { // ends with a newline
		_, l.err = l.w.Write(l.buf.Bytes())
	}
	l.count++
}

func putAll[T any](l *lineWriter, word string, objects []*T) {
	for _, o := range objects {
		l.put(word, o)
	}
}

// decode reads the lines. Nothing of them is given before the end agrees.
func decode(r io.Reader) (*policy.Snapshot, Header, error) {
	var h Header
	sum := sha256.New()
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 1<<16), maxLine)
	var s policy.Snapshot
	count := 0
	for ; in.Scan(); count++ {
		word, text, _ := bytes.Cut(in.Bytes(), []byte(" "))
		if count == 0 {
			if err := head(string(word), text, &h); err != nil {
				return nil, h, err
			}
			s.Generation = h.Generation
		} else if string(word) == "end" {
			if want := fmt.Sprintf("%d %x", count-1, sum.Sum(nil)); want != string(text) {
				return nil, h, errors.New("the checksum is wrong: the file was changed or is damaged")
			}
			if in.Scan() {
				return nil, h, errors.New("there is more after its end")
			}
			return &s, h, nil
		} else if err := object(&s, string(word), text); err != nil {
			return nil, h, fmt.Errorf("line %d: %w", count+1, err)
		}
		sum.Write(in.Bytes())
		sum.Write([]byte{'\n'})
	}
	if err := in.Err(); err != nil {
		return nil, h, err
	}
	return nil, h, errors.New("it has no end: it was cut off")
}

func head(word string, text []byte, h *Header) error {
	if word != "postern-state" {
		return errors.New("it is no saved state of postern")
	}
	// Not strict: a later version may say more, and says so by its number.
	if err := json.Unmarshal(text, h); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if h.Format != format || h.Policy != policy.Format {
		return fmt.Errorf("format %d.%d: this version of postern reads %d.%d", h.Format, h.Policy, format, policy.Format)
	}
	return nil
}

func object(s *policy.Snapshot, word string, text []byte) error {
	switch word {
	case "tier":
		var t policy.Tier
		if err := strict(text, &t); err != nil {
			return err
		}
		s.Tiers = append(s.Tiers, t)
		return nil
	case "policy":
		return take(&s.Policies, text)
	case "profile":
		return take(&s.Profiles, text)
	case "namespace":
		return take(&s.Namespaces, text)
	case "account":
		return take(&s.ServiceAccounts, text)
	case "pod":
		return take(&s.Endpoints, text)
	case "host":
		return take(&s.HostEndpoints, text)
	case "set":
		return take(&s.NetworkSets, text)
	case "slice":
		return take(&s.EndpointSlices, text)
	}
	return fmt.Errorf("%q is not known", word)
}

func take[T any](list *[]*T, text []byte) error {
	v := new(T)
	if err := strict(text, v); err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}

func strict(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
