package kube

import (
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/dataplane"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/nft"
	"github.com/postern-project/postern/filter/policy"
)

// happening is one event that a watch tells.
type happening struct {
	name string
	event
	// after is the index of the happening that the same watch tells before, or -1.
	after int
}

// story is a world and what happens to it. Every happening is alone on what it
// changes, but for those after it, so that any set of them makes one world, in whatever
// order they are seen: watches of different kinds are not in step.
type story struct {
	begin world
	list  []happening
}

func (s *story) add(name string, e event) (index int) { return s.then(-1, name, e) }

func (s *story) then(after int, name string, e event) (index int) {
	s.list = append(s.list, happening{name, e, after})
	return len(s.list) - 1
}

// possible tells whether a set of happenings can have been seen.
func (s *story) possible(set uint) bool {
	for i, h := range s.list {
		if set&(1<<i) != 0 && h.after >= 0 && set&(1<<h.after) == 0 {
			return false
		}
	}
	return true
}

// stories have all that decisions depend on between them: pods, accounts, labels,
// namespaces, policies that come and go, and an address that changes hands; and a
// namespace that is deleted with what is in it.
func stories() map[string]*story {
	web := podOf("a", "web", "1", "web", labels{"app": "web"}, "10.0.0.1", "fd00::1")
	db := podOf("a", "db", "2", "db", labels{"app": "db"}, "10.0.0.2", "fd00::2")
	peer := podOf("b", "peer", "3", "peer", labels{"app": "peer"}, "10.0.0.3")
	thief := podOf("a", "thief", "5", "thief", labels{"app": "web"}, "10.0.0.1", "fd00::1")
	const dbOnly = `"selector":"app == 'db'","types":["Ingress"]`
	begin := world{}.put(
		namespaceOf("a", labels{"env": "x"}), namespaceOf("b", labels{"env": "x"}),
		accountOf("a", "web", labels{"role": "r"}), accountOf("b", "peer", labels{"role": "r"}),
		web, db, peer,
		rawOf(policy.GlobalNetworkPolicy, "", "role", `{"metadata":{"name":"role"},"spec":{"order":2,`+dbOnly+`,"ingress":[{"action":"Allow","source":{"serviceAccounts":{"selector":"role == 'r'"}}}]}}`),
		rawOf(policy.GlobalNetworkPolicy, "", "shut", `{"metadata":{"name":"shut"},"spec":{"order":3,"selector":"app == 'peer'","types":["Egress"],"egress":[{"action":"Deny"}]}}`),
	)
	env := rawOf(policy.GlobalNetworkPolicy, "", "env", `{"metadata":{"name":"env"},"spec":{"order":1,"selector":"all()","types":["Ingress"],"ingress":[{"action":"Deny","source":{"namespaceSelector":"env == 'y'"}},{"action":"Pass"}]}}`)

	changes := &story{begin: begin}
	changes.add("a pod comes", podOf("a", "new", "4", "web", labels{"app": "db"}, "10.0.0.4"))
	changes.add("an account is relabelled", accountOf("a", "web", labels{"role": "other"}))
	gone := changes.add("an account goes", accountOf("b", "peer", nil).gone())
	changes.then(gone, "an account of its name comes", accountAs("9", "b", "peer", labels{"role": "none"}))
	changes.add("a pod is relabelled", podOf("a", "db", "2", "db", labels{"app": "other"}, "10.0.0.2", "fd00::2"))
	changes.add("a namespace is relabelled", namespaceOf("a", labels{"env": "y"}))
	changes.add("a policy comes", env)
	changes.add("a policy goes", rawOf(policy.GlobalNetworkPolicy, "", "shut", ``).gone())
	changes.add("a policy of Kubernetes comes", isolate("b", "deny"))
	gone = changes.add("a pod goes", web.gone())
	changes.then(gone, "its address has another pod", thief)

	end := &story{begin: begin.put(isolate("b", "deny"), podOf("b", "last", "6", "peer", nil, "10.0.0.4"))}
	end.add("a namespace is being deleted", terminating("b", labels{"env": "x"}))
	end.add("its policy goes", isolate("b", "deny").gone())
	end.add("its account goes", accountOf("b", "peer", nil).gone())
	gone = end.add("a pod of it goes", peer.gone())
	end.then(gone, "its address has another pod", podOf("a", "thief", "5", "web", labels{"app": "db"}, "10.0.0.3"))
	end.add("the last pod of it is being deleted", podOf("b", "last", "6", "peer", nil, "10.0.0.4").but(func(p *core.Pod) { now := metav1.Unix(1e9, 0); p.DeletionTimestamp = &now }))
	end.add("a pod is relabelled", podOf("a", "db", "2", "db", labels{"app": "other"}, "10.0.0.2", "fd00::2"))
	end.add("a policy comes", env)
	return map[string]*story{"changes": changes, "the end of a namespace": end}
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
// flow passes that passes neither before nor after, or in the end one that the
// explainer denies.
func follows(t *testing.T, names []string, list ...*policy.Snapshot) {
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
		before = after
	}
	e := explain.New(list[len(list)-1], explain.Options{Node: "n1"})
	for i, f := range flows {
		d := e.Decide(f)
		if open := d.Verdict == explain.Allow || d.Reason == explain.NoLocalEndpoint; open != (before[i] == 'y') {
			t.Errorf("%v: in the end %v passes: %v, and explained: %v (%v)", names, f, before[i] == 'y', d.Verdict, d.Reason)
		}
	}
}

