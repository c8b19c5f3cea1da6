package nft

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// The model is a small world in which everything that can happen at once happens in
// every order: packets in both directions, verdicts that are late, changes of policy
// whose two halves (kernel, engine) are apart, commits of which nobody knows whether
// they were made, flows that conntrack forgets, addresses that change hands, caches
// that are full, the wheel of epochs going round. The rules are the real ones, run by
// the interpreter; the policy is a table, asked literally.

// identity is who has an address. 0 is nobody, or not known yet.
type identity int

const (
	pods       = 3 // identities 1 to pods are hosted here
	stranger   = pods + 1
	identities = stranger + 1
)

// port is an index of ports: two to connect to, one to connect from.
var (
	serverPorts = []uint16{80, 443}
	clientPorts = []uint16{40000, 40001}
)

// policyTable is a policy and who has which address: what a snapshot is to the program.
type policyTable struct {
	owner            map[netip.Addr]identity
	ingress, egress  [identities]bool                   // who is isolated
	allow            [2][identities][identities][2]bool // by direction, own end, peer, server port
	bySource, logged [identities]bool                   // rules of whom look at source ports, or log
}

// link is a flow as its opener sees it.
type link struct {
	proto        byte
	src, dst     netip.Addr
	sport, dport uint16
}

func (l link) reverse() link { return link{l.proto, l.dst, l.src, l.dport, l.sport} }

// eval is the pure evaluator.
func (p *policyTable) eval(l link) (allow, cacheable bool) {
	from, to := p.owner[l.src], p.owner[l.dst]
	port := slices.Index(serverPorts, l.dport) & 1 // others are as the last
	cacheable = true
	side := func(dir int, self, peer identity) bool {
		if p.bySource[self] {
			cacheable = false
			if l.sport%2 == 1 {
				return false
			}
		}
		if p.logged[self] {
			cacheable = false
		}
		return p.allow[dir][self][peer][port]
	}
	allow = true
	if p.egress[from] {
		allow = side(1, from, to)
	}
	if allow && p.ingress[to] {
		allow = side(0, to, from)
	}
	return allow, cacheable
}

// local tells whether the address is in the prefix of this host's pods.
func local(a netip.Addr) bool { return localPrefixes[0].Contains(a) || localPrefixes[1].Contains(a) }

var (
	localPrefixes = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/29"), netip.MustParsePrefix("fd00::/125")}
	nodeAddrs     = addrs("192.168.0.1", "fd01::1", "10.0.0.6", "fd00::6") // the latter as the gateway of a bridge has them
	farAddrs      = addrs("192.0.2.1", "fd02::1")
)

func podAddr(v, i int) netip.Addr {
	return addrs(fmt.Sprintf("10.0.0.%d", i+1), fmt.Sprintf("fd00::%x", i+1))[v]
}

// hidden tells whether an end of the flow is an address of a pod that nobody knows.
func (p *policyTable) hidden(l link) bool {
	return p.unknown(l.src) || p.unknown(l.dst)
}

// unknown tells whether the address is a pod's, and nobody knows whose.
func (p *policyTable) unknown(a netip.Addr) bool {
	return local(a) && p.owner[a] == 0 && !slices.Contains(nodeAddrs, a)
}

// subject tells whether the policy has anything to say of a flow.
func (p *policyTable) subject(l link) bool {
	return p.egress[p.owner[l.src]] || p.ingress[p.owner[l.dst]] || p.hidden(l)
}

// narrows gives addresses so that every flow which is allowed by p and not by q has
// one of them at an end: what the compiler promises.
func (p *policyTable) narrows(q *policyTable, all []netip.Addr) (narrowed []netip.Addr) {
	has := map[netip.Addr]bool{}
	for _, src := range all {
		for _, dst := range all {
			if src.Is4() != dst.Is4() {
				continue
			}
			for _, sport := range clientPorts { // eval sees no more of ports than these tell apart
				for _, dport := range serverPorts {
					if has[src] || has[dst] {
						continue
					}
					l := link{6, src, dst, sport, dport}
					was, _ := p.eval(l)
					is, _ := q.eval(l)
					if (was || !p.subject(l)) && !p.hidden(l) && (!is || q.hidden(l)) {
						if local(dst) { // either would do
							has[dst] = true
						} else {
							has[src] = true
						}
					}
				}
			}
		}
	}
	// An address that goes or changes hands is always among them.
	for _, a := range all {
		if p.owner[a] != q.owner[a] {
			has[a] = true
		}
	}
	return slices.SortedFunc(maps.Keys(has), netip.Addr.Compare)
}

// entry is a conntrack entry with what the world knows and the kernel does not.
type entry struct {
	conn
	orig        link // as conntrack has it
	truth       link // as it was opened
	established bool
	byNode      bool
	history     []string
}

// waiting is a packet, most of the time in the queue.
type waiting struct {
	skb
	truth   link
	ent     *entry
	byNode  bool
	decided bool
	drop    bool
	answer  uint32
	passes  int
	epoch   uint32 // of the answer
	since   int    // epochs when it came
	guarded bool   // over its source's share
	loop    bool   // of this host to itself
	end     int    // arrived or stopped, once it is known
}

