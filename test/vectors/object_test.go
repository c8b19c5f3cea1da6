package vectors

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestObjectText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, object, want string }{
		{
			"Calico", `{NP: a/b, tier: t, order: 1.5, ingress: [{action: Deny}], labels: {k: v}, annotations: {n: m}}`,
			`{"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
			"metadata": {"namespace": "a", "name": "b", "labels": {"k": "v"}, "annotations": {"n": "m"}},
			"spec": {"tier": "t", "order": 1.5, "ingress": [{"action": "Deny"}]}}`,
		},
		{
			"global", `{HEP: h, node: n, labels: {k: v}}`,
			`{"apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint", "metadata": {"name": "h", "labels": {"k": "v"}}, "spec": {"node": "n"}}`,
		},
		{
			"no spec", `{TIER: t}`,
			`{"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "t"}, "spec": {}}`,
		},
		{
			"Kubernetes", `{KNP: a/b, egress: [{}]}`,
			`{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": "a", "name": "b"}, "spec": {"egress": [{}]}}`,
		},
		{
			"slice", `{EPS: a/s-x, svc: s, addrs: ["fd00::1"], ports: [{port: 80}]}`,
			`{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
			"metadata": {"namespace": "a", "name": "s-x", "labels": {"kubernetes.io/service-name": "s"}},
			"addressType": "IPv6", "endpoints": [{"addresses": ["fd00::1"]}], "ports": [{"port": 80}]}`,
		},
	} {
		got, err := objectText(t, c.object)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(fromJSON(t, c.want), fromJSON(t, got)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.name, diff)
		}
	}
}

func TestEndpointSliceRefuses(t *testing.T) {
	t.Parallel()
	for object, want := range map[string]string{
		`{EPS: a/s, addrs: [10.0.0.1]}`:                     "svc",
		`{EPS: a/s, svc: s, addrs: [10.0.0.1, "fd00::1"]}`:  "families",
		`{EPS: a/s, svc: s, addrs: [ten]}`:                  "ten",
		`{EPS: a/s, svc: s, addresses: [10.0.0.1]}`:         "addresses",
		`{EPS: a/s, svc: s, addrs: [10.0.0.1], labels: {}}`: "",
	} {
		_, err := objectText(t, object)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got error %v, want one about %q", object, err, want)
		}
	}
}

func TestPodText(t *testing.T) {
	t.Parallel()
	none := ""
	for _, c := range []struct {
		pod  Pod
		want string
	}{
		{
			Pod{Name: "p", Namespace: "n"},
			`{"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "n", "name": "p"},
			"spec": {"nodeName": "node1", "serviceAccountName": "default", "containers": [{"name": "main", "image": "none"}]}, "status": {"phase": "Running"}}`,
		},
		{
			Pod{Name: "p", Namespace: "n", Account: &none, HostNetwork: true, Phase: "Failed", IPs: []string{"10.0.0.1", "fd00::1"}, Labels: map[string]string{"k": "v"}},
			`{"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "n", "name": "p", "labels": {"k": "v"}},
			"spec": {"nodeName": "node1", "hostNetwork": true, "containers": [{"name": "main", "image": "none"}]},
			"status": {"phase": "Failed", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}`,
		},
	} {
		if diff := cmp.Diff(fromJSON(t, c.want), fromJSON(t, c.pod.text())); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

// objectText reads a vector's object and gives the API object.
func objectText(t *testing.T, yaml string) (string, error) {
	t.Helper()
	docs, err := readYAML(yaml, 1)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := docs[0].decode(&fields); err != nil {
		t.Fatal(err)
	}
	o, err := ParseObject(fields)
	if err != nil {
		t.Fatal(err)
	}
	return o.Text()
}

func fromJSON(t *testing.T, s string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatal(err)
	}
	return v
}
