package nft

import (
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Both hooks send away first what is not the first packet of a TCP connection: that one
// shall meet few rules.

func (b *builder) input() []rule {
	return slices.Concat(
		[]rule{{"", jump(chainFlow)}},
		apart(chainOtherIn, chainUnderwayIn),
		b.toHost(),
		each("from a protected pod", func(v int) exprs { return join(addrIn(b.egress[v], true), goTo(chainEnforce)) }),
		b.unknownBut(true),
	)
}

// apart goes on with the first packet of a TCP connection only: a SYN begins one, whatever
// is left of another that had the same ports.
func apart(other, underway string) []rule {
	return []rule{
		{"not TCP", join(notTCP(), jump(other))},
		{"TCP that goes on", join(notOpening(), jump(underway))},
	}
}

func otherIn() []rule {
	return slices.Concat(
		[]rule{{"answers to this host", join(isReply(), accept())}},
		// Listener discovery, router and neighbour solicitation and neighbour
		// advertisement; not router advertisement (134) or redirect (137),
		// which no pod should send.
		icmp6Accept(nil, 130, 131, 132, 133, 135, 136),
		[]rule{{"", jump(chainTunnel)}})
}

func underwayIn() []rule {
	return []rule{
		{"conntrack may have it the wrong way round", join(isReply(), looksLikeQuestion(), jump(chainTaken))},
		{"answers to this host", join(isReply(), accept())},
	}
}

func (b *builder) postrouting() (rules []rule) {
	rules = slices.Concat(
		[]rule{
			{"", jump(chainFlow)},
			{"this host's errors about flows", join(b.sentHere(), isRelated(), accept())},
		},
		apart(chainOtherOut, chainUnderwayOut),
		[]rule{{"this host reaches its pods", join(b.sentHere(), jump(chainFromHost))}})
	for v := range b.egress {
		rules = append(rules,
			rule{"from a protected pod", join(addrIn(b.egress[v], true), goTo(chainEnforce))},
			rule{"to a protected pod", join(addrIn(b.ingress[v], false), goTo(chainEnforce))})
	}
	return slices.Concat(rules,
		[]rule{{"this host reaches all", join(b.sentHere(), accept())}},
		b.unknownBut(true), b.unknownBut(false),
	)
}

func (b *builder) sentHere() exprs {
	return packetMarkIs(b.cfg.Marks.stateMask(), b.cfg.Marks.at(stateLocal, 0))
}

func (b *builder) fromHost() []rule {
	return each("to its pods", func(v int) exprs { return join(addrIn(b.ingress[v], false), goTo(chainOwn)) })
}

func otherOut() []rule {
	return slices.Concat(
		icmp6Accept(hopLimit255(), 133, 135, 136),
		[]rule{
			{"", jump(chainTunnel)},
			{"goes against its flow's direction", join(isReply(), goTo(chainAnswers))},
		})
}

func (b *builder) underwayOut() []rule {
	return []rule{
		{"conntrack may have it the wrong way round", join(isReply(), looksLikeQuestion(), jump(chainTaken))},
		{"conntrack may have it the wrong way round", join(isOriginal(), looksLikeAnswer(), jump(chainTaken))},
		{"goes against its flow's direction", join(isReply(), goTo(chainAnswers))},
		{"this host reaches its pods", join(b.sentHere(), jump(chainFromHost))},
		{"began unseen", join(flowIs(expr.CtStateBitNEW), jump(chainTaken))},
	}
}

// answers are judged as the flow that they belong to: policy is about who began.
func (b *builder) answers() []rule {
	return slices.Concat(
		each("of a protected pod's flow", func(v int) exprs { return join(addrIn(b.egress[v], false), goTo(chainEnforce)) }),
		each("of a flow to a protected pod", func(v int) exprs { return join(addrIn(b.ingress[v], true), goTo(chainEnforce)) }),
		b.unknownBut(true), b.unknownBut(false),
		[]rule{{"of nobody's", accept()}})
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

// tunnels drops what a pod wraps up itself: inside, it could claim any address on
// the network of whoever unwraps it. The protocol is looked at first: these rules see
// every packet that is not TCP of the flows that no policy is about.
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
