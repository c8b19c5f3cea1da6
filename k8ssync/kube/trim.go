package kube

import (
	"bytes"
	"slices"
	"sync"

	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"google.golang.org/protobuf/encoding/protowire"
)

// A pod in protobuf is some 3 KB and decodes into 10 KB of small pieces, nearly all
// of which convert does not look at. trimming takes them out of the bytes before
// they are decoded: reading 100,000 pods costs half the time and garbage.
//
// Fields are told by the numbers of k8s.io/api's generated.proto. What cannot be
// understood is left whole, so that the decoder says what is wrong with it.

// fields are those of a message that stay: nil for a field that stays whole.
type fields map[protowire.Number]*kept

// kept is how much of a field stays.
type kept struct {
	fields fields
	// entry, for maps with text keys, tells which entries stay.
	entry func(key []byte) bool
}

// whole is a field that stays as it is.
var whole = &kept{}

var (
	metadataFields = fields{
		1: whole, 3: whole, 5: whole, 6: whole, // name, namespace, uid, resourceVersion
		9: whole, 11: whole, // deletionTimestamp, labels
		12: {entry: usedAnnotation},
	}
	metadata        = &kept{fields: metadataFields}
	containers      = &kept{fields: fields{6: whole}}                                   // ports
	running         = &kept{fields: fields{2: {fields: fields{2: {fields: fields{}}}}}} // of a container's status: that state.running is there
	podStatus       = &kept{fields: fields{1: whole, 6: whole, 8: running, 10: running, 12: whole, 13: running}}
	podFields       = fields{1: metadata, 2: {fields: fields{2: containers, 8: whole, 10: whole, 11: whole, 20: containers}}, 3: podStatus}
	sliceFields     = fields{1: metadata, 2: {fields: fields{1: whole}}, 3: whole, 4: whole}
	metadataOnly    = fields{1: metadata}
	fieldsOfObjects = map[string]fields{"Pod": podFields, "EndpointSlice": sliceFields, "ServiceAccount": metadataOnly, "Namespace": metadataOnly}
)

// usedAnnotations are those that convert and the Reflector read.
var usedAnnotations = [][]byte{
	[]byte("cni.projectcalico.org/podIP"), []byte("vpc.amazonaws.com/pod-ips"),
	[]byte(metav1.InitialEventsAnnotationKey),
}

func usedAnnotation(key []byte) bool {
	return slices.ContainsFunc(usedAnnotations, func(used []byte) bool { return bytes.Equal(used, key) })
}

// magic begins every message of the API server; a runtime.Unknown follows.
var magic = []byte("k8s\x00")

// trim appends the message without what is not used, and is false if it is better
// decoded as it is.
func trim(dst, message []byte) ([]byte, bool) {
	body, ok := bytes.CutPrefix(message, magic)
	if !ok {
		return nil, false
	}
	kind, ok := kindOf(body)
	if !ok {
		return nil, false
	}
	keep, ok := fieldsOfObjects[kind]
	if single, isList := bytes.CutSuffix([]byte(kind), []byte("List")); !ok && isList {
		var item fields
		if item, ok = fieldsOfObjects[string(single)]; ok {
			keep = fields{1: whole, 2: {fields: item}}
		}
	}
	if !ok {
		return nil, false
	}
	return keepOnly(append(dst, magic...), body, fields{1: whole, 2: {fields: keep}, 3: whole, 4: whole})
}

// kindOf reads typeMeta.kind of a runtime.Unknown.
func kindOf(body []byte) (kind string, ok bool) {
	meta, ok := field(body, 1)
	if !ok {
		return "", false
	}
	k, ok := field(meta, 2)
	return string(k), ok
}

// field gives the first field of a number and of type bytes.
func field(message []byte, number protowire.Number) ([]byte, bool) {
	for len(message) > 0 {
		n, t, size := protowire.ConsumeField(message)
		if size < 0 {
			return nil, false
		}
		if n == number && t == protowire.BytesType {
			_, _, tag := protowire.ConsumeTag(message)
			v, _ := protowire.ConsumeBytes(message[tag:])
			return v, true
		}
		message = message[size:]
	}
	return nil, false
}

