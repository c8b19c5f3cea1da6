package kube

import (
	"fmt"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/convert"
)

// item is what a feed keeps of an object: it stands in its place in client-go's
// Reflector, which asks for the few methods below and stores nothing else.
type item struct {
	noMeta
	namespace, name, version string
	uid                      string
	node                     string            // of a pod
	annotations              map[string]string // of bookmarks only
	object                   k8ssync.Object
	// terminating: a namespace that is being deleted.
	terminating bool
}

// noMeta answers what nobody asks an item.
type noMeta struct{ *metav1.ObjectMeta }

var emptyMeta metav1.ObjectMeta

func (i *item) GetName() string                      { return i.name }
func (i *item) GetNamespace() string                 { return i.namespace }
func (i *item) GetResourceVersion() string           { return i.version }
func (i *item) GetUID() types.UID                    { return types.UID(i.uid) }
func (i *item) GetAnnotations() map[string]string    { return i.annotations }
func (i *item) GetObjectMeta() metav1.Object         { return i }
func (i *item) GetObjectKind() schema.ObjectKind     { return schema.EmptyObjectKind }
func (i *item) DeepCopyObject() runtime.Object       { return i } // never changed once it is made
func (l *itemList) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }
func (l *itemList) DeepCopyObject() runtime.Object   { return l }
func (i *item) String() string                       { return i.object.Key.String() }

// itemList is a page of them.
type itemList struct {
	metav1.ListMeta
	Items []*item
}

// newItem converts an object that was just decoded, and keeps nothing of it but
// strings.
func newItem(of resource, obj runtime.Object, c *compactor) (*item, error) {
	if r, ok := obj.(*raw); ok {
		return &item{
			noMeta: noMeta{&emptyMeta}, namespace: r.metadata.Namespace, name: r.metadata.Name,
			version: r.metadata.ResourceVersion, uid: r.metadata.UID, object: r.convert(of),
		}, nil
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", of, err)
	}
	i := &item{
		noMeta: noMeta{&emptyMeta}, namespace: m.GetNamespace(), name: m.GetName(),
		version: m.GetResourceVersion(), uid: string(m.GetUID()), object: k8ssync.Object(convert.Convert(obj)),
	}
	switch o := obj.(type) {
	case *core.Namespace:
		i.terminating = o.DeletionTimestamp != nil
	case *core.Pod:
		i.node = o.Spec.NodeName
	}
	c.compact(&i.object)
	i.namespace = i.object.Key.Namespace
	return i, nil
}

// newBookmark takes what a bookmark says.
func newBookmark(obj runtime.Object) (*item, error) {
	if r, ok := obj.(*raw); ok {
		return &item{noMeta: noMeta{&emptyMeta}, version: r.metadata.ResourceVersion, annotations: r.metadata.Annotations}, nil
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, fmt.Errorf("read a bookmark: %w", err)
	}
	return &item{noMeta: noMeta{&emptyMeta}, version: m.GetResourceVersion(), annotations: m.GetAnnotations()}, nil
}

// contributes tells whether the store has to know of the object: completed,
// host-networked and addressless pods are as good as none.
func (i *item) contributes() bool {
	return i.object.Value != nil || len(i.object.Problems) > 0 || len(i.object.Warnings) > 0
}

func (i *item) key() policy.Key { return i.object.Key }
