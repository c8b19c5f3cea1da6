package explain

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/policy"
)

// forged are labels that would impersonate another identity if they counted.
var forged = map[string]string{
	"own": "1", "pcns.env": "prod", "pcsa.role": "intern", "projectcalico.org/namespace": "prod",
	"projectcalico.org/orchestrator": "x", "projectcalico.org/serviceaccount": "api-service",
}

// TestLabels checks the derived labels of section 3, forgery included.
func TestLabels(t *testing.T) {
	t.Parallel()
	s := worldWith()
	s.Namespaces = append(s.Namespaces, &policy.Namespace{Name: "liar", Labels: map[string]string{"projectcalico.org/name": "prod"}})
	s.Endpoints = []*policy.Endpoint{
		pod("staging", "evil", "ghost", forged, "10.0.0.1"),
		pod("liar", "static", "", forged, "10.0.0.2"),
		pod("gone", "orphan", "api-service", nil, "10.0.0.3"),
		pod("prod", "plain", "web-sa", nil, "10.0.0.4"),
	}
	s.NetworkSets = []*policy.NetworkSet{
		{Kind: policy.NetworkSetKind, Namespace: "staging", Name: "n", Labels: forged, Nets: prefixes("10.1.0.0/16")},
		{Kind: policy.GlobalNetworkSet, Name: "g", Labels: forged, Nets: prefixes("10.2.0.0/16")},
	}
	s.Profiles = []*policy.Profile{
		{Name: "first", LabelsToApply: map[string]string{"a": "first", "own": "profile", "pcns.env": "prod"}},
		{Name: "second", LabelsToApply: map[string]string{"a": "second", "b": "second"}},
	}
	s.HostEndpoints = []*policy.HostEndpoint{{Name: "h", Labels: forged, Profiles: []string{"unknown", "first", "second"}, ExpectedIPs: parseAddrs("10.0.0.5")}}
	e := New(s, Options{})
	tests := []struct {
		addr string
		want map[string]string
	}{
		{"10.0.0.1", map[string]string{
			"own": "1", "projectcalico.org/namespace": "staging", "projectcalico.org/orchestrator": "k8s",
			"projectcalico.org/serviceaccount": "ghost", "pcns.env": "staging", "pcns.projectcalico.org/name": "staging",
		}},
		{"10.0.0.2", map[string]string{
			"own": "1", "projectcalico.org/namespace": "liar", "projectcalico.org/orchestrator": "k8s", "pcns.projectcalico.org/name": "liar",
		}},
		{"10.0.0.3", map[string]string{
			"projectcalico.org/namespace": "gone", "projectcalico.org/orchestrator": "k8s", "projectcalico.org/serviceaccount": "api-service",
		}},
		{"10.0.0.4", map[string]string{
			"projectcalico.org/namespace": "prod", "projectcalico.org/orchestrator": "k8s", "projectcalico.org/serviceaccount": "web-sa",
			"pcns.env": "prod", "pcns.projectcalico.org/name": "prod", "pcsa.app": "web", "pcsa.projectcalico.org/name": "web-sa",
		}},
		{"10.1.0.1", map[string]string{
			"own": "1", "projectcalico.org/namespace": "staging", "pcns.env": "staging", "pcns.projectcalico.org/name": "staging",
		}},
		{"10.2.0.1", map[string]string{"own": "1"}},
		{"10.0.0.5", map[string]string{"own": "1", "a": "first", "b": "second"}},
	}
	for _, tt := range tests {
		p := e.place(parseAddrs(tt.addr)[0])
		if len(p.objects) != 1 {
			t.Errorf("%s: %d objects, want 1", tt.addr, len(p.objects))
			continue
		}
		if diff := cmp.Diff(tt.want, p.objects[0].labels); diff != "" {
			t.Errorf("%s: labels (-want +got):\n%s", tt.addr, diff)
		}
	}
}

// TestPlaceOrder: what covers an address is found in every prefix, pods first,
// then host endpoints, then sets from the narrowest prefix to the widest.
func TestPlaceOrder(t *testing.T) {
	t.Parallel()
	s := worldWith()
	s.HostEndpoints = []*policy.HostEndpoint{{Name: "h", ExpectedIPs: parseAddrs("10.0.1.1", "fd00:1::1")}}
	s.NetworkSets = []*policy.NetworkSet{
		{Kind: policy.GlobalNetworkSet, Name: "any", Nets: prefixes("0.0.0.0/0", "::/0")},
		{Kind: policy.GlobalNetworkSet, Name: "one", Nets: prefixes("10.0.1.1/32", "fd00:1::/64")},
		{Kind: policy.GlobalNetworkSet, Name: "away", Nets: prefixes("10.9.0.0/16", "fd01::/16")},
	}
	e := New(s, Options{})
	for _, addr := range []string{"10.0.1.1", "fd00:1::1"} {
		var got []string
		for _, o := range e.place(parseAddrs(addr)[0]).objects {
			got = append(got, o.String())
		}
		if diff := cmp.Diff([]string{"prod/db", "h", "one", "any"}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", addr, diff)
		}
	}
}
