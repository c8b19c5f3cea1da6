package nft

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

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
	chainFlow      = "flow"       // flows that were judged leave here
	chainKeep      = "keep"       // those that were judged in an earlier epoch
	chainAnswers   = "answers"    // what goes against its flow's direction
	chainTaken     = "taken"      // connections that conntrack did not see begin
	chainUnknown   = "unknown"    // from addresses of pods to come
	chainUnknownTo = "unknown_to" // and to them
	chainEnforce   = "enforce"    // what has a protected end
	chainVerdicts  = "verdicts"   // what came back from the queue
	chainAccepted  = "accepted"   // the queue's answers
	chainDenied    = "denied"     //
	chainAllowWay  = "allow_way"  // what is learned from them
	chainDenyWay   = "deny_way"   //
	chainCache     = "cache"      // ways that were decided before
	chainLastCache = "last_cache" // in the last epoch
	chainCached    = "cached"     // accepted for it
	chainGuard     = "guards"     // a source's share of the queue
	chainOwn       = "own"        // what this host sends its pods
	chainTunnel    = "tunnels"    // what pods must not send
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

// inForce is the part of a State that stands in the rules.
type inForce struct {
	epoch uint32
	// carry tells whether what the last epoch allowed still holds unless dirty.
	carry bool
}

// builder makes the rules of one state.
type builder struct {
	cfg Config
	sets
	inForce
}

// chains is the whole table as a value.
func (b *builder) chains() []chain { return append(b.ofEpoch(), b.lasting()...) }

// ofEpoch are the chains in which the epoch stands, among them all that look into the
// caches or write to them. A change of policy makes them anew, and no others.
func (b *builder) ofEpoch() []chain {
	return []chain{
		{name: chainKeep, rules: b.keep()},
		{name: chainFlow, rules: b.flow()},
		{name: chainAllowWay, rules: b.learn(b.allowed[b.epoch%2])},
		{name: chainDenyWay, rules: b.learn(b.denied[b.epoch%2])},
		{name: chainAccepted, rules: b.accepted()},
		{name: chainDenied, rules: b.deny()},
		{name: chainCached, rules: b.cached()},
		{name: chainLastCache, rules: b.lastCache()},
		{name: chainCache, rules: b.cache()},
		{name: chainVerdicts, rules: b.verdicts()},
		{name: chainOwn, rules: b.own()},
	}
}

// lasting are the chains that stay as they are.
func (b *builder) lasting() []chain {
	chains := []chain{
		{name: chainGuard, rules: b.guards()},
		{name: chainEnforce, rules: b.enforce()},
		{name: chainUnknown, rules: b.unknown(true)},
		{name: chainUnknownTo, rules: b.unknown(false)},
		{name: chainAnswers, rules: b.answers()},
		{name: chainTaken, rules: b.taken()},
		{name: chainTunnel, rules: b.tunnels()},
		{name: "raw_prerouting", hook: nftables.ChainHookPrerouting, priority: nftables.ChainPriorityRaw, rules: []rule{
			{"nobody else sets our marks", setPacketMark(b.mask(), 0)},
		}},
		{name: "raw_output", hook: nftables.ChainHookOutput, priority: nftables.ChainPriorityRaw, rules: []rule{
			{"nobody else sets our marks", setPacketMark(b.mask(), 0)},
			// IPVS sends forwarded packets through here too, with the pod's address.
			{"sent by this host", join(ownAddress(true), setPacketMark(b.mask(), b.cfg.Marks.at(stateLocal, 0)))},
		}},
		{name: "host_input", hook: nftables.ChainHookInput, priority: afterIPVS, rules: b.input()},
		{name: "pod_postrouting", hook: nftables.ChainHookPostrouting, priority: beforeSourceNAT, rules: b.postrouting()},
	}
	if b.cfg.CountUnanswered {
		// What the queue answers goes through the hook again from its beginning and is
		// settled there, so what comes here with a question's mark was not answered.
		chains = append(chains,
			chain{name: "unanswered_input", hook: nftables.ChainHookInput, priority: nftables.ChainPriorityRef(*afterIPVS + 1), rules: b.unanswered()},
			chain{name: "unanswered_postrouting", hook: nftables.ChainHookPostrouting, priority: nftables.ChainPriorityRef(*beforeSourceNAT + 1), rules: b.unanswered()})
	}
	return chains
}

