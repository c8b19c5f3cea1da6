package compile

import (
	"slices"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
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
func (c *state) profile(name string) profileKind {
	switch {
	case name == policy.DefaultAllowProfile:
		return openProfile
	case c.profiles[name] != nil:
		return objectProfile
	default:
		return unknownProfile
	}
}

// hostPlan is a host endpoint of this node.
type hostPlan struct {
	*policy.HostEndpoint
	labels   selector.Map
	segments []*plannedSegment
}

// addHosts enters all host endpoints, hosted here or not.
func (c *Compiler) addHosts(hosts []*policy.HostEndpoint) {
	for _, h := range hosts {
		labels := c.hostLabels(h)
		id := c.intern(labels, h.Ports)
		id.objects++
		for _, a := range h.ExpectedIPs {
			c.addAddress(h, policy.Key{Kind: policy.HostEndpointKind, Name: h.Name}, "spec.expectedIPs", a, owner{of: h, atom: id.atom})
		}
		if c.hostedOn(h.Node) {
			c.hosts = append(c.hosts, &hostPlan{HostEndpoint: h, labels: labels})
			c.staleHosts = true
		}
	}
}

// planHosts plans the programs of this node's host endpoints (spec section 5.4),
// and ends uses of segments, its own and those of pods.
func (c *Compiler) planHosts() {
	if c.staleHosts && len(c.hosts) > 0 {
		c.hostNotes = nil
		global := c.globalPolicies()
		for _, h := range c.hosts {
			c.left = append(c.left, h.segments...)
			h.segments = nil
			of := func(counts func(*policy.Policy) bool) applicable { return selectForHost(global, h.labels, counts) }
			var programs [filter.HostChains][2]filter.Program
			programs[filter.HostNormal] = c.hostNormal(h, of(normalPolicy))
			programs[filter.HostForward] = c.hostForward(h, of(forwardPolicy))
			programs[filter.HostUntracked] = c.hostEarly(h, untracked(h, of))
			programs[filter.HostPreDNAT] = c.hostEarly(h, preDNAT(of))
			c.out.SetHost(h.Name, programs)
			c.warnOfNamespaceSelectors(h, global)
		}
	}
	c.staleHosts = false
	c.leaveSegments()
}

// globalPolicies gives the policies of no namespace, in order.
func (c *Compiler) globalPolicies() []*rankedPolicy {
	var out []*rankedPolicy
	for _, r := range c.policies {
		if r.Namespace == "" {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, (*rankedPolicy).before)
	return out
}

// warnOfNamespaceSelectors tells of policies that speak of namespaces and select
// a host all the same, which is what Calico does and few people mean (spec
// section 4.4).
func (c *Compiler) warnOfNamespaceSelectors(h *hostPlan, global []*rankedPolicy) {
	for _, p := range global {
		if p.NamespaceSelector != nil && p.selectsHost(h.labels) {
			c.hostNotes = append(c.hostNotes, problem(p.Key(), "spec.namespaceSelector", "it also holds for what has no namespace and selects host endpoint %s: write selector: all() beside it to select pods only", h.Name))
		}
	}
}

// applicable holds the policies of an endpoint by flow.Direction, in order.
type applicable [2][]*rankedPolicy

func normalPolicy(p *policy.Policy) bool { return !p.DoNotTrack && !p.PreDNAT }

func forwardPolicy(p *policy.Policy) bool { return normalPolicy(p) && p.ApplyOnForward }

func selectForHost(global []*rankedPolicy, labels selector.Map, counts func(*policy.Policy) bool) (out applicable) {
	for _, p := range global {
		if !counts(p.Policy) || !p.selectsHost(labels) {
			continue
		}
		for _, dir := range directions {
			if p.Applies(dir) {
				out[dir] = append(out[dir], p)
			}
		}
	}
	return out
}

// untracked gives the doNotTrack policies, which Calico does not offer on the
// host endpoint for every interface.
func untracked(h *hostPlan, of func(func(*policy.Policy) bool) applicable) applicable {
	if h.InterfaceName == "*" {
		return applicable{}
	}
	return of(func(p *policy.Policy) bool { return p.DoNotTrack })
}

func preDNAT(of func(func(*policy.Policy) bool) applicable) applicable {
	out := of(func(p *policy.Policy) bool { return p.PreDNAT && !p.DoNotTrack })
	out[flow.Egress] = nil
	return out
}

// hostProgram makes a program of segments that the host endpoint uses from now on.
func hostProgram(h *hostPlan, segments []*plannedSegment, final filter.Final) filter.Program {
	h.segments = append(h.segments, segments...)
	return programOf(segments, final)
}

// hostEarly plans the chains before the host's own: tiers have no end, and what
// nothing decided goes on.
func (c *Compiler) hostEarly(h *hostPlan, list applicable) (programs [2]filter.Program) {
	for _, dir := range directions {
		programs[dir] = hostProgram(h, c.tierSegments(list[dir], dir, false), filter.FinalUndecided)
	}
	return programs
}

// hostForward plans the chain for forwarded traffic: open unless a policy
// applies in some direction.
func (c *Compiler) hostForward(h *hostPlan, list applicable) (programs [2]filter.Program) {
	final := filter.FinalUndecided
	if len(list[0])+len(list[1]) == 0 {
		final = filter.FinalOpen
	}
	for _, dir := range directions {
		programs[dir] = hostProgram(h, c.tierSegments(list[dir], dir, true), final)
	}
	return programs
}

// hostNormal plans the chain for local processes: tiers, then the profiles in
// order, then deny.
func (c *Compiler) hostNormal(h *hostPlan, list applicable) (programs [2]filter.Program) {
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
					c.hostNotes = append(c.hostNotes, problem(policy.Key{Kind: policy.HostEndpointKind, Name: h.Name}, "spec.profiles", "profile %q is not known: it denies", name))
				}
				break profiles
			}
		}
		programs[dir] = hostProgram(h, segments, final)
	}
	return programs
}

func (c *Compiler) profileSegment(p *policy.Profile, dir flow.Direction) *plannedSegment {
	return c.segment(append([]byte{2, byte(dir)}, p.Name...), nil, dir, func(yield func(listKey, string) bool) {
		yield(listKey{profile: p, dir: dir}, "")
	})
}
