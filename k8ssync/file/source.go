package file

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/rs/zerolog"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
)

// Times of a Source.
const (
	// quiet is how long nothing must happen before a change counts as settled.
	quiet = 80 * time.Millisecond
	// patience is how long a change may go on before it is applied all the same.
	patience = 2 * time.Second
	// rescanEvery is the safety net below notification: links that lead out of the
	// directory, network file systems, an exhausted inotify limit.
	rescanEvery = 30 * time.Second
)

// Source keeps a store at the state of a directory of manifests: *.yaml, *.yml
// and *.json, in directories below it too, hidden ones left out. Every settled
// change is one Replace.
//
// A file that cannot be read or parsed counts with what it held last, and so
// does the whole directory while it is not there. At first there is nothing to
// fall back to: the source is synced when everything in the directory has been
// read and parsed once, and the store is not touched before.
type Source struct {
	store  *k8ssync.Store
	log    zerolog.Logger
	synced chan struct{}

	quiet, patience, rescanEvery time.Duration

	mu       sync.Mutex
	degraded []string // see Degraded

	// Below is Run's.
	dir      directory
	isSynced bool
	watched  map[string]bool
	said     map[string]bool // problems that are logged and still there
}

var _ k8ssync.Source = (*Source)(nil)

// New gives a source that will read dir into store. Nothing is read before Run.
func New(dir string, store *k8ssync.Store, log zerolog.Logger) *Source {
	return &Source{
		store: store, log: log, synced: make(chan struct{}),
		quiet: quiet, patience: patience, rescanEvery: rescanEvery,
		dir:     directory{root: filepath.Clean(dir)},
		watched: map[string]bool{}, said: map[string]bool{},
	}
}

// Synced implements k8ssync.Source.
func (s *Source) Synced() <-chan struct{} { return s.synced }

// Degraded says, in one sentence each and by path, what in the directory could not be
// read or parsed at the last look, and what counts instead. It may be called at any time.
func (s *Source) Degraded() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.degraded
}

// Run implements k8ssync.Source. It returns nil when ctx ends and never anything
// else: what is wrong with the directory is logged, and may be mended.
func (s *Source) Run(ctx context.Context) error {
	var events chan fsnotify.Event // nil, which blocks, if there is no watcher
	var errs chan error
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		s.log.Error().Err(err).Dur("every", s.rescanEvery).Msg("cannot watch files, will only look from time to time")
	} else {
		defer watcher.Close()
		events, errs = watcher.Events, watcher.Errors
	}
	ticker := time.NewTicker(s.rescanEvery)
	defer ticker.Stop()

	s.scan(watcher)
	settle := newSettle(s.quiet, s.patience)
	defer settle.stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-events:
			if !ok {
				events = nil
			} else if s.concerns(e) {
				settle.touch()
			}
		case err, ok := <-errs:
			if !ok {
				errs = nil
				continue
			}
			// An overflow lost events; whatever else it is, a look does no harm.
			s.log.Warn().Err(err).Msg("file notification failed, reading everything again")
			settle.touch()
		case <-ticker.C:
			s.scan(watcher)
		case <-settle.settled():
			settle.done()
			s.scan(watcher)
		}
	}
}

// concerns tells events in the directory from those of its neighbours: the
// parent is watched too, so as to see the directory come and go.
func (s *Source) concerns(e fsnotify.Event) bool {
	return e.Op != fsnotify.Chmod &&
		(e.Name == s.dir.root || strings.HasPrefix(e.Name, s.dir.root+string(filepath.Separator)) || s.watched[filepath.Dir(e.Name)])
}

// scan reads the directory and applies what it holds. Directories are watched
// before they are read: what changes between the two is seen twice rather than
// not at all.
func (s *Source) scan(watcher *fsnotify.Watcher) {
	said := map[string]bool{}
	s.watch(watcher, said)
	s.dir.rescan()
	var degraded []string
	for _, path := range slices.Sorted(maps.Keys(s.dir.errs)) {
		err := s.dir.errs[path]
		degraded = append(degraded, err.Error()+"; "+s.meanwhile())
		s.once(said, path+": "+err.Error(), func() { s.log.Error().Str("file", path).Err(err).Msg(s.consequence()) })
	}
	if s.isSynced || s.dir.complete() {
		s.apply(said)
	}
	s.mu.Lock()
	s.degraded = degraded
	s.mu.Unlock()
	s.said = said
}