func (b *builder) unanswered() []rule {
	m := b.cfg.Marks
	return []rule{
		{"passes unjudged", join(packetMarkIs(m.stateMask(), m.at(stateAsked, 0)), count(CounterUnanswered))},
		{"and leaves no mark", join(packetMarkIs(m.stateMask(), m.at(stateAsked, 0)), setPacketMark(b.mask(), 0))},
	}
}

func (b *builder) mask() uint32 { return b.cfg.Marks.Mask() }

// each makes a rule for either family.
func each(comment string, of func(v int) exprs) []rule {
	return []rule{{comment, of(v4)}, {comment, of(v6)}}
}

// flow lets packets of flows go that were judged already. A SYN never rides on an
// old mark: it may meet the entry of a closed connection, whose ports or address
// somebody else has now.
func (b *builder) flow() []rule {
	m := b.cfg.Marks
	ours, accepted := b.mask(), m.Flow(b.epoch)
	if b.cfg.KeepEstablished {
		ours, accepted = m.stateMask(), m.Flow(0) // of whichever epoch
	}
	notTCP := l4proto(expr.CmpOpNeq, unix.IPPROTO_TCP)
	denied := flowMarkIs(b.mask(), m.Denied(b.epoch))
	rules := []rule{
		{"accepted TCP flows, but not a SYN", join(flowMarkIs(ours, accepted), notOpening(), accept())},
		{"accepted flows", join(flowMarkIs(ours, accepted), notTCP, accept())},
		{"denied TCP flows, but not a SYN", join(denied, notOpening(), count(CounterDeniedFlow), drop())},
		{"denied flows", join(denied, notTCP, count(CounterDeniedFlow), drop())},
	}
	if !b.cfg.KeepEstablished {
		rules = append(rules, rule{"accepted in an earlier epoch", join(flowMarkIn(b.mask(), b.past), jump(chainKeep))})
	}
	return rules
}

// keep lets a flow into the present epoch whose ends nothing has narrowed since it
// was accepted. It comes back with what must be judged again.
func (b *builder) keep() []rule {
	return slices.Concat(
		[]rule{
			// An ICMP error has other ends than the flow that it is about.
			{"about another flow", join(isRelated(), back())},
			{"a SYN", join(isOpening(), back())},
		},
		b.unlessDirty(),
		[]rule{
			{"still accepted: remember it", setFlowMark(b.mask(), b.cfg.Marks.Flow(b.epoch))},
			{"let it pass", join(count(CounterKept), accept())},
		})
}

// isAnswer makes rules for what goes against its flow's direction. A SYN does not: it
// begins a connection, whatever is left of one that had the same ports.
func isAnswer(comment string, then exprs) []rule {
	return []rule{
		{comment, join(isReply(), notOpening(), then)},
		{comment, join(isReply(), l4proto(expr.CmpOpNeq, unix.IPPROTO_TCP), then)},
	}
}

func (b *builder) unlessDirty() []rule {
	return slices.Concat(
		each("judge again", func(v int) exprs { return join(addrIn(b.dirty[v], true), back()) }),
		each("judge again", func(v int) exprs { return join(addrIn(b.dirty[v], false), back()) }))
}

