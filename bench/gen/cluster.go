package gen

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// World is a cluster and new connections of its local node.
type World struct {
	Snapshot *policy.Snapshot
	// Flows are distinct triples of source, destination and destination port.
	Flows []Flow
}

// PodsPerWorkload is the number of pods of each workload of a Cluster; pods of one
// workload are neighbours in the snapshot.
const PodsPerWorkload = 10

// Rules of a namespace with the usual number of policies, seven. Beyond
// Namespaces times as many every workload has a policy of its own.
const usualRules = 26

// Cluster makes a world of 100,000 pods of which 110 random ones are local, with
// so many rules in policies of namespaces. Namespaces with local pods get theirs
// first, so that small worlds have something to decide. With a security tier,
// two lists of 64 prefixes are denied to every pod before anything else; these
// rules are not counted.
func Cluster(rules int, security bool) *World {
	rnd := rand.New(rand.NewPCG(1, 1)) // the same pods whatever the rules
	s := newSnapshot(PodsPerWorkload, rnd)
	local := rnd.Perm(len(s.Endpoints))[:localPods]
	place(s, local)
	c := &cluster{Rand: rand.New(rand.NewPCG(2, uint64(rules))), s: s}
	if security {
		c.addSecurity()
	}
	some := min(Namespaces, (rules+usualRules-1)/usualRules)
	chosen := byLocalPods(local)[:some]
	for i, n := range chosen {
		c.addNamespace(n, rules*(i+1)/some-rules*i/some)
	}
	slices.SortFunc(s.Policies, func(a, b *policy.Policy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	var protected []int
	for _, pod := range local {
		if slices.Contains(chosen, namespaceOf(pod, PodsPerWorkload)) {
			protected = append(protected, pod)
		}
	}
	return &World{s, c.flows(protected)}
}

// byLocalPods gives the namespaces, those with most local pods first.
func byLocalPods(local []int) []int {
	var pods [Namespaces]int
	for _, pod := range local {
		pods[namespaceOf(pod, PodsPerWorkload)]++
	}
	order := make([]int, Namespaces)
	for n := range order {
		order[n] = n
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(pods[b], pods[a]) })
	return order
}

// cluster is a world being made.
type cluster struct {
	*rand.Rand
	s    *policy.Snapshot
	nets [Namespaces][]netip.Prefix // that rules of a namespace allow
	deny []netip.Prefix             // that the security tier denies
}

var tcp, udp = &policy.Protocol{Number: flow.TCP, ByName: true}, &policy.Protocol{Number: flow.UDP, ByName: true}

// The ports that workloads serve.
var servedPorts = []uint16{80, 443, 3306, 5432, 6379, 8080, 8443, 9000}

const metricsPort, dnsPort = 9090, 53

func ports(min, max uint16) []policy.Port {
	return []policy.Port{{PortRange: flow.PortRange{Min: min, Max: max}}}
}

func onPort(peer policy.EntityRule, port uint16) policy.EntityRule {
	peer.Ports = ports(port, port)
	return peer
}

func inNamespace(n int, where *selector.Selector) policy.EntityRule {
	return policy.EntityRule{
		NamespaceSelector: selector.Equals("kubernetes.io/metadata.name", namespaceName(n)),
		Selector:          where,
	}
}

// addNamespace adds the policies of one namespace, with so many rules in all.
func (c *cluster) addNamespace(n, rules int) {
	add := func(name string, where *selector.Selector, ingress, egress []policy.Rule) {
		rules -= len(ingress) + len(egress)
		for _, list := range [][]policy.Rule{ingress, egress} {
			for i := range list {
				list[i].Index = i
			}
		}
		c.s.Policies = append(c.s.Policies, &policy.Policy{
			Kind: policy.NetworkPolicy, Namespace: namespaceName(n), Name: name, Tier: policy.DefaultTier, Order: 1000,
			Selector: where, AppliesIngress: len(ingress) > 0 || len(egress) == 0, AppliesEgress: len(egress) > 0 || len(ingress) == 0,
			Ingress: ingress, Egress: egress,
		})
	}
	dns := inNamespace(dnsNamespace, selector.Equals("app", appName(0)))
	add("default-deny", nil, nil, nil)
	add("same-namespace", nil,
		[]policy.Rule{{Action: policy.Allow, Source: policy.EntityRule{Selector: selector.All()}}},
		[]policy.Rule{{Action: policy.Allow, Destination: policy.EntityRule{Selector: selector.All()}}})
	add("dns", nil, nil, []policy.Rule{
		{Action: policy.Allow, Protocol: udp, Destination: onPort(dns, dnsPort)},
		{Action: policy.Allow, Protocol: tcp, Destination: onPort(dns, dnsPort)},
	})
	whom, count := "group", groups
	if rules > usualRules {
		whom, count = "app", Workloads
	}
	each := (rules + count - 1) / count
	each = max(each, min(rules, 4)) // a policy of one rule is rare
	for k := 0; rules > 0; k++ {
		where := selector.Equals("app", appName(k))
		if whom == "group" {
			where = selector.Equals("group", fmt.Sprint("group-", k))
		}
		ingress, egress := c.workloadRules(n, min(each, rules))
		add(fmt.Sprintf("%s-%02d", whom, k), where, ingress, egress)
	}
}

// workloadRules draws rules for one workload or group.
func (c *cluster) workloadRules(n, count int) (ingress, egress []policy.Rule) {
	for i := range count {
		r := policy.Rule{Action: policy.Allow, Protocol: tcp}
		port := servedPorts[c.IntN(len(servedPorts))]
		switch i % 6 {
		case 0: // another workload of any namespace of a team
			r.Source = policy.EntityRule{NamespaceSelector: selector.Equals("team", teamName(c.IntN(teams))), Selector: selector.Equals("app", appName(c.IntN(Workloads)))}
			r.Destination.Ports = ports(port, port)
		case 1: // monitoring
			r.Source = inNamespace(monitoringNamespace, selector.Equals("app", appName(0)))
			r.Destination.Ports = ports(metricsPort, metricsPort)
		case 2: // to a database elsewhere
			r.Destination = onPort(inNamespace(c.IntN(Namespaces), selector.In("app", appName(c.IntN(Workloads)), appName(c.IntN(Workloads)))), port)
		case 3: // from a network, without a part of it
			net, part := c.net()
			c.nets[n] = append(c.nets[n], net)
			r.Source = policy.EntityRule{Nets: []netip.Prefix{net}, NotNets: []netip.Prefix{part}}
			r.Destination.Ports = ports(port, port)
		case 4: // to the internet, or to one network
			if c.IntN(2) == 0 {
				r.Destination = policy.EntityRule{Nets: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, NotNets: private}
				r.Destination.Ports = ports(443, 443)
			} else {
				net, _ := c.net()
				c.nets[n] = append(c.nets[n], net)
				r.Destination = onPort(policy.EntityRule{Nets: []netip.Prefix{net}}, port)
			}
		case 5: // an account
			r.Source = policy.EntityRule{ServiceAccounts: &policy.ServiceAccountMatch{Names: []string{appName(c.IntN(Workloads))}}, NamespaceSelector: selector.Equals("env", "prod")}
			r.Destination.Ports = ports(port, port+uint16(c.IntN(16)))
		}
		if i%6 == 2 || i%6 == 4 {
			egress = append(egress, r)
		} else {
			ingress = append(ingress, r)
		}
	}
	return ingress, egress
}

var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
}

