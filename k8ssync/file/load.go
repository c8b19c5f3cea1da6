package file

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
)

// Load reads a directory of manifests once, as a Source does when it starts. The
// error joins what is wrong with each file that cannot be read or parsed, and then
// there are no objects; what is wrong with an object is among its problems.
func Load(dir string) ([]k8ssync.Object, error) {
	d := directory{root: filepath.Clean(dir)}
	d.rescan()
	if d.complete() {
		return d.objects(), nil
	}
	var errs []error
	for _, path := range slices.Sorted(maps.Keys(d.errs)) {
		errs = append(errs, fmt.Errorf("%s: %w", path, d.errs[path]))
	}
	return nil, errors.Join(errs...)
}

// Reading is what several files and directories hold together.
type Reading struct {
	// Objects are ordered by path and place, each key once, as of a directory.
	Objects []k8ssync.Object
	// Origins tells which file each object counts from.
	Origins map[policy.Key]string
	// Unplaced are pods that are no endpoints, as they would be at some address (see
	// Manifest).
	Unplaced map[policy.Key]*policy.Endpoint
	// Files is the number of manifests read, Ignored that of the objects of kinds
	// that no decision depends on.
	Files, Ignored int
	// Errors are of files that could not be read or parsed, by path; they
	// contribute no object.
	Errors []FileError
}

// FileError is why one file or directory could not be read or parsed.
type FileError struct {
	Path string
	Err  error
}

func (e FileError) Error() string { return e.Path + ": " + e.Err.Error() }

func (e FileError) Unwrap() error { return e.Err }

// Read reads files, whatever their names end in, and directories once. Unlike
// Load it goes on where a file cannot be read. The error is of a path given that
// does not exist.
func Read(paths ...string) (Reading, error) {
	all := directory{files: map[string]*manifestFile{}, errs: map[string]error{}}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return Reading{}, fmt.Errorf("read manifests: %w", err)
		}
		path = filepath.Clean(path)
		if info.IsDir() {
			d := directory{root: path}
			d.rescan()
			maps.Copy(all.files, d.files)
			maps.Copy(all.errs, d.errs)
			continue
		}
		f := &manifestFile{}
		if f.read(path); f.err != nil {
			all.errs[path] = f.err
		}
		all.files[path] = f
	}

	r := Reading{Objects: all.objects(), Origins: map[policy.Key]string{}, Unplaced: map[policy.Key]*policy.Endpoint{}, Files: len(all.files)}
	for _, path := range slices.Sorted(maps.Keys(all.files)) {
		m := all.files[path].manifest
		r.Ignored += len(m.Ignored)
		for _, o := range m.Objects {
			if _, ok := r.Origins[o.Key]; !ok {
				r.Origins[o.Key] = path
			}
		}
		for _, pod := range m.Unplaced {
			if _, ok := r.Unplaced[pod.Key()]; !ok {
				r.Unplaced[pod.Key()] = pod
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(all.errs)) {
		r.Errors = append(r.Errors, FileError{path, all.errs[path]})
	}
	return r, nil
}