// verdicts settles what the queue has answered.
//
// To remember and to act are two rules everywhere: without a conntrack entry
// (untracked, invalid), and with a set that is full, the first breaks off, and in
// one rule the packet would go round for ever.
func (b *builder) verdicts() []rule {
	m := b.cfg.Marks
	answer := func(mark uint32) exprs { return packetMarkIs(b.mask(), mark|b.epoch<<m.EpochShift()) }
	stale := func(s state) rule {
		return rule{"an answer of the past", join(packetMarkIs(m.stateMask(), m.at(s, 0)), count(CounterStale))}
	}
	return []rule{
		{"the queue's answer", join(answer(m.Pass()), goTo(chainAccepted))},
		{"the queue's answer: learn from it", join(answer(m.Learn()), jump(chainAllowWay))},
		{"the queue's answer", join(answer(m.Learn()), goTo(chainAccepted))},
		{"the queue's answer: learn from it", join(answer(m.Deny()), jump(chainDenyWay))},
		{"the queue's answer", join(answer(m.Deny()), goTo(chainDenied))},
		stale(statePass), stale(stateLearn), stale(stateDeny),
	}
}

// enforce settles what the queue has answered, and asks it about the rest. It holds
// nothing of an epoch, so that a change of policy leaves it alone: where the queue is
// an xt target, to make that rule anew waits until the kernel has thrown the old one away.
func (b *builder) enforce() []rule {
	m := b.cfg.Marks
	return slices.Concat(
		[]rule{
			// Its own addresses need not be those of the flow, whose mark it carries. So
			// it is never judged by itself, and never teaches anything.
			{"an error about a flow that is not accepted", join(isRelated(), l4proto(expr.CmpOpEq, unix.IPPROTO_ICMP), count(CounterError), drop())},
			{"an error about a flow that is not accepted", join(isRelated(), l4proto(expr.CmpOpEq, unix.IPPROTO_ICMPV6), count(CounterError), drop())},
			{"", jump(chainVerdicts)},
		},
		invalid(b.cfg.JudgeInvalid),
		[]rule{
			{"", jump(chainCache)},
			{"", jump(chainGuard)},
			{"nothing is known", setPacketMark(b.mask(), b.asked())},
		},
		isAnswer("tell the queue who began the flow", setPacketMark(b.mask(), m.Reply())),
		[]rule{
			{"or that nobody knows", join(isTaken(), setPacketMark(b.mask(), m.Taken()))},
			{"or that it is in doubt", join(flowIs(expr.CtStateBitESTABLISHED), isOriginal(), notOpening(), looksLikeAnswer(), setPacketMark(b.mask(), m.Doubt()))},
			{"or that it is in doubt", join(isReply(), notOpening(), looksLikeQuestion(), setPacketMark(b.mask(), m.Doubt()))},
			{"ask", join(count(CounterQueued), b.cfg.Queues.statement(b.cfg.Via, b.cfg.Bypass))},
		})
}

// asked is the mark of a packet about which nothing is known.
func (b *builder) asked() uint32 {
	if b.cfg.CountUnanswered {
		return b.cfg.Marks.Asked()
	}
	return 0
}

// accepted lets a packet pass that the queue accepted.
func (b *builder) accepted() []rule {
	return []rule{
		{"remember it", setFlowMark(b.mask(), b.cfg.Marks.Flow(b.epoch))},
		{"let it pass", join(count(CounterAccepted), setPacketMark(b.mask(), 0), accept())},
	}
}

func (b *builder) deny() []rule {
	return []rule{
		{"remember it", setFlowMark(b.mask(), b.cfg.Marks.Denied(b.epoch))},
		{"stop it", join(count(CounterDenied), drop())},
	}
}

// notFirst goes back with what does not begin a flow of its own, or has no ports.
func (b *builder) notFirst() []rule {
	return []rule{
		{"against its flow's direction", join(isReply(), back())},
		{"who began is not known", join(isTaken(), back())},
		{"no ports", join(l4protoNotIn(b.ported), back())},
		// The verdict loop refuses some that the kernel would read to their end.
		{"extension headers", join(nextHeaderNotIn(b.ported), back())},
	}
}

// learn remembers a way.
func (b *builder) learn(to pair) []rule {
	return append(b.notFirst(), each("remember the way", func(v int) exprs { return addWay(v, to[v]) })...)
}

