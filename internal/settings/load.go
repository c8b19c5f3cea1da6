package settings

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// fromKubernetes are variables that a kubelet sets in every pod of a namespace
// with a Service named postern, and that nobody meant for us
// (kubernetes.io/docs, "Accessing the Service").
var fromKubernetes = regexp.MustCompile(`^POSTERN(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

func (s *Set) loadEnvironment(environ []string) error {
	known := map[string]*pflag.Flag{}
	s.flags.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(s.except, f.Name) {
			known[Variable(f.Name)] = f
		}
	})
	for _, line := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(line, "=")
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		f := known[name]
		switch {
		case f == nil && fromKubernetes.MatchString(name):
			continue
		case f == nil:
			return fmt.Errorf("environment variable %s: no such setting%s", name, suggest(name, known))
		}
		values := []string{value}
		if _, list := f.Value.(pflag.SliceValue); list {
			values = strings.Split(value, ",")
		}
		if err := s.put(f, place{Environment, name}, values...); err != nil {
			return fmt.Errorf("environment variable %w", err)
		}
	}
	return nil
}

// maxFile bounds the file, which has some forty short lines.
const maxFile = 1 << 20

func (s *Set) loadFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > maxFile {
		return fmt.Errorf("%s: %d bytes, want %d at most", path, info.Size(), maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if doc.Kind == 0 { // empty, or comments only
		return nil
	}
	return s.loadNode(path, doc.Content[0])
}

func (s *Set) loadNode(path string, root *yaml.Node) error {
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: want keys and values", path, root.Line)
	}
	known := map[string]*pflag.Flag{}
	s.each(func(f *pflag.Flag) { known[Key(f.Name)] = f })
	seen := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		at := fmt.Sprintf("%s:%d", path, key.Line)
		f := known[key.Value]
		if f == nil {
			return fmt.Errorf("%s: %s: no such key%s", at, key.Value, suggest(key.Value, known))
		}
		if line, again := seen[key.Value]; again {
			return fmt.Errorf("%s: %s: stands in line %d too", at, key.Value, line)
		}
		seen[key.Value] = key.Line
		values, err := scalars(f, value)
		if err == nil {
			err = s.put(f, place{File, at}, values...)
		} else {
			err = fmt.Errorf("%s: %w", at, err)
		}
		if err != nil {
			return fmt.Errorf("key %s: %w", key.Value, err)
		}
	}
	return nil
}

// scalars gives the text of a value, or of each in a list where the flag takes one.
func scalars(f *pflag.Flag, n *yaml.Node) (values []string, err error) {
	_, list := f.Value.(pflag.SliceValue)
	switch {
	case list && n.Kind == yaml.SequenceNode:
		values = []string{}
		for _, e := range n.Content {
			if e.Kind != yaml.ScalarNode || e.Tag == "!!null" {
				return nil, errors.New("want a list of single values")
			}
			values = append(values, e.Value)
		}
		return values, nil
	case n.Kind != yaml.ScalarNode:
		return nil, errors.New("want a single value")
	case n.Tag == "!!null":
		return nil, errors.New("has no value: leave the key out for the default")
	}
	return []string{n.Value}, nil
}

// suggest names what is known and looks like name, upper and lower case and
// separators aside.
func suggest(name string, known map[string]*pflag.Flag) string {
	plain := func(s string) string { return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(s)) }
	for k := range known {
		if plain(k) == plain(name) {
			return "; " + k + " is meant?"
		}
	}
	return ""
}
