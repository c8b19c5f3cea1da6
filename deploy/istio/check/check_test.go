// Package check reads every file of deploy/istio with the types that Istio and Envoy
// read them with. It is a module of its own, so that nothing else depends on Istio.
package check

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	netauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	securityv1beta1 "istio.io/api/security/v1beta1"
	"sigs.k8s.io/yaml"
)

// object is a manifest with an undecoded spec.
type object struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Spec       json.RawMessage `json:"spec"`
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	b, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// spec decodes the spec of a manifest; a field that the type does not have is an error.
func spec(t *testing.T, name, kind string, into proto.Message) {
	t.Helper()
	var o object
	if err := json.Unmarshal(read(t, name), &o); err != nil || o.Kind != kind {
		t.Fatalf("%s: kind %s, want %s: %v", name, o.Kind, kind, err)
	}
	if err := protojson.Unmarshal(o.Spec, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// envoy decodes a patch as Istio does, from an untyped value.
func envoy(t *testing.T, v *structpb.Struct, into interface {
	proto.Message
	ValidateAll() error
}) {
	t.Helper()
	b, err := protojson.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(b, into); err != nil {
		t.Fatalf("%T: %v", into, err)
	}
	if err := into.ValidateAll(); err != nil {
		t.Fatalf("%T: %v", into, err)
	}
}

func TestEnvoyFilter(t *testing.T) {
	var f networkingv1alpha3.EnvoyFilter
	spec(t, "envoyfilter.yaml", "EnvoyFilter", &f)
	var cluster string
	asks := 0
	for _, p := range f.ConfigPatches {
		if p.Match.Context != networkingv1alpha3.EnvoyFilter_SIDECAR_INBOUND {
			t.Errorf("%s: context %s", p.ApplyTo, p.Match.Context)
		}
		switch p.ApplyTo {
		case networkingv1alpha3.EnvoyFilter_CLUSTER:
			var c clusterv3.Cluster
			envoy(t, p.Patch.Value, &c)
			cluster = c.Name
			if path := c.LoadAssignment.Endpoints[0].LbEndpoints[0].GetEndpoint().GetAddress().GetPipe().GetPath(); path != "/run/postern-authz/authz.sock" {
				t.Errorf("socket %q", path)
			}
		case networkingv1alpha3.EnvoyFilter_HTTP_FILTER:
			var outer hcmv3.HttpFilter
			envoy(t, p.Patch.Value, &outer)
			var a httpauthzv3.ExtAuthz
			if err := outer.GetTypedConfig().UnmarshalTo(&a); err != nil {
				t.Fatal(err)
			}
			if err := a.ValidateAll(); err != nil || a.FailureModeAllow || a.GetGrpcService().GetEnvoyGrpc().GetClusterName() != cluster {
				t.Errorf("%v: %v", &a, err)
			}
			asks++
		case networkingv1alpha3.EnvoyFilter_NETWORK_FILTER:
			var outer listenerv3.Filter
			envoy(t, p.Patch.Value, &outer)
			var a netauthzv3.ExtAuthz
			if err := outer.GetTypedConfig().UnmarshalTo(&a); err != nil {
				t.Fatal(err)
			}
			if err := a.ValidateAll(); err != nil || a.FailureModeAllow || a.GetGrpcService().GetEnvoyGrpc().GetClusterName() != cluster {
				t.Errorf("%v: %v", &a, err)
			}
			asks++
		default:
			t.Errorf("nothing checks a patch of %s", p.ApplyTo)
		}
	}
	if cluster == "" || asks != 2 {
		t.Errorf("cluster %q, %d filters that ask", cluster, asks)
	}
}

func TestMeshConfig(t *testing.T) {
	var m meshv1alpha1.MeshConfig
	if err := protojson.Unmarshal(read(t, "meshconfig.yaml"), &m); err != nil {
		t.Fatal(err)
	}
	var a securityv1beta1.AuthorizationPolicy
	spec(t, "authorization-policy.yaml", "AuthorizationPolicy", &a)
	p := m.ExtensionProviders[0]
	if p.GetEnvoyExtAuthzGrpc() == nil || p.GetEnvoyExtAuthzGrpc().FailOpen || a.Action != securityv1beta1.AuthorizationPolicy_CUSTOM || a.GetProvider().GetName() != p.Name {
		t.Errorf("%v, %v", &m, &a)
	}
}

func TestPeerAuthentication(t *testing.T) {
	var p securityv1beta1.PeerAuthentication
	spec(t, "peer-authentication.yaml", "PeerAuthentication", &p)
	if p.Mtls.Mode != securityv1beta1.PeerAuthentication_MutualTLS_STRICT {
		t.Errorf("mode %s", p.Mtls.Mode)
	}
}

// TestSidecarVolume: the annotations are lists of volumes and mounts that fit each
// other, and the label is the one that the EnvoyFilter selects.
func TestSidecarVolume(t *testing.T) {
	var d struct {
		Spec struct {
			Template struct {
				Metadata struct{ Labels, Annotations map[string]string }
			}
		}
	}
	if err := json.Unmarshal(read(t, "sidecar-volume.yaml"), &d); err != nil {
		t.Fatal(err)
	}
	strict := func(text string, into any) {
		dec := json.NewDecoder(bytes.NewReader([]byte(text)))
		dec.DisallowUnknownFields()
		if err := dec.Decode(into); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	var volumes []struct {
		Name     string
		HostPath struct{ Path, Type string }
	}
	var mounts []struct {
		Name, MountPath string
		ReadOnly        bool
	}
	m := d.Spec.Template.Metadata
	strict(m.Annotations["sidecar.istio.io/userVolume"], &volumes)
	strict(m.Annotations["sidecar.istio.io/userVolumeMount"], &mounts)
	var f networkingv1alpha3.EnvoyFilter
	spec(t, "envoyfilter.yaml", "EnvoyFilter", &f)
	for k, v := range f.WorkloadSelector.Labels {
		if m.Labels[k] != v {
			t.Errorf("label %s=%s is missing", k, v)
		}
	}
	if len(volumes) != 1 || len(mounts) != 1 || volumes[0].Name != mounts[0].Name || !strings.HasPrefix("/run/postern-authz/authz.sock", mounts[0].MountPath+"/") || volumes[0].HostPath.Path != mounts[0].MountPath {
		t.Errorf("%v, %v", volumes, mounts)
	}
}
