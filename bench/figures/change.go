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
	"github.com/postern-project/postern/bench/report"
	"github.com/postern-project/postern/bench/rival"
	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// Events are timed in batches, whose snapshots are made beforehand: reading the
// clock of a thread takes longer than some of them.
const (
	changeRounds = 15
	batch        = 16
	// rollout is how many pods change at once where a ruleset is made for many: what
	// making one costs is not work on a pod. The daemon waits for 4 ms to gather them.
	rollout = 256
)

// changes measures what one event costs in the cluster that builds compiles, up to the new
// ruleset in force: for a caller that tells what changed, which the targets are
// for, and for one that only has snapshots, so that they have to be compared.
func changes(r *report.Report) error {
	w := gen.Cluster(buildRules, false)
	c := &changing{
		Rand: rand.New(rand.NewPCG(5, 5)), engine: new(filter.Engine),
		snapshot: w.Snapshot, relevant: relevantPolicies(w.Snapshot), labels: make(map[string]map[string]string),
	}
	for _, pod := range w.Snapshot.Endpoints {
		pod.Labels = c.shared(pod.Labels)
	}
	c.compiler = compile.New(compile.Options{Node: gen.LocalNode, Changes: c.changes})
	c.compare(event{snapshot: w.Snapshot})
	c.prepareKnown()
	for _, by := range []struct {
		name                  string
		take                  func(event)
		known, unknown, edits report.Target
	}{
		{"change", c.told, report.AtMost(100), report.AtMost(5), report.AtMost(1)},
		{"change-by-snapshot", c.compare, report.None, report.None, report.None},
	} {
		c.compare(event{snapshot: c.snapshot}) // begins anew after changes that were told
		for _, e := range []struct {
			name    string
			change  func(*policy.Snapshot, int) policy.Change
			draw    func() int // of what changes
			changed int        // at once
			unit    float64    // in nanoseconds
			target  report.Target
		}{
			{"relabel-known-ns", c.relabelKnown, c.knownPod, rollout, 1, by.known},
			{"relabel-known-alone-ns", c.relabelKnown, c.knownPod, 1, 1, report.None},
			{"relabel-new-us", c.relabelNew, c.anyPod, 1, 1e3, by.unknown},
			{"policy-ms", c.editPolicy, c.anyRelevant, 1, 1e6, by.edits},
		} {
			var spent []float64
			for range changeRounds {
				var warm, timed []event
				var picks [][]int // of each event, objects that are not the same
				for range batch {
					picks = append(picks, distinct(e.changed, e.draw))
				}
				for _, p := range picks {
					warm = append(warm, c.together(p, e.change))
				}
				for _, p := range picks {
					timed = append(timed, c.together(p, e.change))
				}
				spent = append(spent, c.time(warm, timed, by.take)/float64(e.changed))
			}
			r.Add(by.name+"/"+e.name, measure.Median(spent)/e.unit, e.target)
		}
		if err := c.check(w.Flows); err != nil {
			return fmt.Errorf("%s: %w", by.name, err)
		}
	}
	return nil
}

// event is what changes at once, and the state after it.
type event struct {
	changes  []policy.Change
	snapshot *policy.Snapshot
}

// together makes one event of the changes of several objects, in a copy of the last
// snapshot, which becomes the last one.
func (c *changing) together(objects []int, change func(*policy.Snapshot, int) policy.Change) event {
	s := *c.snapshot
	s.Generation++
	s.Endpoints, s.Policies = slices.Clone(s.Endpoints), slices.Clone(s.Policies)
	c.snapshot = &s
	e := event{snapshot: &s}
	for _, i := range objects {
		e.changes = append(e.changes, change(&s, i))
	}
	return e
}

// distinct draws n different numbers.
func distinct(n int, draw func() int) (out []int) {
	for len(out) < n {
		if i := draw(); !slices.Contains(out, i) {
			out = append(out, i)
		}
	}
	return out
}

// changing is a cluster in which objects change one by one.
type changing struct {
	*rand.Rand
	compiler *compile.Compiler
	engine   *filter.Engine
	snapshot *policy.Snapshot             // the last one
	relevant []int                        // policies, by index
	list     []policy.Change              // what the compiler is told; empty if it must compare
	labels   map[string]map[string]string // by their text, each once
	failed   error
}

// told hands over the change, compare the snapshot.
func (c *changing) told(e event) {
	c.list = e.changes
	c.publish(c.compiler.Apply(e.snapshot))
}

