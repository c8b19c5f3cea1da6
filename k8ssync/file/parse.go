package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	goyaml "go.yaml.in/yaml/v2"
	"sigs.k8s.io/yaml"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/convert"
)

// Bounds of one manifest.
const (
	// MaxBytes is the size of the largest file that is read.
	MaxBytes = 64 << 20
	// maxListDepth is how deep lists may hold lists.
	maxListDepth = 4
)

// Manifest is what one text holds.
type Manifest struct {
	// Objects are in the order of the text. Each has path as the origin of its
	// problems, and each key occurs once: of an object that is stated twice the
	// first stays, with a problem that names both places.
	Objects []k8ssync.Object
	// Unplaced are the pods among Objects that are no endpoints, for want of an
	// address or because they have finished, as they would be at some address.
	Unplaced []*policy.Endpoint
	// Ignored names the objects of kinds that no decision depends on, as
	// "apiVersion Kind".
	Ignored []string
}

// Parse reads the objects of a manifest; see ParseManifest.
func Parse(path string, text []byte) ([]k8ssync.Object, error) {
	m, err := ParseManifest(path, text)
	return m.Objects, err
}

// ParseManifest reads a manifest. Path is only named in messages. The error
// tells that the text is not a sequence of objects, and names the document and
// its line; what is wrong with an object is among the object's problems.
func ParseManifest(path string, text []byte) (Manifest, error) {
	if len(text) > MaxBytes {
		return Manifest{}, fmt.Errorf("parse %s: %d bytes; at most %d are read, so split the file", path, len(text), MaxBytes)
	}
	p := parser{path: path}
	for i, doc := range documents(text) {
		if err := p.document(doc); err != nil {
			return Manifest{}, fmt.Errorf("parse %s: document %d (line %d): %w", path, i+1, doc.line, err)
		}
	}
	p.manifest.Objects = unique(p.places)
	return p.manifest, nil
}

type parser struct {
	path     string
	manifest Manifest
	places   []place
}

// place is an object and where it was found.
type place struct {
	k8ssync.Object
	at string
}

func (p *parser) document(d document) error {
	text, doubts, err := d.json()
	if err != nil {
		return err
	}
	if text == nil {
		return nil
	}
	return p.object(text, doubts, fmt.Sprintf("%s:%d", p.path, d.line), 0)
}

// object takes an object or, if its kind ends in List and it has items, each of
// them.
func (p *parser) object(text []byte, doubts []string, at string, depth int) error {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	// What does not decode here is no list, and convert says what is wrong with it.
	if json.Unmarshal(text, &head) == nil && strings.HasSuffix(head.Kind, "List") {
		if depth == maxListDepth {
			return fmt.Errorf("lists within lists, more than %d deep", maxListDepth)
		}
		var list struct {
			Items []json.RawMessage `json:"items"`
		}
		if err := json.Unmarshal(text, &list); err != nil {
			return fmt.Errorf("%s: items: want a list", head.Kind)
		}
		for i, item := range list.Items {
			item, err := typed(item, head.APIVersion, strings.TrimSuffix(head.Kind, "List"))
			if err == nil {
				err = p.object(item, doubts, at, depth+1)
			}
			if err != nil {
				return fmt.Errorf("items[%d]: %w", i, err)
			}
		}
		return nil
	}
	result, err := convert.Decode(text, doubts...)
	if errors.Is(err, convert.ErrUnknownKind) {
		p.manifest.Ignored = append(p.manifest.Ignored, head.APIVersion+" "+head.Kind)
		return nil
	}
	if err != nil {
		return err
	}
	o := k8ssync.Object(result)
	if o.Key.Kind == policy.PodKind && o.Value == nil {
		if pod := convert.PodIdentity(text); pod != nil {
			p.manifest.Unplaced = append(p.manifest.Unplaced, pod)
		}
	}
	setOrigin(o.Problems, p.path)
	setOrigin(o.Warnings, p.path)
	p.places = append(p.places, place{o, at})
	return nil
}

