package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
)

// Format is the version of what WriteJSON writes.
const Format = 1

// file is a snapshot on its way to a file or a socket.
type file struct {
	Format   int       `json:"format"`
	Snapshot *Snapshot `json:"snapshot"`
}

// WriteJSON writes a snapshot so that ReadJSON gives an equal one.
func WriteJSON(w io.Writer, s *Snapshot) error {
	if err := json.NewEncoder(w).Encode(file{Format, s}); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// ReadJSON reads what WriteJSON wrote. Anything else is an error: a field that is
// not known could be a criterion, and a snapshot without it would be a wider one.
func ReadJSON(r io.Reader) (*Snapshot, error) {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	var f file
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	if f.Format != Format || f.Snapshot == nil {
		return nil, fmt.Errorf("read snapshot: format %d: want %d, which this version of postern writes", f.Format, Format)
	}
	return f.Snapshot, nil
}

// MarshalText implements encoding.TextMarshaler.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Action) UnmarshalText(text []byte) error {
	for _, known := range []Action{Deny, Allow, Pass, Log} {
		if string(text) == known.String() {
			*a = known
			return nil
		}
	}
	return fmt.Errorf("action %q: want Allow, Deny, Log or Pass", text)
}

// plainPolicy is Policy without its methods.
type plainPolicy Policy

// orderedPolicy is Policy with an order that JSON can hold: null for Unordered.
type orderedPolicy struct {
	plainPolicy
	Order *float64
}

// MarshalJSON implements json.Marshaler.
func (p *Policy) MarshalJSON() ([]byte, error) {
	o := orderedPolicy{plainPolicy: plainPolicy(*p)}
	if !math.IsInf(p.Order, 1) {
		o.Order = &p.Order
	}
	return json.Marshal(o)
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *Policy) UnmarshalJSON(b []byte) error {
	var o orderedPolicy
	if err := strict(b, &o); err != nil {
		return err
	}
	*p = Policy(o.plainPolicy)
	p.Order = Unordered
	if o.Order != nil {
		p.Order = *o.Order
	}
	return nil
}

// strict decodes for UnmarshalJSON, which does not inherit the decoder's options.
func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
