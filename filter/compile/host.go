package compile

import (
	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// profileKind tells what a profile's name stands for.
type profileKind int

const (
	// unknownProfile denies. The profiles that are derived from namespaces and
	// service accounts (kns.*, ksa.*) are unknown to host endpoints: naming one
	// must not make a host look like a pod.
	unknownProfile profileKind = iota
	openProfile                // projectcalico-default-allow
	objectProfile
)

// profile looks a profile's name up.
func (c *compiler) profile(name string) profileKind {
	switch {
	case name == policy.DefaultAllowProfile:
		return openProfile
	case c.profiles[name] != nil:
		return objectProfile
	default:
		return unknownProfile
	}
}

// selectForHosts plans the programs of this node's host endpoints (spec section
// 5.4).
func (c *compiler) selectForHosts() {
	for i, h := range c.HostEndpoints {
		if c.hostedOn(h.Node) {
			labels := c.identities[c.hostIdentity[i]].labels
			out := filter.Host{Name: h.Name}
			out.Programs[filter.HostNormal] = c.hostNormal(h, c.selectHost(labels, normalPolicy))
			out.Programs[filter.HostForward] = c.hostForward(c.selectHost(labels, forwardPolicy))
			out.Programs[filter.HostUntracked] = c.hostEarly(c.untracked(h, labels))
			out.Programs[filter.HostPreDNAT] = c.hostEarly(c.preDNAT(labels))
			c.spec.Hosts = append(c.spec.Hosts, out)
			c.warnOfNamespaceSelectors(h, labels)
		}
	}
}

// warnOfNamespaceSelectors tells of policies that speak of namespaces and select
// a host all the same, which is what Calico does and few people mean (spec
// section 4.4).
func (c *compiler) warnOfNamespaceSelectors(h *policy.HostEndpoint, labels map[string]string) {
	for _, p := range c.policies {
		if p.NamespaceSelector != nil && selectsHost(p.Policy, labels) {
			c.problem(p.Key(), "spec.namespaceSelector", "it also holds for what has no namespace and selects host endpoint %s: write selector: all() beside it to select pods only", h.Name)
		}
	}
}

// applicable holds the policies of an endpoint by flow.Direction, as rising
// indexes of c.policies.
type applicable [2][]int32

func normalPolicy(p *policy.Policy) bool { return !p.DoNotTrack && !p.PreDNAT }

func forwardPolicy(p *policy.Policy) bool { return normalPolicy(p) && p.ApplyOnForward }

func (c *compiler) selectHost(labels map[string]string, counts func(*policy.Policy) bool) applicable {
	var out applicable
	for i, p := range c.policies {
		if !counts(p.Policy) || !selectsHost(p.Policy, labels) {
			continue
		}
		for _, dir := range directions {
			if p.Applies(dir) {
				out[dir] = append(out[dir], int32(i))
			}
		}
	}
	return out
}

// untracked gives the doNotTrack policies, which Calico does not offer on the
// host endpoint for every interface.
func (c *compiler) untracked(h *policy.HostEndpoint, labels map[string]string) applicable {
	if h.InterfaceName == "*" {
		return applicable{}
	}
	return c.selectHost(labels, func(p *policy.Policy) bool { return p.DoNotTrack })
}

func (c *compiler) preDNAT(labels map[string]string) applicable {
	out := c.selectHost(labels, func(p *policy.Policy) bool { return p.PreDNAT && !p.DoNotTrack })
	out[flow.Egress] = nil
	return out
}

// hostEarly plans the chains before the host's own: tiers have no end, and what
// nothing decided goes on.
func (c *compiler) hostEarly(list applicable) (programs [2]int) {
	for _, dir := range directions {
		programs[dir] = c.program(c.tierSegments(list[dir], dir, false), filter.FinalUndecided)
	}
	return programs
}

// hostForward plans the chain for forwarded traffic: open unless a policy
// applies in some direction.
func (c *compiler) hostForward(list applicable) (programs [2]int) {
	final := filter.FinalUndecided
	if len(list[0])+len(list[1]) == 0 {
		final = filter.FinalOpen
	}
	for _, dir := range directions {
		programs[dir] = c.program(c.tierSegments(list[dir], dir, true), final)
	}
	return programs
}

// hostNormal plans the chain for local processes: tiers, then the profiles in
// order, then deny.
func (c *compiler) hostNormal(h *policy.HostEndpoint, list applicable) (programs [2]int) {
	for _, dir := range directions {
		segments, final := c.tierSegments(list[dir], dir, true), filter.FinalDeny
	profiles:
		for _, name := range h.Profiles {
			switch c.profile(name) {
			case openProfile:
				final = filter.FinalAllow
				break profiles
			case objectProfile:
				segments = append(segments, c.profileSegment(c.profiles[name], dir))
			default: // behaves as deny-all at its place
				if dir == flow.Ingress { // once is enough
					c.problem(policy.Key{Kind: policy.HostEndpointKind, Name: h.Name}, "spec.profiles", "profile %q is not known: it denies", name)
				}
				break profiles
			}
		}
		programs[dir] = c.program(segments, final)
	}
	return programs
}

func (c *compiler) profileSegment(p *policy.Profile, dir flow.Direction) *plannedSegment {
	key := append([]byte{2, byte(dir)}, p.Name...)
	return c.segment(key, false, func() []ruleList {
		return []ruleList{{tier: -1, profile: p, dir: dir}}
	})
}