// six is how many happenings are seen in every order.
const six = 6

// telling tells a story to replicas, event by event.
type telling struct {
	*story
	first []op // the world at its beginning
	ops   []op
	// states are what follows from each set of happenings, seen one after the other as
	// they are listed.
	states map[uint]*policy.Snapshot
}

func tell(t *testing.T, s *story) *telling {
	t.Helper()
	proto := newReplica(t)
	n := &telling{story: s, states: make(map[uint]*policy.Snapshot)}
	for _, kind := range kinds {
		for _, obj := range s.begin[kind] {
			n.first = append(n.first, op{from: proto.feeds[kind], item: proto.item(kind, obj)})
		}
	}
	for _, h := range s.list {
		n.ops = append(n.ops, op{from: proto.feeds[h.kind], item: proto.item(h.kind, h.object), deleted: h.deleted})
	}
	for set := uint(0); set < 1<<len(s.list); set++ {
		if bits.OnesCount(set) <= six && s.possible(set) {
			r := n.start(t)
			for i := range s.list {
				if set&(1<<i) != 0 {
					r.apply(n.ops[i : i+1])
				}
			}
			n.states[set] = r.store.Snapshot()
		}
	}
	return n
}

func (n *telling) start(t *testing.T) *replica {
	r := newReplica(t)
	r.apply(n.first)
	return r
}

func (n *telling) names(order []int) (names []string) {
	for _, i := range order {
		names = append(names, n.list[i].name)
	}
	return names
}

// see shows a replica happenings in an order, and compares its state after each with
// that of the set seen so far, from the event on that no earlier order had.
func (n *telling) see(t *testing.T, order []int, from int) {
	r, set := n.start(t), uint(0)
	for at, i := range order {
		r.apply(n.ops[i : i+1])
		if set |= 1 << i; at < from {
			continue
		}
		if got, want := r.store.Snapshot(), n.states[set]; !alike(got, want) {
			t.Fatalf("seen in the order %q (-as listed +seen):\n%s", n.names(order[:at+1]), cmp.Diff(want, got, sameState))
		}
	}
}

// orders calls see for every order of six happenings that begins with those given.
func (n *telling) orders(t *testing.T, begin ...int) (count int) {
	order, fresh := slices.Clone(begin), 0
	var walk func(set uint)
	walk = func(set uint) {
		if len(order) == six {
			n.see(t, order, fresh)
			count, fresh = count+1, six-1
			return
		}
		for i := range n.list {
			if next := set | 1<<i; next != set && n.possible(next) {
				order = append(order, i)
				walk(next)
				order = order[:len(order)-1]
				fresh = min(fresh, len(order))
			}
		}
	}
	set := uint(0)
	for _, i := range begin {
		set |= 1 << i
	}
	walk(set)
	return count
}

// TestInterleavings sees every six happenings of a story in every order that watches
// can tell them in. After each event the state is that of the events seen, whatever
// their order; and on the way from one state to the next, by one event or by several
// that come together, nothing passes that passes in neither.
func TestInterleavings(t *testing.T) {
	t.Parallel()
	for name, s := range stories() {
		n := tell(t, s)
		for i, h := range n.list {
			if h.after < 0 {
				t.Run(name+"/first "+h.name, func(t *testing.T) {
					t.Parallel()
					// With seven others at least there are that many orders, also if two wait for their turn.
					if count := n.orders(t, i); count < 7*6*5*4*3/4 {
						t.Errorf("%d orders", count)
					}
				})
			}
		}
		t.Run(name+"/steps", func(t *testing.T) {
			t.Parallel()
			steps := 0
			for set, before := range n.states {
				for i := range n.list {
					if after := n.states[set|1<<i]; after != nil && set&(1<<i) == 0 {
						steps++
						follows(t, []string{n.list[i].name}, before, after)
					}
				}
			}
			if steps < len(n.states) {
				t.Errorf("%d steps between %d states", steps, len(n.states))
			}
		})
		t.Run(name+"/together", func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(5, 5))
			for range 300 {
				n.together(t, rng)
			}
		})
	}
}

// together tells six happenings, or as many as come before none is possible, several at
// a time.
func (n *telling) together(t *testing.T, rng *rand.Rand) {
	r, set, count := n.start(t), uint(0), 0
	list, order := []*policy.Snapshot{r.store.Snapshot()}, []int(nil)
	for count < six {
		var batch []op
		for range 1 + rng.IntN(six-count) {
			for {
				i := rng.IntN(len(n.list))
				if next := set | 1<<i; next != set && n.possible(next) {
					set, order, batch = next, append(order, i), append(batch, n.ops[i])
					break
				}
			}
		}
		count += len(batch)
		r.apply(batch)
		list = append(list, r.store.Snapshot())
		if !alike(list[len(list)-1], n.states[set]) {
			t.Fatalf("seen in the order %q, several at a time (-as listed +seen):\n%s", n.names(order), cmp.Diff(n.states[set], list[len(list)-1], sameState))
		}
	}
	follows(t, n.names(order), list...)
}

// alike compares by value; equal pointers are the usual case.
func alike(a, b *policy.Snapshot) bool {
	x, y := *a, *b
	x.Generation, y.Generation = 0, 0
	return reflect.DeepEqual(x, y)
}
