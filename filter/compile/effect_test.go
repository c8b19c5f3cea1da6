package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
	"github.com/postern-project/postern/test/worlds"
)

// TestEffectIsSound follows random worlds through random changes. Whenever a flow
// is denied that was accepted, one of its ends must be among what was told, and
// whenever one is accepted that was denied, the effect must say that it widened.
func TestEffectIsSound(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{"every endpoint hosted": {}, "one node": {Node: "n1"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var narrowed, widened, exact int // flows, and flows that an effect without All told of
			rapid.Check(t, func(rt *rapid.T) {
				d := draw{rt}
				c := New(o)
				s := d.snapshot()
				before, _ := c.Apply(s)
				for range 4 {
					s = d.small(s)
					now, _ := c.Apply(s)
					e := c.Effect()
					for _, tuple := range d.everyPair() {
						was, is := before.Decide(tuple).Verdict, now.Decide(tuple).Verdict
						switch {
						case was == filter.Accept && is == filter.Drop:
							narrowed++
							if !e.All {
								exact++
							}
							if !e.All && !slices.Contains(e.Narrowed, tuple.Src) && !slices.Contains(e.Narrowed, tuple.Dst) {
								rt.Fatalf("%s is denied now, and of both ends nothing was told: %+v", tuple, e)
							}
						case was == filter.Drop && is == filter.Accept:
							widened++
							if !e.Widened {
								rt.Fatalf("%s is accepted now, and nothing was told: %+v", tuple, e)
							}
						}
					}
					before = now
				}
			})
			t.Logf("%d flows narrowed (%d with addresses told), %d widened", narrowed, exact, widened)
			if narrowed == 0 || widened == 0 || exact == 0 {
				t.Error("the worlds show nothing")
			}
		})
	}
}

// TestHostsAsIsTrue follows the same changes. Rulesets that say to host the same must
// give the same endpoint for every address that either hosts.
func TestHostsAsIsTrue(t *testing.T) {
	t.Parallel()
	var same, other int
	rapid.Check(t, func(rt *rapid.T) {
		d := draw{rt}
		c := New(Options{Node: "n1"})
		s := d.snapshot()
		before, _ := c.Apply(s)
		for range 4 {
			s = d.small(s)
			now, _ := c.Apply(s)
			if now.HostsAs(before) {
				same++
				if !slices.Equal(now.Hosted(), before.Hosted()) {
					rt.Fatalf("hosts %v, and hosted %v", now.Hosted(), before.Hosted())
				}
				for _, a := range now.Hosted() {
					is, _ := now.Endpoint(a)
					if was, _ := before.Endpoint(a); is != was {
						rt.Fatalf("%s is of %+v, and was of %+v", a, is, was)
					}
				}
			} else {
				other++
			}
			before = now
		}
	})
	if same == 0 || other == 0 {
		t.Errorf("the worlds show nothing: %d the same, %d not", same, other)
	}
}

// small gives a state in which objects of one or two kinds differ, none of which
// reaches everywhere.
func (d draw) small(old *policy.Snapshot) *policy.Snapshot {
	other, s := d.snapshot(), *old
	s.Generation++
	for range 1 + d.below(2) {
		switch d.below(7) {
		case 0:
			s.Policies = few(d, s.Policies, other.Policies, (*policy.Policy).Key)
		case 1:
			s.Namespaces = few(d, s.Namespaces, other.Namespaces, namespaceKey)
		case 2:
			s.ServiceAccounts = few(d, s.ServiceAccounts, other.ServiceAccounts, accountObjectKey)
		case 3:
			s.Endpoints = few(d, s.Endpoints, other.Endpoints, (*policy.Endpoint).Key)
		case 4:
			s.NetworkSets = few(d, s.NetworkSets, other.NetworkSets, setKey)
		case 5:
			s.EndpointSlices = few(d, s.EndpointSlices, other.EndpointSlices, sliceKey)
		case 6:
			s.Endpoints = relabelSome(d, s.Endpoints, other.Endpoints)
		}
	}
	return &s
}

