package compile

import (
	"encoding/binary"
	"iter"
	"maps"
	"slices"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// planner finds the policies of each hosted identity and host endpoint and shares
// segments between those to which the same policies apply.
type planner struct {
	tiers      map[string]*tier
	policies   map[*policy.Policy]*rankedPolicy
	lastNumber uint64
	// Policies by where to look for the endpoints they may apply to: the namespace,
	// or a label that the subject must have, or neither.
	policiesIn map[string]map[*rankedPolicy]bool
	labelled   map[label][]*rankedPolicy
	global     []*rankedPolicy

	hosted map[*identity]bool
	replan []*identity
	// changedPlans are of identities to which other rules apply since the last
	// commit, or for the first time.
	changedPlans []*identity
	segments     map[string]*plannedSegment
	lists        map[listKey]*ruleList
	left         []*plannedSegment // used once less
	freed        []*plannedSegment // to be taken from the Builder

	hosts      []*hostPlan
	staleHosts bool
	hostNotes  []policy.Problem
}

// endpointPlan is what a hosted identity is subject to.
type endpointPlan struct {
	applicable [2][]*rankedPolicy // by flow.Direction, in order
	segments   [2][]*plannedSegment
	programs   [2]filter.Program
	stale      bool
}

// plannedSegment is the rules of the policies of one tier that apply, or of one
// profile, in one direction.
type plannedSegment struct {
	key   string
	lists []*ruleList
	out   *filter.Segment
	end   *tier // nil if what no rule matched goes on
	dir   flow.Direction
	users int
}

// listKey names the rules of a policy or profile in one direction.
type listKey struct {
	policy  *policy.Policy
	profile *policy.Profile
	dir     flow.Direction
}

func newPlanner() planner {
	return planner{
		tiers:      make(map[string]*tier),
		policies:   make(map[*policy.Policy]*rankedPolicy),
		policiesIn: make(map[string]map[*rankedPolicy]bool),
		labelled:   make(map[label][]*rankedPolicy),
		hosted:     make(map[*identity]bool),
		segments:   make(map[string]*plannedSegment),
		lists:      make(map[listKey]*ruleList),
	}
}

// addPolicy ranks a policy that counts and finds the hosted identities it applies
// to.
func (c *Compiler) addPolicy(p *policy.Policy) {
	if c.policies[p] != nil {
		return
	}
	c.lastNumber++
	r := &rankedPolicy{Policy: p, tier: c.tiers[tierOf(p)], tie: tieKey(p), number: c.lastNumber, sel: subject(p)}
	c.policies[p] = r
	c.indexPolicy(r, func(list *[]*rankedPolicy) { *list = append(*list, r) })
	for id := range c.candidates(r) {
		if !r.selects(id) {
			continue
		}
		for _, dir := range directions {
			if p.Applies(dir) {
				list := &id.plan.applicable[dir]
				at, _ := slices.BinarySearchFunc(*list, r, (*rankedPolicy).before)
				*list = slices.Insert(*list, at, r)
			}
		}
		c.planAgain(id)
	}
	c.staleHosts = c.staleHosts || p.Namespace == ""
}

func (c *Compiler) removePolicy(p *policy.Policy) {
	r := c.policies[p]
	if r == nil {
		return
	}
	delete(c.policies, p)
	c.indexPolicy(r, func(list *[]*rankedPolicy) { *list = without(*list, r) })
	for id := range c.candidates(r) {
		for dir := range id.plan.applicable {
			list := &id.plan.applicable[dir]
			if at, found := slices.BinarySearchFunc(*list, r, (*rankedPolicy).before); found {
				*list = slices.Delete(*list, at, at+1)
				c.planAgain(id)
			}
		}
	}
	c.staleHosts = c.staleHosts || p.Namespace == ""
}

// indexPolicy adds a policy to the index it belongs in or takes it out; f does
// so for lists.
func (c *Compiler) indexPolicy(r *rankedPolicy, f func(*[]*rankedPolicy)) {
	if r.Namespace != "" {
		if c.policies[r.Policy] != nil {
			addTo(c.policiesIn, r.Namespace, r)
		} else {
			removeFrom(c.policiesIn, r.Namespace, r)
		}
		return
	}
	name, values, needs := r.sel.Needs()
	if !needs {
		f(&c.global)
		return
	}
	for _, v := range values {
		list := c.labelled[label{name, v}]
		if f(&list); len(list) > 0 {
			c.labelled[label{name, v}] = list
		} else {
			delete(c.labelled, label{name, v})
		}
	}
}

// candidates yields the hosted identities a policy may apply to.
func (c *Compiler) candidates(r *rankedPolicy) iter.Seq[*identity] {
	if r.Namespace == "" {
		return maps.Keys(c.hosted)
	}
	return func(yield func(*identity) bool) {
		for _, id := range c.identitiesIn[r.Namespace] {
			if id.plan != nil && !yield(id) {
				return
			}
		}
	}
}

// selects tells whether a policy applies to pods of an identity.
func (p *rankedPolicy) selects(id *identity) bool {
	return !p.DoNotTrack && !p.PreDNAT && p.sel.Matches(id)
}

// planFor begins to plan for an identity that is hosted now.
func (c *Compiler) planFor(id *identity) {
	id.plan = &endpointPlan{}
	c.hosted[id] = true
	ask := func(r *rankedPolicy) {
		if !r.selects(id) {
			return
		}
		for _, dir := range directions {
			if list := &id.plan.applicable[dir]; r.Applies(dir) && !slices.Contains(*list, r) {
				*list = append(*list, r)
			}
		}
	}
	for r := range c.policiesIn[id.namespace] {
		ask(r)
	}
	for _, l := range id.labels {
		for _, r := range c.labelled[l] {
			ask(r)
		}
	}
	for _, r := range c.global {
		ask(r)
	}
	for _, list := range id.plan.applicable {
		slices.SortFunc(list, (*rankedPolicy).before)
	}
	c.planAgain(id)
}

// dropPlan ends it.
func (c *Compiler) dropPlan(id *identity) {
	delete(c.hosted, id)
	c.left = append(c.left, slices.Concat(id.plan.segments[0], id.plan.segments[1])...)
	id.plan = nil
}

func (c *Compiler) planAgain(id *identity) {
	if !id.plan.stale {
		id.plan.stale = true
		c.replan = append(c.replan, id)
	}
}

// planEndpoints makes the programs of identities whose policies changed.
func (c *Compiler) planEndpoints() {
	for _, id := range c.replan {
		if id.plan == nil || !id.plan.stale {
			continue
		}
		id.plan.stale = false
		final := filter.FinalDeny
		if id.open {
			final = filter.FinalAllow
		}
		changed := false
		for _, dir := range directions {
			old := id.plan.segments[dir]
			c.left = append(c.left, old...)
			id.plan.segments[dir] = c.tierSegments(id.plan.applicable[dir], dir, true)
			id.plan.programs[dir] = programOf(id.plan.segments[dir], final)
			changed = changed || !slices.Equal(old, id.plan.segments[dir])
		}
		if changed {
			c.changedPlans = append(c.changedPlans, id)
		}
		for _, cl := range id.classes {
			c.change(cl)
		}
	}
	c.replan = c.replan[:0]
}

func programOf(segments []*plannedSegment, final filter.Final) filter.Program {
	out := filter.Program{Final: final}
	for _, seg := range segments {
		out.Segments = append(out.Segments, seg.out)
	}
	return out
}

// tierSegments gives the segments for the policies that apply to an endpoint in
// a direction, in order, each used once more. withEnd is false in the host chains
// in which tiers have no end.
func (c *Compiler) tierSegments(applicable []*rankedPolicy, dir flow.Direction, withEnd bool) []*plannedSegment {
	var out []*plannedSegment
	for len(applicable) > 0 {
		t, n := applicable[0].tier, 1
		for n < len(applicable) && applicable[n].tier == t {
			n++
		}
		of := applicable[:n]
		applicable = applicable[n:]
		key := []byte{0, byte(dir)}
		var end *tier
		if withEnd && !t.endPass {
			key[0], end = 1, t
		}
		for _, r := range of {
			key = binary.AppendUvarint(key, r.number)
		}
		out = append(out, c.segment(key, end, dir, func(yield func(listKey, string) bool) {
			for _, r := range of {
				if !yield(listKey{policy: r.Policy, dir: dir}, t.name) {
					return
				}
			}
		}))
	}
	return out
}

// useEnd gives the rule that stands for the end of a tier, used once more.
func (c *Compiler) useEnd(t *tier, dir flow.Direction) filter.RuleID {
	end := &t.ends[dir]
	if end.users++; end.users == 1 {
		end.id = c.out.AddRule(&filter.Rule{IPv4: true, IPv6: true, Info: filter.RuleInfo{
			Tier: t.name, Direction: dir, Index: -1, Action: filter.Deny,
		}})
	}
	return end.id
}

// segment gives the segment of some lists, with the names of their tiers, used
// once more. key tells lists apart.
func (c *Compiler) segment(key []byte, end *tier, dir flow.Direction, lists func(func(listKey, string) bool)) *plannedSegment {
	seg := c.segments[string(key)]
	if seg == nil {
		seg = &plannedSegment{key: string(key), out: &filter.Segment{}, end: end, dir: dir}
		if end != nil {
			seg.out.End = c.useEnd(end, dir)
		}
		for k, tier := range lists {
			l := c.list(k, tier)
			seg.lists = append(seg.lists, l)
			seg.out.Rules = append(seg.out.Rules, l.ids...)
		}
		c.segments[seg.key] = seg
	}
	seg.users++
	return seg
}

// leaveSegments takes the uses that ended from their segments, after those that
// began were added: what goes on being used is not made again.
func (c *Compiler) leaveSegments() {
	for _, seg := range c.left {
		if seg.users--; seg.users > 0 {
			continue
		}
		delete(c.segments, seg.key)
		for _, l := range seg.lists {
			c.dropList(l)
		}
		c.freed = append(c.freed, seg)
	}
	c.left = c.left[:0]
}

// dropUnused takes from the Builder what no class has any more.
func (c *Compiler) dropUnused() {
	for _, seg := range c.freed {
		c.out.RemoveSegment(seg.out)
		if seg.end != nil {
			end := &seg.end.ends[seg.dir]
			if end.users--; end.users == 0 {
				c.out.RemoveRule(end.id)
			}
		}
		for _, l := range seg.lists {
			if l.users == 0 {
				for _, id := range l.ids {
					c.out.RemoveRule(id)
				}
				l.ids = nil
			}
		}
	}
	c.freed = nil
}

// selectsHost tells whether a policy applies to a host endpoint's labels.
func (p *rankedPolicy) selectsHost(labels selector.Map) bool {
	return p.Namespace == "" && p.sel.Matches(labels)
}
