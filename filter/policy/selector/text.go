package selector

import (
	"encoding"
	"fmt"
)

var (
	_ encoding.TextMarshaler   = (*Selector)(nil)
	_ encoding.TextUnmarshaler = (*Selector)(nil)
)

// MarshalText gives the canonical text. It refuses a selector whose text would not
// parse to it again: one of a constructor with a label or value that no expression
// can hold.
func (s *Selector) MarshalText() ([]byte, error) {
	text := s.String()
	if back, err := Parse(text); err != nil || !back.Equal(s) {
		return nil, fmt.Errorf("selector %s cannot be written as an expression", text)
	}
	return []byte(text), nil
}

// UnmarshalText parses an expression into s, which nobody else may hold yet.
func (s *Selector) UnmarshalText(text []byte) error {
	p, err := Parse(string(text))
	if err != nil {
		return err
	}
	*s = *p
	return nil
}
