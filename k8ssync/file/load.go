package file

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

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
