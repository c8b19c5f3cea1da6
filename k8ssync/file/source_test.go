package file

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/convert"
)

// logBuffer is written by Run's goroutine and read by the test's.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// take gives the lines since the last call, each as "level: file: object: field:
// problem or error: message", with dir left out of paths.
func (b *logBuffer) take(t *testing.T, dir string) (out []string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, line := range strings.Split(strings.TrimSpace(b.text.String()), "\n") {
		if line == "" {
			continue
		}
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		var words []string
		for _, k := range []string{"level", "file", "object", "field", "problem", "error", "message"} {
			if v, _ := e[k].(string); v != "" {
				words = append(words, strings.ReplaceAll(v, dir, "DIR"))
			}
		}
		out = append(out, strings.Join(words, ": "))
	}
	b.text.Reset()
	return out
}

// world is a directory and the source that reads it.
type world struct {
	*testing.T
	dir    string
	store  *k8ssync.Store
	source *Source
	log    *logBuffer
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, dir: filepath.Join(t.TempDir(), "d"), store: k8ssync.NewStore(), log: &logBuffer{}}
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w.source = New(w.dir, w.store, zerolog.New(w.log))
	w.source.quiet = 5 * time.Millisecond
	w.source.rescanEvery = time.Hour // so that what the tests see is notification
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, text string) {
	w.Helper()
	w.must(os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
	w.must(os.WriteFile(w.path(name), []byte(text), 0o644))
}

// sets prints the network sets in force as "name=net ...".
func (w *world) sets() string {
	var out []string
	for _, s := range w.store.Snapshot().NetworkSets {
		nets := ""
		for _, n := range s.Nets {
			nets += "=" + n.String()
		}
		out = append(out, s.Name+nets)
	}
	return strings.Join(out, " ")
}

func (w *world) synced() bool {
	select {
	case <-w.source.Synced():
		return true
	default:
		return false
	}
}

// scanned reads the directory once, as Run does, and compares.
func (w *world) scanned(title, sets string, logged ...string) {
	w.Helper()
	w.source.scan(nil)
	if got := w.sets(); got != sets {
		w.Errorf("%s: sets %q, want %q", title, got, sets)
	}
	if d := cmp.Diff(logged, w.log.take(w.T, w.dir)); d != "" {
		w.Errorf("%s: log: -want +got:\n%s", title, d)
	}
}

// run starts Run, and stops it when the test ends.
func (w *world) run() {
	w.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.source.Run(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.Errorf("Run: %v", err)
		}
	})
}

// reaches waits until these sets are in force. The limit is there to end a test
// that has failed.
func (w *world) reaches(title, sets string) {
	w.Helper()
	limit := time.After(20 * time.Second)
	for w.sets() != sets {
		select {
		case <-w.store.Changed():
		case <-limit:
			w.Fatalf("%s: sets %q, want %q", title, w.sets(), sets)
		}
	}
}

const (
	read  = "info: directory read"
	stays = "cannot read or parse this, what it held last stays in force"
	waits = "cannot read or parse this, nothing is applied until everything can be"
)

func TestScan(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("a.yaml", set("a", "10.0.0.0/8"))
	w.write("sub/b.yml", set("b", "10.1.0.0/16"))
	w.write("c.json", `{"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet", "metadata": {"name": "c"}}`)
	w.write("notes.txt", "not a manifest")
	w.write(".hidden.yaml", "not: [read")
	w.write(".git/x.yaml", "not: [read")
	w.scanned("first", "a=10.0.0.0/8 b=10.1.0.0/16 c", read)
	if !w.synced() {
		t.Error("not synced")
	}
	first := w.store.Snapshot()
	w.scanned("again", "a=10.0.0.0/8 b=10.1.0.0/16 c")
	if w.store.Snapshot() != first {
		t.Error("another snapshot of the same files")
	}
	w.write("a.yaml", set("a", "10.0.0.0/9"))
	w.must(os.RemoveAll(w.path("sub")))
	w.scanned("changed", "a=10.0.0.0/9 c")
	w.must(os.Remove(w.path("a.yaml")))
	w.must(os.Remove(w.path("c.json")))
	w.scanned("removed", "")
}