// typed gives the items of a typed list, such as a PodList, the version and
// kind that the API server leaves out of them. Items of a plain List have their
// own.
func typed(item json.RawMessage, apiVersion, kind string) (json.RawMessage, error) {
	if kind == "" {
		return item, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(item, &fields); err != nil || fields == nil {
		return nil, errors.New("want a mapping")
	}
	if fields["kind"] != nil || fields["apiVersion"] != nil {
		return item, nil
	}
	head, err := json.Marshal(map[string]string{"apiVersion": apiVersion, "kind": kind})
	if err != nil {
		return nil, err
	}
	if len(fields) == 0 {
		return head, nil
	}
	// Joined as text, so that a repeated field is still seen by the decoder.
	body := bytes.TrimSpace(item)
	return slices.Concat(head[:len(head)-1], []byte(","), body[1:]), nil
}

func setOrigin(problems []policy.Problem, path string) {
	for i := range problems {
		problems[i].Origin = path
	}
}

// unique keeps the first of the objects that share a key, and makes it one with
// a problem: which of them is meant cannot be known. The second place is named,
// further ones are not.
func unique(places []place) []k8ssync.Object {
	type seen struct {
		index int
		at    string
		twice bool
	}
	var out []k8ssync.Object
	byKey := make(map[policy.Key]*seen, len(places))
	for _, p := range places {
		first := byKey[p.Key]
		switch {
		case first == nil:
			byKey[p.Key] = &seen{index: len(out), at: p.at}
			out = append(out, p.Object)
		case !first.twice:
			first.twice = true
			o := &out[first.index]
			// Clipped, because the slice may belong to a manifest that is kept.
			o.Problems = append(slices.Clip(o.Problems), policy.Problem{
				Object: p.Key, Origin: p.at,
				Message: "is also in " + first.at + ", which counts; remove one of the two",
			})
		}
	}
	return out
}

// document is one YAML document, or a JSON text.
type document struct {
	text   []byte
	line   int // of its first line, from 1
	isJSON bool
}

// documents splits a manifest as kubectl does: a text that starts with a brace
// is a sequence of JSON values if it reads as such, all else is YAML split at
// lines that start with "---". A line of three dots ends a document too: the
// YAML parser would silently leave out what follows it.
func documents(text []byte) []document {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if docs, ok := jsonDocuments(text); ok {
		return docs
	}
	var docs []document
	start, startLine, line := 0, 1, 1
	for at := 0; at < len(text); line++ {
		end := len(text)
		if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		if marker(text[at:end]) {
			docs = append(docs, document{text: text[start:at], line: startLine})
			// What follows the marker on its line belongs to the next document.
			start, startLine = at+3, line
		}
		at = end
	}
	docs = append(docs, document{text: text[start:], line: startLine})
	return slices.DeleteFunc(docs, func(d document) bool { return !d.hasContent() })
}

func marker(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("---")) && !bytes.HasPrefix(line, []byte("...")) {
		return false
	}
	return len(line) == 3 || bytes.IndexByte([]byte(" \t\r\n"), line[3]) >= 0
}

// hasContent tells whether there is more than comments and directives.
func (d document) hasContent() bool {
	for line := range bytes.Lines(d.text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return true
		}
	}
	return false
}

func jsonDocuments(text []byte) (docs []document, ok bool) {
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	line, counted := 1, 0
	for {
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return docs, true
		}
		if err != nil {
			return nil, false
		}
		start := int(dec.InputOffset()) - len(raw)
		line += bytes.Count(text[counted:start], []byte("\n"))
		counted = start
		docs = append(docs, document{text: raw, line: line, isJSON: true})
	}
}

// json gives the document in JSON, or nil if it is null. Doubts tell of repeated
// fields, which JSON made from YAML does not show any more.
func (d document) json() (text []byte, doubts []string, err error) {
	if d.isJSON {
		return d.text, nil, nil
	}
	if err := d.whole(); err != nil {
		return nil, nil, err
	}
	text, err = yaml.YAMLToJSONStrict(d.text)
	if err != nil {
		strictErr := err
		if text, err = yaml.YAMLToJSON(d.text); err != nil {
			return nil, nil, errors.New(oneLine(err))
		}
		doubts = []string{fmt.Sprintf("%s (the document starts at line %d); keep one of them", oneLine(strictErr), d.line)}
	}
	if string(text) == "null" {
		return nil, nil, nil
	}
	return text, doubts, nil
}

// whole refuses a document with text after its end. Block style cannot have any,
// but after a value in braces or quotes the parser stops and says nothing.
func (d document) whole() error {
	if d.block() {
		return nil
	}
	dec := goyaml.NewDecoder(bytes.NewReader(d.text))
	var value any
	if err := dec.Decode(&value); err != nil {
		return nil // reported better where it is decoded for good
	}
	if err := dec.Decode(&value); !errors.Is(err, io.EOF) {
		return errors.New("there is text after the end of the document; put a line --- between documents")
	}
	return nil
}

// block tells whether the document begins with a word, as manifests do.
func (d document) block() bool {
	for line := range bytes.Lines(d.text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			c := line[0] | 0x20
			return 'a' <= c && c <= 'z'
		}
	}
	return true
}

// oneLine makes a YAML error fit a line of log.
func oneLine(err error) string {
	return strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: unmarshal errors:")), " ")
}
