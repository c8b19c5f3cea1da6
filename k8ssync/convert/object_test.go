package convert

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/test/admission"
)

func addrs(texts ...string) (out []netip.Addr) {
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

func TestPods(t *testing.T) {
	t.Parallel()
	const head = "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop"
	tests := []struct {
		title, text string
		want        []netip.Addr // nil: no endpoint
		problems    int
	}{
		{"running", head + "}, spec: {nodeName: node1}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], podIP: 10.0.0.9}}", addrs("10.0.0.1", "fd00::1"), 0},
		{"pending with an address", head + "}, spec: {nodeName: node1}, status: {phase: Pending, podIPs: [{ip: 10.0.0.1}]}}", addrs("10.0.0.1"), 0},
		{"not scheduled", head + "}, spec: {}}", nil, 0},
		{"no node, but an address in status", head + "}, spec: {}, status: {podIPs: [{ip: 10.0.0.1}]}}", addrs("10.0.0.1"), 0},
		{"no node, but an address in podIP", head + "}, spec: {}, status: {podIP: 10.0.0.1}}", addrs("10.0.0.1"), 0},
		{"on the host network", head + "}, spec: {nodeName: node1, hostNetwork: true}, status: {podIPs: [{ip: 10.0.0.1}]}}", nil, 0},
		{"succeeded", head + "}, spec: {nodeName: node1}, status: {phase: Succeeded, podIPs: [{ip: 10.0.0.1}]}}", nil, 0},
		{"failed", head + "}, spec: {nodeName: node1}, status: {phase: Failed, podIPs: [{ip: 10.0.0.1}]}}", nil, 0},
		{"completed", head + "}, spec: {nodeName: node1}, status: {phase: Completed, podIPs: [{ip: 10.0.0.1}]}}", nil, 0},
		{"terminating", head + ", deletionTimestamp: '2024-01-01T00:00:00Z'}, spec: {nodeName: node1}, status: {podIPs: [{ip: 10.0.0.1}]}}", addrs("10.0.0.1"), 0},
		{"terminating, address in use", head + ", deletionTimestamp: '2024-01-01T00:00:00Z', annotations: {cni.projectcalico.org/podIP: 10.0.0.1/32}}, spec: {nodeName: node1}, status: {podIPs: [{ip: 10.0.0.1}]}}", addrs("10.0.0.1"), 0},
		{"terminating, address given back", head + ", deletionTimestamp: '2024-01-01T00:00:00Z', annotations: {cni.projectcalico.org/podIP: ''}}, spec: {nodeName: node1}, status: {podIPs: [{ip: 10.0.0.1}]}}", nil, 0},
		{"terminating, address given back on AWS", head + ", deletionTimestamp: '2024-01-01T00:00:00Z', annotations: {vpc.amazonaws.com/pod-ips: ''}}, spec: {nodeName: node1}, status: {podIPs: [{ip: 10.0.0.1}]}}", nil, 0},
		{"terminating, address given back, containers ended", head + ", deletionTimestamp: '2024-01-01T00:00:00Z', annotations: {cni.projectcalico.org/podIP: ''}}, spec: {nodeName: node1}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}], containerStatuses: [{name: a, state: {terminated: {exitCode: 0}}, lastState: {running: {}}}]}}", nil, 0},
		{"terminating, annotation emptied, container runs", head + ", deletionTimestamp: '2024-01-01T00:00:00Z', annotations: {cni.projectcalico.org/podIP: ''}}, spec: {nodeName: node1}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}], containerStatuses: [{name: b, state: {terminated: {exitCode: 0}}}, {name: a, state: {running: {}}}]}}", addrs("10.0.0.1"), 0},
		{"terminating, annotation emptied, sidecar runs", head + ", deletionTimestamp: '2024-01-01T00:00:00Z', annotations: {cni.projectcalico.org/podIP: ''}}, spec: {nodeName: node1}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}], initContainerStatuses: [{name: a, state: {running: {startedAt: '2024-01-01T00:00:00Z'}}}]}}", addrs("10.0.0.1"), 0},
		{"terminating, annotation emptied, debugger runs", head + ", deletionTimestamp: '2024-01-01T00:00:00Z', annotations: {cni.projectcalico.org/podIP: ''}}, spec: {nodeName: node1}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}], ephemeralContainerStatuses: [{name: a, state: {running: {}}}]}}", addrs("10.0.0.1"), 0},
		{"annotation emptied, not terminating", head + ", annotations: {cni.projectcalico.org/podIP: ''}}, spec: {nodeName: node1}, status: {podIPs: [{ip: 10.0.0.1}]}}", addrs("10.0.0.1"), 0},
		{"podIP alone", head + "}, spec: {nodeName: node1}, status: {podIP: 10.0.0.9}}", addrs("10.0.0.9"), 0},
		{"podIPs empty", head + "}, spec: {nodeName: node1}, status: {podIPs: [{ip: ''}], podIP: 10.0.0.9}}", addrs("10.0.0.9"), 0},
		{"addresses in annotations only", head + ", annotations: {cni.projectcalico.org/podIPs: '10.0.0.1/32, fd00::1/128', cni.projectcalico.org/podIP: 10.0.0.9/32, vpc.amazonaws.com/pod-ips: 10.0.0.8}}, spec: {nodeName: node1}}", nil, 0},
		{"no address", head + "}, spec: {nodeName: node1}}", nil, 0},
		{"repeated address", head + "}, spec: {nodeName: node1}, status: {podIPs: [{ip: 10.0.0.1}, {ip: 10.0.0.1}]}}", addrs("10.0.0.1"), 0},
		{"bad address", head + "}, spec: {nodeName: node1}, status: {podIPs: [{ip: 10.0.0.300}]}}", nil, 1},
		{"bad, zoned and mapped addresses", head + "}, spec: {nodeName: node1}, status: {podIPs: [{ip: x}, {ip: 'fe80::1%eth0'}, {ip: '::ffff:10.0.0.1'}, {ip: 10.0.0.2}]}}", addrs("10.0.0.2"), 3},
		{"address that is a prefix", head + "}, spec: {nodeName: node1}, status: {podIPs: [{ip: 10.0.0.1/32}]}}", nil, 1},
	}
	for _, tt := range tests {
		r := decodeYAML(t, tt.text)
		var got []netip.Addr
		if e, ok := r.Value.(*policy.Endpoint); ok {
			got = e.Addrs
		}
		if d := cmp.Diff(tt.want, got, sameValue); d != "" || len(r.Problems) != tt.problems {
			t.Errorf("%s: -want +got:\n%s%s", tt.title, d, lines(r.Problems))
		}
		// Whoever knows the address from elsewhere gets the same pod, endpoint or not.
		raw, err := yaml.YAMLToJSON([]byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		id := PodIdentity(raw)
		if hostNetwork := strings.Contains(tt.text, "hostNetwork: true"); (id == nil) != hostNetwork || id != nil && (id.Namespace != "shop" || len(id.Addrs) > 0) {
			t.Errorf("%s: identity %+v", tt.title, id)
		}
		if e, ok := r.Value.(*policy.Endpoint); ok {
			id.Addrs = e.Addrs
			if d := cmp.Diff(e, id, sameValue); d != "" {
				t.Errorf("%s: identity -endpoint +identity:\n%s", tt.title, d)
			}
		}
	}
}

func TestPodEndpoint(t *testing.T) {
	t.Parallel()
	got := decodeValid[*policy.Endpoint](t, `{apiVersion: v1, kind: Pod, metadata: {name: db, uid: u-1, labels: {app: db, pcsa.role: intern}},
		spec: {nodeName: node1, serviceAccountName: db-sa, initContainers: [{name: i, ports: [{name: side, protocol: SCTP, containerPort: 9}]}],
			containers: [{name: a, ports: [{name: pg, containerPort: 5432}, {containerPort: 1}, {name: dns, protocol: UDP, containerPort: 53}]}, {name: b, ports: [{name: pg, containerPort: 6432}]}],
			ephemeralContainers: [{name: e, ports: [{name: debug, containerPort: 99}]}]},
		status: {podIPs: [{ip: 10.0.0.1}]}}`)
	want := &policy.Endpoint{
		Namespace: "default", Name: "db", UID: "u-1", ServiceAccount: "db-sa", Node: "node1",
		Labels: map[string]string{"app": "db", "pcsa.role": "intern"}, Addrs: addrs("10.0.0.1"),
		Ports: []policy.NamedPort{{Name: "pg", Proto: flow.TCP, Port: 5432}, {Name: "dns", Proto: flow.UDP, Port: 53}, {Name: "pg", Proto: flow.TCP, Port: 6432}, {Name: "side", Proto: flow.SCTP, Port: 9}},
	}
	if d := cmp.Diff(want, got, sameValue); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestOtherObjects(t *testing.T) {
	t.Parallel()
	tests := []struct {
		title, text string
		want        any
	}{
		{"namespace", `{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {env: prod}}}`,
			&policy.Namespace{Name: "a", Labels: map[string]string{"env": "prod"}}},
		{"service account", `{apiVersion: v1, kind: ServiceAccount, metadata: {name: a.b, namespace: c}}`,
			&policy.ServiceAccount{Namespace: "c", Name: "a.b"}},
		{"endpoint slice", `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s-1, namespace: c, labels: {kubernetes.io/service-name: s}}, addressType: IPv4,
			endpoints: [{addresses: [10.0.0.1], conditions: {ready: false}}, {addresses: [10.0.0.2]}], ports: [{port: 80}, {name: x}, {port: 53, protocol: UDP}]}`,
			&policy.EndpointSlice{Namespace: "c", Name: "s-1", Service: "s", Addrs: addrs("10.0.0.1", "10.0.0.2"),
				Ports: []policy.ServicePort{{Proto: flow.TCP, Port: 80}, {Proto: flow.UDP, Port: 53}}}},
		{"endpoint slice of host names", `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s-1, labels: {kubernetes.io/service-name: s}}, addressType: FQDN, endpoints: [{addresses: [a.example]}]}`, nil},
		{"endpoint slice of no service", `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s-1}, addressType: IPv4, endpoints: []}`, nil},
		{"tier", `{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: sec}, spec: {order: 10.5, defaultAction: Pass}}`,
			&policy.Tier{Name: "sec", Order: 10.5, DefaultAction: policy.Pass}},
		{"tier without order", `{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: sec}}`,
			&policy.Tier{Name: "sec", Order: 1e6}},
		{"profile", `{apiVersion: projectcalico.org/v3, kind: Profile, metadata: {name: a}, spec: {ingress: [{action: Deny}], egress: [{action: Allow, protocol: UDP}], labelsToApply: {a: b}}}`,
			&policy.Profile{Name: "a", Ingress: []policy.Rule{{Action: policy.Deny}}, Egress: []policy.Rule{{Action: policy.Allow, Protocol: &policy.Protocol{Number: flow.UDP, ByName: true}}},
				LabelsToApply: map[string]string{"a": "b"}}},
		{"network set", `{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: a, namespace: c, labels: {x: z}}, spec: {nets: [10.1.2.3/8, "fd00::1"]}}`,
			&policy.NetworkSet{Kind: policy.NetworkSetKind, Namespace: "c", Name: "a", Labels: map[string]string{"x": "z"},
				Nets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::1/128")}}},
		{"global network set", `{apiVersion: crd.projectcalico.org/v1, kind: GlobalNetworkSet, metadata: {name: a, namespace: ignored}, spec: {}}`,
			&policy.NetworkSet{Kind: policy.GlobalNetworkSet, Name: "a"}},
		{"host endpoint", `{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h, labels: {a: b}}, spec: {node: host, interfaceName: "*", expectedIPs: [10.0.0.1],
			profiles: [p1], ports: [{name: ssh, protocol: TCP, port: 22}]}}`,
			&policy.HostEndpoint{Name: "h", Node: "host", InterfaceName: "*", Labels: map[string]string{"a": "b"}, ExpectedIPs: addrs("10.0.0.1"),
				Profiles: []string{"p1"}, Ports: []policy.NamedPort{{Name: "ssh", Proto: flow.TCP, Port: 22}}}},
	}
	for _, tt := range tests {
		r := decodeYAML(t, tt.text)
		if len(r.Problems) > 0 {
			t.Errorf("%s: problems\n%s", tt.title, lines(r.Problems))
		}
		if d := cmp.Diff(tt.want, r.Value, sameValue); d != "" {
			t.Errorf("%s: -want +got:\n%s", tt.title, d)
		}
	}
}

// What is left of invalid objects that are no policies.
func TestOtherObjectsFailClosed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		title, text string
		want        any
	}{
		{"tier action", `{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: sec}, spec: {order: 5, defaultAction: pass}}`,
			&policy.Tier{Name: "sec", Order: 5, DefaultAction: policy.Deny}},
		{"built-in tier", `{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: default}, spec: {order: 5, defaultAction: Pass}}`,
			&policy.Tier{Name: "default", Order: 1e6, DefaultAction: policy.Deny}},
		{"profile", `{apiVersion: projectcalico.org/v3, kind: Profile, metadata: {name: a}, spec: {ingress: [{action: Allow, protocol: X}, {action: Deny, protocol: X}], labelsToApply: {a: "b c", d: e}}}`,
			&policy.Profile{Name: "a", Ingress: []policy.Rule{{Index: 1, Action: policy.Deny}}, LabelsToApply: map[string]string{"d": "e"}}},
		{"set", `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: a}, spec: {nets: [x, 10.0.0.0/8, "::ffff:10.0.0.1"]}}`,
			&policy.NetworkSet{Kind: policy.GlobalNetworkSet, Name: "a", Nets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
		{"host endpoint without node", `{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}, spec: {interfaceName: eth0}}`, nil},
		{"host endpoint without a good address", `{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}, spec: {node: host, expectedIPs: [x]}}`, nil},
		{"slice", `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s-1, namespace: c, labels: {kubernetes.io/service-name: s}}, addressType: IPv4,
			endpoints: [{addresses: [x, 10.0.0.2]}], ports: [{port: 0}, {port: 80, protocol: ICMP}, {port: 80}]}`,
			&policy.EndpointSlice{Namespace: "c", Name: "s-1", Service: "s", Addrs: addrs("10.0.0.2"), Ports: []policy.ServicePort{{Proto: flow.TCP, Port: 80}}}},
	}
	for _, tt := range tests {
		r := decodeYAML(t, tt.text)
		if len(r.Problems) == 0 {
			t.Errorf("%s: no problems", tt.title)
		}
		if d := cmp.Diff(tt.want, r.Value, sameValue); d != "" {
			t.Errorf("%s: -want +got:\n%s", tt.title, d)
		}
	}
}

func TestDerivedProfilesAreNotUsed(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"kns.shop", "ksa.shop.default", "projectcalico-default-allow"} {
		r := decodeYAML(t, `{apiVersion: projectcalico.org/v3, kind: Profile, metadata: {name: `+name+`}, spec: {ingress: [{action: Deny}]}}`)
		if r.Value != nil || len(r.Problems) != 0 || len(r.Warnings) != 1 {
			t.Errorf("%s: value %v, problems %v, warnings %v", name, r.Value, r.Problems, r.Warnings)
		}
	}
}

// A policy in storage always has its types; an empty list there means both.
func TestStoredTypes(t *testing.T) {
	t.Parallel()
	p := decodeValid[*policy.Policy](t, `{apiVersion: crd.projectcalico.org/v1, kind: GlobalNetworkPolicy, metadata: {name: a}, spec: {ingress: [{action: Allow}]}}`)
	if !p.AppliesIngress || !p.AppliesEgress {
		t.Errorf("applies to ingress %v, egress %v; want both", p.AppliesIngress, p.AppliesEgress)
	}
}

// Informers share their objects, so a value must not hold on to one.
func TestConvertDoesNotShareLabels(t *testing.T) {
	t.Parallel()
	ns := &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: "a", Labels: map[string]string{"x": "1"}}}
	r := Convert(ns)
	ns.Labels["x"] = "2"
	if got := r.Value.(*policy.Namespace).Labels["x"]; got != "1" {
		t.Errorf("label changed with the object to %q", got)
	}
}

func TestConvertUnknownType(t *testing.T) {
	t.Parallel()
	for _, obj := range []any{nil, 1, &core.Service{}} {
		if r := Convert(obj); r.Value != nil || len(r.Problems) != 1 {
			t.Errorf("Convert(%T) = %+v; want one problem", obj, r)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	t.Parallel()
	tests := []struct{ text, want string }{
		{`{`, "decode object: not valid JSON"},
		{`[]`, "decode object: want a mapping with the strings apiVersion and kind"},
		{`{"apiVersion": 1}`, "decode object: want a mapping with the strings apiVersion and kind"},
		{`{"kind": "Pod"}`, "decode object: apiVersion and kind: both must be given"},
		{`{"apiVersion": "v1", "kind": "Secret"}`, "decode object: v1 Secret: kind is not used here"},
		{`{"apiVersion": "networking.k8s.io/v1beta1", "kind": "NetworkPolicy"}`, `decode object: NetworkPolicy: apiVersion "networking.k8s.io/v1beta1" is not supported; write "networking.k8s.io/v1"`},
		{`{"apiVersion": "v2", "kind": "Pod"}`, `decode object: Pod: apiVersion "v2" is not supported; write "v1"`},
		{`{"apiVersion": "v1", "kind": "Pod", "metadata": {}}`, "decode Pod: metadata.name: not given; every object needs a name"},
		{`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a\u0000b"}}`, "decode Pod: metadata.name: holds control characters; remove them"},
	}
	for _, tt := range tests {
		if _, err := Decode([]byte(tt.text)); err == nil || err.Error() != tt.want {
			t.Errorf("Decode(%s): %v; want %s", tt.text, err, tt.want)
		}
	}
}

// Mistakes that only the reader of the text saw make every rule doubtful.
func TestDoubts(t *testing.T) {
	t.Parallel()
	raw, err := json.Marshal(map[string]any{"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": map[string]any{"name": "g"},
		"spec": map[string]any{"ingress": []any{map[string]any{"action": "Allow"}, map[string]any{"action": "Deny", "protocol": "TCP"}}}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Decode(raw, "line 5: key twice")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := lines(r.Problems), "  : line 5: key twice\n"; got != want {
		t.Errorf("problems %q, want %q", got, want)
	}
	if got, want := policyText(asPolicy(r)), "tier default order +Inf; ingress\n  in 1 Deny\n"; got != want {
		t.Errorf("policy\n%swant\n%s", got, want)
	}
}

func TestProblemsAreBounded(t *testing.T) {
	t.Parallel()
	r := decodeYAML(t, manifest("GlobalNetworkSet", `{nets: `+admission.Repeat(1000, "x%d")+`}`))
	if len(r.Problems) != maxProblems+1 {
		t.Fatalf("%d problems, want %d", len(r.Problems), maxProblems+1)
	}
	if got, want := r.Problems[maxProblems].Message, "936 more problems are not shown; mend these first"; got != want {
		t.Errorf("last problem %q, want %q", got, want)
	}
}
