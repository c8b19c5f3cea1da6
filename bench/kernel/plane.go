package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/postern-project/postern/bench/gen"
	"github.com/postern-project/postern/conntrack"
	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/dataplane"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/flowlog"
	"github.com/postern-project/postern/filter/nfq"
	"github.com/postern-project/postern/filter/nft"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
	"github.com/postern-project/postern/k8ssync"
)

// plane is the daemon without its sources: a store, the compiler, the table, a
// queue and its loop, put together as the daemon does, in a world of 100,000 pods
// and 10,800 policies to which the pods of the lab are added. A source that reports
// a change calls the store; from there on everything is the daemon's.
type plane struct {
	*rand.Rand
	store    *k8ssync.Store
	applier  *dataplane.Applier
	client   *policy.Endpoint
	pods     []*policy.Endpoint // of this node
	policies []*policy.Policy   // that select one of them for ingress
}

// reserve is what the daemon of a cluster leaves the garbage collector, in percent.
const reserve = 16

// planeRules makes 10,800 policies.
const planeRules = 40_000

// applied says when a change reached the store and when it was in force.
type applied struct{ Arrived, InForce int64 } // nanoseconds of the real-time clock

// planeMain obeys, a line a command: "on" and "off" give and take the label by which
// the client may reach the server, "relabel" and "edit" change a pod and a policy of
// this node at random. It answers each with an applied.
func planeMain([]string) error {
	p, err := newPlane()
	if err != nil {
		return err
	}
	debug.SetGCPercent(reserve)
	debug.FreeOSMemory()
	fmt.Println("listening")
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var o k8ssync.Object
		switch in.Text() {
		case "on", "off":
			o = p.setClient(in.Text() == "on")
		case "relabel":
			o = p.relabel()
		case "edit":
			o = p.edit()
		default:
			return fmt.Errorf("command %q", in.Text())
		}
		a, err := p.apply(o)
		if err != nil {
			return err
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return nil
}

func newPlane() (*plane, error) {
	p := &plane{Rand: rand.New(rand.NewPCG(7, 7)), store: k8ssync.NewLargeStore()}
	engine := &filter.Engine{}
	marks, err := nft.NewMarks(nft.DefaultMask)
	if err != nil {
		return nil, err
	}
	queue, err := nfq.Open(nfq.Config{
		Queue: queueNumber, MaxLen: nfq.DefaultMaxLen, CopyRange: nfq.DefaultCopyRange,
		Marks: nfq.Marks{
			Mask: marks.Mask(), Reply: marks.Reply(), Taken: marks.Taken(), Doubt: marks.Doubt(),
			Pass: marks.Pass(), Learn: marks.Learn(), Deny: marks.Deny(), EpochShift: marks.EpochShift(),
		},
		Ring: flowlog.NewRing(1), // full, as if nobody read it
	}, engine)
	if err != nil {
		return nil, err
	}
	c, err := nft.Dial()
	if err != nil {
		return nil, err
	}
	via, err := nft.Probe(c)
	if err != nil {
		return nil, err
	}
	table, err := nft.NewTable(c, nft.Config{
		Marks: marks, Queues: nft.Queues{First: queueNumber, Count: 1}, Via: via, VXLANPort: nft.DefaultVXLANPort,
		Guard: nft.DefaultGuard, GuardPortless: nft.DefaultGuardPortless, GuardKnown: nft.DefaultGuardKnown,
	})
	if err != nil {
		return nil, err
	}
	ct, err := conntrack.Dial()
	if err != nil {
		return nil, err
	}
	p.applier = dataplane.New(engine, table, &dataplane.Conntrack{Conn: ct, Marks: marks}, []dataplane.Loop{queue}, dataplane.Options{
		Compile: compile.Options{Node: gen.LocalNode, Changes: p.store.Changes}, Epochs: marks.Epochs(),
		Failed: func(err error) { fmt.Fprintln(os.Stderr, "kernel: plane: sweep:", err) },
	})
	go func() {
		if err := queue.Run(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "kernel: plane:", err)
			os.Exit(1)
		}
	}()
	p.store.Replace(p.world())
	return p, p.inForce()
}

