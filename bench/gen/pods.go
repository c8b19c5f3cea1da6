package gen

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// The shape of every cluster.
const (
	Namespaces = 400
	Workloads  = 25 // of a namespace; each is one identity
	teams      = 40 // of 10 namespaces each
	groups     = 4  // of the workloads of a namespace
	podsOnNode = 100

	// LocalNode is the node whose decisions are wanted.
	LocalNode = "local"
	localPods = 110
)

// The first namespace serves DNS, the second collects metrics. Nothing selects
// the last quietNamespaces in a world of one pod.
const (
	dnsNamespace, monitoringNamespace = 0, 1
	quietNamespaces                   = 40
)

func namespaceName(n int) string { return fmt.Sprintf("ns-%03d", n) }
func appName(w int) string       { return fmt.Sprintf("app-%02d", w) }
func teamName(n int) string      { return fmt.Sprintf("team-%02d", n%teams) }

// namespaceOf gives the namespace of a pod by its index, workloadOf its workload.
func namespaceOf(pod, perWorkload int) int { return pod / (Workloads * perWorkload) }
func workloadOf(pod, perWorkload int) int  { return pod / perWorkload % Workloads }

// newSnapshot makes namespaces, accounts, and pods without a node. As those of a source,
// pods share labels, ports and strings that are equal.
func newSnapshot(perWorkload int, rnd *rand.Rand) *policy.Snapshot {
	s := &policy.Snapshot{
		Generation: 1,
		Tiers:      []policy.Tier{{Name: policy.DefaultTier, Order: policy.DefaultTierOrder}},
	}
	for n := range Namespaces {
		name := namespaceName(n)
		labels := map[string]string{"kubernetes.io/metadata.name": name, "team": teamName(n), "env": []string{"dev", "prod"}[n%2]}
		s.Namespaces = append(s.Namespaces, &policy.Namespace{Name: name, Labels: labels})
		for w := range Workloads {
			s.ServiceAccounts = append(s.ServiceAccounts, &policy.ServiceAccount{Namespace: name, Name: appName(w)})
		}
	}
	pods := Namespaces * Workloads * perWorkload
	addrs := podAddrs(pods, rnd)
	ports := []policy.NamedPort{{Name: "http", Proto: flow.TCP, Port: 8080}}
	var like *policy.Endpoint // the first pod of the workload: the others share what is equal
	for i := range pods {
		n, w := namespaceOf(i, perWorkload), workloadOf(i, perWorkload)
		if i%perWorkload == 0 {
			like = &policy.Endpoint{Namespace: namespaceName(n), ServiceAccount: appName(w), Ports: ports, Labels: map[string]string{
				"app":   appName(w),
				"group": fmt.Sprint("group-", w%groups),
				"team":  teamName(n),
				"quiet": fmt.Sprint(n >= Namespaces-quietNamespaces),
			}}
		}
		pod := *like
		pod.Name, pod.UID, pod.Addrs = fmt.Sprintf("%s-%06d", appName(w), i), fmt.Sprint(i), addrs[i:i+1:i+1]
		s.Endpoints = append(s.Endpoints, &pod)
	}
	return s
}

// podAddrs gives addresses in blocks of 10.0.0.0/8, a /24 for each 100 pods, in
// random order: a scheduler puts the pods of a workload anywhere.
func podAddrs(count int, rnd *rand.Rand) []netip.Addr {
	addrs := make([]netip.Addr, 0, count)
	for node := 0; len(addrs) < count; node++ {
		for _, host := range rnd.Perm(256)[:min(podsOnNode, count-len(addrs))] {
			addrs = append(addrs, netip.AddrFrom4([4]byte{10, byte(node >> 8), byte(node), byte(host)}))
		}
	}
	rnd.Shuffle(count, func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	return addrs
}

// place puts the pods on nodes: the chosen ones on LocalNode.
func place(s *policy.Snapshot, local []int) {
	for i, ep := range s.Endpoints {
		ep.Node = fmt.Sprint("node-", i%1000)
		if slices.Contains(local, i) {
			ep.Node = LocalNode
		}
	}
}
