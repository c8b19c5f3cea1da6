package vectors

import (
	_ "embed" // the standard world
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// File is one file of vectors.
type File struct {
	Path string
	// World is the state that every vector begins with; nil if the file has none.
	World   *Step
	Vectors []Vector
}

// Vector is one case. It begins with the world, applies its own Step and then
// each of Steps on the state reached.
type Vector struct {
	File      string
	Line      int // of the id, from 1; 0 if it was not found
	ID, Title string
	Selectors []SelectorCase
	Step
	Steps []Step
	// Err is what does not parse in it. Such a vector fails.
	Err error
}

// Step is a change of the state and what must hold after it.
type Step struct {
	Namespaces      map[string]map[string]string // add or replace: name → labels
	ServiceAccounts map[string]map[string]string // add or replace: namespace/name → labels
	Pods            []Pod                        // add or replace
	// DeleteNamespaces and DeleteServiceAccounts delete the objects of that name
	// and nothing that depends on them.
	DeleteNamespaces, DeleteServiceAccounts []string

	Objects []Object
	Rejects []Object // each must be refused on its own
	Reject  bool     // at least one of Objects must be refused
	// NoValidate lets Objects in without admission.
	NoValidate bool
	Flows      []Flow
}

// Pod is a pod as a vector writes it.
type Pod struct {
	Name      string            `json:"name"`
	Namespace string            `json:"ns"`
	Account   *string           `json:"sa"` // omitted: default; empty: none
	Labels    map[string]string `json:"labels"`
	IPs       []string          `json:"ips"`
	Ports     []struct {
		Name     string `json:"name"`
		Protocol string `json:"proto"`
		Port     int    `json:"port"`
	} `json:"ports"`
	HostNetwork bool   `json:"hostNetwork"`
	Phase       string `json:"phase"` // omitted: Running
}

// stepText is a step as it is written.
type stepText struct {
	NS             map[string]map[string]string `json:"ns"`
	SA             map[string]map[string]string `json:"sa"`
	Pods           []Pod                        `json:"pods"`
	DelNS          []string                     `json:"delns"`
	DelSA          []string                     `json:"delsa"`
	Objs           []map[string]any             `json:"objs"`
	Rejects        []map[string]any             `json:"rejects"`
	Reject         bool                         `json:"reject"`
	UpstreamReject *bool                        `json:"upstreamReject"` // a record; nothing depends on it
	NoValidate     bool                         `json:"noValidate"`
	Flows          []string                     `json:"flows"`
}

type vectorText struct {
	ID  string   `json:"id"`
	Sel []string `json:"sel"`
	stepText
	Steps []stepText `json:"steps"`
}

//go:embed testdata/world.yaml
var standardWorld string

// Load reads the files. One without a world of its own gets that of the last
// file before it that holds nothing else, or of world.yaml beside it, or the
// standard world, which is testdata/world.yaml.
// What one vector says wrong is in its Err; the error is about the rest.
func Load(paths ...string) ([]File, error) {
	var files []File
	var world *Step
	var errs []error
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f, err := Parse(path, string(text))
		if err != nil {
			errs = append(errs, err)
		}
		if len(f.Vectors) == 0 {
			world = f.World
			continue
		}
		if f.World == nil {
			f.World = world
		}
		if f.World == nil {
			f.World, err = neighbour(path)
			errs = append(errs, err)
		}
		files = append(files, f)
	}
	return files, errors.Join(errs...)
}

// neighbour reads world.yaml in the directory of path, or the standard world if
// there is none.
func neighbour(path string) (*Step, error) {
	world := filepath.Join(filepath.Dir(path), "world.yaml")
	text, err := os.ReadFile(world)
	if errors.Is(err, os.ErrNotExist) {
		world, text, err = "testdata/world.yaml", []byte(standardWorld), nil
	}
	if err != nil {
		return nil, err
	}
	f, err := Parse(world, string(text))
	return f.World, err
}

// Parse reads one file: Markdown with fenced blocks "yaml world" and "yaml
// vectors", or plain YAML whose documents are a world (a mapping) and lists of
// vectors. What could be read is returned beside the error.
func Parse(path, text string) (File, error) {
	p := parser{File: File{Path: path}, titles: titles(text)}
	blocks, err := blocks(path, text)
	p.fail(err)
	for _, b := range blocks {
		docs, err := readYAML(b.text, b.line)
		p.fail(err)
		for _, d := range docs {
			p.document(b, d)
		}
	}
	if p.World == nil && len(p.Vectors) == 0 && len(p.errs) == 0 {
		p.fail(errors.New("neither a world nor vectors in it"))
	}
	return p.File, errors.Join(p.errs...)
}

type parser struct {
	File
	titles map[string]title
	errs   []error
}

func (p *parser) fail(err error) {
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("%s: %w", p.Path, err))
	}
}

