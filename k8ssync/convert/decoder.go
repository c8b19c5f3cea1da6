package convert

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/projectcalico/api/pkg/lib/numorstring"
)

// fault is a field that could not be decoded; the field was left at its zero
// value, or at the first of several.
type fault struct {
	path, message string
	unknown       bool // there is no such field
}

// decoder fills a typed object from JSON and carries on after mistakes.
// encoding/json stops at the first one and names no list index, but a rule with
// a mistake must be told from the rules beside it. Field names are case
// sensitive, as in the API server.
//
// Elements of lists keep their places: one that is faulty is a zero value.
// Recursion follows the types, none of which is recursive.
type decoder struct {
	dec    *json.Decoder // over text that is valid JSON, numbers as json.Number
	strict bool
	faults []fault
	err    error // first error of dec
}

func (d *decoder) object(obj any) error {
	d.value(reflect.ValueOf(obj).Elem(), "")
	if d.err == nil && len(d.faults) > 0 && d.faults[0].path == "" {
		return errors.New(d.faults[0].message)
	}
	return d.err
}

func (d *decoder) fault(path, format string, args ...any) {
	d.faults = append(d.faults, fault{path: path, message: fmt.Sprintf(format, args...)})
}

func (d *decoder) token() json.Token {
	t, err := d.dec.Token()
	if err != nil && d.err == nil {
		d.err = err
	}
	return t
}

func (d *decoder) more() bool { return d.err == nil && d.dec.More() }

// raw takes the next value as it stands.
func (d *decoder) raw() (text json.RawMessage) {
	if err := d.dec.Decode(&text); err != nil && d.err == nil {
		d.err = err
	}
	return text
}

// value decodes the next value, and tells whether it is null, which leaves v as it is.
func (d *decoder) value(v reflect.Value, path string) (null bool) {
	switch {
	case v.Kind() == reflect.Pointer && v.Type().Implements(unmarshaler):
		p := reflect.New(v.Type().Elem())
		set, null := d.leaf(p.Interface().(json.Unmarshaler), path)
		if set {
			v.Set(p)
		}
		return null
	case reflect.PointerTo(v.Type()).Implements(unmarshaler):
		p := reflect.New(v.Type())
		set, null := d.leaf(p.Interface().(json.Unmarshaler), path)
		if set {
			v.Set(p.Elem())
		}
		return null
	}
	t := d.token()
	if d.err != nil || t == nil {
		return d.err == nil
	}
	d.after(t, v, path)
	return false
}

// leaf decodes into a type that takes its own text, and tells whether there was
// a good value, or null.
func (d *decoder) leaf(u json.Unmarshaler, path string) (set, null bool) {
	text := d.raw()
	if d.err != nil || string(text) == "null" {
		return false, d.err == nil
	}
	if err := u.UnmarshalJSON(text); err != nil {
		d.fault(path, "%s", describeLeaf(u, text, err))
		return false, false
	}
	return true, false
}

// element decodes an element of a list or mapping. A null there is no value left out but
// one that somebody forgot to write: a rule or a port that is nothing would match everything.
func (d *decoder) element(v reflect.Value, path string) {
	if d.value(v, path) && d.strict && strings.HasPrefix(path, "spec.") {
		d.fault(path, "is null; write a value, or remove it")
	}
}

// after decodes a value whose first token is t.
func (d *decoder) after(t json.Token, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.after(t, v.Elem(), path)
	case reflect.Struct:
		d.structure(t, v, path)
	case reflect.Map:
		d.mapping(t, v, path)
	case reflect.Slice:
		d.list(t, v, path)
	default:
		d.scalar(t, v, path)
	}
}

func (d *decoder) structure(t json.Token, v reflect.Value, path string) {
	if t != json.Delim('{') {
		d.mismatch(t, path, "a mapping")
		return
	}
	fields := fieldsOf(v.Type())
	seen := map[string]bool{}
	for d.more() {
		name, _ := d.token().(string)
		at := join(path, name)
		index, known := fields[name]
		switch {
		case seen[name]:
			d.raw()
			if d.strict {
				d.fault(at, "stated twice; keep one")
			}
		case !known:
			d.raw()
			if d.strict && !openEnded(path, name) {
				d.faults = append(d.faults, fault{path: at, unknown: true, message: "unknown field; the fields here are " +
					strings.Join(slices.Sorted(maps.Keys(fields)), ", ")})
			}
		default:
			d.value(v.FieldByIndex(index), at)
		}
		seen[name] = true
	}
	d.token()
}

