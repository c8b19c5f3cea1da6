package compile

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// cluster makes a large cluster with the policies such clusters have: pods over
// nodes of 100 pods each, 25 workloads a namespace, 10 pods a workload, and per
// namespace a default deny, DNS, same-namespace and per-workload rules by label,
// account, namespace label and prefix.
func cluster(pods, policies int) *policy.Snapshot {
	rng := rand.New(rand.NewPCG(1, 2))
	s := &policy.Snapshot{Tiers: []policy.Tier{{Name: policy.DefaultTier, Order: policy.DefaultTierOrder}, {Name: "security", Order: 10, DefaultAction: policy.Pass}}}
	namespaces := max(1, pods/250)
	for n := range namespaces {
		name := fmt.Sprintf("ns%04d", n)
		s.Namespaces = append(s.Namespaces, &policy.Namespace{Name: name, Labels: map[string]string{"team": fmt.Sprint(n % 40), "env": []string{"dev", "prod"}[n%2]}})
		for w := range 25 {
			s.ServiceAccounts = append(s.ServiceAccounts, &policy.ServiceAccount{Namespace: name, Name: fmt.Sprint("sa", w), Labels: map[string]string{"role": fmt.Sprint(w % 5)}})
		}
	}
	for i := range pods {
		n, w := i/250%namespaces, i/10%25
		slot := rng.IntN(1 << 8)
		s.Endpoints = append(s.Endpoints, &policy.Endpoint{
			Namespace: fmt.Sprintf("ns%04d", n), Name: fmt.Sprint("pod", i), ServiceAccount: fmt.Sprint("sa", w), Node: fmt.Sprint("node", (i*7919+slot)%max(1, pods/100)),
			Labels: map[string]string{"app": fmt.Sprint("app", w), "tier": fmt.Sprint(w % 3), "version": "v1", "pod-template-hash": fmt.Sprint(n*100 + w)},
			Addrs:  []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})},
			Ports:  []policy.NamedPort{{Name: "http", Proto: flow.TCP, Port: 8080}},
		})
	}
	tcp := &policy.Protocol{Number: flow.TCP, ByName: true}
	port := func(p uint16) []policy.Port { return []policy.Port{{PortRange: flow.PortRange{Min: p, Max: p}}} }
	for i := range policies {
		p := &policy.Policy{Kind: policy.NetworkPolicy, Namespace: fmt.Sprintf("ns%04d", i%namespaces), Name: fmt.Sprint("p", i), Tier: policy.DefaultTier, Order: policy.Unordered, AppliesIngress: true}
		app := fmt.Sprint("app", i/namespaces%25)
		switch i / namespaces % 5 {
		case 0:
			p.AppliesEgress = true
			p.Egress = []policy.Rule{{Action: policy.Allow, Destination: policy.EntityRule{NamespaceSelector: selector.Equals("team", "0"), Ports: port(53)}, Protocol: tcp}}
		case 1:
			p.Ingress = []policy.Rule{{Action: policy.Allow, Source: policy.EntityRule{Selector: selector.All()}}}
		case 2:
			p.Selector = selector.Equals("app", app)
			p.Ingress = []policy.Rule{
				{Action: policy.Allow, Protocol: tcp, Source: policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Names: []string{"sa1", "sa2"}}}, Destination: policy.EntityRule{Ports: []policy.Port{{Name: "http"}}}},
				{Index: 1, Action: policy.Allow, Protocol: tcp, Source: policy.EntityRule{NamespaceSelector: selector.Equals("env", "prod"), Selector: selector.Equals("app", app)}, Destination: policy.EntityRule{Ports: port(8080)}},
			}
		case 3:
			p.Selector = selector.Equals("tier", fmt.Sprint(i%3))
			p.Ingress = []policy.Rule{{Action: policy.Allow, Protocol: tcp, Source: policy.EntityRule{
				Nets:    []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(rng.IntN(256)), 0}), 24)},
				NotNets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(rng.IntN(256)), 16}), 28)},
			}}}
		case 4:
			p.Kind, p.Namespace, p.Tier = policy.GlobalNetworkPolicy, "", "security"
			p.NamespaceSelector = selector.Equals("team", fmt.Sprint(i%40))
			p.Selector = selector.Equals("app", app)
			p.Ingress = []policy.Rule{{Action: policy.Deny, Source: policy.EntityRule{Selector: selector.Equals("tier", "9"), NamespaceSelector: selector.Equals("team", fmt.Sprint((i+1)%40))}}, {Index: 1, Action: policy.Pass}}
		}
		s.Policies = append(s.Policies, p)
	}
	return s
}

func BenchmarkCompile(b *testing.B) {
	for _, size := range []struct{ pods, policies int }{{1000, 100}, {10_000, 1000}, {100_000, 10_000}} {
		s := cluster(size.pods, size.policies)
		for _, node := range []string{"node1", ""} {
			b.Run(fmt.Sprintf("pods=%d/policies=%d/node=%s", size.pods, size.policies, node), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					rs, _ := Compile(s, Options{Node: node})
					sizes := rs.Sizes()
					b.ReportMetric(float64(sizes.Classes), "classes")
					b.ReportMetric(float64(sizes.Rules), "rules")
					b.ReportMetric(float64(sizes.Programs), "programs")
				}
			})
		}
	}
}

