package nft

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Counter names one of the table's counters.
type Counter string

// The table's counters, in packets. None of them is on the path of established
// flows.
const (
	// CounterQueued: handed to the queue.
	CounterQueued Counter = "queued"
	// CounterAccepted: came back from the queue accepted.
	CounterAccepted Counter = "accepted"
	// CounterFromNode: new flows that the host itself opened to a protected pod,
	// accepted without a question (spec section 5.3, 6).
	CounterFromNode Counter = "from_node"
	// CounterInvalid: to or from a protected pod and fits no flow; dropped.
	CounterInvalid Counter = "invalid"
	// CounterTunnel: a tunnel packet made by a pod; dropped (spec section 5.3, 10).
	CounterTunnel Counter = "tunnel"
	// CounterToHost: new flows of pods to this host, refused whatever policy says
	// (spec section 5.3, 7).
	CounterToHost Counter = "to_host"
)

// Counters lists every counter of the table.
var Counters = []Counter{CounterQueued, CounterAccepted, CounterFromNode, CounterInvalid, CounterTunnel, CounterToHost}

type chain struct {
	name     string
	hook     *nftables.ChainHook     // nil for a regular chain
	priority *nftables.ChainPriority // set with hook
	rules    []rule
}

type rule struct {
	comment string
	exprs   exprs
}

// The chains that others jump to.
const (
	chainFlow    = "flow"    // accepted flows leave here
	chainEnforce = "enforce" // what has a protected end
	chainOwn     = "own"     // what this host sends its pods
	chainTunnel  = "tunnels" // what pods must not send
)

// srcnat and what stands around it: destination NAT is done and source NAT is
// not, so both addresses are those of the real ends, also behind IPVS, whose
// packets never see the forward hook.
var (
	beforeSourceNAT = nftables.ChainPriorityRef(*nftables.ChainPriorityNATSource - 5)
	// After IPVS's own hooks at input, which take packets for a virtual service
	// away at srcnat-2 and srcnat-1.
	afterIPVS = nftables.ChainPriorityRef(*nftables.ChainPriorityNATSource + 1)
)

// sets are the table's sets: the addresses of protected pods by the direction in
// which some policy selects them, and those of all pods here.
type sets struct{ ingress4, ingress6, egress4, egress6, pods4, pods6 *nftables.Set }

func newSets(t *nftables.Table) sets {
	v4 := func(name, comment string) *nftables.Set {
		return &nftables.Set{Table: t, Name: name, KeyType: nftables.TypeIPAddr, Comment: comment}
	}
	v6 := func(name, comment string) *nftables.Set {
		return &nftables.Set{Table: t, Name: name, KeyType: nftables.TypeIP6Addr, Comment: comment}
	}
	return sets{
		ingress4: v4("ingress4", "pods that a policy isolates for ingress"),
		ingress6: v6("ingress6", "pods that a policy isolates for ingress"),
		egress4:  v4("egress4", "pods that a policy isolates for egress"),
		egress6:  v6("egress6", "pods that a policy isolates for egress"),
		pods4:    v4("pods4", "all pods of this host"),
		pods6:    v6("pods6", "all pods of this host"),
	}
}

func (s sets) all() []*nftables.Set {
	return []*nftables.Set{s.ingress4, s.ingress6, s.egress4, s.egress6, s.pods4, s.pods6}
}

