package convert

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"sigs.k8s.io/yaml"

	"github.com/postern-project/postern/filter/policy"
)

// On text without mistakes the decoder must agree with encoding/json, which the
// API's types are written for.
func TestDecoderAgreesWithJSON(t *testing.T) {
	t.Parallel()
	var texts []string
	for _, m := range meanings {
		texts = append(texts, manifest(m.kind, m.spec))
	}
	texts = append(texts,
		`{apiVersion: v1, kind: Pod, metadata: {name: p, creationTimestamp: '2024-01-01T00:00:00Z', managedFields: [{manager: x, fieldsV1: {f:a: {}}}], ownerReferences: [{name: o, controller: true}]},
			spec: {containers: [{name: c, resources: {limits: {cpu: 100m, memory: 1Gi}}, livenessProbe: {httpGet: {port: http, path: /}}, ports: [{containerPort: 80}]}],
				volumes: [{name: v, emptyDir: {}}, {name: w, projected: {sources: [{serviceAccountToken: {path: t}}]}}], tolerations: [{key: k, tolerationSeconds: 300}]}, status: {podIPs: [{ip: 10.0.0.1}], startTime: null}}`,
		`{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s}, addressType: IPv4, endpoints: [{addresses: [a], conditions: {ready: true}}], ports: [{port: 1, name: x}]}`)
	for _, text := range texts {
		raw, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var head struct{ APIVersion, Kind string }
		if err := json.Unmarshal(raw, &head); err != nil {
			t.Fatal(err)
		}
		info, err := lookup(head.APIVersion, head.Kind)
		if err != nil {
			t.Fatal(err)
		}
		got, want := info.new(), info.new()
		faults, err := decodeInto(got, raw, strict)
		if err != nil || len(faults) > 0 {
			t.Errorf("decode %s: %v, faults %v", raw, err, faults)
		}
		if err := json.Unmarshal(raw, want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("decode %s\ngot  %+v\nwant %+v", raw, got, want)
		}
	}
}

func TestDecoderFaults(t *testing.T) {
	t.Parallel()
	const head = `{"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": "g"}, `
	tests := []struct{ text, want string }{
		{head + `"spec": {"selector": "a == 'b'", "selector": "all()"}}`, "  spec.selector: stated twice; keep one\n"},
		{head + `"spec": {"ingress": [{"action": "Allow"}, {"action": "Allow", "action": "Deny"}]}}`, "  spec.ingress[1].action: stated twice; keep one\n"},
		{head + `"spec": {"ingress": [{"action": "Allow", "metadata": {"annotations": {"a": "1", "a": "2"}}}]}}`, "  spec.ingress[0].metadata.annotations[a]: stated twice; keep one\n"},
		{head + `"spec": {"Selector": "all()"}}`, "  spec.Selector: unknown field; the fields here are applyOnForward, doNotTrack, egress, ingress, namespaceSelector, order, performanceHints, preDNAT, selector, serviceAccountSelector, tier, types\n"},
		{head + `"spec": {"types": [["Ingress"], null, "Egress"]}}`, "  spec.types[0]: want a string, got a list\n  spec.types[1]: is null; write a value, or remove it\n  spec.types: 3 entries; write Ingress, Egress or both\n"},
		{head + `"spec": {"order": 1e999}}`, "  spec.order: want a number, got the number 1e999\n"},
		{head + `"spec": {"ingress": [{"action": "Allow", "ipVersion": 4.5}]}}`, "  spec.ingress[0].ipVersion: want a whole number of at most 64 bits, got the number 4.5\n"},
		{head + `"spec": {"preDNAT": "true"}}`, "  spec.preDNAT: want true or false, got the string \"true\"\n"},
		{head + `"specs": {}}`, "  specs: unknown field; the fields here are apiVersion, kind, metadata, spec\n"},
	}
	for _, tt := range tests {
		r, err := Decode([]byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		got, want := strings.SplitAfter(lines(r.Problems), "\n"), strings.SplitAfter(tt.want, "\n")
		slices.Sort(got)
		slices.Sort(want)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: -want +got:\n%s", tt.text, d)
		}
	}
}

// FuzzDecode: nothing panics, a policy without problems holds what the object
// states, and one with problems never allows, passes or logs more than that.
func FuzzDecode(f *testing.F) {
	add := func(text string) {
		if raw, err := yaml.YAMLToJSON([]byte(text)); err == nil && len(raw) < 1<<12 {
			f.Add(raw)
		}
	}
	for _, m := range meanings {
		add(manifest(m.kind, m.spec))
	}
	for _, m := range closed {
		if m.kind != "" {
			add(manifest(m.kind, m.spec))
		}
	}
	add(`{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {nodeName: node1}, status: {podIPs: [{ip: 10.0.0.1}]}}`)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := Decode(raw)
		if err != nil {
			return
		}
		p := asPolicy(r)
		if p == nil {
			return
		}
		if !p.AppliesIngress && !p.AppliesEgress {
			t.Errorf("policy applies to no direction: %s", raw)
		}
		var stated calico.GlobalNetworkPolicy
		if p.Kind != policy.GlobalNetworkPolicy || json.Unmarshal(raw, &stated) != nil {
			return
		}
		checkNotWider(t, raw, r, p.Ingress, stated.Spec.Ingress)
		checkNotWider(t, raw, r, p.Egress, stated.Spec.Egress)
	})
}

func checkNotWider(t *testing.T, raw []byte, r Result, got []policy.Rule, stated []calico.Rule) {
	t.Helper()
	if len(r.Problems) == 0 && len(got) != len(stated) {
		t.Errorf("%d rules of %d without a problem: %s", len(got), len(stated), raw)
	}
	for _, rule := range got {
		if rule.Action == policy.Deny || len(r.Problems) > 0 && rule.Index >= len(stated) {
			continue
		}
		if rule.Index >= len(stated) || string(stated[rule.Index].Action) != rule.Action.String() {
			t.Errorf("rule %d is %s, which is not stated: %s", rule.Index, rule.Action, raw)
		}
	}
}
