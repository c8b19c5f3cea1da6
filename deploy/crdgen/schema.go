package main

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/projectcalico/api/pkg/lib/numorstring"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// schema is the part of OpenAPI's schema that definitions here use.
type schema struct {
	Description          string             `json:"description,omitempty"`
	Type                 string             `json:"type,omitempty"`
	AnyOf                []*schema          `json:"anyOf,omitempty"`
	Enum                 []string           `json:"enum,omitempty"`
	Pattern              string             `json:"pattern,omitempty"`
	Format               string             `json:"format,omitempty"`
	MinLength            int                `json:"minLength,omitempty"`
	MaxLength            int                `json:"maxLength,omitempty"`
	Minimum              *int               `json:"minimum,omitempty"`
	Maximum              *int               `json:"maximum,omitempty"`
	MaxItems             int                `json:"maxItems,omitempty"`
	MaxProperties        int                `json:"maxProperties,omitempty"`
	Items                *schema            `json:"items,omitempty"`
	Properties           map[string]*schema `json:"properties,omitempty"`
	AdditionalProperties *schema            `json:"additionalProperties,omitempty"`
	Required             []string           `json:"required,omitempty"`
	IntOrString          bool               `json:"x-kubernetes-int-or-string,omitempty"`
	ListType             string             `json:"x-kubernetes-list-type,omitempty"`
	Validations          []validation       `json:"x-kubernetes-validations,omitempty"`
}

// validation is a rule in the Common Expression Language.
type validation struct {
	Rule    string `json:"rule"`
	Message string `json:"message"`
}

// check adds a validation.
func (s *schema) check(rule, message string) {
	s.Validations = append(s.Validations, validation{rule, message})
}

// between bounds a number, both inclusive.
func (s *schema) between(low, high int) { s.Minimum, s.Maximum = &low, &high }

// reader reads schemas off types.
type reader struct {
	namespaced bool
}

func (r reader) read(t reflect.Type) (*schema, error) {
	switch t {
	case reflect.TypeFor[meta.ObjectMeta]():
		return &schema{Type: "object"}, nil
	case reflect.TypeFor[numorstring.Protocol](), reflect.TypeFor[numorstring.Port](), reflect.TypeFor[intstr.IntOrString]():
		s := &schema{AnyOf: []*schema{{Type: "integer"}, {Type: "string"}}, IntOrString: true}
		r.constrain(t, s)
		return s, nil
	}
	s := &schema{}
	var err error
	switch t.Kind() {
	case reflect.Pointer:
		return r.read(t.Elem())
	case reflect.Struct:
		s.Type = "object"
		s.Properties = map[string]*schema{}
		err = r.fields(t, s)
	case reflect.Slice:
		s.Type = "array"
		s.Items, err = r.read(t.Elem())
	case reflect.Map:
		s.Type = "object"
		s.AdditionalProperties, err = r.read(t.Elem())
	case reflect.String:
		s.Type = "string"
	case reflect.Bool:
		s.Type = "boolean"
	case reflect.Float64:
		s.Type = "number"
	case reflect.Int, reflect.Int32, reflect.Uint16:
		s.Type = "integer"
	default:
		err = fmt.Errorf("no schema for the Go type %v", t)
	}
	if err != nil {
		return nil, err
	}
	r.constrain(t, s)
	return s, nil
}

// fields reads the fields of a struct, those of embedded ones among them.
func (r reader) fields(t reflect.Type, s *schema) error {
	says, err := comments(t)
	if err != nil {
		return err
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" && f.Anonymous {
			if f.Type == reflect.TypeFor[meta.TypeMeta]() {
				s.Properties["apiVersion"], s.Properties["kind"] = &schema{Type: "string"}, &schema{Type: "string"}
				continue
			}
			return fmt.Errorf("%v embeds %s", t, f.Name)
		}
		of, err := r.read(f.Type)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		of.Description = says[f.Name]
		s.Properties[name] = of
	}
	return nil
}
