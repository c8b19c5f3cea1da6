package kube

import (
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/dataplane"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/nft"
	"github.com/postern-project/postern/filter/policy"
)

// happening is something that happens to a cluster: one event, or several of one
// watch in their order.
type happening struct {
	name   string
	events []event
}

// happenings begin at the world that they come with. Each is alone on what it
// changes, so that any set of them makes one world, in whatever order they are seen:
// watches of different kinds are not in step.
func happenings() (world, []happening) {
	web := podOf("a", "web", "1", "web", labels{"app": "web"}, "10.0.0.1", "fd00::1")
	db := podOf("a", "db", "2", "db", labels{"app": "db"}, "10.0.0.2", "fd00::2")
	peer := podOf("b", "peer", "3", "peer", labels{"app": "peer"}, "10.0.0.3")
	const dbOnly = `"selector":"app == 'db'","types":["Ingress"]`
	begin := world{}.put(
		namespaceOf("a", labels{"env": "x"}), namespaceOf("b", labels{"env": "x"}),
		accountOf("a", "web", labels{"role": "r"}), accountOf("b", "peer", labels{"role": "r"}),
		web, db, peer,
		rawOf(policy.GlobalNetworkPolicy, "", "role", `{"metadata":{"name":"role"},"spec":{"order":2,`+dbOnly+`,"ingress":[{"action":"Allow","source":{"serviceAccounts":{"selector":"role == 'r'"}}}]}}`),
		rawOf(policy.GlobalNetworkPolicy, "", "shut", `{"metadata":{"name":"shut"},"spec":{"order":3,"selector":"app == 'peer'","types":["Egress"],"egress":[{"action":"Deny"}]}}`),
	)
	return begin, []happening{
		{"a pod comes", []event{podOf("a", "new", "4", "web", labels{"app": "db"}, "10.0.0.4")}},
		{"an account is relabelled", []event{accountOf("a", "web", labels{"role": "other"})}},
		{"an account goes and comes", []event{accountOf("b", "peer", nil).gone(), accountOf("b", "peer", labels{"role": "none"})}},
		{"a pod is relabelled", []event{podOf("a", "db", "2", "db", labels{"app": "other"}, "10.0.0.2", "fd00::2")}},
		{"a namespace is relabelled", []event{namespaceOf("a", labels{"env": "y"})}},
		{"a policy comes", []event{rawOf(policy.GlobalNetworkPolicy, "", "env", `{"metadata":{"name":"env"},"spec":{"order":1,"selector":"all()","types":["Ingress"],"ingress":[{"action":"Deny","source":{"namespaceSelector":"env == 'y'"}},{"action":"Pass"}]}}`)}},
		{"a policy goes", []event{rawOf(policy.GlobalNetworkPolicy, "", "shut", ``).gone()}},
		{"a policy of Kubernetes comes", []event{isolate("b", "deny")}},
		{"an address changes hands", []event{web.gone(), podOf("a", "thief", "5", "thief", labels{"app": "web"}, "10.0.0.1", "fd00::1")}},
	}
}

// probes are the flows that are asked about: from everybody to everybody.
func probes() (flows []flow.Tuple) {
	addrs := []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "192.0.2.1", "fd00::1", "fd00::2"}
	for _, a := range addrs {
		for _, b := range addrs {
			src, dst := netip.MustParseAddr(a), netip.MustParseAddr(b)
			if a != b && src.Is4() == dst.Is4() {
				flows = append(flows, flow.Tuple{Src: src, Dst: dst, Proto: flow.TCP, SrcPort: 40000, DstPort: 80})
			}
		}
	}
	return flows
}

// wire is what becomes of packets: the kernel asks about some addresses, and the
// engine answers. At every change it notes which probes pass, and checks them once
// both ends of a transition are known.
type wire struct {
	engine filter.Engine
	kernel nft.State
	seen   []string // which probes passed, at each moment of a transition
}

// passing gives a letter for each probe: y if a first packet would pass now.
func (w *wire) passing(flows []flow.Tuple) string {
	out := make([]byte, len(flows))
	for i, f := range flows {
		_, from := slices.BinarySearchFunc(w.kernel.Egress, f.Src, netip.Addr.Compare)
		_, to := slices.BinarySearchFunc(w.kernel.Ingress, f.Dst, netip.Addr.Compare)
		out[i] = 'y'
		if from || to {
			// An answer of another epoch is asked for again.
			if rs := w.engine.InForce(); rs == nil || rs.Epoch != w.kernel.Epoch || rs.Decide(f).Verdict != filter.Accept {
				out[i] = 'n'
			}
		}
	}
	return string(out)
}

// Apply is the kernel's part of a change.
func (w *wire) Apply(next nft.State) error {
	w.seen = append(w.seen, w.passing(probes()))
	w.kernel = next
	w.seen = append(w.seen, w.passing(probes()))
	return nil
}

func (w *wire) Distrust() {}

func (w *wire) Epoch() (uint32, bool, error) { return 0, false, nil }

// noFlows is a kernel without flows.
type noFlows struct{}

func (noFlows) Forget(int) error { return nil }

