package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"

	"github.com/postern-project/postern/bench/gen"
	"github.com/postern-project/postern/bench/measure"
	"github.com/postern-project/postern/bench/rival"
	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// Each event is timed in batches, whose snapshots are made beforehand: reading the
// clock of a thread takes longer than some of them.
const (
	changeRounds = 15
	batch        = 16
)

// changes measures what one event costs in the largest cluster: from a snapshot in
// which one object differs to the new ruleset in force.
func changes(r *report) error {
	w := gen.Cluster(buildRules, false)
	c := &changing{
		Rand: rand.New(rand.NewPCG(5, 5)), compiler: compile.New(compile.Options{Node: gen.LocalNode}), engine: new(filter.Engine),
		snapshot: w.Snapshot, relevant: relevantPolicies(w.Snapshot),
	}
	c.apply(c.snapshot)
	c.prepareKnown()
	for _, e := range []struct {
		name   string
		change func() *policy.Snapshot
		unit   float64 // in nanoseconds
		target target
	}{
		{"none-us", c.nothing, 1e3, none},
		{"relabel-known-ns", c.relabelKnown, 1, atMost(100)},
		{"relabel-new-us", c.relabelNew, 1e3, atMost(5)},
		{"policy-ms", c.editPolicy, 1e6, atMost(1)},
	} {
		var spent []float64
		for range changeRounds {
			var next []*policy.Snapshot
			for range batch {
				next = append(next, e.change())
			}
			spent = append(spent, c.time(next))
			if c.failed != nil {
				return fmt.Errorf("%s: %w", e.name, c.failed)
			}
		}
		r.add("change/"+e.name, measure.Median(spent)/e.unit, e.target)
	}
	return c.compare(w.Flows)
}

// changing is a cluster in which objects change one by one.
type changing struct {
	*rand.Rand
	compiler *compile.Compiler
	engine   *filter.Engine
	snapshot *policy.Snapshot // the last one
	relevant []int            // policies, by index
	failed   error
}

func (c *changing) apply(s *policy.Snapshot) {
	rs, problems := c.compiler.Apply(s)
	if rs == nil || len(problems) > 0 {
		c.failed = fmt.Errorf("compile: %v", problems)
	}
	c.engine.Swap(rs)
}

// time gives nanoseconds of processor time per snapshot.
func (c *changing) time(snapshots []*policy.Snapshot) float64 {
	runtime.GC() // of making them
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := measure.ThreadTime()
	for _, s := range snapshots {
		c.apply(s)
	}
	return float64(measure.ThreadTime()-start) / float64(len(snapshots))
}

// next gives a copy of the last snapshot, which it becomes.
func (c *changing) next() *policy.Snapshot {
	s := *c.snapshot
	s.Generation++
	c.snapshot = &s
	return c.snapshot
}

// nothing gives the same objects in a new list of pods, so that all have to be
// compared: what a change of one pod costs before there is one.
func (c *changing) nothing() *policy.Snapshot {
	s := c.next()
	s.Endpoints = slices.Clone(s.Endpoints)
	return s
}

// relabel gives a pod a version, or takes it away if version is empty.
func (c *changing) relabel(i int, version string) *policy.Snapshot {
	s := c.next()
	pod := *s.Endpoints[i]
	pod.Labels = maps.Clone(pod.Labels)
	delete(pod.Labels, "version")
	if version != "" {
		pod.Labels["version"] = version
	}
	s.Endpoints = slices.Clone(s.Endpoints)
	s.Endpoints[i] = &pod
	return s
}

// knownSets are the workloads in which the first pod keeps a version and the last
// one has none, so that both label sets stay known while the others change.
const knownSets = 20

func (c *changing) prepareKnown() {
	for k := range knownSets {
		c.apply(c.relabel(workloadPod(k, 0), "known"))
	}
}

func (c *changing) relabelKnown() *policy.Snapshot {
	i := workloadPod(c.IntN(knownSets), 1+c.IntN(gen.PodsPerWorkload-2))
	version := "known"
	if c.snapshot.Endpoints[i].Labels["version"] != "" {
		version = ""
	}
	return c.relabel(i, version)
}

// workloadPod gives the index of a pod of one of some workloads spread over the
// cluster.
func workloadPod(k, pod int) int {
	return k*(gen.Namespaces*gen.Workloads/knownSets)*gen.PodsPerWorkload + pod
}

func (c *changing) relabelNew() *policy.Snapshot {
	return c.relabel(c.IntN(len(c.snapshot.Endpoints)), fmt.Sprint("new-", c.snapshot.Generation))
}

// editPolicy changes a policy that selects a local pod: another port in one rule,
// or one more rule with a prefix.
func (c *changing) editPolicy() *policy.Snapshot {
	s := c.next()
	i := c.relevant[c.IntN(len(c.relevant))]
	p := *s.Policies[i]
	p.Ingress = slices.Clone(p.Ingress)
	if k := c.IntN(len(p.Ingress) + 1); k < len(p.Ingress) {
		port := uint16(1 + c.IntN(60_000))
		p.Ingress[k].Destination.Ports = []policy.Port{{PortRange: flow.PortRange{Min: port, Max: port}}}
	} else {
		net := netip.PrefixFrom(gen.Addr4(0x60000000|c.Uint32N(1<<29)), 24).Masked()
		p.Ingress = append(p.Ingress, policy.Rule{Index: k, Action: policy.Allow, Source: policy.EntityRule{Nets: []netip.Prefix{net}}})
	}
	s.Policies = slices.Clone(s.Policies)
	s.Policies[i] = &p
	return s
}

// relevantPolicies gives the policies with ingress rules that select a local pod.
func relevantPolicies(s *policy.Snapshot) (out []int) {
	var local []*policy.Endpoint
	for _, ep := range s.Endpoints {
		if ep.Node == gen.LocalNode {
			local = append(local, ep)
		}
	}
	for i, p := range s.Policies {
		if len(p.Ingress) > 0 && slices.ContainsFunc(local, func(ep *policy.Endpoint) bool {
			return ep.Namespace == p.Namespace && p.Selector.Matches(selector.Map(ep.Labels))
		}) {
			out = append(out, i)
		}
	}
	return out
}

// compare holds the ruleset that came of all changes against one compiled from
// nothing and against the linear walk.
func (c *changing) compare(flows []gen.Flow) error {
	fresh, err := compileWorld(c.snapshot)
	if err != nil {
		return err
	}
	linear, err := rival.NewLinear(c.snapshot, gen.LocalNode, rival.Tight)
	if err != nil {
		return err
	}
	names := rival.RuleNames(c.snapshot)
	for _, f := range flows {
		t := f.Tuple()
		v := linear.Decide(&t)
		for name, rs := range map[string]*filter.Ruleset{"changed": c.engine.Ruleset(), "fresh": fresh} {
			if err := rival.Differ(rs, rs.Decide(t), v, names); err != nil {
				return fmt.Errorf("%s ruleset: %s: the linear walk %w", name, t, err)
			}
		}
	}
	return nil
}