type model struct {
	*rapid.T
	table *Table
	wheel *Wheel
	addrs []netip.Addr

	kernel     machine // in force
	before     *machine
	beforeP    *policyTable
	state      State
	kernelP    *policyTable // that the kernel asks by
	engineP    *policyTable // that the engine answers by
	engineAt   uint32
	pendingP   *policyTable // committed and not stored yet
	pendingAt  uint32
	flows      map[link]*entry
	queue      []*waiting
	delivered  int
	mutate     func(*builder, map[string][]rule)
	keepFlows  bool
	epochsSeen int

	clock  int // in seconds
	shares map[share]*element
	ways   map[wayKey]*since
	recent []link // flows that were drawn
	forged uint32 // the mark that the next packet brings along
	killed bool   // a failure is what is wanted: see TestMutations

	careless bool  // the loop says to learn from any packet
	fault    fault // what the daemon does wrong
}

// share is what one source may ask, by the counter of what is over.
type share struct {
	of  Counter
	src netip.Addr
}

// wayKey is a way with what was decided of it.
type wayKey struct {
	src, dst netip.Addr
	proto    byte
	dport    uint16
	allowed  bool
}

// since is from when on the kernel may know a way at most.
type since struct {
	at    int
	epoch uint32
}

// failure is what the model panics with if it is to be caught.
type failure string

// fail says that a promise is broken.
func (m *model) fail(format string, args ...any) {
	if m.killed {
		panic(failure(fmt.Sprintf(format, args...)))
	}
	m.Fatalf(format, args...)
}

func newModel(rt *rapid.T, keep bool, mutate func(*builder, map[string][]rule), killed bool) *model {
	mask := rapid.SampledFrom([]uint32{0xfc000000, 0xff000000, 0x000003f0}).Draw(rt, "mask")
	marks, err := NewMarks(mask)
	if err != nil {
		rt.Fatal(err)
	}
	// Most worlds have no guards, which hide what else may go wrong.
	guarded := rapid.IntRange(0, 3).Draw(rt, "guarded") == 0
	guard := func() uint32 {
		if !guarded {
			return 0
		}
		return uint32(rapid.IntRange(0, 3).Draw(rt, "rate"))
	}
	table, err := NewTable(nil, Config{
		Marks: marks, Queues: Queues{First: 1, Count: 1}, Via: ViaNative, Local: localPrefixes, KeepEstablished: keep,
		CacheSize: uint32(rapid.IntRange(1, 6).Draw(rt, "cache size")),
		Guard:     guard(), GuardPortless: guard(), GuardKnown: guard(),
		ToHost: rapid.SampledFrom([]ToHost{ToHostAccept, ToHostAccept, ToHostDrop, ToHostReject}).Draw(rt, "to host"), VXLANPort: DefaultVXLANPort,
	})
	if err != nil {
		rt.Fatal(err)
	}
	m := &model{T: rt, table: table, wheel: NewWheel(marks.Epochs(), marks.Epochs()-1), flows: map[link]*entry{}, mutate: mutate, keepFlows: keep, shares: map[share]*element{}, ways: map[wayKey]*since{}}
	m.killed = killed
	m.careless = rapid.IntRange(0, 3).Draw(rt, "careless") == 0
	for v := range 2 {
		for i := range 4 { // one more than pods
			m.addrs = append(m.addrs, podAddr(v, i))
		}
		m.addrs = append(m.addrs, farAddrs[v])
	}
	m.kernel = machine{sets: map[string]*memory{}, count: map[string]int{}, clock: &m.clock}
	p := m.policy(nil)
	m.change(p, false)
	m.store()
	return m
}

// policy draws a policy: anything, or a small change of another.
func (m *model) policy(old *policyTable) *policyTable {
	p := &policyTable{owner: map[netip.Addr]identity{}}
	draw := func(name string) bool { return rapid.Bool().Draw(m.T, name) }
	if old != nil {
		*p = *old
		p.owner = maps.Clone(old.owner)
		for range rapid.IntRange(1, 3).Draw(m.T, "edits") {
			id := rapid.IntRange(1, pods).Draw(m.T, "of")
			switch rapid.IntRange(0, 5).Draw(m.T, "edit") {
			case 0:
				p.ingress[id] = !p.ingress[id]
			case 1:
				p.egress[id] = !p.egress[id]
			case 2: // address reuse
				v, i := rapid.IntRange(0, 1).Draw(m.T, "family"), rapid.IntRange(0, 3).Draw(m.T, "address")
				a := podAddr(v, i)
				if p.owner[a] = identity(rapid.IntRange(0, pods).Draw(m.T, "owner")); p.owner[a] == 0 {
					delete(p.owner, a)
				}
			case 3:
				p.bySource[id] = !p.bySource[id]
			case 4:
				p.logged[id] = !p.logged[id]
			default:
				b := &p.allow[rapid.IntRange(0, 1).Draw(m.T, "direction")][id][rapid.IntRange(0, stranger).Draw(m.T, "peer")][rapid.IntRange(0, 1).Draw(m.T, "port")]
				*b = !*b
			}
		}
		return p
	}
	for v := range 2 {
		for i := range pods {
			p.owner[podAddr(v, i)] = identity(i + 1)
		}
		p.owner[farAddrs[v]] = stranger
	}
	for id := 1; id <= pods; id++ {
		p.ingress[id], p.egress[id] = draw("ingress"), draw("egress")
		p.bySource[id] = rapid.IntRange(0, 4).Draw(m.T, "by source") == 0
		for dir := range 2 {
			bits := rapid.Uint16().Draw(m.T, "allow")
			for peer := range identities {
				for port := range 2 {
					p.allow[dir][id][peer][port] = bits>>(2*peer+port)&1 == 1
				}
			}
		}
	}
	return p
}