func (noFlows) Judge(*filter.Ruleset, uint32, []netip.Addr, bool, []netip.Addr) error { return nil }

// follows puts snapshots in force one after the other, and fails if at any moment a
// flow passes that passes neither before nor after.
func follows(t *testing.T, names []string, list []*policy.Snapshot) {
	t.Helper()
	flows := probes()
	w := &wire{}
	a := dataplane.New(&w.engine, w, noFlows{}, nil, dataplane.Options{Compile: compile.Options{Node: "n1"}, Epochs: 32})
	defer a.Close()
	before := ""
	for step, s := range list {
		w.seen = nil
		if _, _, err := a.Apply(s); err != nil {
			t.Fatal(err)
		}
		after := w.passing(flows)
		if before != "" {
			for _, moment := range w.seen {
				for i := range flows {
					if moment[i] == 'y' && before[i] == 'n' && after[i] == 'n' {
						t.Errorf("%v, step %d: %v passes for a moment, and neither before nor after", names, step, flows[i])
					}
				}
			}
		}
		if before = after; step == len(list)-1 || step == 0 {
			e := explain.New(s, explain.Options{Node: "n1"})
			for i, f := range flows {
				d := e.Decide(f)
				if open := d.Verdict == explain.Allow || d.Reason == explain.NoLocalEndpoint; open != (after[i] == 'y') {
					t.Errorf("%v, step %d: %v passes: %v, and explained: %v (%v)", names, step, f, after[i] == 'y', d.Verdict, d.Reason)
				}
			}
		}
	}
}

// TestInterleavings sees every set of up to six happenings in every order, one event
// at a time. After each event the state is that of the events seen, whatever their
// order; and on the way from one state to the next nothing passes that passes in
// neither.
func TestInterleavings(t *testing.T) {
	t.Parallel()
	begin, all := happenings()
	proto := newReplica(t)
	ops := make([][]op, len(all))
	for i, h := range all {
		for _, e := range h.events {
			ops[i] = append(ops[i], op{from: proto.feeds[e.kind], item: proto.item(e.kind, e.object), deleted: e.deleted})
		}
	}
	var first [][]op
	for _, kind := range kinds {
		var list []op
		for _, obj := range begin[kind] {
			list = append(list, op{from: proto.feeds[kind], item: proto.item(kind, obj)})
		}
		first = append(first, list)
	}
	start := func() *replica {
		r := newReplica(t)
		for _, list := range first {
			r.apply(list)
		}
		return r
	}

	// The state of each set, by the straight way.
	states := make([]*policy.Snapshot, 1<<len(all))
	for set := range states {
		if bits.OnesCount(uint(set)) <= 6 {
			r := start()
			for i := range all {
				if set&(1<<i) != 0 {
					r.apply(ops[i])
				}
			}
			states[set] = r.store.Snapshot()
		}
	}

	orders := 0
	var walk func(r *replica, set int, order []int)
	walk = func(r *replica, set int, order []int) {
		if len(order) == 6 {
			orders++
			return
		}
		for i := range all {
			if set&(1<<i) != 0 {
				continue
			}
			next := start()
			for _, j := range order {
				next.apply(ops[j])
			}
			for _, o := range ops[i] {
				next.apply([]op{o})
			}
			got, want := next.store.Snapshot(), states[set|1<<i]
			if !alike(got, want) {
				t.Fatalf("seen in the order %v, then %s (-straight +seen):\n%s", order, all[i].name, cmp.Diff(want, got, sameState))
			}
			walk(next, set|1<<i, append(slices.Clone(order), i))
		}
	}
	walk(nil, 0, nil)
	if want := 9 * 8 * 7 * 6 * 5 * 4; orders != want {
		t.Errorf("%d orders, want %d", orders, want)
	}

	// Every step from every set, in the data plane.
	for set, s := range states {
		for i := range all {
			if set&(1<<i) == 0 && s != nil && states[set|1<<i] != nil {
				r := start()
				for j := range all {
					if set&(1<<j) != 0 {
						r.apply(ops[j])
					}
				}
				list := []*policy.Snapshot{r.store.Snapshot()}
				for _, o := range ops[i] {
					r.apply([]op{o})
					list = append(list, r.store.Snapshot())
				}
				follows(t, []string{all[i].name}, list)
			}
		}
	}
	// And whole histories in one, with several happenings at a time.
	rng := rand.New(rand.NewPCG(5, 5))
	for range 300 {
		r := start()
		list := []*policy.Snapshot{r.store.Snapshot()}
		var names []string
		for rest := rng.Perm(len(all))[:6]; len(rest) > 0; {
			n := 1 + rng.IntN(len(rest))
			var batch []op
			for _, i := range rest[:n] {
				batch = append(batch, ops[i]...)
				names = append(names, all[i].name)
			}
			r.apply(batch)
			list = append(list, r.store.Snapshot())
			rest = rest[n:]
		}
		follows(t, names, list)
	}
}

// alike compares by value; equal pointers are the usual case.
func alike(a, b *policy.Snapshot) bool {
	x, y := *a, *b
	x.Generation, y.Generation = 0, 0
	return reflect.DeepEqual(x, y)
}