func (c *changing) compare(e event) {
	c.list = nil
	c.publish(c.compiler.Apply(e.snapshot))
}

// changes are the compiler's Options.Changes.
func (c *changing) changes(_, _ *policy.Snapshot) ([]policy.Change, bool) {
	return c.list, len(c.list) > 0
}

func (c *changing) publish(rs *filter.Ruleset, problems []policy.Problem) {
	if rs == nil || len(problems) > 0 {
		c.failed = fmt.Errorf("compile: %v", problems)
	}
	c.engine.Swap(rs)
}

// time gives nanoseconds of processor time per event. As in measure.Turns, events on the
// same objects come before, so that the caches are not those of whoever made them.
func (c *changing) time(warm, events []event, take func(event)) float64 {
	runtime.GC() // of making them
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, e := range warm {
		take(e)
	}
	start := measure.ThreadTime()
	for _, e := range events {
		take(e)
	}
	return float64(measure.ThreadTime()-start) / float64(len(events))
}

// relabel gives a pod a version, or takes it away if version is empty.
func (c *changing) relabel(s *policy.Snapshot, i int, version string) policy.Change {
	old := s.Endpoints[i]
	pod := *old
	labels := maps.Clone(pod.Labels)
	delete(labels, "version")
	if version != "" {
		labels["version"] = version
	}
	pod.Labels = c.shared(labels)
	s.Endpoints[i] = &pod
	return policy.Change{Old: old, New: &pod}
}

// shared gives the one map of equal labels, as k8ssync/kube does when it decodes a pod.
func (c *changing) shared(labels map[string]string) map[string]string {
	key := fmt.Sprint(labels)
	if c.labels[key] == nil {
		c.labels[key] = labels
	}
	return c.labels[key]
}

// knownSets are the workloads in which the first pod keeps a version and the last
// one has report.None, so that both label sets stay known while the others change.
const knownSets = 100

func (c *changing) prepareKnown() {
	for k := range knownSets {
		c.compare(c.together([]int{workloadPod(k, 0)}, func(s *policy.Snapshot, i int) policy.Change { return c.relabel(s, i, "known") }))
	}
}

func (c *changing) knownPod() int {
	return workloadPod(c.IntN(knownSets), 1+c.IntN(gen.PodsPerWorkload-2))
}

func (c *changing) relabelKnown(s *policy.Snapshot, i int) policy.Change {
	version := "known"
	if s.Endpoints[i].Labels["version"] != "" {
		version = ""
	}
	return c.relabel(s, i, version)
}

// workloadPod gives the index of a pod of one of some workloads spread over the
// cluster.
func workloadPod(k, pod int) int {
	return k*(gen.Namespaces*gen.Workloads/knownSets)*gen.PodsPerWorkload + pod
}

func (c *changing) anyPod() int { return c.IntN(len(c.snapshot.Endpoints)) }

func (c *changing) relabelNew(s *policy.Snapshot, i int) policy.Change {
	return c.relabel(s, i, fmt.Sprint("new-", s.Generation))
}

func (c *changing) anyRelevant() int { return c.relevant[c.IntN(len(c.relevant))] }

// editPolicy changes a policy that selects a local pod: another port in one rule,
// or one more rule with a prefix.
func (c *changing) editPolicy(s *policy.Snapshot, i int) policy.Change {
	old := s.Policies[i]
	p := *old
	p.Ingress = slices.Clone(p.Ingress)
	if k := c.IntN(len(p.Ingress) + 1); k < len(p.Ingress) {
		port := uint16(1 + c.IntN(60_000))
		p.Ingress[k].Destination.Ports = []policy.Port{{PortRange: flow.PortRange{Min: port, Max: port}}}
	} else {
		net := netip.PrefixFrom(gen.Addr4(0x60000000|c.Uint32N(1<<29)), 24).Masked()
		p.Ingress = append(p.Ingress, policy.Rule{Index: k, Action: policy.Allow, Source: policy.EntityRule{Nets: []netip.Prefix{net}}})
	}
	s.Policies[i] = &p
	return policy.Change{Old: old, New: &p}
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

// check holds the ruleset that came of all changes against one compiled from
// nothing and against the linear walk.
func (c *changing) check(flows []gen.Flow) error {
	if c.failed != nil {
		return c.failed
	}
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
