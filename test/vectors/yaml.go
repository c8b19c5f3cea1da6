package vectors

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v2"
)

// node is one YAML value read by the rules of YAML 1.2 in the one point where
// the difference bites: only true and false are booleans. By YAML 1.1 a
// namespace named n would be the boolean false.
type node struct {
	v any // nil, bool, a number, string, []node or map[string]node
}

// UnmarshalYAML implements yaml.Unmarshaler. It is not called for null.
func (n *node) UnmarshalYAML(unmarshal func(any) error) error {
	var v any
	if err := unmarshal(&v); err != nil {
		return err
	}
	switch v := v.(type) {
	case map[any]any:
		m := map[string]node{}
		n.v = m
		return unmarshal(&m)
	case []any:
		var l []node
		err := unmarshal(&l)
		n.v = l
		return err
	case bool:
		var text string
		if err := unmarshal(&text); err != nil {
			return err
		}
		n.v = v
		if l := strings.ToLower(text); l != "true" && l != "false" {
			n.v = text
		}
		return nil
	default:
		n.v = v
		return nil
	}
}

// MarshalJSON implements json.Marshaler.
func (n node) MarshalJSON() ([]byte, error) { return json.Marshal(n.v) }

// decode fills out, a pointer to a struct or map. A field that out does not have
// is an error.
func (n node) decode(out any) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	return d.Decode(out)
}

// text prints the value as JSON, for messages.
func (n node) text() string {
	text, err := json.Marshal(n)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// readYAML reads every document of the text. A repeated key is an error. The
// text begins at the given line of its file, from 1, so that messages name
// lines of the file.
func readYAML(text string, line int) ([]node, error) {
	d := yaml.NewDecoder(strings.NewReader(strings.Repeat("\n", line-1) + text))
	d.SetStrict(true)
	var docs []node
	for {
		var n node
		err := d.Decode(&n)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read YAML: %w", err)
		}
		if n.v != nil {
			docs = append(docs, n)
		}
	}
}
