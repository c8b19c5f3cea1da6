package diff

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// services gives n accounts of three pods each, and a policy for every account that
// admits four others on a port of its own.
func services(n int) *policy.Snapshot {
	s := &policy.Snapshot{Tiers: []policy.Tier{{Name: policy.DefaultTier, Order: policy.DefaultTierOrder}}, Namespaces: []*policy.Namespace{{Name: "prod"}}}
	account := func(i int) string { return fmt.Sprintf("svc-%04d", i%n) }
	for i := range n {
		for p := range 3 {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(p + 1)})
			s.Endpoints = append(s.Endpoints, &policy.Endpoint{Namespace: "prod", Name: fmt.Sprintf("%s-%d", account(i), p), ServiceAccount: account(i), Addrs: []netip.Addr{a}})
		}
		port := uint16(8000 + i%50)
		s.Policies = append(s.Policies, &policy.Policy{
			Kind: policy.NetworkPolicy, Namespace: "prod", Name: account(i), Tier: policy.DefaultTier, Order: policy.Unordered, AppliesIngress: true,
			Selector: selector.Equals("projectcalico.org/serviceaccount", account(i)),
			Ingress: []policy.Rule{{
				Action: policy.Allow, Protocol: &policy.Protocol{Number: flow.TCP, ByName: true},
				Source:      policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Names: []string{account(i + 1), account(i + 7), account(i + 11), account(i + 13)}}},
				Destination: policy.EntityRule{Ports: []policy.Port{{PortRange: flow.PortRange{Min: port, Max: port}}}},
			}},
		})
	}
	return s
}

func BenchmarkCompare(b *testing.B) {
	before := services(500)
	onePolicy, everyPolicy := *before, *before
	changed := *before.Policies[7]
	changed.Ingress = nil
	onePolicy.Policies = append([]*policy.Policy{&changed}, append(before.Policies[:7:7], before.Policies[8:]...)...)
	everyPolicy.Policies = nil
	for _, p := range before.Policies {
		other := *p
		other.Order = 5
		everyPolicy.Policies = append(everyPolicy.Policies, &other)
	}
	for _, bb := range []struct {
		name  string
		after *policy.Snapshot
	}{{"one policy", &onePolicy}, {"every policy", &everyPolicy}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, err := Compare(context.Background(), before, bb.after, Options{})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(r.Decisions), "decisions")
			}
		})
	}
}
