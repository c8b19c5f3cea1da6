package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

var get = metav1.GetOptions{}

// Client writes manifests with the rights of one user. It may be used from many
// goroutines.
type Client struct {
	dynamic dynamic.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper
}

// NewClient makes a client from a configuration that Server gave.
func NewClient(c *rest.Config) (*Client, error) {
	d, err := dynamic.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("apiserver: %w", err)
	}
	// What a user may discover does not depend on the user; what one without rights
	// to it may read does.
	disco, err := discovery.NewDiscoveryClientForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("apiserver: %w", err)
	}
	return &Client{dynamic: d, mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco))}, nil
}

// Apply applies manifests, in order: each argument is a file or a directory, whose
// files are taken in the order of their names, namespaces and definitions of kinds
// first.
func (s *Server) Apply(ctx context.Context, paths ...string) error {
	c, err := NewClient(s.Admin())
	if err != nil {
		return err
	}
	for _, path := range paths {
		objects, err := Read(path)
		if err != nil {
			return err
		}
		for _, o := range objects {
			if err := c.Apply(ctx, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// ApplyYAML applies the documents of a text, in order.
func (s *Server) ApplyYAML(ctx context.Context, text string) error {
	c, err := NewClient(s.Admin())
	if err != nil {
		return err
	}
	objects, err := Parse([]byte(text))
	if err != nil {
		return err
	}
	for _, o := range objects {
		if err := c.Apply(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// Read reads the manifests of a file, or of the files in a directory, in the order
// in which they can be created.
func Read(path string) (objects []*unstructured.Unstructured, err error) {
	files := []string{path}
	if info, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("apiserver: %w", err)
	} else if info.IsDir() {
		if files, err = filepath.Glob(filepath.Join(path, "*.yaml")); err != nil {
			return nil, fmt.Errorf("apiserver: %w", err)
		}
	}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue // is about the manifests, and none
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("apiserver: %w", err)
		}
		of, err := Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		objects = append(objects, of...)
	}
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	return objects, nil
}

// rank orders kinds by what has to be there first.
func rank(o *unstructured.Unstructured) int {
	order := []string{"CustomResourceDefinition", "Namespace", "ServiceAccount", "Tier"}
	if i := slices.Index(order, o.GetKind()); i >= 0 {
		return i
	}
	return len(order)
}

// Parse parses the documents of a text.
func Parse(text []byte) (objects []*unstructured.Unstructured, err error) {
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		o := &unstructured.Unstructured{}
		if err := d.Decode(&o.Object); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, fmt.Errorf("apiserver: %w", err)
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
}

// Resource is the interface to the objects of o's kind, in its namespace.
func (c *Client) Resource(o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := o.GroupVersionKind()
	m, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		c.mapper.Reset()
		m, err = c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("apiserver: %w", err)
	}
	r := c.dynamic.Resource(m.Resource)
	if m.Scope.Name() == meta.RESTScopeNameRoot {
		return r, nil
	}
	namespace := o.GetNamespace()
	if namespace == "" {
		namespace = "default"
	}
	return r.Namespace(namespace), nil
}

// Apply makes the object be as given, its status too, by a server-side apply. Of a
// definition of a kind, it waits until the kind is served. The object itself is not
// changed. Fields that a pod must have, and that mean nothing to policy, are filled
// in: manifests for a directory leave them out.
func (c *Client) Apply(ctx context.Context, o *unstructured.Unstructured) error {
	o = o.DeepCopy()
	if o.GetKind() == "Pod" {
		complete(o)
	}
	r, err := c.Resource(o)
	if err != nil {
		return err
	}
	name := o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
	body, err := o.MarshalJSON()
	if err != nil {
		return fmt.Errorf("apiserver: apply %s: %w", name, err)
	}
	force := true
	options := metav1.PatchOptions{FieldManager: "test", Force: &force}
	if _, err := r.Patch(ctx, o.GetName(), types.ApplyPatchType, body, options); err != nil {
		return fmt.Errorf("apiserver: apply %s: %w", name, err)
	}
	if _, ok := o.Object["status"]; ok && o.GetKind() != "CustomResourceDefinition" {
		if _, err := r.Patch(ctx, o.GetName(), types.ApplyPatchType, body, options, "status"); err != nil {
			return fmt.Errorf("apiserver: apply the status of %s: %w", name, err)
		}
	}
	if o.GetKind() == "CustomResourceDefinition" {
		return established(ctx, r, o.GetName())
	}
	return nil
}

// complete fills in what a pod must have.
func complete(o *unstructured.Unstructured) {
	if _, ok, _ := unstructured.NestedSlice(o.Object, "spec", "containers"); !ok {
		unstructured.SetNestedSlice(o.Object, []any{map[string]any{"name": "main", "image": "none"}}, "spec", "containers")
	}
	ips, _, _ := unstructured.NestedSlice(o.Object, "status", "podIPs")
	if len(ips) == 0 {
		return
	}
	if _, ok, _ := unstructured.NestedString(o.Object, "status", "podIP"); !ok {
		if first, ok := ips[0].(map[string]any); ok {
			if ip, ok := first["ip"].(string); ok {
				unstructured.SetNestedField(o.Object, ip, "status", "podIP")
			}
		}
	}
}

// established waits until a kind is served.
func established(ctx context.Context, r dynamic.ResourceInterface, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		o, err := r.Get(ctx, name, get)
		if err != nil {
			return fmt.Errorf("apiserver: %w", err)
		}
		conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
		for _, c := range conditions {
			if c, ok := c.(map[string]any); ok && c["type"] == "Established" && c["status"] == "True" {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("apiserver: %s is not served: %v", name, conditions)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
