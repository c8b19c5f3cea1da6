package vectors

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

type pathList []string

func (p *pathList) String() string     { return strings.Join(*p, " ") }
func (p *pathList) Set(s string) error { *p = append(*p, s); return nil }

var (
	givenFiles pathList
	only       = flag.String("only", "", "run the vectors whose id matches this regular expression only")
)

func init() {
	flag.Var(&givenFiles, "file", "run this file instead of testdata; may be repeated")
}

// paths gives the files to run: those of -file, else everything in testdata. go
// test runs in the package's directory; a relative path may also be meant from
// the module's root, where the command was probably given.
func paths(t *testing.T) []string {
	t.Helper()
	if len(givenFiles) == 0 {
		found, err := filepath.Glob(filepath.Join("testdata", "*"))
		if err != nil || len(found) == 0 {
			t.Fatalf("no vectors in testdata: %v", err)
		}
		return found
	}
	var found []string
	for _, p := range givenFiles {
		fromRoot := filepath.Join("..", "..", p)
		if _, err := os.Stat(p); err != nil && !filepath.IsAbs(p) {
			if _, err := os.Stat(fromRoot); err == nil {
				p = fromRoot
			}
		}
		found = append(found, p)
	}
	return found
}

// TestVectors runs every vector of the files, one subtest each, and reports how
// many of each file pass.
func TestVectors(t *testing.T) {
	wanted, err := regexp.Compile(*only)
	if err != nil {
		t.Fatalf("-only: %v", err)
	}
	files, err := Load(paths(t)...)
	if err != nil {
		t.Error(err)
	}
	if len(files) == 0 {
		t.Error("no vectors in the files")
	}
	matched := 0
	for _, f := range files {
		t.Run(filepath.Base(f.Path), func(t *testing.T) {
			total := 0
			var failed []string
			for _, v := range f.Vectors {
				if !wanted.MatchString(v.ID) {
					continue
				}
				matched++
				t.Run(v.ID, func(t *testing.T) {
					// Counted in here: -run may leave subtests out.
					total++
					if !report(t, f.World, v) {
						failed = append(failed, v.ID)
					}
				})
			}
			t.Logf("%s: %d of %d pass", f.Path, total-len(failed), total)
			if len(failed) > 0 {
				t.Errorf("%s: %d do not pass: %s", f.Path, len(failed), strings.Join(failed, " "))
			}
		})
	}
	if matched == 0 && len(files) > 0 {
		t.Errorf("-only %s: no vector has such an id", *only)
	}
}

// report runs a vector and tells whether it passes.
func report(t *testing.T, world *Step, v Vector) bool {
	t.Helper()
	name := v.ID
	if v.Title != "" {
		name += " (" + v.Title + ")"
	}
	errs := Run(world, v)
	for _, err := range errs {
		t.Errorf("%s:%d: %s: %v", v.File, v.Line, name, err)
	}
	return len(errs) == 0
}

// TestRequired holds on to the vectors that every version must pass: the
// documented examples, the service account rules and the selector language. It
// fails too if one of them is no longer in testdata.
func TestRequired(t *testing.T) {
	t.Parallel()
	required := []string{"S01"}
	for i := 1; i <= 22; i++ {
		required = append(required, fmt.Sprintf("V%03d", i))
	}
	files, err := Load(filepath.Join("testdata", "selectors.yaml"), filepath.Join("testdata", "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		for _, v := range f.Vectors {
			i := slices.Index(required, v.ID)
			if i < 0 && len(v.Selectors) == 0 {
				continue
			}
			report(t, f.World, v)
			if i >= 0 {
				required = slices.Delete(required, i, i+1)
			}
		}
	}
	if len(required) > 0 {
		t.Errorf("not in testdata: %s", strings.Join(required, " "))
	}
}