// few removes, replaces or adds up to two objects.
func few[T any](d draw, old, other []*T, key func(*T) policy.Key) []*T {
	out := slices.Clone(old)
	for range 1 + d.below(2) {
		if len(out) > 0 && d.chance(40) {
			i := d.below(len(out))
			out = slices.Delete(out, i, i+1)
		}
		if len(other) > 0 && d.chance(80) {
			o := one(d, other)
			out = slices.DeleteFunc(out, func(x *T) bool { return key(x) == key(o) })
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b *T) int { return compareKeys(key(a), key(b)) })
	return out
}

// everyPair gives a flow or two between any two addresses of a family.
func (d draw) everyPair() (out []flow.Tuple) {
	all := worlds.Addresses()
	for _, src := range all {
		for _, dst := range all {
			if src.Is4() != dst.Is4() || src == dst {
				continue
			}
			out = append(out, flow.Tuple{Src: src, Dst: dst, Proto: one(d, []flow.Proto{flow.TCP, flow.TCP, flow.UDP}), Ported: true, SrcPort: 4711, DstPort: one(d, []uint16{53, 80, 81, 8080})})
		}
	}
	return out
}

// TestEffectIsSmall holds what changes that are common tell, so that the flows of
// pods they do not concern are left alone.
func TestEffectIsSmall(t *testing.T) {
	t.Parallel()
	pod := func(ns, name, node, addr string, labels map[string]string) *policy.Endpoint {
		return &policy.Endpoint{Namespace: ns, Name: name, Node: node, Addrs: addresses(addr), Labels: labels}
	}
	allowFrom := func(p *policy.Policy, sel string) *policy.Policy {
		p.Ingress = []policy.Rule{{Action: policy.Allow, Source: policy.EntityRule{Selector: selector.MustParse(sel)}}}
		return p
	}
	web := allowFrom(namespaced("shop", "web", 1), `app == "web"`)
	feed := global("feed", 0, policy.Rule{Action: policy.Deny, Source: policy.EntityRule{Selector: selector.MustParse(`feed == "bad"`)}})
	feed.Selector = selector.MustParse(`app == "db"`)
	out := &policy.Policy{Kind: policy.NetworkPolicy, Namespace: "shop", Name: "out", Selector: selector.MustParse(`app == "db"`), AppliesEgress: true}
	out.Egress = []policy.Rule{
		{Action: policy.Allow, Protocol: &policy.Protocol{Number: flow.TCP}, Destination: policy.EntityRule{Ports: []policy.Port{{Name: "http"}}}},
		{Action: policy.Allow, Destination: policy.EntityRule{Service: &policy.ServiceRef{Namespace: "far", Name: "f"}}},
	}
	served := func(port uint16) []*policy.EndpointSlice {
		return []*policy.EndpointSlice{{Namespace: "far", Name: "f-1", Service: "f", Addrs: addresses("10.0.9.1"), Ports: []policy.ServicePort{{Proto: flow.TCP, Port: port}}}}
	}
	http := func(p *policy.Endpoint, port uint16) *policy.Endpoint {
		p.Ports = []policy.NamedPort{{Name: "http", Proto: flow.TCP, Port: port}}
		return p
	}
	first := policy.Snapshot{
		Tiers:          []policy.Tier{{Name: policy.DefaultTier, Order: policy.DefaultTierOrder}},
		Namespaces:     []*policy.Namespace{{Name: "far"}, {Name: "shop"}},
		Policies:       []*policy.Policy{feed, out, web},
		EndpointSlices: served(80),
		NetworkSets:    []*policy.NetworkSet{{Kind: policy.GlobalNetworkSet, Name: "bad", Labels: map[string]string{"feed": "bad"}, Nets: prefixes("198.51.100.0/24")}},
		Endpoints: []*policy.Endpoint{
			pod("far", "f", "n2", "10.0.9.1", map[string]string{"app": "x"}),
			pod("shop", "db", "n1", "10.0.0.1", map[string]string{"app": "db"}),
			pod("shop", "peer", "n2", "10.0.0.2", map[string]string{"app": "web"}),
			http(pod("shop", "served", "n2", "10.0.0.4", nil), 80),
		},
	}
	for _, tt := range []struct {
		title    string
		change   func(*policy.Snapshot)
		narrowed string
		widened  bool
	}{
		{"nothing", func(*policy.Snapshot) {}, "[]", false},
		{"pod that no rule knows", func(s *policy.Snapshot) {
			s.Endpoints = append([]*policy.Endpoint{pod("far", "e", "n2", "10.0.9.2", nil)}, s.Endpoints...)
		}, "[]", false},
		{"label that no rule asks for", func(s *policy.Snapshot) {
			s.Endpoints[2] = pod("shop", "peer", "n2", "10.0.0.2", map[string]string{"app": "web", "version": "2"})
		}, "[]", false},
		{"peer that may do more", func(s *policy.Snapshot) {
			s.Endpoints = slices.Insert(s.Endpoints, 3, pod("shop", "peer2", "n2", "10.0.0.3", map[string]string{"app": "web"}))
		}, "[]", true},
		{"peer gone", func(s *policy.Snapshot) { s.Endpoints = slices.Delete(s.Endpoints, 2, 3) }, "[10.0.0.2]", false},
		{"peer relabelled", func(s *policy.Snapshot) {
			s.Endpoints[2] = pod("shop", "peer", "n2", "10.0.0.2", map[string]string{"app": "no"})
		}, "[10.0.0.2]", false},
		{"longer list of what is denied", func(s *policy.Snapshot) {
			s.NetworkSets = []*policy.NetworkSet{{Kind: policy.GlobalNetworkSet, Name: "bad", Labels: map[string]string{"feed": "bad"}, Nets: prefixes("198.51.100.0/24", "203.0.113.0/24")}}
		}, "[10.0.0.1]", false},
		{"shorter one", func(s *policy.Snapshot) { s.NetworkSets = nil }, "[]", true},
		{"port by another number", func(s *policy.Snapshot) { s.Endpoints[3] = http(pod("shop", "served", "n2", "10.0.0.4", nil), 81) }, "[10.0.0.4]", true},
		{"service on another port", func(s *policy.Snapshot) { s.EndpointSlices = served(81) }, "[10.0.9.1]", true},
		{"service that no rule names", func(s *policy.Snapshot) {
			s.EndpointSlices = append(s.EndpointSlices, &policy.EndpointSlice{Namespace: "far", Name: "g", Service: "g", Addrs: addresses("10.0.9.1")})
		}, "[]", false},
		{"policy", func(s *policy.Snapshot) {
			s.Policies = []*policy.Policy{feed, out, allowFrom(namespaced("shop", "web", 1), `app == "other"`)}
		}, "[10.0.0.1]", true},
		{"policy elsewhere", func(s *policy.Snapshot) { s.Policies = []*policy.Policy{feed, namespaced("far", "x", 1), out, web} }, "[]", false},
	} {
		c := New(Options{Node: "n1"})
		s := first
		s.Endpoints = slices.Clone(s.Endpoints)
		c.Apply(&s)
		next := s
		next.Endpoints = slices.Clone(s.Endpoints)
		tt.change(&next)
		c.Apply(&next)
		e := c.Effect()
		if got := fmt.Sprint(e.Narrowed); e.All || got != tt.narrowed || e.Widened != tt.widened {
			t.Errorf("%s: %+v, want narrowed %s, widened %v", tt.title, e, tt.narrowed, tt.widened)
		}
	}
}

func TestEffectJoins(t *testing.T) {
	t.Parallel()
	a := Effect{Narrowed: addresses("10.0.0.2")}
	b := Effect{Narrowed: addresses("10.0.0.1", "10.0.0.2"), Widened: true}
	if got := a.Join(b); fmt.Sprint(got) != "{false [10.0.0.1 10.0.0.2] true}" {
		t.Errorf("joined: %v", got)
	}
	if got := a.Join(everything); !got.All || got.Narrowed != nil {
		t.Errorf("joined with everything: %v", got)
	}
	var many Effect
	for i := range maxNarrowed + 1 {
		many.Narrowed = append(many.Narrowed, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	if got := a.Join(many); !got.All || got.Narrowed != nil {
		t.Errorf("joined with %d addresses: %d told", len(many.Narrowed), len(got.Narrowed))
	}
}

// namespaced makes a policy of a namespace for ingress, which isolates all its pods.
func namespaced(namespace, name string, order float64) *policy.Policy {
	return &policy.Policy{Kind: policy.NetworkPolicy, Namespace: namespace, Name: name, Order: order, AppliesIngress: true}
}