// BenchmarkDecide decides flows between random pods of a node and the cluster.
func BenchmarkDecide(b *testing.B) {
	s := cluster(100_000, 10_000)
	rs, _ := Compile(s, Options{Node: "node1"})
	rng := rand.New(rand.NewPCG(3, 4))
	local := rs.Protected(flow.Ingress)
	tuples := make([]flow.Tuple, 4096)
	for i := range tuples {
		tuples[i] = flow.Tuple{
			Src: s.Endpoints[rng.IntN(len(s.Endpoints))].Addrs[0], Dst: local[rng.IntN(len(local))], Proto: flow.TCP, Ported: true, SrcPort: 40000, DstPort: []uint16{8080, 53, 22}[i%3],
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		rs.Decide(tuples[i%len(tuples)])
	}
}

// BenchmarkApply measures one change to a cluster of 100,000 pods and 10,000
// policies as one node compiles it, from the snapshot to the published ruleset.
// Finding the change by comparing the lists of the two snapshots is part of it.
func BenchmarkApply(b *testing.B) {
	for _, change := range []struct {
		name string
		next func(s *policy.Snapshot, i int)
	}{
		{"nothing", func(*policy.Snapshot, int) {}},
		{"relabel to known labels", func(s *policy.Snapshot, i int) {
			p := s.Endpoints[i*7919%len(s.Endpoints)]
			like := s.Endpoints[(i*7919+10)%len(s.Endpoints)]
			q := *p
			q.Labels, q.ServiceAccount, q.Namespace = like.Labels, like.ServiceAccount, like.Namespace
			s.Endpoints = slices.Clone(s.Endpoints)
			s.Endpoints[i*7919%len(s.Endpoints)] = &q
		}},
		{"relabel to new labels", func(s *policy.Snapshot, i int) {
			p := s.Endpoints[i*7919%len(s.Endpoints)]
			q := *p
			q.Labels = maps.Clone(p.Labels)
			q.Labels["version"] = fmt.Sprint("v", i+2)
			s.Endpoints = slices.Clone(s.Endpoints)
			s.Endpoints[i*7919%len(s.Endpoints)] = &q
		}},
		{"policy", func(s *policy.Snapshot, i int) {
			at := i * 7919 % len(s.Policies)
			q := *s.Policies[at]
			q.Ingress = slices.Clone(q.Ingress)
			q.Ingress = append(q.Ingress, policy.Rule{Index: len(q.Ingress), Action: policy.Allow, Source: policy.EntityRule{Selector: selector.Equals("app", fmt.Sprint("app", i%25))}})
			s.Policies = slices.Clone(s.Policies)
			s.Policies[at] = &q
		}},
		{"local policy", func(s *policy.Snapshot, i int) {
			at := i % 400 // some of the namespaces have pods on the node
			q := *s.Policies[at]
			q.Egress = slices.Clone(q.Egress)
			q.Egress = append(q.Egress[:1:1], policy.Rule{Index: 1, Action: policy.Allow, Destination: policy.EntityRule{NamespaceSelector: selector.Equals("team", fmt.Sprint(i%40))}})
			s.Policies = slices.Clone(s.Policies)
			s.Policies[at] = &q
		}},
		{"account labels", func(s *policy.Snapshot, i int) {
			at := i * 7919 % len(s.ServiceAccounts)
			q := *s.ServiceAccounts[at]
			q.Labels = map[string]string{"role": fmt.Sprint("r", i)}
			s.ServiceAccounts = slices.Clone(s.ServiceAccounts)
			s.ServiceAccounts[at] = &q
		}},
	} {
		b.Run("told/"+change.name, func(b *testing.B) {
			s := cluster(100_000, 10_000)
			var told []policy.Change
			c := New(Options{Node: "node1", Changes: func(_, _ *policy.Snapshot) ([]policy.Change, bool) { return told, true }})
			c.Apply(s)
			lists := make([][]policy.Change, b.N)
			for i := range lists {
				next := *s
				change.next(&next, i)
				lists[i] = changes(s, &next)
				s = &next
			}
			runtime.GC() // the snapshots that led here
			b.ReportAllocs()
			b.ResetTimer()
			for _, told = range lists {
				c.Apply(s)
			}
		})
		b.Run("searched/"+change.name, func(b *testing.B) {
			s := cluster(100_000, 10_000)
			c := New(Options{Node: "node1"})
			c.Apply(s)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				b.StopTimer()
				next := *s
				change.next(&next, i)
				i++
				s = &next
				b.StartTimer()
				c.Apply(s)
			}
		})
	}
}

// BenchmarkRollout relabels 256 pods at once, to label sets that stay known, and back.
func BenchmarkRollout(b *testing.B) {
	const pods = 256
	s := cluster(100_000, 10_000)
	var there, back []policy.Change
	marked := make(map[string]map[string]string) // labels, shared as a source does
	for i := range 2 * pods {
		at := i / 2 * 390 / 10 * 10 // pods of one workload each
		if i%2 == 0 {
			at++
		}
		old := s.Endpoints[at]
		if i%2 == 1 {
			s.Endpoints[at] = withLabels(old, marked[old.Namespace+old.Labels["app"]]) // this one stays marked
			continue
		}
		labels := maps.Clone(old.Labels)
		labels["version"] = "v2"
		marked[old.Namespace+old.Labels["app"]] = labels
		now := withLabels(old, labels)
		there, back = append(there, policy.Change{Old: old, New: now}), append(back, policy.Change{Old: now, New: old})
	}
	var told []policy.Change
	c := New(Options{Node: "none", Changes: func(_, _ *policy.Snapshot) ([]policy.Change, bool) { return told, true }})
	c.Apply(s)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if told = there; n%2 == 1 {
			told = back
		}
		n++
		c.Apply(s)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n*pods), "ns/pod")
}

func withLabels(ep *policy.Endpoint, labels map[string]string) *policy.Endpoint {
	out := *ep
	out.Labels = labels
	return &out
}
