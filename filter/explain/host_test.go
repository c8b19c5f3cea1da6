package explain

import (
	"testing"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// TestHostChains is the table of section 5.4, chain by chain.
func TestHostChains(t *testing.T) {
	t.Parallel()
	hostPolicy := func(flag string, order float64, rules ...policy.Rule) *policy.Policy {
		p := gnp("h-"+flag, order, rules...)
		p.Selector = sel("has(host)")
		p.ApplyOnForward = flag != ""
		p.PreDNAT, p.DoNotTrack = flag == "pre", flag == "untracked"
		return p
	}
	allow80 := policy.Rule{Action: policy.Allow, Destination: policy.EntityRule{Ports: []policy.Port{ports(80, 80)}}}
	pass, deny := only(policy.Pass), only(policy.Deny)
	egressOnly := hostPolicy("forward", 1)
	egressOnly.AppliesIngress, egressOnly.AppliesEgress = false, true

	const in, out = flow.Ingress, flow.Egress
	tests := []struct {
		name     string
		host     string
		policies []*policy.Policy
		chain    HostChain
		dir      flow.Direction
		port     uint16
		verdict  Verdict
		reason   Reason
	}{
		{"normal: nothing applies, no profile", "closed", nil, HostNormal, in, 80, Deny, NoProfile},
		{"normal: default-allow profile", "open", nil, HostNormal, in, 80, Allow, ByProfile},
		{"normal: unknown profile denies at its place", "unknown", nil, HostNormal, in, 80, Deny, NoProfile},
		{"normal: Pass in a profile denies", "passing", nil, HostNormal, in, 80, Deny, ByProfile},
		{"normal: profiles in order, Log goes on", "passing", nil, HostNormal, out, 80, Allow, ByProfile},
		{"normal: policy allows", "open", []*policy.Policy{hostPolicy("", 1, allow80)}, HostNormal, in, 80, Allow, ByRule},
		{"normal: end of tier", "open", []*policy.Policy{hostPolicy("", 1, allow80)}, HostNormal, in, 81, Deny, EndOfTier},
		{"normal: other direction stays with the profile", "open", []*policy.Policy{hostPolicy("", 1, allow80)}, HostNormal, out, 81, Allow, ByProfile},
		{"normal: applyOnForward counts too", "open", []*policy.Policy{hostPolicy("forward", 1, deny)}, HostNormal, in, 80, Deny, ByRule},
		{"normal: untracked and pre-DNAT do not", "open", []*policy.Policy{hostPolicy("untracked", 1, deny), hostPolicy("pre", 1, deny)}, HostNormal, in, 80, Allow, ByProfile},

		{"forward: nothing applies", "closed", []*policy.Policy{hostPolicy("", 1, deny)}, HostForward, in, 80, Allow, NoPolicy},
		{"forward: policy decides", "closed", []*policy.Policy{hostPolicy("forward", 1, allow80)}, HostForward, in, 80, Allow, ByRule},
		{"forward: end of tier", "closed", []*policy.Policy{hostPolicy("forward", 1, allow80)}, HostForward, in, 81, Deny, EndOfTier},
		{"forward: other direction only", "closed", []*policy.Policy{egressOnly}, HostForward, in, 80, None, NoPolicy},
		{"forward: after Pass", "open", []*policy.Policy{hostPolicy("forward", 1, pass)}, HostForward, in, 80, None, NoMatch},

		{"pre-DNAT: decides", "closed", []*policy.Policy{hostPolicy("pre", 1, deny)}, HostPreDNAT, in, 80, Deny, ByRule},
		{"pre-DNAT: no end of tier", "closed", []*policy.Policy{hostPolicy("pre", 1, allow80)}, HostPreDNAT, in, 81, None, NoMatch},
		{"pre-DNAT: nothing applies", "closed", []*policy.Policy{hostPolicy("", 1, deny)}, HostPreDNAT, in, 80, None, NoPolicy},
		{"pre-DNAT: no egress", "closed", []*policy.Policy{hostPolicy("pre", 1, deny)}, HostPreDNAT, out, 80, None, NoPolicy},
		{"untracked: decides", "closed", []*policy.Policy{hostPolicy("untracked", 1, allow80)}, HostUntracked, in, 80, Allow, ByRule},
		{"untracked: no end of tier", "closed", []*policy.Policy{hostPolicy("untracked", 1, allow80)}, HostUntracked, in, 81, None, NoMatch},
		{"untracked: not on a * host endpoint", "star", []*policy.Policy{hostPolicy("untracked", 1, deny)}, HostUntracked, in, 80, None, NoPolicy},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := worldWith(tt.policies...)
			host := map[string]string{"host": "y"}
			s.HostEndpoints = []*policy.HostEndpoint{
				{Name: "closed", Labels: host, InterfaceName: "eth0"},
				{Name: "open", Labels: host, InterfaceName: "eth0", Profiles: []string{policy.DefaultAllowProfile}},
				{Name: "passing", Labels: host, InterfaceName: "eth0", Profiles: []string{"pass-in", policy.DefaultAllowProfile}},
				{Name: "star", Labels: host, InterfaceName: "*"},
				{Name: "unknown", Labels: host, InterfaceName: "eth0", Profiles: []string{"missing", policy.DefaultAllowProfile}},
			}
			s.Profiles = []*policy.Profile{{Name: "pass-in", Ingress: []policy.Rule{pass}, Egress: []policy.Rule{only(policy.Log)}}}
			got, err := New(s, Options{}).EvaluateHost(tt.host, tt.chain, tt.dir, tcp("ext", "vpn", tt.port))
			if err != nil {
				t.Fatal(err)
			}
			if got.Verdict != tt.verdict || got.Reason != tt.reason {
				t.Errorf("got %s, %s, want %s, %s", got.Verdict, got.Reason, tt.verdict, tt.reason)
			}
		})
	}
}

func TestHostErrors(t *testing.T) {
	t.Parallel()
	s := worldWith()
	s.HostEndpoints = []*policy.HostEndpoint{{Name: "h", Profiles: []string{policy.DefaultAllowProfile}}}
	e := New(s, Options{})
	if _, err := e.EvaluateHost("missing", HostNormal, flow.Ingress, tcp("ext", "vpn", 1)); err == nil {
		t.Error("no error for a host endpoint that does not exist")
	}
	if _, err := e.EvaluateHost("h", HostPreDNAT+1, flow.Ingress, tcp("ext", "vpn", 1)); err == nil {
		t.Error("no error for a chain that does not exist")
	}
	if got, err := e.EvaluateHost("h", HostNormal, flow.Ingress, flow.Tuple{}); err != nil || got.Verdict != Deny || got.Reason != InvalidTuple {
		t.Errorf("zero tuple: %s, %s, %v", got.Verdict, got.Reason, err)
	}
}