func TestFirstLoadMustParse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("a.yaml", set("a", "10.0.0.0/8"))
	w.write("b.yaml", "kind: [")
	broken := "error: DIR/b.yaml: parse DIR/b.yaml: document 1 (line 1): yaml: line 1: did not find expected node content: " + waits
	w.scanned("broken", "", broken)
	w.scanned("said once", "")
	if w.synced() {
		t.Error("synced with a file that does not parse")
	}
	w.write("b.yaml", set("b", "10.1.0.0/16"))
	w.scanned("mended", "a=10.0.0.0/8 b=10.1.0.0/16", read)
	if !w.synced() {
		t.Error("not synced")
	}
}

func TestFileKeepsItsLastGoodObjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("a.yaml", set("a", "10.0.0.0/8"))
	w.write("b.yaml", set("b", "10.1.0.0/16"))
	w.scanned("first", "a=10.0.0.0/8 b=10.1.0.0/16", read)

	w.write("a.yaml", set("a", "10.0.0.0/9")[:20]+"\n  x")
	w.write("b.yaml", set("b", "10.2.0.0/16"))
	broken := "error: DIR/a.yaml: parse DIR/a.yaml: document 1 (line 1): decode object: apiVersion and kind: both must be given: " + stays
	w.source.scan(nil)
	if got := w.sets(); got != "a=10.0.0.0/8 b=10.2.0.0/16" {
		t.Errorf("half a file: %s", got)
	}
	if n := len(w.log.take(t, w.dir)); n != 1 {
		t.Errorf("%d lines for half a file, want one like %q", n, broken)
	}
	w.scanned("said once", "a=10.0.0.0/8 b=10.2.0.0/16")

	w.must(os.Remove(w.path("a.yaml")))
	w.must(os.Symlink("nowhere", w.path("a.yaml")))
	w.scanned("link to nowhere", "a=10.0.0.0/8 b=10.2.0.0/16", "error: DIR/a.yaml: look at file: stat DIR/a.yaml: no such file or directory: "+stays)
	w.must(os.Remove(w.path("a.yaml")))
	w.scanned("removed", "b=10.2.0.0/16")

	w.write("c.yaml", "x: [")
	w.scanned("a new file that does not parse", "b=10.2.0.0/16",
		"error: DIR/c.yaml: parse DIR/c.yaml: document 1 (line 1): yaml: line 1: did not find expected node content: "+stays)
}

func TestFileTooLarge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("a.yaml", "")
	w.must(os.Truncate(w.path("a.yaml"), MaxBytes+1)) // sparse
	w.scanned("too large", "", "error: DIR/a.yaml: read DIR/a.yaml: larger than 64 MiB; split the file: "+waits)
}

func TestInvalidObjectKeepsItsLastValidVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("a.yaml", set("a", "10.0.0.0/8")+"---\n"+set("b", "x, 10.1.0.0/16"))
	const bad = `: spec.nets[0]: "x" is no prefix and no address; write one such as 10.0.0.0/24, 10.0.0.1 or fd00:1::/64: object is invalid`
	w.scanned("first seen invalid", "a=10.0.0.0/8 b=10.1.0.0/16",
		"error: DIR/a.yaml: GlobalNetworkSet b"+bad+" and counts as far as it denies", read)
	w.write("a.yaml", set("a", "x")+"---\n"+set("b", "x, 10.1.0.0/16"))
	w.scanned("a becomes invalid", "a=10.0.0.0/8 b=10.1.0.0/16",
		"error: DIR/a.yaml: GlobalNetworkSet a"+bad+", its last valid version stays in force")
	w.scanned("said once", "a=10.0.0.0/8 b=10.1.0.0/16")
	w.write("a.yaml", set("a", "10.0.0.0/9"))
	w.scanned("mended", "a=10.0.0.0/9")
	w.write("a.yaml", set("a", "x"))
	w.scanned("said again after it was gone", "a=10.0.0.0/9",
		"error: DIR/a.yaml: GlobalNetworkSet a"+bad+", its last valid version stays in force")
}