// world gives the objects, and remembers those that will change.
func (p *plane) world() (objects []k8ssync.Object) {
	s := gen.Cluster(planeRules, false).Snapshot
	add := func(k policy.Key, v any) { objects = append(objects, k8ssync.Object{Key: k, Value: v}) }
	s.Namespaces = append(s.Namespaces, &policy.Namespace{Name: "bench"})
	p.client = &policy.Endpoint{Namespace: "bench", Name: "client", Node: gen.LocalNode, Addrs: []netip.Addr{clientAddr}, Labels: map[string]string{"pod": "client"}}
	s.Endpoints = append(s.Endpoints, p.client, &policy.Endpoint{
		Namespace: "bench", Name: "server", Node: gen.LocalNode, Addrs: []netip.Addr{serverAddr}, Labels: map[string]string{"app": "server"},
	})
	udp := flow.UDP
	s.Policies = append(s.Policies, &policy.Policy{
		Kind: policy.NetworkPolicy, Namespace: "bench", Name: "server", Tier: policy.DefaultTier, Order: policy.Unordered,
		Selector: selector.Equals("app", "server"), AppliesIngress: true,
		Ingress: []policy.Rule{{Action: policy.Allow, Protocol: &policy.Protocol{Number: udp}, Source: policy.EntityRule{Selector: selector.Equals("role", "client")}}},
	})
	for _, n := range s.Namespaces {
		add(policy.Key{Kind: policy.NamespaceKind, Name: n.Name}, n)
	}
	for _, sa := range s.ServiceAccounts {
		add(policy.Key{Kind: policy.ServiceAccountKind, Namespace: sa.Namespace, Name: sa.Name}, sa)
	}
	for _, e := range s.Endpoints {
		add(e.Key(), e)
		if e.Node == gen.LocalNode && e.Namespace != "bench" {
			p.pods = append(p.pods, e)
		}
	}
	for _, pol := range s.Policies {
		add(pol.Key(), pol)
		if len(pol.Ingress) > 0 && slices.ContainsFunc(p.pods, func(e *policy.Endpoint) bool {
			return e.Namespace == pol.Namespace && pol.Selector.Matches(selector.Map(e.Labels))
		}) {
			p.policies = append(p.policies, pol)
		}
	}
	return objects
}

// apply reports an object to the store and puts it in force.
func (p *plane) apply(o k8ssync.Object) (a applied, err error) {
	a.Arrived = time.Now().UnixNano()
	p.store.Upsert(o)
	<-p.store.Changed()
	err = p.inForce()
	a.InForce = time.Now().UnixNano()
	return a, err
}

func (p *plane) inForce() error {
	rs, problems, err := p.applier.Apply(p.store.Snapshot())
	if err != nil {
		return err
	}
	if rs == nil || len(problems) > 0 {
		return errors.Join(fmt.Errorf("compile: %d problems", len(problems)), problems[0])
	}
	return nil
}

func (p *plane) setClient(may bool) k8ssync.Object {
	c := *p.client
	if may {
		c.Labels = map[string]string{"pod": "client", "role": "client"}
	}
	return k8ssync.Object{Key: c.Key(), Value: &c}
}

// relabel gives a pod of this node a label that it has not had.
func (p *plane) relabel() k8ssync.Object {
	i := p.IntN(len(p.pods))
	e := *p.pods[i]
	e.Labels = maps.Clone(e.Labels)
	e.Labels["version"] = fmt.Sprint(p.Uint64())
	p.pods[i] = &e
	return k8ssync.Object{Key: e.Key(), Value: &e}
}

// edit gives a rule of a policy another port.
func (p *plane) edit() k8ssync.Object {
	i := p.IntN(len(p.policies))
	pol := *p.policies[i]
	pol.Ingress = slices.Clone(pol.Ingress)
	port := uint16(1 + p.IntN(60_000))
	r := &pol.Ingress[p.IntN(len(pol.Ingress))]
	tcp := flow.TCP
	r.Protocol = &policy.Protocol{Number: tcp}
	r.Destination.Ports = []policy.Port{{PortRange: flow.PortRange{Min: port, Max: port}}}
	p.policies[i] = &pol
	return k8ssync.Object{Key: pol.Key(), Value: &pol}
}
