package assertion

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v2"
)

// node is one YAML value and its line. The zero node is null.
type node struct {
	shape  shape
	line   int    // from 1; 0 for null
	text   string // of a scalar, as written: 5432, on and 1:30 are texts too
	list   []node
	fields map[string]node
}

type shape uint8

const (
	isNull shape = iota
	isScalar
	isList
	isMapping
)

func (s shape) String() string {
	return [...]string{"nothing", "a text", "a list", "a mapping"}[s]
}

// wrongType is how the library says what stands where, and the only place where
// it does.
var wrongType = regexp.MustCompile(`^line (\d+): cannot unmarshal (\S+)`)

// UnmarshalYAML implements yaml.Unmarshaler. It is not called for null.
func (n *node) UnmarshalYAML(unmarshal func(any) error) error {
	var unfit chan struct{} // nothing can be decoded into it
	var mismatch *yaml.TypeError
	if err := unmarshal(&unfit); !errors.As(err, &mismatch) {
		return err
	}
	m := wrongType.FindStringSubmatch(mismatch.Errors[0])
	if m == nil {
		return errors.New(mismatch.Errors[0])
	}
	n.line, _ = strconv.Atoi(m[1]) // digits by the expression
	switch m[2] {
	case "!!map":
		n.shape = isMapping
		return unmarshal(&n.fields)
	case "!!seq":
		n.shape = isList
		return unmarshal(&n.list)
	case "!!str", "!!int", "!!float", "!!bool", "!!timestamp":
		n.shape = isScalar
		return unmarshal(&n.text)
	default:
		return fmt.Errorf("line %d: tag %s is not used here", n.line, m[2])
	}
}

// readDocument reads the one document of a text, comments and empty documents
// aside. A repeated key is an error.
func readDocument(text string) (node, error) {
	dec := yaml.NewDecoder(strings.NewReader(strings.TrimPrefix(text, "\ufeff")))
	dec.SetStrict(true)
	var only node
	for {
		var n node
		err := dec.Decode(&n)
		switch {
		case errors.Is(err, io.EOF) && only.shape == isNull:
			return node{}, errors.New("nothing is written here; want apiVersion, kind, metadata and spec")
		case errors.Is(err, io.EOF):
			return only, nil
		case err != nil:
			return node{}, errors.New(tidy(err))
		case n.shape == isNull:
		case only.shape != isNull:
			return node{}, fmt.Errorf("line %d: a second document; write one to a file", n.line)
		default:
			only = n
		}
	}
}

// tidy makes an error of the library fit a line and speak of keys only.
func tidy(err error) string {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:")
	text = strings.ReplaceAll(text, "already set in map", "is written twice")
	return strings.Join(strings.Fields(text), " ")
}
