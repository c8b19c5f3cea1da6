package nft

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// What becomes of one packet, as docs/dataplane.md tells it and without a look at the
// rules. That what passes is allowed is model.check's to say; here is what that cannot see:
// that nothing is asked twice, or without need, that caches hold and answer only what
// they may, what the queue is told, and what is counted.

// before is what a packet found when it came.
type before struct {
	packet, flow uint32 // marks
	ways         map[wayKey]bool
	last         bool // the last epoch's cache allows it
	full         map[bool]bool
	count        map[string]int
}

// fate is what becomes of a packet.
type fate struct {
	outcome
	counts []Counter
	flow   uint32 // its flow's mark afterwards
}

func (m *model) seen(w *waiting) before {
	b := before{w.mark, w.ct.mark, m.cached(w, m.state.Epoch), false, map[bool]bool{}, maps.Clone(m.kernel.count)}
	b.last = m.cached(w, m.state.Epoch+1)[keyOf(w, true)]
	for allowed, sets := range m.caches(m.state.Epoch) {
		b.full[allowed] = m.kernel.sets[sets[w.family()].Name].full(m.clock)
	}
	return b
}

func keyOf(w *waiting, allowed bool) wayKey {
	return wayKey{w.src, w.dst, w.proto, w.dport, allowed}
}

// opening, taken, turned and first say what a packet is to its flow.
func (w *waiting) opening() bool { return w.proto == unix.IPPROTO_TCP && w.tcpFlags == 2 }

func (w *waiting) answers() bool { return w.reply && !w.opening() }

func (w *waiting) taken() bool {
	return w.proto == unix.IPPROTO_TCP && w.state == expr.CtStateBitNEW && !w.opening()
}

func (w *waiting) looksLike(question bool) bool {
	from, to := w.sport >= EphemeralPort, w.dport >= EphemeralPort
	return w.proto == unix.IPPROTO_TCP && !w.opening() && from != to && from == question
}

// first: it may teach a way, and be answered by one.
func (w *waiting) first() bool {
	return !w.reply && !w.taken() && w.proto != unix.IPPROTO_ICMP && w.proto != unix.IPPROTO_IPIP && !w.options
}

// asked tells whether anything of the packet's ends wants to be judged, by what conntrack knows of its flow.
// local: it was sent by this host, and did not come back from the queue.
func (m *model) asked(p *policyTable, w *waiting, local bool) bool {
	from, to := p.owner[w.src], p.owner[w.dst]
	either := p.egress[from] || p.ingress[from] || p.egress[to] || p.ingress[to]
	if base(w) == "host_input" {
		hidden := p.unknown(w.src)
		switch {
		case w.reply && w.looksLike(true) && (either || hidden):
			return true
		case w.answers():
			return false
		}
		return p.egress[from] || hidden
	}
	hidden := p.unknown(w.src) || p.unknown(w.dst)
	turned := w.reply && w.looksLike(true) || !w.reply && w.looksLike(false)
	switch {
	case turned && (either || hidden):
		return true
	case w.answers():
		return p.ingress[from] || p.egress[to] || hidden
	case local && p.ingress[to]:
		return false
	case w.taken() && (either || hidden):
		return true
	case p.egress[from] || p.ingress[to]:
		return true
	}
	return !local && hidden
}

// expect gives what becomes of a packet.
func (m *model) expect(p *policyTable, w *waiting, b before) fate {
	marks, now := m.table.cfg.Marks, m.state.Epoch
	epoch, accepted, judged := marks.Judged(b.flow)
	flow := func(mark uint32) uint32 { return b.flow&^marks.Mask() | mark }
	clean := !slices.Contains(m.state.Dirty, w.src) && !slices.Contains(m.state.Dirty, w.dst)

	if judged && !w.opening() {
		switch {
		case accepted && (epoch == now || m.keepFlows):
			return fate{through, nil, b.flow}
		case !accepted && epoch == now:
			return fate{dropped, []Counter{CounterDeniedFlow}, b.flow}
		case accepted && slices.Contains(m.state.Past, epoch) && clean:
			return fate{through, []Counter{CounterKept}, flow(marks.Flow(now))}
		}
	}
	in, local := base(w) == "host_input", b.packet&marks.stateMask() == marks.at(stateLocal, 0)
	owner := p.owner[w.src]
	turned := w.reply && w.looksLike(true)
	if in && m.table.cfg.ToHost != ToHostAccept && !w.answers() && owner != 0 && owner != stranger {
		return fate{dropped, []Counter{CounterToHost}, b.flow}
	}
	if !m.asked(p, w, local) {
		if !in && local && !w.answers() && !turned && p.ingress[p.owner[w.dst]] {
			return fate{through, []Counter{CounterFromNode}, flow(marks.Flow(now))}
		}
		return fate{through, nil, b.flow}
	}
	var counts []Counter
	if w.decided {
		switch {
		case w.epoch != now:
			counts = append(counts, CounterStale)
		case w.answer&marks.stateMask() == marks.Deny():
			return fate{dropped, []Counter{CounterDenied}, flow(marks.Denied(now))}
		default:
			return fate{through, []Counter{CounterAccepted}, flow(marks.Flow(now))}
		}
	}
	if w.first() {
		switch {
		case b.ways[keyOf(w, false)]:
			return fate{dropped, append(counts, CounterDeniedCache), b.flow}
		case b.ways[keyOf(w, true)], m.table.state.carry && b.last && clean:
			return fate{through, append(counts, CounterAllowedCache), flow(marks.Flow(now))}
		}
	}
	for _, c := range []Counter{CounterGuard, CounterGuardPortless, CounterGuardKnown} {
		if m.kernel.count[string(c)] > b.count[string(c)] { // checkCounts says whether it was right
			return fate{dropped, append(counts, c), b.flow}
		}
	}
	return fate{queued, append(counts, CounterQueued), b.flow}
}

