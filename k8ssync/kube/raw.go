package kube

import (
	"bytes"
	"encoding/json"
	"fmt"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/convert"
)

// raw is an object as its JSON text, with the part of its metadata that a feed
// needs.
type raw struct {
	meta.TypeMeta
	metadata rawMeta
	text     []byte
}

type rawMeta struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	ResourceVersion string            `json:"resourceVersion"`
	UID             string            `json:"uid"`
	Annotations     map[string]string `json:"annotations"`
}

// UnmarshalJSON implements json.Unmarshaler. It keeps a copy of the text.
func (r *raw) UnmarshalJSON(text []byte) error {
	var head struct {
		meta.TypeMeta
		Metadata rawMeta `json:"metadata"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return err
	}
	r.TypeMeta, r.metadata, r.text = head.TypeMeta, head.Metadata, bytes.Clone(text)
	return nil
}

// DeepCopyObject implements runtime.Object.
func (r *raw) DeepCopyObject() runtime.Object {
	c := *r
	return &c // nobody writes to what it points to
}

// convert reads the object strictly. Its status says nothing about what it means,
// and newer servers write fields into it that are not known here.
func (r *raw) convert(of resource) k8ssync.Object {
	text, err := r.complete(of)
	var result convert.Result
	if err == nil {
		result, err = convert.Decode(text)
	}
	if err != nil {
		key := policy.Key{Kind: of.kind, Namespace: r.metadata.Namespace, Name: r.metadata.Name}
		return k8ssync.Object{Key: key, Problems: []policy.Problem{{Object: key, Message: err.Error()}}}
	}
	return k8ssync.Object(result)
}

// complete adds what items of a list leave out, and takes the status away.
func (r *raw) complete(of resource) ([]byte, error) {
	if r.APIVersion != "" && r.Kind != "" && !bytes.Contains(r.text, []byte(`"status"`)) {
		return r.text, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(r.text, &fields); err != nil {
		return nil, fmt.Errorf("read %s: %w", of, err)
	}
	delete(fields, "status")
	fields["apiVersion"], _ = json.Marshal(of.gv.String())
	fields["kind"], _ = json.Marshal(of.object)
	return json.Marshal(fields)
}

type rawList struct {
	meta.TypeMeta
	meta.ListMeta `json:"metadata"`
	Items         []raw `json:"items"`
}

// DeepCopyObject implements runtime.Object.
func (l *rawList) DeepCopyObject() runtime.Object {
	c := *l
	return &c
}
