package settings

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// Origin is what set a value.
type Origin string

// The origins, weakest first.
const (
	Default     Origin = "default"
	File        Origin = "file"
	Environment Origin = "environment"
	Flag        Origin = "flag"
)

// Setting is one key with its value.
type Setting struct {
	Key      string `json:"key"`
	Variable string `json:"variable"`
	Flag     string `json:"flag"`
	Value    string `json:"value"`
	YAML     string `json:"-"` // the value as the file would have it
	Origin   Origin `json:"origin"`
	// Where is the file and line, or the name of the variable or flag; empty for a
	// default.
	Where string `json:"where,omitempty"`
}

// Set is the flags of a command as settings. It is not safe for concurrent use.
type Set struct {
	flags  *pflag.FlagSet
	except []string
	where  map[string]place // by flag, of those that are set
}

type place struct {
	origin Origin
	name   string
}

// prefix begins the name of every environment variable.
const prefix = "POSTERN_"

// FileFlag is the flag that names the file. It has a variable, POSTERN_CONFIG, and
// no key.
const FileFlag = "config"

// New makes settings of flags that were parsed, except of those that make sense on
// a command line only. Load changes the flags.
func New(flags *pflag.FlagSet, except ...string) *Set {
	s := &Set{flags: flags, except: append(except, "help"), where: map[string]place{}}
	flags.Visit(func(f *pflag.Flag) { s.where[f.Name] = place{Flag, "--" + f.Name} })
	return s
}

// Load sets the flags that the command line did not set, from the environment
// (as os.Environ gives it) and from the file that FileFlag or its variable names, if
// any. The values of what it returned an error for are undefined.
func (s *Set) Load(environ []string) error {
	if err := s.loadEnvironment(environ); err != nil {
		return err
	}
	f := s.flags.Lookup(FileFlag)
	if f == nil || f.Value.String() == "" {
		return nil
	}
	return s.loadFile(f.Value.String())
}

// List gives every setting, ordered by key.
func (s *Set) List() (all []Setting) {
	s.each(func(f *pflag.Flag) {
		p, set := s.where[f.Name]
		if !set {
			p.origin = Default
		}
		all = append(all, Setting{Key: Key(f.Name), Variable: Variable(f.Name), Flag: "--" + f.Name, Value: f.Value.String(), YAML: inYAML(f, f.Value.String()), Origin: p.origin, Where: p.name})
	})
	slices.SortFunc(all, func(a, b Setting) int { return strings.Compare(a.Key, b.Key) })
	return all
}

// each calls fn for the flags that have a key.
func (s *Set) each(fn func(*pflag.Flag)) {
	s.flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != FileFlag && !slices.Contains(s.except, f.Name) {
			fn(f)
		}
	})
}

// put sets a flag that nothing stronger has set.
func (s *Set) put(f *pflag.Flag, p place, values ...string) error {
	if at, set := s.where[f.Name]; set && at.origin != p.origin {
		return nil
	}
	err := error(nil)
	if list, ok := f.Value.(pflag.SliceValue); ok {
		err = list.Replace(values)
	} else {
		err = f.Value.Set(values[0])
	}
	if number := (*strconv.NumError)(nil); errors.As(err, &number) {
		err = number.Err // without the name of Go's function
	}
	if err != nil {
		return fmt.Errorf("%s: %q: %w", p.name, strings.Join(values, ","), err)
	}
	f.Changed = true
	s.where[f.Name] = p
	return nil
}

// Key is the YAML key of a flag: flow-log-rate is flowLogRate.
func Key(flag string) string {
	words := strings.Split(flag, "-")
	for i, w := range words {
		if i > 0 && w != "" {
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, "")
}

// Variable is the environment variable of a flag: flow-log-rate is
// POSTERN_FLOW_LOG_RATE.
func Variable(flag string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
