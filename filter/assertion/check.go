package assertion

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// SourcePort is the source port of every flow that has one.
const SourcePort = 40000

// maxResults bounds what one entry under allow or deny may stand for: some 500
// pods reaching each other on one port.
const maxResults = 1 << 18

// Check judges every flow of the sets on a snapshot, in their order. Policy is
// judged as a whole, as by the nodes of both ends together. The snapshot is only
// read; nil is an empty one. It is a pure function.
func Check(s *policy.Snapshot, sets ...Set) []Result {
	if s == nil {
		s = &policy.Snapshot{}
	}
	j := newJudge(s)
	c := &checker{judge: j, space: newSpace(s, j.evaluator)}
	for _, set := range sets {
		for _, a := range set.Assertions {
			for _, f := range a.Flows {
				c.at = Result{Path: set.Path, Set: set.Name, Assertion: a.Name, Line: f.Line, Want: f.Want}
				c.flow(f)
			}
		}
	}
	return c.results
}

// checker is the state of one Check.
type checker struct {
	*judge
	*space
	at      Result // what all results of the flow have in common
	results []Result
}

func (c *checker) flow(f Flow) {
	for _, from := range f.From {
		for _, to := range f.To {
			c.between(f, from, to)
		}
	}
}

// between checks one end against another. It gives one result at least.
func (c *checker) between(f Flow, from, to End) {
	froms, err := c.sites(from)
	if err != nil {
		c.unchecked(f, from, to, err.Error())
		return
	}
	tos, err := c.sites(to)
	switch {
	case err != nil:
		c.unchecked(f, from, to, err.Error())
		return
	case len(froms)*len(tos)*len(f.Ports)*2 > maxResults:
		c.unchecked(f, from, to, fmt.Sprintf("stands for %d pairs of pods and %d ports; select fewer at a time", len(froms)*len(tos), len(f.Ports)))
		return
	}
	pairs := 0
	for _, src := range froms {
		for _, dst := range tos {
			// What a pod says to itself does not leave it. Who names the pod at
			// both ends means it all the same.
			if src.pod != nil && src.pod == dst.pod && (from.Selection != nil || to.Selection != nil) {
				continue
			}
			pairs++
			for _, port := range f.Ports {
				c.pair(f.Family, src, dst, port)
			}
		}
	}
	switch {
	case pairs > 0:
	case len(froms) > 0 && len(tos) == 0:
		c.nobody(f, from, to, to)
	default:
		c.nobody(f, from, to, from)
	}
}

// nobody is the result where a selection leaves no flow to judge.
func (c *checker) nobody(f Flow, from, to, who End) {
	why := who.String() + " matches no pod"
	if n, _ := c.sites(who); len(n) > 0 {
		why = fmt.Sprintf("both ends match the pod %s and no other", n[0].name)
	}
	orNone := func(e End) bool { return e.Selection != nil && e.Selection.OrNone }
	if orNone(who) || orNone(from) && orNone(to) {
		r := c.at
		r.From, r.To, r.Port, r.Status = from.String(), to.String(), portsText(f.Ports), Holds
		r.Why = why + ", as orNone allows"
		c.results = append(c.results, r)
		return
	}
	c.unchecked(f, from, to, why)
}

func (c *checker) unchecked(f Flow, from, to End, why string) {
	r := c.at
	r.From, r.To, r.Port, r.Status, r.Why = from.String(), to.String(), portsText(f.Ports), Unchecked, why
	c.results = append(c.results, r)
}

// pair checks one port between two sites in each family that is possible.
func (c *checker) pair(family int, src, dst site, port Port) {
	r := c.at
	r.From, r.To, r.Port = src.name, dst.name, port.String()
	met := false
	for _, want := range []int{4, 6} {
		if family != 0 && family != want || port.Family() != 0 && port.Family() != want {
			continue
		}
		froms, tos := c.addrs(src, want == 6), c.addrs(dst, want == 6)
		if len(froms) == 0 || len(tos) == 0 {
			continue
		}
		r.Family = want
		c.results = append(c.results, c.addresses(r, froms, tos, port))
		met = true
	}
	if met {
		return
	}
	r.Status, r.Why = Unchecked, "no address family that both ends have"
	if family == 0 {
		family = port.Family()
	}
	if family != 0 {
		r.Why = fmt.Sprintf("not both ends have an IPv%d address", family)
	}
	c.results = append(c.results, r)
}

// addresses checks a port between all addresses of two sites, which are several
// for prefixes. The first one that does not hold is the result.
func (c *checker) addresses(r Result, froms, tos []netip.Addr, port Port) Result {
	best := r
	for _, src := range froms {
		for _, dst := range tos {
			if src == dst && len(froms)+len(tos) > 2 {
				continue // within a prefix
			}
			one := c.one(r, port.Tuple(src, dst, SourcePort))
			if one.Status != Holds {
				return one
			}
			if best.Status != Holds {
				best = one
			}
		}
	}
	if n := len(froms) * len(tos); best.Status == Holds && n > 1 {
		best.Why += fmt.Sprintf(" (and so for every address: %d tell them all apart)", n)
	}
	return best
}

// one judges one flow.
func (c *checker) one(r Result, t flow.Tuple) Result {
	ev, err := c.decide(t)
	tuple := explain.Tuple(t)
	r.Tuple, r.Got = &tuple, &ev.Verdict
	switch {
	case err != nil:
		r.Status, r.Why = Bug, err.Error()
	case ev.Reason == explain.NoLocalEndpoint:
		r.Status, r.Why = Unchecked, fmt.Sprintf("neither %s nor %s is a pod, so nobody decides the flow", t.Src, t.Dst)
	case ev.Verdict == r.Want:
		r.Status, r.Why = Holds, brief(ev)
	default:
		r.Status = Broken
		r.Why, r.NearestMiss = c.reason(t)
	}
	return r
}

// brief names what decided, without a trace.
func brief(ev explain.Evaluation) string {
	if ev.Rule != nil {
		return ev.Rule.String()
	}
	return strings.TrimSpace(ev.Side + " " + string(ev.Reason))
}

func portsText(ports []Port) string {
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = p.String()
	}
	return strings.Join(texts, ", ")
}