// keepOnly appends the fields of a message that stay.
func keepOnly(dst, message []byte, keep fields) ([]byte, bool) {
	for len(message) > 0 {
		n, t, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return nil, false
		}
		size := protowire.ConsumeFieldValue(n, t, message[tag:])
		if size < 0 {
			return nil, false
		}
		value := message[tag : tag+size]
		k := keep[n]
		switch {
		case k == nil:
		case k.fields == nil && k.entry == nil || t != protowire.BytesType:
			dst = append(dst, message[:tag+size]...)
		case k.entry != nil:
			inner, _ := protowire.ConsumeBytes(value)
			if key, ok := field(inner, 1); ok && k.entry(key) {
				dst = append(dst, message[:tag+size]...)
			}
		default:
			inner, _ := protowire.ConsumeBytes(value)
			dst = append(dst, message[:tag]...)
			at := len(dst)
			dst = append(dst, 0, 0, 0, 0, 0)
			var ok bool
			if dst, ok = keepOnly(dst, inner, k.fields); !ok {
				return nil, false
			}
			putLength(dst[at:], len(dst)-at-5)
		}
		message = message[tag+size:]
	}
	return dst, true
}

// putLength writes a length below 4 GB in five bytes, whatever it is: a varint may
// be longer than it has to be.
func putLength(dst []byte, n int) {
	for i := range 5 {
		dst[i] = byte(n>>(7*i))&0x7f | 0x80
	}
	dst[4] &^= 0x80
}

// trimming is a serializer whose decoders trim.
type trimming struct{ runtime.NegotiatedSerializer }

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (t trimming) SupportedMediaTypes() []runtime.SerializerInfo {
	infos := slices.Clone(t.NegotiatedSerializer.SupportedMediaTypes())
	for i, info := range infos {
		if info.MediaType == runtime.ContentTypeProtobuf && info.StreamSerializer != nil {
			stream := *info.StreamSerializer
			stream.Serializer = eventDecoder{stream.Serializer}
			infos[i].StreamSerializer = &stream
		}
	}
	return infos
}

// DecoderToVersion implements runtime.NegotiatedSerializer.
func (t trimming) DecoderToVersion(d runtime.Decoder, gv runtime.GroupVersioner) runtime.Decoder {
	return trimDecoder{t.NegotiatedSerializer.DecoderToVersion(d, gv)}
}

type trimDecoder struct{ runtime.Decoder }

var (
	trimBuffers = sync.Pool{New: func() any { return new([]byte) }}
	// pods are to be decoded into: each is 1 KB that is read once and dropped.
	pods = sync.Pool{New: func() any { return new(core.Pod) }}
)

// recycle takes an object back that a trimDecoder gave and nobody uses any more. What
// it refers to may be kept.
func recycle(obj runtime.Object) {
	if p, ok := obj.(*core.Pod); ok {
		pods.Put(p)
	}
}

// Decode implements runtime.Decoder. Decoded objects share no memory with data.
func (d trimDecoder) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	buf := trimBuffers.Get().(*[]byte)
	defer trimBuffers.Put(buf)
	if trimmed, ok := trim((*buf)[:0], data); ok {
		*buf, data = trimmed, trimmed
		if kind, _ := kindOf(trimmed[len(magic):]); kind == "Pod" && into == nil {
			into = pods.Get().(*core.Pod) // the decoder resets it
		}
	}
	return d.Decoder.Decode(data, defaults, into)
}

// eventDecoder decodes the frames of a watch without a copy of the object in them: that
// of the first list of 100,000 pods is 200 MB. Whoever asks decodes the object before
// the next frame, which takes the place of this one.
type eventDecoder struct{ runtime.Serializer }

// Decode implements runtime.Decoder. The event's object is part of data.
func (d eventDecoder) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if e, ok := into.(*metav1.WatchEvent); ok {
		if kind, object, ok := eventFields(data); ok {
			e.Type, e.Object = string(kind), runtime.RawExtension{Raw: object}
			return e, defaults, nil
		}
	}
	return d.Serializer.Decode(data, defaults, into)
}

// eventFields reads a WatchEvent: its type, and what its RawExtension holds. It is false
// of one that has anything else in it.
func eventFields(message []byte) (kind, object []byte, ok bool) {
	for len(message) > 0 {
		n, t, tag := protowire.ConsumeTag(message)
		if tag < 0 || t != protowire.BytesType {
			return nil, nil, false
		}
		v, size := protowire.ConsumeBytes(message[tag:])
		switch {
		case size < 0:
			return nil, nil, false
		case n == 1 && kind == nil:
			kind = v
		case n == 2 && object == nil:
			if object, ok = field(v, 1); !ok || protowire.SizeTag(1)+protowire.SizeBytes(len(object)) != len(v) {
				return nil, nil, false
			}
		default:
			return nil, nil, false
		}
		message = message[tag+size:]
	}
	return kind, object, kind != nil && object != nil
}