// change commits a policy to the kernel. uncertain leaves open whether it was made.
func (m *model) change(p *policyTable, uncertain bool) {
	if half, ok := m.wheel.Enters(); ok {
		m.enterHalf(half)
	}
	m.queue = slices.DeleteFunc(m.queue, func(w *waiting) bool { return m.epochsSeen-w.since >= int(m.table.cfg.Marks.Epochs()/4) })
	narrowed, all := []netip.Addr(nil), m.kernelP == nil || rapid.IntRange(0, 9).Draw(m.T, "all of it") == 0
	if m.kernelP != nil {
		// Against all that the kernel may have in force.
		narrowed = m.kernelP.narrows(p, slices.Concat(m.addrs, nodeAddrs))
	}
	s := State{}
	s.Epoch, s.Past, s.Dirty = m.wheel.Next(narrowed, all)
	if m.fault == latestDirty { // and not those of the changes before
		s.Dirty = narrowed
	}
	for a, id := range p.owner {
		if id == stranger {
			continue
		}
		s.Pods = append(s.Pods, a)
		if p.ingress[id] {
			s.Ingress = append(s.Ingress, a)
		}
		if p.egress[id] {
			s.Egress = append(s.Egress, a)
		}
	}
	m.epochsSeen++
	apply := !uncertain || rapid.Bool().Draw(m.T, "made")
	if uncertain && m.fault != takenForMade {
		m.wheel.Forget()
	}
	if apply {
		m.apply(s)
		m.beforeP, m.kernelP = m.kernelP, p
	}
	if uncertain {
		m.table.inside = false
		return
	}
	m.pendingP, m.pendingAt = p, s.Epoch
}

func newMemory(set *nftables.Set) *memory {
	return &memory{keys: map[string]*element{}, size: int(set.Size), width: int(set.KeyType.Bytes), timeout: int(set.Timeout / time.Second)}
}

// apply does to the machine what Table.Apply tells the kernel.
func (m *model) apply(s State) {
	now, fresh := m.table.next(s)
	old := m.kernel
	m.before = &old
	m.kernel = machine{chains: map[string][]rule{}, sets: maps.Clone(old.sets), count: old.count, clock: &m.clock}
	if !m.table.inside {
		for _, set := range slices.Concat(m.table.sets.others(), m.table.sets.kept(), m.table.sets.caches(0), m.table.sets.caches(1)) {
			if m.kernel.sets[set.Name] == nil {
				m.kernel.sets[set.Name] = newMemory(set)
			}
		}
		for v, set := range m.table.sets.local {
			// The interpreter has no intervals: every address of the small prefix is there.
			for a := localPrefixes[v].Addr(); localPrefixes[v].Contains(a); a = a.Next() {
				m.kernel.sets[set.Name].keys[string(a.AsSlice())] = &element{}
			}
		}
		for _, p := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP} {
			m.kernel.sets[m.table.sets.ported.Name].keys[string([]byte{p})] = &element{}
		}
	}
	if fresh {
		for _, set := range m.table.sets.caches(now.epoch) {
			m.kernel.sets[set.Name] = newMemory(set)
		}
	}
	want := m.table.elements(s)
	for _, set := range m.table.sets.kept() {
		mem := newMemory(set)
		for _, k := range want[set] {
			mem.keys[k] = &element{}
		}
		m.kernel.sets[set.Name] = mem
	}
	for _, ch := range m.table.builder(now).chains() {
		m.kernel.chains[ch.name] = ch.rules
	}
	if m.mutate != nil {
		m.mutate(m.table.builder(now), m.kernel.chains)
	}
	m.table.inside, m.table.state, m.state = true, now, s
}

// store is the second half of a change.
func (m *model) store() {
	if m.pendingP != nil {
		m.engineP, m.engineAt, m.pendingP = m.pendingP, m.pendingAt, nil
		m.wheel.Answers(m.engineAt, true)
	}
}

// enterHalf makes half a wheel fit to be entered: the engine is stopped if it still
// answers by it, and the verdict loop sends what it decided in it.
func (m *model) enterHalf(half int) {
	if m.wheel.Stalls(half) {
		m.engineP = nil
		m.wheel.Answers(0, false)
	}
	for _, w := range slices.Clone(m.queue) {
		if w.decided && m.wheel.Half(w.epoch) == half {
			m.reinject(w)
		}
	}
	if m.wheel.Unclean(half) && m.fault != oldMarks {
		m.clean(half)
	}
}