func TestSameObjectInTwoFiles(t *testing.T) {
	t.Parallel()
	const both = "GlobalNetworkSet a: is also in DIR/a.yaml, which counts; remove one of the two: object is invalid"
	w := newWorld(t)
	w.write("b.yaml", set("a", "10.2.0.0/16"))
	w.write("a.yaml", set("a", "10.1.0.0/16"))
	w.scanned("the first by path", "a=10.1.0.0/16", "error: DIR/b.yaml: "+both+" and counts as far as it denies", read)

	w = newWorld(t)
	w.write("b.yaml", set("a", "10.2.0.0/16"))
	w.scanned("one", "a=10.2.0.0/16", read)
	w.write("a.yaml", set("a", "10.1.0.0/16"))
	w.scanned("the last good", "a=10.2.0.0/16", "error: DIR/b.yaml: "+both+", its last valid version stays in force")
	w.must(os.Remove(w.path("b.yaml")))
	w.scanned("moved", "a=10.1.0.0/16")
}

func TestDirectoryGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(os.Remove(w.dir))
	gone := "error: DIR: read directory: open DIR: no such file or directory: "
	degraded := func(title, want string) {
		t.Helper()
		if got := strings.ReplaceAll(strings.Join(w.source.Degraded(), "\n"), w.dir, "DIR"); got != want {
			t.Errorf("%s: degraded %q, want %q", title, got, want)
		}
	}
	w.scanned("not there yet", "", gone+waits)
	degraded("not there yet", "read directory: open DIR: no such file or directory; nothing is applied until everything can be")
	w.write("a.yaml", set("a", "10.0.0.0/8"))
	w.scanned("there", "a=10.0.0.0/8", read)
	degraded("there", "")
	w.must(os.RemoveAll(w.dir))
	w.scanned("gone", "a=10.0.0.0/8", gone+stays)
	w.scanned("said once", "a=10.0.0.0/8")
	degraded("said once", "read directory: open DIR: no such file or directory; what it held last stays in force")
	w.write("b.yaml", set("b", "10.0.0.0/8"))
	w.scanned("back", "b=10.0.0.0/8")
	degraded("back", "")
}

func TestIgnoredKindsAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("a.yaml", "apiVersion: v1\nkind: Secret\n---\napiVersion: v1\nkind: Secret\n")
	w.source.scan(nil)
	if d := cmp.Diff(map[string]string{"v1 Secret": "2"}, w.source.dir.ignored()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// Links in circles and to directories that hold links end.
func TestLinks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	elsewhere := t.TempDir()
	w.must(os.WriteFile(filepath.Join(elsewhere, "x.yaml"), []byte(set("x", "10.0.0.0/8")), 0o644))
	w.must(os.Symlink(w.dir, filepath.Join(elsewhere, "back")))
	w.must(os.Symlink(elsewhere, w.path("linked")))
	w.must(os.Symlink(filepath.Join(elsewhere, "x.yaml"), w.path("not-a-manifest-name")))
	w.scanned("link to a directory", "x=10.0.0.0/8", read)
}

func TestLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("a.yaml", set("a", "10.0.0.0/8"))
	objects, err := Load(w.dir)
	if err != nil || len(objects) != 1 {
		t.Errorf("Load: %v, %v", objects, err)
	}
	w.write("b.yaml", "x: [")
	if objects, err := Load(w.dir); err == nil || len(objects) != 0 {
		t.Errorf("Load with a broken file: %v, %v; want an error alone", objects, err)
	}
	if _, err := Load(w.path("none")); err == nil {
		t.Error("Load of no directory: no error")
	}
}

func TestRunFollowsFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("a.yaml", set("a", "10.0.0.0/8"))
	w.run()
	<-w.source.Synced()
	w.reaches("first", "a=10.0.0.0/8")
	w.write("a.yaml", set("a", "10.1.0.0/16"))
	w.reaches("written in place", "a=10.1.0.0/16")
	w.write("new.tmp", set("a", "10.2.0.0/16"))
	w.must(os.Rename(w.path("new.tmp"), w.path("a.yaml")))
	w.reaches("written aside and renamed", "a=10.2.0.0/16")
	w.write("deep/er/b.yaml", set("b", "10.3.0.0/16"))
	w.reaches("new directories", "a=10.2.0.0/16 b=10.3.0.0/16")
	w.write("deep/er/b.yaml", set("b", "10.4.0.0/16"))
	w.reaches("in a new directory", "a=10.2.0.0/16 b=10.4.0.0/16")
	w.must(os.Rename(w.path("deep"), w.path("moved")))
	w.write("moved/er/b.yaml", set("b", "10.5.0.0/16"))
	w.reaches("in a renamed directory", "a=10.2.0.0/16 b=10.5.0.0/16")
	w.must(os.RemoveAll(w.path("moved")))
	w.reaches("directory removed", "a=10.2.0.0/16")
	w.must(os.Remove(w.path("a.yaml")))
	w.reaches("removed", "")
}