// net draws a prefix outside the pods' and a part of it.
func (c *cluster) net() (net, part netip.Prefix) {
	addr := netip.AddrFrom4([4]byte{[]byte{100, 172, 192}[c.IntN(3)], byte(16 + c.IntN(16)), byte(c.IntN(256)), byte(c.IntN(256))})
	length := 18 + c.IntN(9)
	return netip.PrefixFrom(addr, length).Masked(), netip.PrefixFrom(addr, length+2).Masked()
}

// addSecurity adds the tier that denies feeds of prefixes to all and leaves the
// rest to the namespaces.
func (c *cluster) addSecurity() {
	c.s.Tiers = append(c.s.Tiers, policy.Tier{Name: "security", Order: 100, DefaultAction: policy.Pass})
	p := &policy.Policy{
		Kind: policy.GlobalNetworkPolicy, Name: "security.feeds", Tier: "security", Order: 1,
		NamespaceSelector: selector.All(), AppliesIngress: true, AppliesEgress: true,
	}
	for i := range 64 {
		net := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(60 + i/2), byte(c.IntN(256)), byte(c.IntN(256)), 0}), 16+c.IntN(9)).Masked()
		c.deny = append(c.deny, net)
		far := policy.EntityRule{Nets: []netip.Prefix{net}}
		p.Ingress = append(p.Ingress, policy.Rule{Index: i, Action: policy.Deny, Source: far})
		p.Egress = append(p.Egress, policy.Rule{Index: i, Action: policy.Deny, Destination: far})
	}
	p.Ingress = append(p.Ingress, policy.Rule{Index: 64, Action: policy.Pass})
	p.Egress = append(p.Egress, policy.Rule{Index: 64, Action: policy.Pass})
	c.s.Policies = append(c.s.Policies, p)
}