// clean takes the marks of half a wheel off all flows.
func (m *model) clean(half int) {
	value, mask := m.table.cfg.Marks.Half(half)
	for _, e := range m.flows {
		if e.mark&mask == value {
			e.mark &^= m.table.cfg.Marks.Mask()
		}
	}
	m.wheel.Clean(half)
}

// agree tells whether kernel and engine have the same policy, as they have but for a
// moment of each change.
func (m *model) agree() bool {
	return m.pendingP == nil && m.engineP == m.kernelP && m.engineAt == m.state.Epoch
}

// packet makes a packet of a flow and lets conntrack look at it.
func (m *model) packet(l link, truth link, opening, byNode bool) *waiting {
	marks := m.table.cfg.Marks
	m.forged = rapid.SampledFrom([]uint32{^uint32(0), marks.Pass() | m.state.Epoch<<marks.EpochShift(), marks.at(stateLocal, 0)}).Draw(m.T, "forged")
	w := &waiting{skb: skb{src: l.src, dst: l.dst, proto: l.proto, sport: l.sport, dport: l.dport, own: slices.Contains(nodeAddrs, l.src)}, truth: truth, byNode: byNode}
	if opening {
		w.tcpFlags = 2
	} else {
		w.tcpFlags = 0x10
	}
	switch e := m.flows[l]; {
	case e != nil:
		w.ent, w.reply = e, false
	case m.flows[l.reverse()] != nil:
		w.ent, w.reply = m.flows[l.reverse()], true
	default:
		w.ent = &entry{orig: l, truth: truth, byNode: byNode}
	}
	w.ct = &w.ent.conn
	switch {
	case w.reply:
		w.ent.established = true
		w.state = expr.CtStateBitESTABLISHED
	case w.ent.established:
		w.state = expr.CtStateBitESTABLISHED
	default:
		w.state = expr.CtStateBitNEW
	}
	return w
}

// base is the chain that a packet passes.
func base(w *waiting) string {
	if slices.Contains(nodeAddrs, w.dst) && !w.loop {
		return "host_input"
	}
	return "pod_postrouting"
}

// enter sends a packet through the rules, first or again.
func (m *model) enter(k *machine, p *policyTable, w *waiting) {
	if w.passes++; w.passes == 1 {
		raw := "raw_prerouting"
		if w.own || rapid.IntRange(0, 9).Draw(m.T, "through IPVS") == 0 {
			raw = "raw_output"
		}
		w.mark = m.forged // whatever somebody else may have set
		k.run(raw, &w.skb)
	}
	settles := w.decided && w.epoch == m.state.Epoch
	b := m.seen(w)
	was := b.flow
	out := k.run(base(w), &w.skb)
	for way, is := range m.cached(w, m.state.Epoch) {
		if is && !b.ways[way] && k == &m.kernel {
			m.ways[way] = &since{m.clock, m.state.Epoch}
		}
	}
	m.checkCounts(k, w, out, b.count)
	w.ent.history = append(w.ent.history, fmt.Sprintf("\n  epoch %d (engine %d): %v -> %v, pass %d, reply %v, state %d: outcome %d, flow mark %#x -> %#x, packet %#x", m.state.Epoch, m.engineAt, w.src, w.dst, w.passes, w.reply, w.state, out, was, w.ct.mark, w.mark))
	if k == &m.kernel {
		m.hold(p, w, b, out)
	}
	switch out {
	case queued:
		if settles {
			m.fail("%v %v goes round for ever", w.truth, w.skb)
		}
		if w.passes == 1 {
			w.since = m.epochsSeen
		}
		w.decided = false
		m.queue = append(m.queue, w)
	case through:
		m.delivered++
		if w.tcpFlags != 2 { // another connection may have taken the entry over meanwhile
			w.truth, w.byNode = w.ent.truth, w.ent.byNode
		}
		m.check(p, w, was)
		if w.state&expr.CtStateBitRELATED == 0 && m.flows[w.ent.orig] == nil && m.flows[w.ent.orig.reverse()] == nil {
			m.flows[w.ent.orig] = w.ent // confirmed
		}
		w.end = arrived
		if w.tcpFlags == 2 { // whatever the entry was before, this connection has it now
			w.ent.truth, w.ent.byNode = w.truth, w.byNode
		}
	case dropped:
		w.end = stopped
	}
}

const (
	arrived = iota + 1
	stopped
)