// Half a file changes nothing, and what is written after it is still seen.
func TestRunHalfAFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("a.yaml", set("a", "10.0.0.0/8"))
	w.run()
	w.reaches("first", "a=10.0.0.0/8")
	text := set("a", "10.1.0.0/16")
	w.write("a.yaml", text[:len(text)-3]) // the list is not closed
	w.write("b.yaml", set("b", "10.2.0.0/16"))
	w.reaches("half a file", "a=10.0.0.0/8 b=10.2.0.0/16")
	w.write("a.yaml", text)
	w.reaches("the whole file", "a=10.1.0.0/16 b=10.2.0.0/16")
}

// A mounted ConfigMap changes by one rename of a link to its directory.
func TestRunConfigMap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("..1/a.yaml", set("a", "10.1.0.0/16"))
	w.must(os.Symlink("..1", w.path("..data")))
	w.must(os.Symlink("..data/a.yaml", w.path("a.yaml")))
	w.run()
	w.reaches("first", "a=10.1.0.0/16")
	w.write("..2/a.yaml", set("a", "10.2.0.0/16"))
	w.must(os.Symlink("..2", w.path("..data_tmp")))
	w.must(os.Rename(w.path("..data_tmp"), w.path("..data")))
	w.must(os.RemoveAll(w.path("..1")))
	w.reaches("swapped", "a=10.2.0.0/16")
}

func TestRunDirectoryComesLateAndBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(os.Remove(w.dir))
	w.run()
	w.write("a.yaml", set("a", "10.0.0.0/8"))
	w.reaches("came", "a=10.0.0.0/8")
	aside := w.dir + ".old"
	w.must(os.Rename(w.dir, aside))
	w.write("a.yaml", set("a", "10.1.0.0/16"))
	w.reaches("another of the same name", "a=10.1.0.0/16")
	w.write("a.yaml", set("a", "10.2.0.0/16"))
	w.reaches("and that one is watched", "a=10.2.0.0/16")
}

// Without any notification the rescan finds what changed.
func TestRunRescans(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	elsewhere := filepath.Join(t.TempDir(), "x.yaml")
	w.must(os.WriteFile(elsewhere, []byte(set("x", "10.0.0.0/8")), 0o644))
	w.must(os.Symlink(elsewhere, w.path("x.yaml")))
	w.source.rescanEvery = 5 * time.Millisecond
	w.run()
	w.reaches("first", "x=10.0.0.0/8")
	w.must(os.WriteFile(elsewhere, []byte(set("x", "10.1.0.0/16")), 0o644))
	w.reaches("behind a link", "x=10.1.0.0/16")
}

// The two packages that know what is built in agree.
func TestBuiltInsAgree(t *testing.T) {
	t.Parallel()
	s := k8ssync.NewStore().Snapshot()
	for _, want := range convert.BuiltInTiers() {
		found := false
		for _, got := range s.Tiers {
			found = found || got == want
		}
		if !found {
			t.Errorf("tier %+v is not in an empty snapshot", want)
		}
	}
	if d := cmp.Diff(convert.DefaultAllow(), s.Profiles[0]); d != "" {
		t.Errorf("profile: -convert +store:\n%s", d)
	}
}

// TestRenamedDirectoryIsWatched, also if the notifier has not got so far as to see that it
// was renamed: both names are the same inode to the kernel.
func TestRenamedDirectoryIsWatched(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	watcher, err := fsnotify.NewWatcher() // nobody receives yet, so it is stuck at the first event
	w.must(err)
	defer watcher.Close()
	w.must(os.Mkdir(w.path("old"), 0o700))
	w.source.scan(watcher)
	w.must(os.Rename(w.path("old"), w.path("new")))
	w.source.scan(watcher)
	w.write("new/a.yaml", set("a", "10.0.0.0/8"))
	deadline := time.After(20 * time.Second)
	for {
		select {
		case e := <-watcher.Events:
			if e.Name == w.path("new/a.yaml") {
				return
			}
		case <-deadline:
			t.Fatal("no event of a file in the renamed directory")
		}
	}
}
