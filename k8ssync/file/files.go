package file

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// maxDirDepth bounds how deep directories are followed, links included.
const maxDirDepth = 32

// listing is what a walk of the directory found.
type listing struct {
	files []string // manifests, in order of path
	dirs  []string // directories to watch, the root first
	// unread holds directories and entries that could not be looked at. What was
	// known of files at or below them still counts.
	unread map[string]error
}

// list walks root. Entries whose name begins with a dot are skipped, so of a
// mounted ConfigMap (file → ..data/file, ..data → ..timestamp) the links are
// read and the directories behind them are not. A link to a directory is
// followed unless another such link led there, so links cannot go in circles.
// The error is that of root itself.
func list(root string) (listing, error) {
	l := listing{unread: map[string]error{}}
	if _, err := os.ReadDir(root); err != nil {
		return l, fmt.Errorf("read directory: %w", err)
	}
	l.walk(root, false, 0)
	slices.Sort(l.files)
	return l, nil
}

func (l *listing) walk(dir string, linked bool, depth int) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		l.unread[dir] = fmt.Errorf("read directory: %w", err)
		return
	}
	l.dirs = append(l.dirs, dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		link := e.Type()&fs.ModeSymlink != 0
		if strings.HasPrefix(e.Name(), ".") || !link && !e.IsDir() && !manifestName(path) {
			continue
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			// Gone since the directory was read, or a link to nowhere, which is what
			// a swap of links looks like in its middle.
			if manifestName(path) || e.IsDir() || link {
				l.unread[path] = fmt.Errorf("look at file: %w", err)
			}
		case info.IsDir() && link && linked:
		case info.IsDir() && depth == maxDirDepth:
			l.unread[path] = fmt.Errorf("read directory: more than %d directories deep", maxDirDepth)
		case info.IsDir():
			l.walk(path, linked || link, depth+1)
		case info.Mode().IsRegular() && manifestName(path):
			l.files = append(l.files, path)
		}
	}
}

func manifestName(path string) bool {
	switch filepath.Ext(path) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// manifestFile is what is known of one file.
type manifestFile struct {
	sum      [sha256.Size]byte // of the contents read last
	manifest Manifest          // of the last contents that parsed
	parsed   bool              // whether any did
	err      error             // why the present contents do not count
}

// read brings f up to the file's contents. If they cannot be read or parsed, the
// manifest stays and err says why.
func (f *manifestFile) read(path string) {
	text, err := contents(path)
	if err != nil {
		f.err, f.sum = err, [sha256.Size]byte{}
		return
	}
	sum := sha256.Sum256(text)
	if sum == f.sum {
		return
	}
	f.sum = sum
	m, err := ParseManifest(path, text)
	f.err = err
	if err == nil {
		f.manifest, f.parsed = m, true
	}
}

func contents(path string) ([]byte, error) {
	// O_NONBLOCK: a file replaced by a FIFO since it was listed must not hang us.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: not a regular file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	if len(text) > MaxBytes {
		return nil, errors.New("read " + path + ": larger than 64 MiB; split the file")
	}
	return text, nil
}