// checkCounts looks at what the rules have counted of a packet: whether the guards keep
// to their measure, and the caches to their time.
func (m *model) checkCounts(k *machine, w *waiting, out outcome, before map[string]int) {
	hit := func(c Counter) bool { return k.count[string(c)] > before[string(c)] }
	w.guarded = hit(CounterGuard) || hit(CounterGuardPortless) || hit(CounterGuardKnown)
	if out == queued || w.guarded {
		of, rate := CounterGuard, m.table.cfg.Guard
		switch {
		case w.state == expr.CtStateBitESTABLISHED:
			of, rate = CounterGuardKnown, m.table.cfg.GuardKnown
		case w.proto == unix.IPPROTO_ICMP:
			of, rate = CounterGuardPortless, m.table.cfg.GuardPortless
		}
		s := m.shares[share{of, w.src}]
		if s == nil {
			s = &element{tokens: int(rate), filled: m.clock}
			m.shares[share{of, w.src}] = s
		}
		over := rate > 0 && s.over(&expr.Limit{Rate: uint64(rate), Burst: rate}, m.clock)
		if over != w.guarded || w.guarded && !hit(of) {
			m.fail("%v: over its share of %s: %v, stopped for it: %v (and by that guard: %v)", w.skb, of, over, w.guarded, hit(of))
		}
	}
	way := wayKey{w.src, w.dst, w.proto, w.dport, true}
	for _, allowed := range []bool{false, true} {
		way.allowed = allowed
		if !hit(map[bool]Counter{false: CounterDeniedCache, true: CounterAllowedCache}[allowed]) || k != &m.kernel {
			continue
		}
		l := m.ways[way]
		switch {
		case l == nil:
			m.fail("%v: a cache knows it, and it was not learned: %v", w.skb, allowed)
		case l.epoch != m.state.Epoch:
			m.fail("%v: a cache of this epoch knows it since another: %v", w.skb, allowed)
		case m.clock >= l.at+lifetime[allowed]:
			m.fail("%v: a cache knows it (%v) after %d s", w.skb, allowed, m.clock-l.at)
		}
	}
}

// caches are those of an epoch, by whether the ways in it were allowed.
func (m *model) caches(epoch uint32) map[bool]pair {
	return map[bool]pair{false: m.table.sets.denied[epoch%2], true: m.table.sets.allowed[epoch%2]}
}

// cached tells which ways the caches of an epoch hold, of those that a packet may be
// looked up by.
func (m *model) cached(w *waiting, epoch uint32) map[wayKey]bool {
	in := map[wayKey]bool{}
	for allowed, sets := range m.caches(epoch) {
		key := slices.Concat(w.src.AsSlice(), w.dst.AsSlice(), []byte{w.proto, 0, 0, 0, byte(w.dport >> 8), byte(w.dport), 0, 0})
		if s := m.kernel.sets[sets[w.family()].Name]; s != nil {
			in[wayKey{w.src, w.dst, w.proto, w.dport, allowed}] = s.find(string(key), m.clock) != nil
		}
	}
	return in
}

// lifetime is how long a way is known, in seconds, by whether it was allowed.
var lifetime = map[bool]int{false: int(deniedFor / time.Second), true: int(allowedFor / time.Second)}

// check is the promise: what passes is allowed by the policy in force.
func (m *model) check(p *policyTable, w *waiting, was uint32) {
	if w.byNode || !p.subject(w.truth) {
		return
	}
	if _, accepted, _ := m.table.cfg.Marks.Judged(was); m.keepFlows && accepted && w.tcpFlags != 2 {
		return // an old flow goes on
	}
	truth := w.truth
	// Picked up the wrong way round, and the ports do not tell: docs/dataplane.md says
	// that it stays so.
	astray := w.proto == unix.IPPROTO_TCP && w.ent.orig == truth.reverse() && (truth.sport < EphemeralPort) == (truth.dport < EphemeralPort)
	if allow, _ := p.eval(truth); (!allow || p.hidden(truth)) && astray {
		if truth = w.ent.orig; slices.Contains(nodeAddrs, truth.src) {
			return
		}
	}
	// That way round the rules may have had nothing to ask about.
	asked := p.subject(truth) && (!astray || p.subject(w.ent.orig) && !slices.Contains(nodeAddrs, w.ent.orig.src))
	if _, accepted, _ := m.table.cfg.Marks.Judged(was); w.options && !accepted && asked {
		m.fail("LEAK: %v passed with extension headers, which the loop does not accept; its flow before:%v", w.skb, w.ent.history)
	}
	if allow, _ := p.eval(truth); !allow || p.hidden(truth) {
		m.fail("LEAK: %+v passed, as packet %v -> %v, reply %v, state %d, flow mark %#x, epoch %d, past %v, dirty %v; its flow before:%v", w.truth, w.src, w.dst, w.reply, w.state, w.ct.mark, m.state.Epoch, m.state.Past, m.state.Dirty, w.ent.history)
	}
}

// decide is what the verdict loop does: the answer, by the policy it has now. false
// stands for a packet that is held.
func (m *model) decide(w *waiting) bool {
	marks := m.table.cfg.Marks
	l := link{w.proto, w.src, w.dst, w.sport, w.dport}
	taken, doubt := w.mark&marks.Mask() == marks.Taken(), w.mark&marks.Mask() == marks.Doubt()
	if w.mark&marks.Mask() == marks.Reply() {
		l = l.reverse()
	}
	if taken { // by the look of its ports
		from, to := l.sport >= EphemeralPort, l.dport >= EphemeralPort
		if to && !from {
			l = l.reverse()
		}
		doubt = from == to
	}
	if m.engineP == nil || w.options {
		w.decided, w.drop, w.epoch = true, true, m.state.Epoch
		return true
	}
	if m.engineP.hidden(l) {
		return false
	}
	allow, cacheable := m.engineP.eval(l)
	if doubt {
		back, _ := m.engineP.eval(l.reverse())
		allow, cacheable = allow && back, false
	}
	// The kernel does not rely on the loop for what may be learned.
	cacheable = cacheable && (m.careless || w.proto != unix.IPPROTO_ICMP && !taken)
	w.decided, w.drop, w.epoch = true, false, m.engineAt
	if m.fault == tooEarly {
		w.epoch = m.state.Epoch
	}
	epoch := w.epoch << marks.EpochShift()
	switch {
	case allow && cacheable:
		w.answer = marks.Learn() | epoch
	case allow:
		w.answer = marks.Pass() | epoch
	case cacheable || w.proto == unix.IPPROTO_ICMP:
		w.answer = marks.Deny() | epoch
	default:
		w.drop = true
	}
	return true
}

