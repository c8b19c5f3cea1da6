package settings

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// textWidth is where comments of the reference file are broken.
const textWidth = 100

// Reference writes a file with every key, its default and what it means, all
// commented out, in the order in which the flags were defined.
func (s *Set) Reference() []byte {
	var b bytes.Buffer
	sorted := s.flags.SortFlags
	s.flags.SortFlags = false
	defer func() { s.flags.SortFlags = sorted }()
	s.each(func(f *pflag.Flag) {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		for _, line := range wrap(f.Usage, textWidth-2) {
			fmt.Fprintf(&b, "# %s\n", line)
		}
		fmt.Fprintf(&b, "#%s: %s\n", Key(f.Name), inYAML(f, f.DefValue))
	})
	return b.Bytes()
}

// inYAML writes a flag's value so that Load reads it back.
func inYAML(f *pflag.Flag, text string) string {
	if f.Value.Type() != "string" {
		return text // a number, a bool, or [a,b]
	}
	out, err := yaml.Marshal(text)
	if err != nil { // of a string: never
		return text
	}
	return strings.TrimSpace(string(out))
}

func wrap(text string, width int) (lines []string) {
	line := ""
	for _, w := range strings.Fields(text) {
		switch {
		case line == "":
			line = w
		case len(line)+1+len(w) > width:
			lines, line = append(lines, line), w
		default:
			line += " " + w
		}
	}
	return append(lines, line)
}
