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