// reinject gives the answer to the kernel.
func (m *model) reinject(w *waiting) {
	i := slices.Index(m.queue, w)
	m.queue = slices.Delete(m.queue, i, i+1)
	if w.drop {
		w.end = stopped
		return
	}
	// Another packet of the flow may have been first to be confirmed. The kernel resolves
	// that clash in favour of the entry that is there, or drops.
	if e := m.flows[w.ent.orig]; e != nil && e != w.ent {
		return
	}
	if e := m.flows[w.ent.orig.reverse()]; e != nil && e != w.ent {
		return
	}
	w.mark = w.mark&^m.table.cfg.Marks.Mask() | w.answer
	m.enter(&m.kernel, m.kernelP, w)
}

// drawLink draws a flow, as its opener sees it: often one that was there before, or the like
// of one.
func (m *model) drawLink() (l link, byNode bool) {
	if n := len(m.recent); n > 0 && rapid.IntRange(0, 2).Draw(m.T, "new") > 0 {
		l = m.recent[rapid.IntRange(max(0, n-4), n-1).Draw(m.T, "like")]
		switch rapid.IntRange(0, 3).Draw(m.T, "but") {
		case 0: // the same
		case 1, 2: // of the same way
			if l.proto != unix.IPPROTO_ICMP {
				l.sport = rapid.SampledFrom(clientPorts).Draw(m.T, "sport")
			}
		case 3: // from the other end to where it came from
			if l = l.reverse(); l.proto == unix.IPPROTO_ICMP {
				l.sport, l.dport = l.dport, l.sport
			} else {
				l.sport = rapid.SampledFrom(clientPorts).Draw(m.T, "sport")
			}
		}
		m.recent = append(m.recent, l)
		return l, slices.Contains(nodeAddrs, l.src)
	}
	defer func() { m.recent = append(m.recent, l) }()
	v := rapid.IntRange(0, 1).Draw(m.T, "family") * 5
	ends := append(slices.Clone(m.addrs[v:v+5]), nodeAddrs[v/5], nodeAddrs[v/5+2])
	l.proto = rapid.SampledFrom([]byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_TCP, unix.IPPROTO_ICMP}).Draw(m.T, "proto")
	l.src = rapid.SampledFrom(ends).Draw(m.T, "src")
	l.dst = rapid.SampledFrom(slices.DeleteFunc(ends, func(a netip.Addr) bool { return a == l.src })).Draw(m.T, "dst")
	l.sport, l.dport = rapid.SampledFrom(clientPorts).Draw(m.T, "sport"), rapid.SampledFrom(serverPorts).Draw(m.T, "dport")
	switch rapid.IntRange(0, 7).Draw(m.T, "between ports of one kind") {
	case 0, 1:
		l.dport = rapid.SampledFrom(clientPorts).Draw(m.T, "dport")
	case 2:
		l.sport = rapid.SampledFrom(serverPorts).Draw(m.T, "sport")
	}
	if l.proto == unix.IPPROTO_ICMP {
		l.sport, l.dport = 7, 0 // an echo's id is the same in both directions
	}
	return l, slices.Contains(nodeAddrs, l.src)
}

func (m *model) send(k *machine, p *policyTable) *waiting {
	l, byNode := m.drawLink()
	return m.sendLink(k, p, l, byNode)
}

func (m *model) sendLink(k *machine, p *policyTable, l link, byNode bool) *waiting {
	opening := l.proto == unix.IPPROTO_TCP && rapid.Bool().Draw(m.T, "opening")
	truth := l
	if !opening && rapid.Bool().Draw(m.T, "answer") && m.real(l) {
		l = l.reverse()
	}
	if l.proto == unix.IPPROTO_TCP && !opening && !m.real(truth) {
		// Without a connection nobody answers, and what is sent leads nowhere. It counts
		// as what opens one, for the policy, and may not pass where that may not.
		l = truth
	}
	w := m.packet(l, truth, opening, byNode)
	w.options = w.family() == v6 && rapid.IntRange(0, 9).Draw(m.T, "options") == 0
	if !opening { // on the entry of another flow it belongs to that
		w.truth, w.byNode = w.ent.truth, w.ent.byNode
	}
	m.enter(k, p, w)
	return w
}

// real tells whether the flow has an entry, so that its other end may have something
// to say.
func (m *model) real(l link) bool {
	e := m.flows[l]
	if e == nil {
		e = m.flows[l.reverse()]
	}
	return e != nil && e.truth == l
}