// hold compares what becomes of a packet with what should.
func (m *model) hold(p *policyTable, w *waiting, b before, out outcome) {
	want := m.expect(p, w, b)
	counts := m.counted(b.count)
	slices.Sort(want.counts)
	if out != want.outcome || !slices.Equal(counts, want.counts) || w.ct.mark != want.flow {
		m.fail("%+v in %s: outcome %d, counted %v, flow mark %#x; expected %+v, from flow mark %#x, packet %#x, epoch %d, past %v, dirty %v, known %v, last %v; its flow before:%v",
			w.skb, base(w), out, counts, w.ct.mark, want, b.flow, b.packet, m.state.Epoch, m.state.Past, m.state.Dirty, b.ways, b.last, w.ent.history)
	}
	marks := m.table.cfg.Marks
	if (w.mark^b.packet)&^marks.Mask() != 0 {
		m.fail("%+v: bits of others in its mark: %#x before", w.skb, b.packet)
	}
	if out == queued {
		told := uint32(0)
		switch known := w.state == expr.CtStateBitESTABLISHED; {
		case w.answers() && w.looksLike(true), !w.reply && known && w.looksLike(false):
			told = marks.Doubt()
		case w.answers():
			told = marks.Reply()
		case w.taken():
			told = marks.Taken()
		}
		if w.mark&marks.Mask() != told {
			m.fail("%+v: the queue is told %#x, not %#x", w.skb, w.mark&marks.Mask(), told)
		}
	}
	m.holdWays(w, b, want)
}

// holdWays: a way is learned from what the queue said of the first packet of a flow, or taken over
// from the last epoch, and from nothing else.
func (m *model) holdWays(w *waiting, b before, f fate) {
	is := m.cached(w, m.state.Epoch)
	marks := m.table.cfg.Marks
	for _, allowed := range []bool{false, true} {
		way := keyOf(w, allowed)
		said := w.decided && (slices.Contains(f.counts, CounterAccepted) || slices.Contains(f.counts, CounterDenied)) &&
			w.answer&marks.stateMask() == map[bool]uint32{false: marks.Deny(), true: marks.Learn()}[allowed]
		over := allowed && b.last && slices.Contains(f.counts, CounterAllowedCache)
		want := b.ways[way] || w.first() && (said || over) && !b.full[allowed]
		if is[way] != want {
			m.fail("%+v: known afterwards as %v: %v, expected %v: %v before; flow before:%v", w.skb, allowed, is[way], want, b.ways[way], w.ent.history)
		}
	}
}

// holdError: an error passes with the flow that it is about, or if this host sends it, or if its own ends
// are nobody's that policy is about.
func (m *model) holdError(w *waiting, flow uint32, out outcome, was map[string]int) {
	marks, p := m.table.cfg.Marks, m.kernelP
	epoch, accepted, judged := marks.Judged(flow)
	local := w.mark&marks.stateMask() == marks.at(stateLocal, 0)
	in, owner := base(w) == "host_input", p.owner[w.src]
	want := fate{outcome: through}
	switch {
	case judged && accepted && (epoch == m.state.Epoch || m.keepFlows):
	case judged && !accepted && epoch == m.state.Epoch:
		want = fate{outcome: dropped, counts: []Counter{CounterDeniedFlow}}
	case local && !in:
	case in && w.reply:
	case in && m.table.cfg.ToHost != ToHostAccept && owner != 0 && owner != stranger:
		want = fate{outcome: dropped, counts: []Counter{CounterToHost}}
	case m.asked(p, w, local):
		want = fate{outcome: dropped, counts: []Counter{CounterError}}
	}
	if counts := m.counted(was); out != want.outcome || !slices.Equal(counts, want.counts) {
		m.fail("an error about %v (%+v) with flow mark %#x in epoch %d: outcome %d, counted %v, expected %+v", w.truth, w.skb, flow, m.state.Epoch, out, counts, want)
	}
}

// counted tells what was counted since.
func (m *model) counted(was map[string]int) (counts []Counter) {
	for _, c := range Counters {
		for range m.kernel.count[string(c)] - was[string(c)] {
			counts = append(counts, c)
		}
	}
	slices.Sort(counts)
	return counts
}