func (p *parser) document(b block, d node) {
	list, isList := d.v.([]node)
	_, isMap := d.v.(map[string]node)
	switch {
	case isList && b.kind != worldBlock:
		for _, n := range list {
			p.vector(n)
		}
	case isMap && b.kind != vectorsBlock && p.World == nil:
		var t stepText
		if err := d.decode(&t); err != nil {
			p.fail(fmt.Errorf("world: %w", err))
			return
		}
		s, err := t.step()
		p.World = &s
		if err == nil && (len(s.Flows) > 0 || len(s.Rejects) > 0 || s.Reject) {
			err = errors.New("a world cannot expect anything")
		}
		if err != nil {
			p.fail(fmt.Errorf("world: %w", err))
		}
	case isMap && b.kind != vectorsBlock:
		p.fail(errors.New("a second world"))
	default:
		p.fail(fmt.Errorf("want a world (a mapping) or a list of vectors, got %.80s", d.text()))
	}
}

func (p *parser) vector(n node) {
	v := Vector{File: p.Path}
	if m, ok := n.v.(map[string]node); ok {
		v.ID, _ = m["id"].v.(string)
	}
	if v.ID == "" {
		v.ID = fmt.Sprintf("#%d", len(p.Vectors)+1)
		v.Err = fmt.Errorf("no id: %.200s", n.text())
	}
	if slices.ContainsFunc(p.Vectors, func(o Vector) bool { return o.ID == v.ID }) {
		v.Err = errors.Join(v.Err, errors.New("a second vector of that id"))
	}
	v.Line, v.Title = p.titles[v.ID].line, p.titles[v.ID].text
	v.Err = errors.Join(v.Err, v.read(n))
	p.Vectors = append(p.Vectors, v)
}

func (v *Vector) read(n node) error {
	var t vectorText
	if err := n.decode(&t); err != nil {
		return fmt.Errorf("%w: %.200s", err, n.text())
	}
	var errs []error
	var err error
	for _, s := range t.Sel {
		c, err := ParseSelectorCase(s)
		v.Selectors, errs = append(v.Selectors, c), append(errs, err)
	}
	v.Step, err = t.step()
	errs = append(errs, err)
	for i, st := range t.Steps {
		s, err := st.step()
		if err != nil {
			errs = append(errs, fmt.Errorf("step %d: %w", i+1, err))
		}
		s.NoValidate = s.NoValidate || v.NoValidate
		v.Steps = append(v.Steps, s)
	}
	if !v.asks() {
		errs = append(errs, fmt.Errorf("it expects nothing: %.200s", n.text()))
	}
	return errors.Join(errs...)
}

// asks tells whether the vector can fail at all. Objects count: admission must
// take them.
func (v *Vector) asks() bool {
	for _, s := range append([]Step{v.Step}, v.Steps...) {
		if len(s.Flows) > 0 || len(s.Rejects) > 0 || len(s.Objects) > 0 {
			return true
		}
	}
	return len(v.Selectors) > 0
}

func (t stepText) step() (Step, error) {
	s := Step{
		Namespaces: t.NS, ServiceAccounts: t.SA, Pods: t.Pods,
		DeleteNamespaces: t.DelNS, DeleteServiceAccounts: t.DelSA,
		Reject: t.Reject, NoValidate: t.NoValidate,
	}
	var errs []error
	for _, p := range t.Pods {
		if p.Name == "" || p.Namespace == "" {
			errs = append(errs, fmt.Errorf("pod %q: want name and ns", p.Name))
		}
	}
	for _, o := range t.Objs {
		obj, err := ParseObject(o)
		s.Objects, errs = append(s.Objects, obj), append(errs, err)
	}
	for _, o := range t.Rejects {
		obj, err := ParseObject(o)
		s.Rejects, errs = append(s.Rejects, obj), append(errs, err)
	}
	for _, text := range t.Flows {
		f, err := ParseFlow(text)
		s.Flows, errs = append(s.Flows, f), append(errs, err)
	}
	if s.Reject && len(s.Objects) == 0 {
		errs = append(errs, errors.New("reject: true without objs"))
	}
	return s, errors.Join(errs...)
}

type title struct {
	line int
	text string
}

var idLine = regexp.MustCompile(`^[\s{-]*id:\s*["']?([^\s"',}]+)["']?,?\s*(?:#\s*(.*))?$`)

// titles finds the line of each id and the comment behind it, which YAML drops.
func titles(text string) map[string]title {
	found := map[string]title{}
	for i, l := range strings.Split(text, "\n") {
		m := idLine.FindStringSubmatch(strings.TrimRight(l, " \t\r"))
		if m == nil {
			continue
		}
		if _, seen := found[m[1]]; !seen {
			found[m[1]] = title{i + 1, m[2]}
		}
	}
	return found
}