// actions are what happens.
func (m *model) actions() map[string]func(*rapid.T) {
	pick := func(t *rapid.T, of int, name string) int {
		if of == 0 {
			t.Skip("none")
		}
		return rapid.IntRange(0, of-1).Draw(t, name)
	}
	entries := func() []*entry {
		return slices.SortedFunc(maps.Values(m.flows), func(a, b *entry) int { return strings.Compare(fmt.Sprint(a.orig), fmt.Sprint(b.orig)) })
	}
	with := func(f func(t *rapid.T)) func(*rapid.T) {
		return func(t *rapid.T) {
			outer := m.T
			m.T = t
			f(t)
			m.T = outer
		}
	}
	return map[string]func(*rapid.T){
		"send":       with(func(*rapid.T) { m.send(&m.kernel, m.kernelP) }),
		"send again": with(func(*rapid.T) { m.send(&m.kernel, m.kernelP) }),
		"on a flow": with(func(t *rapid.T) {
			es := entries()
			e := es[pick(t, len(es), "flow")]
			l := e.truth
			if rapid.Bool().Draw(t, "answer") {
				l = l.reverse()
			}
			m.enter(&m.kernel, m.kernelP, m.packet(l, e.truth, false, e.byNode))
		}),
		"of a known way": with(func(t *rapid.T) {
			ways := slices.SortedFunc(maps.Keys(m.ways), func(a, b wayKey) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			ways = slices.DeleteFunc(ways, func(w wayKey) bool { return w.proto == unix.IPPROTO_ICMP }) // it has no ports
			way := ways[pick(t, len(ways), "way")]
			l := link{way.proto, way.src, way.dst, rapid.SampledFrom(clientPorts).Draw(t, "sport"), way.dport}
			m.sendLink(&m.kernel, m.kernelP, l, slices.Contains(nodeAddrs, l.src))
		}),
		"call back": with(func(t *rapid.T) { // to the port that the other connected from
			es := slices.DeleteFunc(entries(), func(e *entry) bool { return e.truth.proto == unix.IPPROTO_ICMP })
			l := es[pick(t, len(es), "flow")].truth.reverse()
			l.sport = rapid.SampledFrom(clientPorts).Draw(t, "sport")
			m.sendLink(&m.kernel, m.kernelP, l, slices.Contains(nodeAddrs, l.src))
		}),
		"decide": with(func(t *rapid.T) {
			m.decide(m.queue[pick(t, len(m.queue), "packet")])
		}),
		"answer": with(func(t *rapid.T) {
			w := m.queue[pick(t, len(m.queue), "packet")]
			if !w.decided && !m.decide(w) {
				t.Skip("held")
			}
			m.reinject(w)
		}),
		"give up": with(func(t *rapid.T) { // the hold expires, the queue is flushed
			i := pick(t, len(m.queue), "packet")
			if w := m.queue[i]; m.fault == heldPasses && !w.decided {
				w.decided, w.epoch, w.answer = true, m.engineAt, m.table.cfg.Marks.Pass()|m.engineAt<<m.table.cfg.Marks.EpochShift()
				m.reinject(w)
				return
			}
			m.queue = slices.Delete(m.queue, i, i+1)
		}),
		"commit": with(func(t *rapid.T) {
			if m.pendingP != nil || !m.table.inside {
				t.Skip("the last change is not stored yet")
			}
			m.change(m.policy(m.kernelP), false)
		}),
		"store": with(func(*rapid.T) { m.store() }),
		"commit uncertainly": with(func(t *rapid.T) {
			if m.pendingP != nil {
				t.Skip("the last change is not stored yet")
			}
			m.change(m.policy(m.kernelP), true)
		}),
		"commit again": with(func(t *rapid.T) {
			if m.pendingP != nil || m.table.inside {
				t.Skip("certain")
			}
			m.change(m.kernelP, false)
			m.store()
		}),
		"change after change": with(func(t *rapid.T) { // so that the wheel comes round
			m.store()
			for range rapid.IntRange(2, 6).Draw(t, "changes") {
				if m.table.inside {
					m.change(m.policy(m.kernelP), rapid.IntRange(0, 2).Draw(t, "uncertain") == 0)
				} else {
					m.change(m.kernelP, false)
				}
				m.store()
			}
		}),
		"straggle": with(func(t *rapid.T) {
			// A packet that began by the rules of before, on another processor.
			if m.before == nil || m.before.chains == nil || m.beforeP == nil || m.pendingP == nil {
				t.Skip("no change is under way")
			}
			m.send(m.before, m.beforeP)
		}),
		"forget a flow": with(func(t *rapid.T) {
			es := entries()
			e := es[pick(t, len(es), "flow")]
			delete(m.flows, e.orig)
			if rapid.Bool().Draw(t, "goes on") && e.truth.proto == unix.IPPROTO_TCP {
				l := e.truth
				if rapid.Bool().Draw(t, "answer") {
					l = l.reverse()
				}
				m.enter(&m.kernel, m.kernelP, m.packet(l, e.truth, false, e.byNode))
			}
		}),
		"not judged yet": with(func(t *rapid.T) {
			// It began while nobody asked about it, and conntrack may have picked it up the
			// wrong way round.
			es := slices.DeleteFunc(entries(), func(e *entry) bool { return e.truth.proto != unix.IPPROTO_TCP })
			e := es[pick(t, len(es), "flow")]
			delete(m.flows, e.orig)
			e = &entry{orig: e.truth, truth: e.truth, byNode: e.byNode, established: true}
			if rapid.Bool().Draw(t, "wrong way round") {
				e.orig = e.truth.reverse()
			}
			m.flows[e.orig] = e
			l := e.truth
			if rapid.Bool().Draw(t, "answer") {
				l = l.reverse()
			}
			m.enter(&m.kernel, m.kernelP, m.packet(l, e.truth, false, e.byNode))
		}),
		"error about a flow": with(func(t *rapid.T) {
			es := entries()
			e := es[pick(t, len(es), "flow")]
			w := &waiting{truth: e.truth, ent: e, byNode: e.byNode}
			w.ct, w.state, w.reply = &e.conn, expr.CtStateBitRELATED, rapid.Bool().Draw(t, "to who began")
			w.proto, w.src, w.dst = unix.IPPROTO_ICMP, e.orig.src, e.orig.dst
			if w.src.Is6() {
				w.proto = unix.IPPROTO_ICMPV6
			}
			if w.reply {
				w.src, w.dst = w.dst, w.src
			}
			switch rapid.IntRange(0, 3).Draw(t, "by") {
			case 0: // a router
				w.src = farAddrs[w.family()]
			case 1: // this host, as the packet's router
				w.src = nodeAddrs[w.family()]
			}
			if w.own = slices.Contains(nodeAddrs, w.src); w.own {
				w.mark = m.table.cfg.Marks.at(stateLocal, 0)
			}
			old, counted := e.mark, maps.Clone(m.kernel.count)
			out := m.kernel.run(base(w), &w.skb)
			if out == queued {
				m.fail("an error about %v is judged by itself", e.truth)
			}
			m.holdError(w, old, out, counted)
			if e.mark != old {
				m.fail("an error about %v changed its mark from %#x to %#x", e.truth, old, e.mark)
			}
		}),
		"clean": with(func(t *rapid.T) {
			half, ok := m.wheel.Leaves()
			if !ok {
				t.Skip("nothing to clean")
			}
			m.clean(half)
		}),
		"expire": with(func(t *rapid.T) {
			for _, p := range [][2]pair{m.table.sets.allowed, m.table.sets.denied} {
				for _, one := range p {
					for _, s := range one {
						clear(m.kernel.sets[s.Name].keys)
					}
				}
			}
		}),
		"time passes": with(func(t *rapid.T) {
			m.clock += rapid.SampledFrom([]int{1, 4, 30, 60}).Draw(t, "seconds")
		}),
		"allowed passes": with(m.probe),
		"sweep": with(func(t *rapid.T) { // what the change denied, in the background
			if !m.agree() {
				t.Skip("a change is under way")
			}
			marks := m.table.cfg.Marks
			for _, e := range entries() {
				_, accepted, _ := marks.Judged(e.mark)
				allow, _ := m.engineP.eval(e.orig)
				if accepted && !m.keepFlows && !allow && !m.engineP.hidden(e.orig) && m.engineP.subject(e.orig) && !slices.Contains(nodeAddrs, e.orig.src) {
					e.mark = e.mark&^marks.Mask() | marks.Denied(m.state.Epoch)
				}
			}
		}),
		"no flow": with(func(*rapid.T) { m.strange() }),
	}
}

// probe: while kernel and engine agree, what is allowed passes at once, and what is
// denied does not, whatever the flow's past.
func (m *model) probe(t *rapid.T) {
	if !m.agree() || !m.table.inside {
		t.Skip("a change is under way")
	}
	w := m.send(&m.kernel, m.kernelP)
	for range 3 {
		if !slices.Contains(m.queue, w) {
			break
		}
		if !m.decide(w) {
			return // held
		}
		m.reinject(w)
	}
	if w.guarded || w.options || base(w) == "host_input" && m.table.cfg.ToHost != ToHostAccept {
		return
	}
	allow, _ := m.kernelP.eval(w.truth)
	allow = allow && !m.kernelP.hidden(w.truth) || !m.kernelP.subject(w.truth) || w.byNode
	if m.keepFlows && w.end == arrived {
		return
	}
	if w.ent.orig != w.ent.truth && w.end != arrived {
		return // picked up the wrong way round, and then both directions must be allowed
	}
	if w.proto == unix.IPPROTO_TCP && w.tcpFlags != 2 && (w.truth.sport < EphemeralPort) == (w.truth.dport < EphemeralPort) {
		return // nobody knows who began
	}
	if got := w.end == arrived; got != allow && w.state&expr.CtStateBitRELATED == 0 {
		m.fail("%+v (as %v -> %v) passed: %v, policy allows: %v; flow mark %#x, epoch %d; so far:%v", w.truth, w.src, w.dst, got, allow, w.ct.mark, m.state.Epoch, w.ent.history)
	}
}

// TestModel is the proof that the rules keep what docs/dataplane.md promises.
func TestModel(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{false, true} {
		t.Run(map[bool]string{false: "revoke", true: "keep"}[keep], func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				m := newModel(rt, keep, nil, false)
				rt.Repeat(m.actions())
			})
		})
	}
}
