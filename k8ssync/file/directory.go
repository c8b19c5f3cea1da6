package file

import (
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-project/postern/k8ssync"
)

// directory is the state of a directory of manifests, as far as it can be read.
type directory struct {
	root  string
	files map[string]*manifestFile
	// errs tells, by path, what could not be read or parsed just now.
	errs map[string]error
}

// rescan reads everything anew. What cannot be read keeps the state it had; if
// root itself cannot, everything does.
func (d *directory) rescan() {
	d.errs = map[string]error{}
	l, err := list(d.root)
	if err != nil {
		d.errs[d.root] = err
		return
	}
	maps.Copy(d.errs, l.unread)

	files := make(map[string]*manifestFile, len(l.files))
	for _, path := range l.files {
		f := d.files[path]
		if f == nil {
			f = &manifestFile{}
		}
		f.read(path)
		if f.err != nil {
			d.errs[path] = f.err
		}
		files[path] = f
	}
	for path, f := range d.files {
		if files[path] == nil && coveredBy(path, l.unread) {
			files[path] = f
		}
	}
	d.files = files
}

// coveredBy tells whether path is, or is below, one of the paths.
func coveredBy(path string, paths map[string]error) bool {
	for unread := range paths {
		if path == unread || strings.HasPrefix(path, unread+string(filepath.Separator)) {
			return true
		}
	}
	return false
}

// complete tells whether everything there is could be read and parsed.
func (d *directory) complete() bool { return len(d.errs) == 0 }

// objects gives the objects of all files. Of those that are in two files the
// first by path counts, with a problem that names the other.
func (d *directory) objects() []k8ssync.Object {
	var places []place
	for _, path := range slices.Sorted(maps.Keys(d.files)) {
		for _, o := range d.files[path].manifest.Objects {
			places = append(places, place{o, path})
		}
	}
	return unique(places)
}

// ignored counts the objects of kinds that are not used, by apiVersion and kind.
func (d *directory) ignored() map[string]string {
	counts := map[string]int{}
	for _, f := range d.files {
		for _, k := range f.manifest.Ignored {
			counts[k]++
		}
	}
	out := make(map[string]string, len(counts))
	for k, n := range counts {
		out[k] = strconv.Itoa(n)
	}
	return out
}