// consequence tells what a file that cannot be read means.
func (s *Source) consequence() string { return "cannot read or parse this, " + s.meanwhile() }

func (s *Source) meanwhile() string {
	if s.isSynced {
		return "what it held last stays in force"
	}
	return "nothing is applied until everything can be"
}

func (s *Source) apply(said map[string]bool) {
	objects := s.dir.objects()
	s.store.Replace(objects)
	held := map[policy.Key]bool{}
	for _, k := range s.store.Held() {
		held[k] = true
	}
	for _, o := range objects {
		for _, p := range o.Problems {
			s.once(said, fmt.Sprint(p.Error(), " held: ", held[o.Key]), func() { s.problem(p, held[o.Key]) })
		}
		for _, p := range o.Warnings {
			s.once(said, p.Error(), func() {
				event(s.log.Warn(), p).Msg("object does not do all it says")
			})
		}
	}
	for kind, n := range s.dir.ignored() {
		s.once(said, "ignored "+kind, func() {
			s.log.Info().Str("kind", kind).Str("objects", n).Msg("kind is not used")
		})
	}
	if !s.isSynced {
		s.isSynced = true
		s.log.Info().Str("directory", s.dir.root).Int("files", len(s.dir.files)).Int("objects", len(objects)).Msg("directory read")
		close(s.synced)
	}
}

func (s *Source) problem(p policy.Problem, held bool) {
	consequence := "object is invalid and counts as far as it denies"
	if held {
		consequence = "object is invalid, its last valid version stays in force"
	}
	event(s.log.Error(), p).Msg(consequence)
}

func event(e *zerolog.Event, p policy.Problem) *zerolog.Event {
	return e.Str("file", p.Origin).Stringer("object", p.Object).Str("field", p.Field).Str("problem", p.Message)
}

// once logs what was not already there at the scan before.
func (s *Source) once(said map[string]bool, text string, log func()) {
	if !said[text] && !s.said[text] {
		log()
	}
	said[text] = true
}

// watch follows the directories there are now. While root is not there, its
// parent tells when it comes back.
func (s *Source) watch(watcher *fsnotify.Watcher, said map[string]bool) {
	if watcher == nil {
		return
	}
	// Best effort: the parent may be out of reach, and rescans find root too.
	_ = watcher.Add(filepath.Dir(s.dir.root))
	l, err := list(s.dir.root)
	if err != nil {
		return // rescan says so
	}
	now := make(map[string]bool, len(l.dirs))
	for _, dir := range l.dirs {
		now[dir] = true
	}
	// Before the others are added: to the kernel a directory that was renamed is the one
	// that it watches already, and to remove the old name would remove the new one's watch.
	for dir := range s.watched {
		if !now[dir] {
			_ = watcher.Remove(dir) // an error means that it went with the directory
		}
	}
	for _, dir := range l.dirs {
		// Adding again is cheap, and needed where a directory was replaced by
		// another of the same name.
		if err := watcher.Add(dir); err != nil {
			s.once(said, "watch "+dir, func() {
				s.log.Warn().Err(err).Str("directory", dir).Dur("every", s.rescanEvery).Msg("cannot watch directory, will only look from time to time")
			})
			delete(now, dir)
		}
	}
	s.watched = now
}

// settle says when a change has come to rest.
type settle struct {
	quiet, patience time.Duration
	timer           *time.Timer
	deadline        time.Time // zero if nothing is pending
}

func newSettle(quiet, patience time.Duration) *settle {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &settle{quiet: quiet, patience: patience, timer: t}
}

func (s *settle) settled() <-chan time.Time { return s.timer.C }
func (s *settle) done()                     { s.deadline = time.Time{} }
func (s *settle) stop()                     { s.timer.Stop() }

// touch puts the end off, but not beyond patience from the first touch.
func (s *settle) touch() {
	now := time.Now()
	if s.deadline.IsZero() {
		s.deadline = now.Add(s.patience)
	}
	s.timer.Reset(min(s.quiet, max(0, s.deadline.Sub(now))))
}
