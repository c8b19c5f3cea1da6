// Soak lets a cluster live through simulated days on one node, as fast as the
// machine goes: pods come and go and are relabelled, policies, sets and accounts
// are edited. It goes the daemon's way, from Store to Compiler to Engine, and fails
// if memory does not stay within 5 % or if in the end the engine decides otherwise
// than one compiled from nothing.
//
//	go run ./test/soak [-hours N]
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
	"github.com/postern-project/postern/k8ssync"
)

// The cluster, and what happens to it in an hour: a rollout of a thirtieth of the
// pods, most of them with labels nobody had before, and a few edits of the rest.
const (
	pods, namespaces, policies = 20_000, 100, 2_000
	podsPerNode                = 100

	replacedPods, relabelled, editedPolicies, editedSets, editedAccounts = 3600, 600, 60, 12, 12

	// warmUp is how long tables may grow to their working size: until what nothing
	// uses any more was thrown away a few times. After it no hour may use more than
	// the warm-up's greatest did, and bound besides.
	warmUp = 6
	bound  = 1.05
)

type cluster struct {
	*rand.Rand
	store    *k8ssync.Store
	compiler *compile.Compiler
	engine   filter.Engine
	pods     []*policy.Endpoint
	version  int
}

func main() {
	hours := flag.Int("hours", 24, "how long to simulate")
	flag.Parse()
	if err := soak(*hours); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func soak(hours int) error {
	if hours <= warmUp {
		return fmt.Errorf("-hours %d: want more than the warm-up of %d", hours, warmUp)
	}
	c := &cluster{Rand: rand.New(rand.NewPCG(1, 2)), store: k8ssync.NewStore()}
	c.compiler = compile.New(compile.Options{Node: "node0", Changes: c.store.Changes})
	c.fill()
	start, changes := time.Now(), 0
	var before, after uint64 // greatest of the warm-up, and of the rest
	for hour := range hours {
		n, err := c.hour()
		if err != nil {
			return err
		}
		changes += n
		used := heap()
		fmt.Printf("hour %2d: %6.1f MB, %d changes, %s\n", hour+1, float64(used)/1e6, changes, time.Since(start).Round(time.Second))
		if hour < warmUp {
			before = max(before, used)
		} else {
			after = max(after, used)
		}
	}
	if err := c.compare(); err != nil {
		return err
	}
	grown := float64(after) / float64(before)
	fmt.Printf("the greatest of hours %d to %d is %.3f of the greatest before\n", warmUp+1, hours, grown)
	if grown > bound {
		return fmt.Errorf("memory grew to %.3f, want at most %.2f", grown, bound)
	}
	return nil
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func namespace(i int) string { return fmt.Sprintf("ns%03d", i%namespaces) }

func (c *cluster) fill() {
	for i := range namespaces {
		c.put(policy.NamespaceKind, "", namespace(i), &policy.Namespace{Name: namespace(i), Labels: map[string]string{"team": fmt.Sprint(i % 10)}})
		c.account(i)
	}
	for i := range pods {
		c.pods = append(c.pods, nil)
		c.pod(i)
	}
	for i := range policies {
		c.policy(i)
	}
	for i := range editedSets {
		c.set(i)
	}
}

// hour lets an hour pass, in steps of what a daemon would find at once.
func (c *cluster) hour() (changes int, err error) {
	const steps = 120
	for range steps {
		for range replacedPods / steps {
			c.pod(c.IntN(pods))
		}
		for range relabelled / steps {
			i := c.IntN(pods)
			p := *c.pods[i]
			p.Labels = map[string]string{"app": fmt.Sprint("app", c.IntN(20)), "hash": fmt.Sprint(c.next())}
			c.pods[i] = &p
			c.put(policy.PodKind, p.Namespace, p.Name, &p)
		}
		if c.IntN(steps) < editedPolicies {
			c.policy(c.IntN(policies))
		}
		if c.IntN(steps) < editedSets {
			c.set(c.IntN(editedSets))
		}
		if c.IntN(steps) < editedAccounts {
			c.account(c.IntN(namespaces))
		}
		rs, problems := c.compiler.Apply(c.store.Snapshot())
		if rs == nil || len(problems) > 0 {
			return 0, fmt.Errorf("compile: %v", problems)
		}
		c.engine.Swap(rs)
		changes += replacedPods/steps + relabelled/steps
	}
	return changes, nil
}

func (c *cluster) next() int { c.version++; return c.version }

func (c *cluster) put(kind policy.Kind, namespace, name string, value any) {
	c.store.Upsert(k8ssync.Object{Key: policy.Key{Kind: kind, Namespace: namespace, Name: name}, Value: value})
}

func (c *cluster) account(i int) {
	c.put(policy.ServiceAccountKind, namespace(i), "sa", &policy.ServiceAccount{Namespace: namespace(i), Name: "sa", Labels: map[string]string{"role": fmt.Sprint(c.IntN(5))}})
}

// pod replaces a pod by another, with a name, an address and labels of its own.
func (c *cluster) pod(i int) {
	if old := c.pods[i]; old != nil {
		c.store.Delete(old.Key())
	}
	v := c.next()
	p := &policy.Endpoint{
		Namespace: namespace(i), Name: fmt.Sprintf("pod-%d-%d", i, v), ServiceAccount: "sa", Node: fmt.Sprint("node", i%(pods/podsPerNode)),
		Labels: map[string]string{"app": fmt.Sprint("app", i%20), "hash": fmt.Sprint(v / 50)},
		// Addresses of a node come round again, as those of an allocator do.
		Addrs: []netip.Addr{
			netip.AddrFrom4([4]byte{10, byte(i >> 14), byte(i>>8&63)<<2 | byte(v%4), byte(i)}),
			netip.AddrFrom16([16]byte{0: 0xfd, 5: byte(i >> 8), 7: byte(i), 14: byte(v >> 8), 15: byte(v)}),
		},
	}
	c.pods[i] = p
	c.put(policy.PodKind, p.Namespace, p.Name, p)
}

func (c *cluster) policy(i int) {
	app := func(n int) *selector.Selector { return selector.Equals("app", fmt.Sprint("app", n%20)) }
	p := &policy.Policy{
		Kind: policy.NetworkPolicy, Namespace: namespace(i), Name: fmt.Sprint("p", i), Tier: policy.DefaultTier, Order: float64(i),
		Selector: app(i / namespaces), AppliesIngress: true,
		Ingress: []policy.Rule{
			{Action: policy.Allow, Source: policy.EntityRule{Selector: app(c.IntN(20)), NamespaceSelector: selector.Equals("team", fmt.Sprint(c.IntN(10)))}},
			{Index: 1, Action: policy.Deny, Source: policy.EntityRule{NamespaceSelector: selector.All(), Selector: selector.Equals("feed", fmt.Sprint(c.IntN(4)))}},
			{Index: 2, Action: policy.Allow, Source: policy.EntityRule{Nets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(c.IntN(256)), 0}), 24)}}},
		},
	}
	c.put(p.Kind, p.Namespace, p.Name, p)
}

