package lint

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

const dnsPort = 53

// dnsNames are what the port is called where it is named.
var dnsNames = []string{"dns", "dns-tcp", "domain"}

// checkDNS finds egress policy that cuts pods off from the cluster's DNS, where
// that is among the pods known. A pod for which any rule speaks of port 53 is
// left alone: it may well resolve names elsewhere.
func (c *checker) checkDNS() {
	var servers []*policy.Endpoint
	for _, ep := range c.Endpoints {
		if ep.Labels["k8s-app"] == "kube-dns" && len(ep.Addrs) > 0 {
			servers = append(servers, ep)
		}
	}
	if len(servers) == 0 {
		return
	}
	cut := map[policy.Key][]string{} // by the policy at fault
	var order []policy.Key
	for i := range c.objects {
		o := &c.objects[i]
		if o.pod == nil || slices.Contains(servers, o.pod) {
			continue
		}
		p := c.cutsOff(i, servers)
		if p == nil {
			continue
		}
		if cut[p.Key()] == nil {
			order = append(order, p.Key())
		}
		cut[p.Key()] = append(cut[p.Key()], o.Namespace+"/"+o.Name)
	}
	for _, key := range order {
		pods := cut[key]
		c.add(DNSCutOff, key, "spec.egress",
			fmt.Sprintf("%d of the selected pods cannot reach the cluster's DNS (%s): %s", len(pods), servers[0].Key(), list(pods)),
			`allow it: action: Allow, protocol: UDP (and another rule for TCP), destination: {namespaceSelector: projectcalico.org/name == "`+
				servers[0].Namespace+`", selector: k8s-app == "kube-dns", ports: [53]}`)
	}
}

// cutsOff gives the policy that keeps a pod from every server, or nil if one can
// be reached or it is not policy that is in the way.
func (c *checker) cutsOff(pod int, servers []*policy.Endpoint) *policy.Policy {
	addrs := c.objects[pod].pod.Addrs
	asked := false
	var tierName string
	var rule *explain.RuleRef
	for _, server := range servers {
		src, dst, ok := sameFamily(addrs, server.Addrs)
		if !ok {
			continue
		}
		for _, proto := range []flow.Proto{flow.UDP, flow.TCP} {
			side := c.evaluator.Decide(flow.Tuple{Src: src, Dst: dst, Proto: proto, Ported: true, SrcPort: 40000, DstPort: dnsPort}).Egress
			if side.Verdict == explain.Allow || side.Reason != explain.ByRule && side.Reason != explain.EndOfTier {
				return nil
			}
			asked, tierName, rule = true, side.Tier, side.Rule
		}
	}
	if !asked {
		return nil
	}
	var atFault *policy.Policy
	for _, t := range c.tiers {
		for _, p := range t.policies {
			if _, selects := slices.BinarySearch(c.selected[p], pod); !selects || !p.AppliesEgress || hostOnly(p) {
				continue
			}
			if slices.ContainsFunc(p.Egress, speaksOfDNS) {
				return nil
			}
			decided := rule != nil && p.Key() == policy.Key{Kind: rule.Kind, Namespace: rule.Namespace, Name: rule.Name}
			if decided || rule == nil && t.Name == tierName && atFault == nil {
				atFault = p
			}
		}
	}
	return atFault
}

func sameFamily(a, b []netip.Addr) (src, dst netip.Addr, ok bool) {
	for _, src := range a {
		for _, dst := range b {
			if src.Is6() == dst.Is6() {
				return src, dst, true
			}
		}
	}
	return src, dst, false
}

// speaksOfDNS tells whether a rule names the port, in whatever sense.
func speaksOfDNS(r policy.Rule) bool {
	return slices.ContainsFunc(r.Destination.Ports, func(p policy.Port) bool {
		return p.Name == "" && p.Min == dnsPort && p.Max == dnsPort || slices.Contains(dnsNames, p.Name)
	})
}