// strange sends what needs no history: tunnels, neighbour discovery, packets that conntrack cannot
// place or that its helpers announced, and those of this host to itself.
func (m *model) strange() {
	v := rapid.IntRange(0, 1).Draw(m.T, "family")
	ends := append(slices.Clone(m.addrs[v*5:v*5+5]), nodeAddrs[v], nodeAddrs[v+2])
	w := &waiting{skb: skb{src: rapid.SampledFrom(ends).Draw(m.T, "src"), state: expr.CtStateBitNEW}}
	w.dst = rapid.SampledFrom(slices.DeleteFunc(ends, func(a netip.Addr) bool { return a == w.src })).Draw(m.T, "dst")
	w.own = slices.Contains(nodeAddrs, w.src)
	p, marks := m.kernelP, m.table.cfg.Marks
	local, in, owner := w.own, base(w) == "host_input", p.owner[w.src]
	if local {
		w.mark = marks.at(stateLocal, 0)
	}
	pod := owner != 0 && owner != stranger
	const none Counter = ""
	stop := none // it is dropped and counted as that, whatever else
	free := false
	switch rapid.IntRange(0, 5).Draw(m.T, "what") {
	case 0:
		w.ct = &conn{}
		if w.proto = unix.IPPROTO_IPIP; pod {
			stop = CounterTunnel
		}
	case 1:
		w.ct = &conn{}
		w.proto, w.sport = unix.IPPROTO_UDP, clientPorts[0]
		if w.dport = rapid.SampledFrom([]uint16{DefaultVXLANPort, DefaultVXLANPort + 1}).Draw(m.T, "dport"); pod && w.dport == DefaultVXLANPort {
			stop = CounterTunnel
		}
	case 2: // conntrack leaves alone what is of the link
		if v == v4 {
			return
		}
		const untracked = 64
		w.proto, w.state = unix.IPPROTO_ICMPV6, untracked
		w.icmpType, w.hopLimit = byte(rapid.IntRange(129, 138).Draw(m.T, "type")), rapid.SampledFrom([]byte{64, 255}).Draw(m.T, "hop limit")
		if in {
			free = w.icmpType >= 130 && w.icmpType <= 136 && w.icmpType != 134
		} else {
			free = w.hopLimit == 255 && slices.Contains([]byte{133, 135, 136}, w.icmpType)
		}
	case 3:
		w.proto, w.sport, w.dport, w.tcpFlags, w.state = unix.IPPROTO_TCP, serverPorts[0], serverPorts[1], 0x10, expr.CtStateBitINVALID
		if m.asked(p, w, local) {
			stop = CounterInvalid
		}
	case 4: // what a helper of conntrack announced
		w.proto, w.sport, w.dport, w.tcpFlags, w.state, w.ct = unix.IPPROTO_TCP, clientPorts[0], clientPorts[1], 2, expr.CtStateBitRELATED, &conn{}
		if local && !in {
			free = true
		}
	case 5: // this host to itself
		w.loop, w.own, local, in, pod = true, true, true, false, false
		w.src, w.dst = rapid.SampledFrom(nodeAddrs).Draw(m.T, "own"), rapid.SampledFrom(nodeAddrs).Draw(m.T, "own")
		if w.src.Is6() != w.dst.Is6() {
			return
		}
		w.proto, w.sport, w.dport, w.ct, w.mark = unix.IPPROTO_UDP, clientPorts[0], serverPorts[0], &conn{}, marks.at(stateLocal, 0)
		if free, w.reply = true, rapid.Bool().Draw(m.T, "answer"); w.reply {
			w.state = expr.CtStateBitESTABLISHED
		}
	}
	if !free && stop != CounterTunnel && in && m.table.cfg.ToHost != ToHostAccept && pod {
		stop = CounterToHost
	}
	was := maps.Clone(m.kernel.count)
	out, asked := m.kernel.run(base(w), &w.skb), m.asked(p, w, local)
	counts := m.counted(was)
	guarded := slices.ContainsFunc(counts, func(c Counter) bool { return strings.HasPrefix(string(c), "guard") })
	switch {
	case stop != none && !free:
		if out != dropped || !slices.Equal(counts, []Counter{stop}) {
			m.fail("%+v is not stopped as %s: outcome %d, counted %v", w.skb, stop, out, counts)
		}
	case free || !asked:
		if out != through || len(counts) > 0 && !slices.Equal(counts, []Counter{CounterFromNode}) {
			m.fail("%+v, about which there is no policy: outcome %d, counted %v", w.skb, out, counts)
		}
	case guarded: // and then its share is not what checkCounts thinks
	case out != queued && !slices.Contains(counts, CounterAllowedCache) && !slices.Contains(counts, CounterDeniedCache):
		m.fail("%+v is not asked about: outcome %d, counted %v", w.skb, out, counts)
	}
	// It counts for its source's share; so that checkCounts need not know, shares begin anew.
	for _, of := range []pair{m.table.sets.guard, m.table.sets.guardPortless, m.table.sets.guardKnown} {
		for _, set := range of {
			clear(m.kernel.sets[set.Name].keys)
		}
	}
	clear(m.shares)
}
