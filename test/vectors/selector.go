package vectors

import (
	"errors"
	"fmt"
	"strings"

	"github.com/postern-project/postern/filter/policy/selector"
)

// SelectorCase is one line "expression @ labels => true | false | error".
type SelectorCase struct {
	Text, Expression string
	Labels           map[string]string
	Want             string
}

// ParseSelectorCase reads a line. The expression is everything before the last
// " @ ", blanks included.
func ParseSelectorCase(text string) (SelectorCase, error) {
	c := SelectorCase{Text: text}
	i := strings.LastIndex(text, " => ")
	if i < 0 {
		return c, fmt.Errorf("selector case %q: want expression @ labels => true, false or error", text)
	}
	c.Want = strings.TrimSpace(text[i+len(" => "):])
	if c.Want != "true" && c.Want != "false" && c.Want != "error" {
		return c, fmt.Errorf("selector case %q: answer %q: want true, false or error", text, c.Want)
	}
	j := strings.LastIndex(text[:i], " @ ")
	if j < 0 {
		return c, fmt.Errorf("selector case %q: no labels after @", text)
	}
	c.Expression = text[:j]
	docs, err := readYAML(text[j+len(" @ "):i], 1)
	if err == nil && len(docs) != 1 {
		err = errors.New("want one mapping")
	}
	if err == nil {
		err = docs[0].decode(&c.Labels)
	}
	if err != nil {
		return c, fmt.Errorf("selector case %q: labels: %w", text, err)
	}
	return c, nil
}

// check runs the case.
func (c SelectorCase) check() error {
	got := "error"
	s, err := selector.Parse(c.Expression)
	if err == nil {
		got = fmt.Sprint(s.Matches(selector.Map(c.Labels)))
	}
	if got != c.Want {
		return fmt.Errorf("selector: %q: expected %s, got %s (%v)", c.Text, c.Want, got, err)
	}
	return nil
}
