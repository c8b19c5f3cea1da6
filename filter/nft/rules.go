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
	ofOthers bool // rules are there that Table leaves alone
}

type rule struct {
	comment string
	exprs   exprs
}

// The chains that others jump to.
const (
	chainFlow         = "flow"          // flows that were judged leave here
	chainKeep         = "keep"          // those that were judged in an earlier epoch
	chainStamp        = "stamp"         // the flow is accepted in this epoch
	chainStampDenied  = "stamp_denied"  // or denied
	chainOtherIn      = "other_in"      // to this host, not TCP
	chainOtherOut     = "other_out"     // to others
	chainUnderwayIn   = "underway_in"   // TCP, but not the first packet
	chainUnderwayOut  = "underway_out"  //
	chainFromHost     = "from_host"     // sent by this host
	chainAnswers      = "answers"       // what goes against its flow's direction
	chainTaken        = "taken"         // connections that conntrack did not see begin
	chainUnknown      = "unknown"       // from addresses of pods to come
	chainUnknownTo    = "unknown_to"    // and to them
	chainEnforce      = "enforce"       // what has a protected end
	chainErrors       = "errors"        // about flows that are not accepted
	chainVerdicts     = "verdicts"      // what came back from the queue
	chainPresent      = "present"       // decided in this epoch
	chainAccepted     = "accepted"      // the queue's answers
	chainDenied       = "denied"        //
	chainLearnAllowed = "learn_allowed" // what is learned from them
	chainLearnDenied  = "learn_denied"  //
	chainAllowWay     = "allow_way"     // and where it is written
	chainDenyWay      = "deny_way"      //
	chainCache        = "cache"         // what may be answered by a way that was decided before
	chainWays         = "ways"          // in this epoch
	chainLastCache    = "last_cache"    // or in the last
	chainLastWays     = "last_ways"     //
	chainCached       = "cached"        // accepted for it
	chainGuard        = "guards"        // a source's share of the queue
	chainOwn          = "own"           // what this host sends its pods
	chainTunnel       = "tunnels"       // what pods must not send
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

// ofEpoch are the chains in which the epoch stands. They are as short as can be, since a
// change of policy makes them anew, and no others.
func (b *builder) ofEpoch() []chain {
	m, now := b.cfg.Marks, b.epoch%2
	return []chain{
		{name: chainFlow, rules: b.flow()},
		{name: chainStamp, rules: []rule{{"remember it", setFlowMark(b.mask(), m.Flow(b.epoch))}}},
		{name: chainStampDenied, rules: []rule{{"remember it", setFlowMark(b.mask(), m.Denied(b.epoch))}}},
		{name: chainPresent, rules: b.present()},
		{name: chainAllowWay, rules: each("remember the way", func(v int) exprs { return addWay(v, b.allowed[now][v]) })},
		{name: chainDenyWay, rules: each("remember the way", func(v int) exprs { return addWay(v, b.denied[now][v]) })},
		{name: chainWays, rules: b.ways()},
		{name: chainLastWays, rules: b.lastWays()},
	}
}

// lasting are the chains that stay as they are.
func (b *builder) lasting() []chain {
	chains := []chain{
		{name: chainKeep, rules: b.keep()},
		{name: chainAccepted, rules: b.accepted(CounterAccepted)},
		{name: chainCached, rules: b.accepted(CounterAllowedCache)},
		{name: chainDenied, rules: []rule{{"", jump(chainStampDenied)}, {"stop it", join(count(CounterDenied), drop())}}},
		{name: chainOwn, rules: []rule{{"", jump(chainStamp)}, {"let it pass", join(count(CounterFromNode), accept())}}},
		{name: chainLearnAllowed, rules: append(b.notFirst(), rule{"", goTo(chainAllowWay)})},
		{name: chainLearnDenied, rules: append(b.notFirst(), rule{"", goTo(chainDenyWay)})},
		{name: chainLastCache, rules: append(b.unlessDirty(), rule{"", goTo(chainLastWays)})},
		{name: chainCache, rules: append(b.notFirst(), rule{"", jump(chainWays)}, rule{"", goTo(chainLastCache)})},
		{name: chainVerdicts, rules: b.verdicts()},
		{name: chainGuard, rules: b.guards()},
		{name: chainErrors, rules: icmpErrors()},
		{name: chainEnforce, rules: b.enforce()},
		{name: chainUnknown, rules: b.unknown(true)},
		{name: chainUnknownTo, rules: b.unknown(false)},
		{name: chainAnswers, rules: b.answers()},
		{name: chainTaken, rules: b.taken()},
		{name: chainFromHost, rules: b.fromHost()},
		{name: chainTunnel, rules: b.tunnels()},
		{name: chainOtherIn, rules: otherIn()},
		{name: chainUnderwayIn, rules: underwayIn()},
		{name: chainOtherOut, rules: otherOut()},
		{name: chainUnderwayOut, rules: b.underwayOut()},
		{name: chainArrived, ofOthers: true},
		{name: "raw_prerouting", hook: nftables.ChainHookPrerouting, priority: nftables.ChainPriorityRaw, rules: []rule{b.unmark(), {"", jump(chainArrived)}}},
		{name: "raw_output", hook: nftables.ChainHookOutput, priority: nftables.ChainPriorityRaw, rules: []rule{
			b.unmark(),
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

// unmark writes only where it must: nearly no packet has a mark of ours when it comes.
func (b *builder) unmark() rule {
	return rule{"nobody else sets our marks", join(packetMarkHas(b.mask()), setPacketMark(b.mask(), 0))}
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
	denied := flowMarkIs(b.mask(), m.Denied(b.epoch))
	rules := []rule{
		{"accepted TCP flows, but not a SYN", join(flowMarkIs(ours, accepted), notOpening(), accept())},
		{"accepted flows", join(flowMarkIs(ours, accepted), notTCP(), accept())},
		{"not judged yet", join(flowMarkIs(b.mask(), 0), back())},
		{"denied TCP flows, but not a SYN", join(denied, notOpening(), count(CounterDeniedFlow), drop())},
		{"denied flows", join(denied, notTCP(), count(CounterDeniedFlow), drop())},
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
			{"still accepted", jump(chainStamp)},
			{"let it pass", join(count(CounterKept), accept())},
		})
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
	stale := func(s state) rule {
		return rule{"an answer of the past", join(packetMarkIs(m.stateMask(), m.at(s, 0)), count(CounterStale))}
	}
	return []rule{{"", jump(chainPresent)}, stale(statePass), stale(stateLearn), stale(stateDeny)}
}

func (b *builder) present() []rule {
	m := b.cfg.Marks
	answer := func(mark uint32) exprs { return packetMarkIs(b.mask(), mark|b.epoch<<m.EpochShift()) }
	return []rule{
		{"the queue's answer", join(answer(m.Pass()), goTo(chainAccepted))},
		{"the queue's answer: learn from it", join(answer(m.Learn()), jump(chainLearnAllowed))},
		{"the queue's answer", join(answer(m.Learn()), goTo(chainAccepted))},
		{"the queue's answer: learn from it", join(answer(m.Deny()), jump(chainLearnDenied))},
		{"the queue's answer", join(answer(m.Deny()), goTo(chainDenied))},
	}
}

// enforce settles what the queue has answered, and asks it about the rest. It holds
// nothing of an epoch, so that a change of policy leaves it alone: where the queue is
// an xt target, to make that rule anew waits until the kernel has thrown the old one away.
func (b *builder) enforce() []rule {
	m := b.cfg.Marks
	return slices.Concat(
		[]rule{
			{"about another flow", join(isRelated(), jump(chainErrors))},
			{"marked by the queue", join(packetMarkHas(m.stateMask()), jump(chainVerdicts))},
		},
		invalid(b.cfg.JudgeInvalid),
		[]rule{
			{"", jump(chainCache)},
			{"", jump(chainGuard)},
			{"nothing is known", setPacketMark(b.mask(), b.asked())},
			// A SYN begins a connection, whatever is left of one that had the same ports.
			{"tell the queue who began the flow", join(isReply(), notOpening(), setPacketMark(b.mask(), m.Reply()))},
			{"tell the queue who began the flow", join(isReply(), notTCP(), setPacketMark(b.mask(), m.Reply()))},
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

// accepted lets a packet pass, and its flow from now on.
func (b *builder) accepted(c Counter) []rule {
	return []rule{{"", jump(chainStamp)}, {"let it pass", join(count(c), setPacketMark(b.mask(), 0), accept())}}
}

// icmpErrors are never judged by themselves, and never teach anything: their own addresses
// need not be those of the flow that they are about, whose mark they carry.
func icmpErrors() []rule {
	const comment = "an error about a flow that is not accepted"
	return []rule{
		{comment, join(l4proto(expr.CmpOpEq, unix.IPPROTO_ICMP), count(CounterError), drop())},
		{comment, join(l4proto(expr.CmpOpEq, unix.IPPROTO_ICMPV6), count(CounterError), drop())},
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

// ways answers for what was decided before in this epoch.
func (b *builder) ways() (rules []rule) {
	allowed, denied := b.allowed[b.epoch%2], b.denied[b.epoch%2]
	for v := range denied {
		rules = append(rules,
			rule{"denied before", join(wayIn(v, denied[v]), count(CounterDeniedCache), drop())},
			rule{"allowed before", join(wayIn(v, allowed[v]), goTo(chainCached))})
	}
	return rules
}

// lastWays lets ways into the present epoch that were allowed in the last.
func (b *builder) lastWays() []rule {
	if !b.carry {
		return nil
	}
	last, now := b.allowed[(b.epoch+1)%2], b.allowed[b.epoch%2]
	return slices.Concat(
		each("still allowed: remember it", func(v int) exprs { return append(wayIn(v, last[v]), addWay(v, now[v])...) }),
		each("still allowed", func(v int) exprs { return join(wayIn(v, last[v]), goTo(chainCached)) }))
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

func invalid(judge bool) []rule {
	if judge {
		return nil
	}
	return []rule{{"fits no flow", join(isInvalid(), count(CounterInvalid), drop())}}
}