// cache answers for ways that were decided before.
func (b *builder) cache() []rule {
	allowed, denied := b.allowed[b.epoch%2], b.denied[b.epoch%2]
	rules := slices.Concat(
		b.notFirst(),
		each("denied before", func(v int) exprs { return join(wayIn(v, denied[v]), count(CounterDeniedCache), drop()) }),
		each("allowed before", func(v int) exprs { return join(wayIn(v, allowed[v]), goTo(chainCached)) }))
	if b.carry {
		rules = append(rules, rule{"", jump(chainLastCache)})
	}
	return rules
}

// lastCache lets ways into the present epoch whose ends nothing has narrowed.
func (b *builder) lastCache() []rule {
	if !b.carry {
		return nil
	}
	last, now := b.allowed[(b.epoch+1)%2], b.allowed[b.epoch%2]
	return slices.Concat(
		b.unlessDirty(),
		each("still allowed: remember it", func(v int) exprs { return append(wayIn(v, last[v]), addWay(v, now[v])...) }),
		each("still allowed", func(v int) exprs { return join(wayIn(v, last[v]), goTo(chainCached)) }))
}

func (b *builder) cached() []rule {
	return []rule{
		{"remember it", setFlowMark(b.mask(), b.cfg.Marks.Flow(b.epoch))},
		{"let it pass", join(count(CounterAllowedCache), setPacketMark(b.mask(), 0), accept())},
	}
}

// guards drops what is over a source's share of the queue. Packets of flows that
// conntrack knows have a share of their own: after a change of policy many of them
// come at once, and they are not to be blamed.
func (b *builder) guards() (rules []rule) {
	over := func(comment string, when exprs, set pair, rate uint32, c Counter) {
		if rate == 0 {
			return
		}
		rules = append(rules, each(comment, func(v int) exprs {
			return join(when, overLimit(v, set[v], rate), count(c), drop())
		})...)
	}
	known := flowIs(expr.CtStateBitESTABLISHED)
	over("of known flows", known, b.guardKnown, b.cfg.GuardKnown, CounterGuardKnown)
	rules = append(rules, rule{"of known flows", join(known, back())})
	over("new, without ports", l4protoNotIn(b.ported), b.guardPortless, b.cfg.GuardPortless, CounterGuardPortless)
	rules = append(rules, rule{"new, without ports", join(l4protoNotIn(b.ported), back())})
	over("new", nil, b.guard, b.cfg.Guard, CounterGuard)
	return rules
}

// own accepts flows that this host began.
func (b *builder) own() []rule {
	return []rule{
		{"remember it", setFlowMark(b.mask(), b.cfg.Marks.Flow(b.epoch))},
		{"let it pass", join(count(CounterFromNode), accept())},
	}
}

func (b *builder) input() []rule {
	return slices.Concat(
		[]rule{
			{"", jump(chainFlow)},
			{"conntrack may have it the wrong way round", join(isReply(), notOpening(), looksLikeQuestion(), jump(chainTaken))},
		},
		isAnswer("answers to this host", accept()),
		// Listener discovery, router and neighbour solicitation and neighbour
		// advertisement; not router advertisement (134) or redirect (137),
		// which no pod should send.
		icmp6Accept(nil, 130, 131, 132, 133, 135, 136),
		[]rule{{"", jump(chainTunnel)}},
		b.toHost(),
		each("from a protected pod", func(v int) exprs { return join(addrIn(b.egress[v], true), goTo(chainEnforce)) }),
		b.unknownBut(true),
	)
}