func (d *decoder) mapping(t json.Token, v reflect.Value, path string) {
	if t != json.Delim('{') {
		d.mismatch(t, path, "a mapping")
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for d.more() {
		name, _ := d.token().(string)
		at := path + "[" + name + "]"
		key := reflect.ValueOf(name).Convert(v.Type().Key())
		if v.MapIndex(key).IsValid() && d.strict {
			d.fault(at, "stated twice; keep one")
		}
		element := reflect.New(v.Type().Elem()).Elem()
		d.element(element, at)
		v.SetMapIndex(key, element)
	}
	d.token()
}

func (d *decoder) list(t json.Token, v reflect.Value, path string) {
	if t != json.Delim('[') {
		d.mismatch(t, path, "a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	for i := 0; d.more(); i++ {
		element := reflect.New(v.Type().Elem()).Elem()
		d.element(element, path+"["+strconv.Itoa(i)+"]")
		v.Set(reflect.Append(v, element))
	}
	d.token()
}

func (d *decoder) scalar(t json.Token, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.String:
		if s, ok := t.(string); ok {
			v.SetString(s)
			return
		}
		d.mismatch(t, path, "a string")
	case reflect.Bool:
		if b, ok := t.(bool); ok {
			v.SetBool(b)
			return
		}
		d.mismatch(t, path, "true or false")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if n, ok := t.(json.Number); ok {
			if i, err := strconv.ParseInt(n.String(), 10, v.Type().Bits()); err == nil {
				v.SetInt(i)
				return
			}
		}
		d.mismatch(t, path, "a whole number of at most "+strconv.Itoa(v.Type().Bits())+" bits")
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if n, ok := t.(json.Number); ok {
			if i, err := strconv.ParseUint(n.String(), 10, v.Type().Bits()); err == nil {
				v.SetUint(i)
				return
			}
		}
		d.mismatch(t, path, "a whole number from 0 to "+strconv.FormatUint(1<<v.Type().Bits()-1, 10))
	case reflect.Float32, reflect.Float64:
		if n, ok := t.(json.Number); ok {
			if f, err := strconv.ParseFloat(n.String(), v.Type().Bits()); err == nil {
				v.SetFloat(f)
				return
			}
		}
		d.mismatch(t, path, "a number")
	default:
		d.mismatch(t, path, "nothing (this field is not supported)")
	}
}

// mismatch reports a value of the wrong type and skips the rest of it.
func (d *decoder) mismatch(t json.Token, path, want string) {
	got := "null"
	switch x := t.(type) {
	case json.Delim:
		got = "a list"
		if x == '{' {
			got = "a mapping"
		}
		for depth := 1; depth > 0 && d.err == nil; {
			switch d.token() {
			case json.Delim('{'), json.Delim('['):
				depth++
			case json.Delim('}'), json.Delim(']'):
				depth--
			}
		}
	case string:
		got = "the string " + strconv.Quote(shorten(x))
	case json.Number:
		got = "the number " + shorten(x.String())
	case bool:
		got = strconv.FormatBool(x)
	}
	if want == "a string" {
		switch t.(type) {
		case json.Number:
			want = "a string (put it in quotes)"
		case bool:
			want = "a string (put it in quotes: y, n, yes, no, on and off without are true or false)"
		}
	}
	d.fault(path, "want %s, got %s", want, got)
}

// openEnded names what is not policy and differs between versions of the API.
func openEnded(path, name string) bool {
	return name == "status" && path == "" || path == "metadata" || path == "status" ||
		strings.HasPrefix(path, "metadata.") || strings.HasPrefix(path, "metadata[") || strings.HasPrefix(path, "status.")
}

// describeLeaf says what the types that decode themselves take.
func describeLeaf(leaf any, text []byte, err error) string {
	got := shorten(string(text))
	switch leaf.(type) {
	case *numorstring.Port:
		return fmt.Sprintf("%s is no port; write a number from 1 to 65535, a range such as \"8000:8080\" with the smaller number first, or a port's name", got)
	case *numorstring.Protocol:
		return fmt.Sprintf("%s is no protocol; write TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255", got)
	}
	return fmt.Sprintf("cannot read %s: %v", got, err)
}

// shorten keeps messages to one readable line whatever the object holds.
func shorten(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

var fieldCache sync.Map // reflect.Type → map[string][]int

// fieldsOf indexes a struct's fields by their names in JSON; embedded structs
// without a name of their own are inlined.
func fieldsOf(t reflect.Type) map[string][]int {
	if cached, ok := fieldCache.Load(t); ok {
		return cached.(map[string][]int)
	}
	fields := map[string][]int{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name != "":
			fields[name] = f.Index
		case f.Anonymous && f.Type.Kind() == reflect.Struct:
			for inner, index := range fieldsOf(f.Type) {
				fields[inner] = append([]int{i}, index...)
			}
		default:
			fields[f.Name] = f.Index
		}
	}
	fieldCache.Store(t, fields)
	return fields
}