// chains is the whole table as a value. Regular chains come first, because a rule
// can only name a chain that exists.
func chains(cfg Config, s sets) []chain {
	m := cfg.Marks
	mask, st := m.Mask(), m.stateMask()
	admit := setFlowMark(mask, m.Flow())

	return []chain{
		{name: chainFlow, rules: []rule{
			// A SYN never rides on an old mark: it may meet the entry of a closed
			// connection, whose ports or address somebody else has now.
			{"accepted TCP flows, but not a SYN", join(flowMarkIs(st, m.Flow()), notOpening(), accept())},
			{"accepted flows", join(flowMarkIs(st, m.Flow()), l4proto(expr.CmpOpNeq, unix.IPPROTO_TCP), accept())},
		}},
		{name: chainEnforce, rules: slices.Concat(
			// To remember and to act are two rules: without a conntrack entry (untracked,
			// invalid) the first breaks off, and in one rule the packet would go
			// round for ever.
			[]rule{
				{"the queue's answer: remember it", join(packetMarkIs(st, m.Accept()), admit)},
				{"the queue's answer: let it pass", join(packetMarkIs(st, m.Accept()), count(CounterAccepted), setPacketMark(mask, 0), accept())},
			},
			invalid(cfg.JudgeInvalid),
			[]rule{
				{"tell the queue who began the flow", join(isReply(), setPacketMark(mask, m.Reply()))},
				{"ask", join(count(CounterQueued), cfg.Queues.statement(cfg.Via))},
			})},
		{name: chainOwn, rules: []rule{
			{"remember it", admit},
			{"let it pass", join(count(CounterFromNode), accept())},
		}},
		{name: chainTunnel, rules: tunnels(cfg, s)},
		{name: "raw_prerouting", hook: nftables.ChainHookPrerouting, priority: nftables.ChainPriorityRaw, rules: []rule{
			{"nobody else sets our marks", setPacketMark(mask, 0)},
		}},
		{name: "raw_output", hook: nftables.ChainHookOutput, priority: nftables.ChainPriorityRaw, rules: []rule{
			{"nobody else sets our marks", setPacketMark(mask, 0)},
			// IPVS sends forwarded packets through here too, with the pod's address.
			{"sent by this host", join(fromOwnAddress(), setPacketMark(mask, m.at(stateLocal)))},
		}},
		{name: "host_input", hook: nftables.ChainHookInput, priority: afterIPVS, rules: append([]rule{
			{"", jump(chainFlow)},
			{"answers to this host", join(isReply(), accept())},
			// Listener discovery, router and neighbour solicitation and neighbour
			// advertisement; not router advertisement (134) or redirect (137),
			// which no pod should send.
		}, append(icmp6Accept(nil, 130, 131, 132, 133, 135, 136), slices.Concat(
			[]rule{{"", jump(chainTunnel)}},
			toHost(cfg.ToHost, s),
			[]rule{
				{"from a protected pod", join(addrIn(s.egress4, true), goTo(chainEnforce))},
				{"from a protected pod", join(addrIn(s.egress6, true), goTo(chainEnforce))},
			})...)...)},
		{name: "pod_postrouting", hook: nftables.ChainHookPostrouting, priority: beforeSourceNAT, rules: append([]rule{
			{"", jump(chainFlow)},
		}, append(icmp6Accept(hopLimit255(), 133, 135, 136),
			rule{"this host reaches its pods", join(packetMarkIs(st, m.at(stateLocal)), addrIn(s.ingress4, false), jump(chainOwn))},
			rule{"this host reaches its pods", join(packetMarkIs(st, m.at(stateLocal)), addrIn(s.ingress6, false), jump(chainOwn))},
			rule{"", jump(chainTunnel)},
			rule{"from a protected pod", join(addrIn(s.egress4, true), goTo(chainEnforce))},
			rule{"to a protected pod", join(addrIn(s.ingress4, false), goTo(chainEnforce))},
			rule{"from a protected pod", join(addrIn(s.egress6, true), goTo(chainEnforce))},
			rule{"to a protected pod", join(addrIn(s.ingress6, false), goTo(chainEnforce))},
		)...)},
	}
}

func invalid(judge bool) []rule {
	if judge {
		return nil
	}
	return []rule{{"fits no flow", join(isInvalid(), count(CounterInvalid), drop())}}
}

// tunnels drops what a pod wraps up itself: inside, it could claim any address on
// the network of whoever unwraps it. The protocol is looked at first: these rules see
// every packet of the flows that no policy is about.
func tunnels(cfg Config, s sets) (rules []rule) {
	if cfg.AllowTunnels {
		return nil
	}
	for _, set := range []*nftables.Set{s.pods4, s.pods6} {
		if cfg.VXLANPort != 0 {
			rules = append(rules, rule{"VXLAN from a pod", join(udpTo(cfg.VXLANPort), addrIn(set, true), count(CounterTunnel), drop())})
		}
		rules = append(rules, rule{"IP in IP from a pod", join(l4proto(expr.CmpOpEq, unix.IPPROTO_IPIP), addrIn(set, true), count(CounterTunnel), drop())})
	}
	return rules
}

// toHost refuses new flows of pods to their own host, if that is wanted.
func toHost(a ToHost, s sets) (rules []rule) {
	if a == ToHostAccept {
		return nil
	}
	refuse := drop()
	if a == ToHostReject {
		refuse = reject()
	}
	for _, set := range []*nftables.Set{s.pods4, s.pods6} {
		rules = append(rules, rule{"pods do not reach this host", join(addrIn(set, true), count(CounterToHost), refuse)})
	}
	return rules
}

// icmp6Accept lets messages of the link pass; one rule a type, so that the
// listing reads without anonymous sets.
func icmp6Accept(only exprs, types ...byte) (rules []rule) {
	for _, t := range types {
		rules = append(rules, rule{"neighbour and listener discovery", join(only, icmp6Type(t), accept())})
	}
	return rules
}