func (b *builder) postrouting() []rule {
	local := packetMarkIs(b.cfg.Marks.stateMask(), b.cfg.Marks.at(stateLocal, 0))
	return slices.Concat(
		[]rule{{"", jump(chainFlow)}},
		icmp6Accept(hopLimit255(), 133, 135, 136),
		[]rule{
			{"this host's errors about flows", join(local, isRelated(), accept())},
		},
		[]rule{{"", jump(chainTunnel)}},
		[]rule{
			{"conntrack may have it the wrong way round", join(isReply(), notOpening(), looksLikeQuestion(), jump(chainTaken))},
			{"conntrack may have it the wrong way round", join(isOriginal(), notOpening(), looksLikeAnswer(), jump(chainTaken))},
		},
		isAnswer("goes against its flow's direction", goTo(chainAnswers)),
		each("this host reaches its pods", func(v int) exprs { return join(local, addrIn(b.ingress[v], false), goTo(chainOwn)) }),
		[]rule{{"began unseen", join(isTaken(), jump(chainTaken))}},
		each("from a protected pod", func(v int) exprs { return join(addrIn(b.egress[v], true), goTo(chainEnforce)) }),
		each("to a protected pod", func(v int) exprs { return join(addrIn(b.ingress[v], false), goTo(chainEnforce)) }),
		[]rule{{"this host reaches all", join(local, accept())}},
		b.unknownBut(true), b.unknownBut(false),
	)
}

// answers are judged as the flow that they belong to: policy is about who began.
func (b *builder) answers() []rule {
	return slices.Concat(
		each("of a protected pod's flow", func(v int) exprs { return join(addrIn(b.egress[v], false), goTo(chainEnforce)) }),
		each("of a flow to a protected pod", func(v int) exprs { return join(addrIn(b.ingress[v], true), goTo(chainEnforce)) }),
		b.unknownBut(true), b.unknownBut(false))
}

// taken are the packets on which conntrack picks up a connection, and those of
// connections that it may have picked up. What looks like its opener may be the one
// that was connected to, so either end counts as both.
func (b *builder) taken() (rules []rule) {
	for _, set := range []pair{b.egress, b.ingress} {
		for _, source := range []bool{true, false} {
			rules = append(rules, each("an end is protected", func(v int) exprs { return join(addrIn(set[v], source), goTo(chainEnforce)) })...)
		}
	}
	return slices.Concat(rules, b.unknownBut(true), b.unknownBut(false))
}

// unknownBut leads packets to the queue that have an address at one end which is a
// pod's, and whose pod is not known yet.
func (b *builder) unknownBut(source bool) []rule {
	if len(b.cfg.Local) == 0 {
		return nil
	}
	return each("a pod that is not known yet", func(v int) exprs {
		return join(addrInBut(b.local[v], b.pods[v], source), jump(map[bool]string{true: chainUnknown, false: chainUnknownTo}[source]))
	})
}

func (b *builder) unknown(source bool) []rule {
	if len(b.cfg.Local) == 0 {
		return nil
	}
	return []rule{
		{"no pod's, but this host's own", join(ownAddress(source), back())},
		{"a pod that is not known yet", goTo(chainEnforce)},
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
func (b *builder) tunnels() (rules []rule) {
	if b.cfg.AllowTunnels {
		return nil
	}
	for _, set := range b.pods {
		if b.cfg.VXLANPort != 0 {
			rules = append(rules, rule{"VXLAN from a pod", join(udpTo(b.cfg.VXLANPort), addrIn(set, true), count(CounterTunnel), drop())})
		}
		rules = append(rules, rule{"IP in IP from a pod", join(l4proto(expr.CmpOpEq, unix.IPPROTO_IPIP), addrIn(set, true), count(CounterTunnel), drop())})
	}
	return rules
}

// toHost refuses new flows of pods to their own host, if that is wanted.
func (b *builder) toHost() []rule {
	if b.cfg.ToHost == ToHostAccept {
		return nil
	}
	refuse := drop()
	if b.cfg.ToHost == ToHostReject {
		refuse = reject()
	}
	return each("pods do not reach this host", func(v int) exprs { return join(addrIn(b.pods[v], true), count(CounterToHost), refuse) })
}

// icmp6Accept lets messages of the link pass; one rule a type, so that the
// listing reads without anonymous sets.
func icmp6Accept(only exprs, types ...byte) (rules []rule) {
	for _, t := range types {
		rules = append(rules, rule{"neighbour and listener discovery", join(only, icmp6Type(t), accept())})
	}
	return rules
}