func (c *cluster) set(i int) {
	s := &policy.NetworkSet{Kind: policy.GlobalNetworkSet, Name: fmt.Sprint("set", i), Labels: map[string]string{"feed": fmt.Sprint(i % 4)}}
	for range 200 {
		s.Nets = append(s.Nets, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(16 + c.IntN(16)), byte(c.IntN(256)), 0}), 24))
	}
	c.put(s.Kind, "", s.Name, s)
}

// compare holds the engine against one compiled from nothing.
func (c *cluster) compare() error {
	fresh, _ := compile.Compile(c.store.Snapshot(), compile.Options{Node: "node0"})
	var seen [2]int
	for range 100_000 {
		here, there := c.pods[c.IntN(podsPerNode)*(pods/podsPerNode)], c.pods[c.IntN(pods)]
		f := c.IntN(2)
		t := flow.Tuple{Src: there.Addrs[f], Dst: here.Addrs[f], Proto: flow.TCP, Ported: true, SrcPort: 40000, DstPort: 80}
		want, got := fresh.Decide(t), c.engine.Decide(t)
		if want.Verdict != got.Verdict || want.Reason != got.Reason || fresh.RuleInfo(want.Outcome().Rule) != c.engine.Ruleset().RuleInfo(got.Outcome().Rule) {
			return fmt.Errorf("%s: %+v, compiled from nothing %+v", t, got, want)
		}
		seen[got.Verdict]++
	}
	if seen[0] == 0 || seen[1] == 0 {
		return fmt.Errorf("%d flows denied, %d accepted: nothing was compared", seen[0], seen[1])
	}
	return nil
}
