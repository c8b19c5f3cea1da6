package compile

import (
	"encoding/binary"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// ruleList is the rules of a policy or profile in one direction.
type ruleList struct {
	tier    int // index into tiers, -1 for a profile
	policy  *policy.Policy
	profile *policy.Profile
	dir     flow.Direction
}

func (l ruleList) rules() []policy.Rule {
	if l.profile == nil {
		return l.policy.Rules(l.dir)
	}
	if l.dir == flow.Egress {
		return l.profile.Egress
	}
	return l.profile.Ingress
}

// plannedSegment is a segment whose rules have no numbers yet.
type plannedSegment struct {
	number int
	lists  []ruleList // of one tier and direction, or one profile
	end    bool       // the tier has an end that denies
	out    *filter.Segment
}

// planner interns segments and programs, so that endpoints to which the same
// policies apply share them.
type planner struct {
	segments map[string]*plannedSegment
	order    []*plannedSegment // as they were made
	programs map[string]int
	plans    []plannedProgram // by index of spec.Programs
	needed   []ruleList       // the lists that some segment holds, each once
	seen     map[ruleList]bool
}

type plannedProgram struct {
	segments []*plannedSegment
	final    filter.Final
}

// newPlanner makes a planner with program 0, which denies.
func newPlanner() planner {
	p := planner{
		segments: make(map[string]*plannedSegment),
		programs: make(map[string]int),
		seen:     make(map[ruleList]bool),
	}
	p.program(nil, filter.FinalDeny)
	return p
}

func (p *planner) program(segments []*plannedSegment, final filter.Final) int {
	key := []byte{byte(final)}
	for _, seg := range segments {
		key = binary.AppendUvarint(key, uint64(seg.number))
	}
	n, known := p.programs[string(key)]
	if !known {
		n = len(p.plans)
		p.programs[string(key)] = n
		p.plans = append(p.plans, plannedProgram{segments, final})
	}
	return n
}

// segment gives the segment of some lists. key must tell the lists apart.
func (p *planner) segment(key []byte, end bool, lists func() []ruleList) *plannedSegment {
	if seg := p.segments[string(key)]; seg != nil {
		return seg
	}
	seg := &plannedSegment{number: len(p.order), lists: lists(), end: end}
	for _, l := range seg.lists {
		if !p.seen[l] {
			p.seen[l] = true
			p.needed = append(p.needed, l)
		}
	}
	p.segments[string(key)] = seg
	p.order = append(p.order, seg)
	return seg
}

// tierSegments gives the segments for the policies that apply to an endpoint in
// a direction, given by rising index of c.policies. withEnd is false in the host
// chains in which tiers have no end.
func (c *compiler) tierSegments(applicable []int32, dir flow.Direction, withEnd bool) []*plannedSegment {
	var out []*plannedSegment
	for len(applicable) > 0 {
		t := c.policies[applicable[0]].tier
		n := 1
		for n < len(applicable) && c.policies[applicable[n]].tier == t {
			n++
		}
		of := applicable[:n]
		applicable = applicable[n:]
		end := withEnd && !c.tiers[t].endPass
		key := []byte{0, byte(dir)}
		if end {
			key[0] = 1
		}
		for _, i := range of {
			key = binary.AppendUvarint(key, uint64(i))
		}
		out = append(out, c.segment(key, end, func() []ruleList {
			lists := make([]ruleList, len(of))
			for i, n := range of {
				lists[i] = ruleList{tier: t, policy: c.policies[n].Policy, dir: dir}
			}
			return lists
		}))
	}
	return out
}

// selectForPods finds the policies of each hosted identity and plans its
// programs.
func (c *compiler) selectForPods() {
	c.planner = newPlanner()
	var hosted []int
	for id := range c.identities {
		if c.identities[id].hosted {
			hosted = append(hosted, id)
		}
	}
	applicable := make([][2][]int32, len(c.identities))
	cache := make(map[string][]int)
	for i, p := range c.policies {
		if p.DoNotTrack || p.PreDNAT {
			continue
		}
		for _, id := range c.selectPods(p.Policy, hosted, cache) {
			for _, dir := range directions {
				if p.Applies(dir) {
					applicable[id][dir] = append(applicable[id][dir], int32(i))
				}
			}
		}
	}
	for _, id := range hosted {
		final := filter.FinalDeny
		if c.identities[id].open {
			final = filter.FinalAllow
		}
		for _, dir := range directions {
			c.identities[id].programs[dir] = c.program(c.tierSegments(applicable[id][dir], dir, true), final)
		}
		applicable[id] = [2][]int32{}
	}
}

// selectPods gives the hosted identities a policy applies to. The cache holds
// the answers for global policies, many of which share a selector.
func (c *compiler) selectPods(p *policy.Policy, hosted []int, cache map[string][]int) []int {
	sel := subject(p)
	if p.Namespace != "" {
		return c.filter(c.byNamespace[p.Namespace], func(id *identity) bool {
			return id.hosted && sel.Matches(id.labels)
		})
	}
	if sel == nil {
		return hosted
	}
	key := sel.String()
	out, known := cache[key]
	if !known {
		out = c.filter(hosted, func(id *identity) bool { return sel.Matches(id.labels) })
		cache[key] = out
	}
	return out
}

func (c *compiler) filter(ids []int, keep func(*identity) bool) []int {
	var out []int
	for _, id := range ids {
		if keep(&c.identities[id]) {
			out = append(out, id)
		}
	}
	return out
}

// selectsHost tells whether a policy applies to a host endpoint's labels.
func selectsHost(p *policy.Policy, labels selector.Map) bool {
	return p.Namespace == "" && subject(p).Matches(labels)
}
