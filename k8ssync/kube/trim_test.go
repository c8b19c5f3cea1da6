package kube

import (
	"bytes"
	"math/rand"
	"testing"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/randfill"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/k8ssync/convert"
)

// TestTrim: of objects with every field set at random, the same is converted after
// trimming as before, and less is decoded.
func TestTrim(t *testing.T) {
	t.Parallel()
	s := typedScheme()
	codec := protobuf.NewSerializer(s, s)
	fill := randfill.NewWithSeed(7).NilChance(0.2).NumElements(1, 4).MaxDepth(12).Funcs(
		func(x *metav1.Time, c randfill.Continue) { *x = metav1.Unix(c.Int63n(1e9), 0) },
		func(x *metav1.FieldsV1, c randfill.Continue) { x.Raw = []byte(`{"f:spec":{}}`) },
		func(x *map[string]string, c randfill.Continue) {
			*x = map[string]string{}
			for _, k := range []string{"a", "b/c", "cni.projectcalico.org/podIP", "cni.projectcalico.org/podIPs", "vpc.amazonaws.com/pod-ips"} {
				if c.Bool() {
					(*x)[k] = []string{"", "10.0.0.1", "fd00::1/128", "10.0.0.2,10.0.0.3"}[c.Intn(4)]
				}
			}
		},
		func(x *core.PodIP, c randfill.Continue) {
			x.IP = []string{"", "10.0.0.4", "fd00::4", "nonsense"}[c.Intn(4)]
		},
		func(x *core.PodSpec, c randfill.Continue) { c.FillNoCustom(x); x.HostNetwork = c.Intn(4) == 0 },
		func(x *core.PodPhase, c randfill.Continue) {
			*x = []core.PodPhase{"Running", "Pending", "Failed"}[c.Intn(3)]
		},
		func(x *core.Protocol, c randfill.Continue) { *x = []core.Protocol{"TCP", "UDP", "SCTP", ""}[c.Intn(4)] },
	)
	smaller := 0
	for range 400 {
		for _, obj := range []runtime.Object{&core.Pod{}, &core.ServiceAccount{}, &core.Namespace{}, &discovery.EndpointSlice{}, &core.PodList{}, &discovery.EndpointSliceList{}} {
			fill.Fill(obj)
			kinds, _, err := s.ObjectKinds(obj)
			if err != nil {
				t.Fatal(err)
			}
			obj.GetObjectKind().SetGroupVersionKind(kinds[0])
			var b bytes.Buffer
			if err := codec.Encode(obj, &b); err != nil {
				t.Fatal(err)
			}
			whole, _, err := codec.Decode(b.Bytes(), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			trimmed, _, err := trimDecoder{codec}.Decode(b.Bytes(), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(converted(t, whole), converted(t, trimmed), sameState); d != "" {
				t.Fatalf("%T (-whole +trimmed):\n%s", obj, d)
			}
			if out, ok := trim(nil, b.Bytes()); !ok {
				t.Fatalf("%T is not trimmed", obj)
			} else if len(out) < b.Len()/2 {
				smaller++
			}
		}
	}
	if smaller < 400 {
		t.Errorf("only %d messages are half as large", smaller)
	}
}

// converted is what a feed makes of objects.
func converted(t *testing.T, obj runtime.Object) (all []any) {
	switch l := obj.(type) {
	case *core.PodList:
		for i := range l.Items {
			all = append(all, convert.Convert(&l.Items[i]))
		}
	case *discovery.EndpointSliceList:
		for i := range l.Items {
			all = append(all, convert.Convert(&l.Items[i]))
		}
	default:
		m := obj.(metav1.Object)
		all = append(all, convert.Convert(obj), m.GetUID(), m.GetResourceVersion(), m.GetName(), m.GetDeletionTimestamp() != nil)
		if p, ok := obj.(*core.Pod); ok {
			all = append(all, p.Spec.NodeName)
		}
	}
	return all
}

// TestEventDecoder: a frame of a watch is read as client-go's own decoder does, whatever
// has become of it on the way, and without a copy where it is as it should be.
func TestEventDecoder(t *testing.T) {
	t.Parallel()
	s := typedScheme()
	raw := protobuf.NewRawSerializer(s, s)
	pod := newBig(1, 1, 1).pod(0)
	pod.APIVersion, pod.Kind = "v1", "Pod"
	var object, frame bytes.Buffer
	if err := protobuf.NewSerializer(s, s).Encode(&pod, &object); err != nil {
		t.Fatal(err)
	}
	if err := raw.Encode(&metav1.WatchEvent{Type: "ADDED", Object: runtime.RawExtension{Raw: object.Bytes()}}, &frame); err != nil {
		t.Fatal(err)
	}
	same := func(data []byte) {
		t.Helper()
		var want, got metav1.WatchEvent
		_, _, wantErr := raw.Decode(data, nil, &want)
		_, _, err := eventDecoder{raw}.Decode(data, nil, &got)
		if (err != nil) != (wantErr != nil) || err == nil && (got.Type != want.Type || !bytes.Equal(got.Object.Raw, want.Object.Raw)) {
			t.Errorf("%q:\nwant %+v, %v\ngot %+v, %v", data, want, wantErr, got, err)
		}
	}
	same(frame.Bytes())
	var e metav1.WatchEvent
	if _, _, err := (eventDecoder{raw}).Decode(frame.Bytes(), nil, &e); err != nil || &e.Object.Raw[len(e.Object.Raw)-1] != &frame.Bytes()[frame.Len()-1] {
		t.Errorf("the object was copied, or %v", err)
	}
	same(nil)
	same(append(bytes.Clone(frame.Bytes()), frame.Bytes()...)) // of two the later counts
	for n := range 30 {
		same(frame.Bytes()[:n])
		same(frame.Bytes()[:frame.Len()-1-n])
	}
	rng := rand.New(rand.NewSource(1))
	for range 2000 {
		bad := bytes.Clone(frame.Bytes())
		for range 1 + rng.Intn(3) {
			bad[rng.Intn(min(len(bad), 40))] ^= byte(1 << rng.Intn(8))
		}
		same(bad)
	}
}

// TestRecycledPod: what is decoded into a pod that was used before has nothing of it, and
// what was converted of that stays as it was.
func TestRecycledPod(t *testing.T) {
	t.Parallel()
	s := typedScheme()
	codec := protobuf.NewSerializer(s, s)
	encode := func(p core.Pod) []byte {
		p.APIVersion, p.Kind = "v1", "Pod"
		var b bytes.Buffer
		if err := codec.Encode(&p, &b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	rich := newBig(2, 1, 1).pod(1)
	poor := core.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "poor"}}
	decode := func(data []byte) []any {
		obj, _, err := trimDecoder{codec}.Decode(data, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer recycle(obj)
		return converted(t, obj)
	}
	want := converted(t, &rich)
	for range 20 {
		got := decode(encode(rich))
		if d := cmp.Diff(converted(t, &poor), decode(encode(poor)), sameState); d != "" {
			t.Fatalf("-made anew +recycled:\n%s", d)
		}
		if d := cmp.Diff(want, got, sameState); d != "" {
			t.Fatalf("-before +after its pod was recycled:\n%s", d)
		}
	}
}

// FuzzTrim: whatever comes over the wire, trimming does not panic, and what it makes
// of a message that decodes does too.
func FuzzTrim(f *testing.F) {
	s := typedScheme()
	codec := protobuf.NewSerializer(s, s)
	pod := newBig(1, 1, 1).pod(0)
	pod.APIVersion, pod.Kind = "v1", "Pod"
	var b bytes.Buffer
	if err := codec.Encode(&pod, &b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	rng := rand.New(rand.NewSource(1))
	for range 20 {
		bad := bytes.Clone(b.Bytes())
		bad[rng.Intn(len(bad))] ^= byte(1 << rng.Intn(8))
		f.Add(bad)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		out, ok := trim(nil, message)
		if !ok {
			return
		}
		if _, _, err := codec.Decode(message, nil, nil); err != nil {
			return
		}
		if _, _, err := codec.Decode(out, nil, nil); err != nil {
			t.Errorf("%q decodes, and trimmed it does not: %v", message, err)
		}
	})
}
