package diff

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// end is one end of a random flow: a pod with its addresses on both sides, or one
// address that is no pod's on either.
type end struct {
	pod   string
	addrs [2]netip.Addr
}

// ends gives every end there is. Of a pod every address is paired with every
// address of its family that the other side has only if it is the same or each
// side has one: more says Compare's documentation nothing about.
func ends(sides [2]*policy.Snapshot) (out []end) {
	taken := make(map[netip.Addr]bool)
	for _, s := range sides {
		for _, ep := range s.Endpoints {
			for _, a := range ep.Addrs {
				taken[a] = true
			}
		}
	}
	for _, p := range sides[0].Endpoints {
		for _, q := range sides[1].Endpoints {
			if p.Key() != q.Key() {
				continue
			}
			for fam := range 2 {
				old, now := plain(p.Addrs, fam), plain(q.Addrs, fam)
				for _, a := range old {
					switch {
					case slices.Contains(now, a):
						out = append(out, end{podName(p), [2]netip.Addr{a, a}})
					case len(old) == 1 && len(now) == 1:
						out = append(out, end{podName(p), [2]netip.Addr{a, now[0]}})
					}
				}
			}
		}
	}
	for _, text := range strangers {
		if a := netip.MustParseAddr(text); !taken[a] {
			out = append(out, end{addrs: [2]netip.Addr{a, a}})
		}
	}
	return out
}

// covers tells whether a report has a change with this outcome for a flow, by
// what the report says in its exported fields alone.
func covers(r *Report, from, to end, t flow.Tuple, now string) bool {
	holds := func(ids []int, e end) bool {
		return slices.ContainsFunc(ids, func(i int) bool {
			id := r.Identities[i]
			if e.pod != "" {
				return slices.Contains(id.Pods, e.pod)
			}
			return slices.ContainsFunc(id.Regions, func(reg Region) bool { return reg.Contains(e.addrs[0]) })
		})
	}
	within := func(list []flow.PortRange, n uint16) bool {
		return list == nil || slices.ContainsFunc(list, func(p flow.PortRange) bool { return p.Contains(n) })
	}
	traffic := func(tr Traffic) bool {
		if tr.Family != "" && tr.Family != familyNames[family(t.Src)] {
			return false
		}
		switch tr.Protocol {
		case "any":
		case "other":
			if slices.Contains(r.Protocols, t.Proto.String()) {
				return false
			}
		default:
			if tr.Protocol != t.Proto.String() {
				return false
			}
		}
		return within(tr.Ports, t.DstPort) && within(tr.SourcePorts, t.SrcPort) && within(tr.ICMP, uint16(t.ICMPType)<<8|uint16(t.ICMPCode))
	}
	return slices.ContainsFunc(r.Changes, func(c Change) bool {
		return c.Now == now && holds(c.From, from) && holds(c.To, to) && slices.ContainsFunc(c.Traffic, traffic)
	})
}

// unambiguous tells whether the pod of an end has one address of each family only,
// so that its name says which identity it belongs to.
func unambiguous(r *Report, e end) bool {
	n := 0
	for _, id := range r.Identities {
		if slices.Contains(id.Pods, e.pod) {
			n++
		}
	}
	return e.pod == "" || n == 1
}

// A verdict differs if and only if the report has a change for it.
func TestReportIsExact(t *testing.T) {
	t.Parallel()
	var differing, same int
	rapid.Check(t, func(rt *rapid.T) {
		d := draw{rt}
		before := unique(d.snapshot())
		sides := [2]*policy.Snapshot{before, d.change(before)}
		report, err := Compare(context.Background(), sides[0], sides[1], Options{})
		var none *NoPodsError
		if errors.As(err, &none) {
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		var engines [2]*filter.Ruleset
		for i, s := range sides {
			engines[i], _ = compile.Compile(s, compile.Options{})
		}
		all := ends(sides)
		for range 40 {
			from, to := one(d, all), one(d, all)
			if from.addrs[0].Is4() != to.addrs[0].Is4() || from.pod == "" && to.pod == "" || !unambiguous(report, from) || !unambiguous(report, to) {
				continue
			}
			flows := [2]flow.Tuple{}
			flows[0] = d.traffic(flow.Tuple{Src: from.addrs[0], Dst: to.addrs[0]})
			flows[1] = flows[0]
			flows[1].Src, flows[1].Dst = from.addrs[1], to.addrs[1]
			was, is := engines[0].Decide(flows[0]).Verdict, engines[1].Decide(flows[1]).Verdict
			for _, v := range []filter.Verdict{filter.Accept, filter.Drop} {
				if got := covers(report, from, to, flows[0], v.String()); got != (was != is && is == v) {
					rt.Fatalf("%v -> %v, %s: was %s, is %s; the report has a change to %s: %v", from, to, flows[0], was, is, v, got)
				}
			}
			if was == is {
				same++
			} else {
				differing++
			}
		}
	})
	if !testing.Short() && (differing < 20 || same < 20) { // -short draws a fifth of the worlds
		t.Errorf("%d flows with a change and %d without: the property was hardly tried", differing, same)
	}
}
