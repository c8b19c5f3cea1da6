package rival

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/trie"
)

// Linear reads resolved rules one after the other.
type Linear struct {
	table    trie.Table    // address to class
	programs [][2]*program // by class and direction, nil where nothing is local
}

// program is what one direction of an endpoint runs.
type program struct{ segments []segment }

// segment is one tier: its rules lie in one piece of memory.
type segment struct {
	rules []linearRule
	end   policy.Action // Deny or Pass
}

// linearRule tests protocol and port first: they are in the rule itself.
type linearRule struct {
	set      *classSet // nil: every peer
	min      uint16
	span     uint16 // max-min: one comparison tests both ends
	proto    flow.Proto
	anyProto bool
	action   policy.Action
	number   uint32
}

// classSet is a bitmap without the empty words at its ends.
type classSet struct {
	first uint32
	words []uint64
}

func (s *classSet) contains(class uint32) bool {
	if s == nil {
		return true
	}
	i := class/64 - s.first
	return i < uint32(len(s.words)) && s.words[i]>>(class%64)&1 != 0
}

// Decide decides one flow. As the engine does, it drops what is no valid tuple and
// what has no end here.
func (l *Linear) Decide(t *flow.Tuple) (v Verdict) {
	if !t.Valid() || t.Src.Is4In6() || t.Dst.Is4In6() {
		return v
	}
	src, dst := l.table.Lookup(t.Src), l.table.Lookup(t.Dst)
	from, to := l.programs[src][flow.Egress], l.programs[dst][flow.Ingress]
	if from == nil && to == nil {
		return v
	}
	v.Accept = true
	if from != nil {
		v.Accept, v.Egress = from.run(dst, t.Proto, t.DstPort)
	}
	if v.Accept && to != nil {
		v.Accept, v.Ingress = to.run(src, t.Proto, t.DstPort)
	}
	return v
}

// DecidePeersFirst is Decide, except that it holds the peer against the set of each
// rule before it looks at protocol and port.
func (l *Linear) DecidePeersFirst(t *flow.Tuple) (v Verdict) {
	if !t.Valid() || t.Src.Is4In6() || t.Dst.Is4In6() {
		return v
	}
	src, dst := l.table.Lookup(t.Src), l.table.Lookup(t.Dst)
	from, to := l.programs[src][flow.Egress], l.programs[dst][flow.Ingress]
	if from == nil && to == nil {
		return v
	}
	v.Accept = true
	if from != nil {
		v.Accept, v.Egress = from.runPeersFirst(dst, t.Proto, t.DstPort)
	}
	if v.Accept && to != nil {
		v.Accept, v.Ingress = to.runPeersFirst(src, t.Proto, t.DstPort)
	}
	return v
}

func (p *program) runPeersFirst(peer uint32, proto flow.Proto, port uint16) (accept bool, number uint32) {
tiers:
	for i := range p.segments {
		seg := &p.segments[i]
		for k := range seg.rules {
			r := &seg.rules[k]
			if !r.set.contains(peer) || proto != r.proto && !r.anyProto || port-r.min > r.span {
				continue
			}
			if r.action == policy.Pass {
				continue tiers
			}
			return r.action == policy.Allow, r.number
		}
		if seg.end == policy.Deny {
			return false, 0
		}
	}
	return true, 0
}

// Lookups does the part of Decide that finds the classes, and adds them up.
func (l *Linear) Lookups(t *flow.Tuple) uint32 {
	return l.table.Lookup(t.Src) + l.table.Lookup(t.Dst)
}

func (p *program) run(peer uint32, proto flow.Proto, port uint16) (accept bool, number uint32) {
tiers:
	for i := range p.segments {
		seg := &p.segments[i]
		for k := range seg.rules {
			r := &seg.rules[k]
			if port-r.min > r.span || proto != r.proto && !r.anyProto || !r.set.contains(peer) {
				continue
			}
			if r.action == policy.Pass {
				continue tiers
			}
			return r.action == policy.Allow, r.number
		}
		if seg.end == policy.Deny {
			return false, 0
		}
	}
	return true, 0
}

// linearBuilder is the state of NewLinear.
type linearBuilder struct {
	*Linear
	full       bool
	tiers      []policy.Tier
	policies   []ranked
	identities []identity
	local      []bool // by identity
	nets       map[netip.Prefix]int
	words      int

	classesOfIdentity [][]uint32
	classesOfNet      [][]uint32
	sets              map[string]*classSet
	pods              map[string][]uint64 // bitmaps by what is asked of pods
	programsByKey     map[string]*program
}

// Sets says how the sets of a Linear are kept.
type Sets bool

const (
	// Tight sets are cut to the words that are not empty, and rules that name the
	// same peers share one.
	Tight Sets = false
	// Full sets have a bit for every class, and every rule its own.
	Full Sets = true
)

// NewLinear resolves a snapshot for a node.
func NewLinear(s *policy.Snapshot, node string, sets Sets) (*Linear, error) {
	if err := check(s); err != nil {
		return nil, err
	}
	b := &linearBuilder{
		Linear: new(Linear), full: sets == Full, nets: make(map[netip.Prefix]int), sets: make(map[string]*classSet),
		pods: make(map[string][]uint64), programsByKey: make(map[string]*program),
	}
	b.tiers, b.policies = rank(s)
	byAddr := b.addIdentities(s, node)
	b.addNets()
	if err := b.addClasses(byAddr); err != nil {
		return nil, fmt.Errorf("build classes: %w", err)
	}
	for id, local := range b.local {
		if !local {
			continue
		}
		ingress, egress := b.program(id, flow.Ingress), b.program(id, flow.Egress)
		for _, class := range b.classesOfIdentity[id] {
			b.programs[class] = [2]*program{ingress, egress}
		}
	}
	return b.Linear, nil
}

// addIdentities numbers what selectors can tell apart. Whether a pod is local is
// part of it, because only local ones get programs.
func (b *linearBuilder) addIdentities(s *policy.Snapshot, node string) map[netip.Prefix]int {
	namespaces := namespaceLabels(s)
	known := make(map[string]int)
	byAddr := make(map[netip.Prefix]int, len(s.Endpoints))
	var keys []string
	for _, ep := range s.Endpoints {
		keys = keys[:0]
		for k, v := range ep.Labels {
			keys = append(keys, k+"="+v)
		}
		slices.Sort(keys)
		key := fmt.Sprint(ep.Namespace, " ", ep.ServiceAccount, " ", ep.Node == node, " ", strings.Join(keys, " "))
		id, found := known[key]
		if !found {
			id = len(b.identities)
			known[key] = id
			b.identities = append(b.identities, newIdentity(ep, namespaces))
			b.local = append(b.local, ep.Node == node)
		}
		byAddr[netip.PrefixFrom(ep.Addrs[0], ep.Addrs[0].BitLen())] = id
	}
	return byAddr
}

// addNets numbers the prefixes of the policies that select a local pod.
func (b *linearBuilder) addNets() {
	for _, p := range b.policies {
		if !slices.ContainsFunc(b.localIdentities(), func(id int) bool { return selects(p.Policy, &b.identities[id]) }) {
			continue
		}
		for _, dir := range []flow.Direction{flow.Ingress, flow.Egress} {
			for i := range p.Rules(dir) {
				e := peerOf(&p.Rules(dir)[i], dir)
				for _, net := range slices.Concat(e.Nets, e.NotNets) {
					if _, known := b.nets[net]; !known {
						b.nets[net] = len(b.nets)
					}
				}
			}
		}
	}
}

func (b *linearBuilder) localIdentities() (out []int) {
	for id, local := range b.local {
		if local {
			out = append(out, id)
		}
	}
	return out
}

// addClasses makes a class of all addresses with the same identity and the same
// nets around them. Identities come first, so that sets of pods are short.
func (b *linearBuilder) addClasses(byAddr map[netip.Prefix]int) error {
	var prefixes []netip.Prefix
	for p := range byAddr {
		prefixes = append(prefixes, p)
	}
	for p := range b.nets {
		if _, pod := byAddr[p]; !pod {
			prefixes = append(prefixes, p)
		}
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	const noPod = 1 << 30
	keys := make([]string, len(prefixes)) // identity and nets of each prefix
	err := trie.Covers(prefixes, func(i int, covers []int) {
		id, pod := byAddr[prefixes[i]]
		if !pod {
			id = noPod
		}
		key := binary.BigEndian.AppendUint32(nil, uint32(id))
		for _, k := range append(slices.Clip(covers), i) {
			if net, isNet := b.nets[prefixes[k]]; isNet {
				key = binary.BigEndian.AppendUint32(key, uint32(net))
			}
		}
		keys[i] = string(key)
	})
	if err != nil {
		return err
	}
	distinct := slices.Clone(keys)
	slices.Sort(distinct)
	distinct = slices.Compact(distinct)
	number := make(map[string]uint32, len(distinct))
	b.classesOfIdentity = make([][]uint32, len(b.identities))
	b.classesOfNet = make([][]uint32, len(b.nets))
	for i, key := range distinct {
		class := uint32(i + 1)
		number[key] = class
		if id := binary.BigEndian.Uint32([]byte(key)); id < noPod {
			b.classesOfIdentity[id] = append(b.classesOfIdentity[id], class)
		}
		for rest := key[4:]; len(rest) > 0; rest = rest[4:] {
			net := binary.BigEndian.Uint32([]byte(rest))
			b.classesOfNet[net] = append(b.classesOfNet[net], class)
		}
	}
	b.words = (len(distinct) + 64) / 64
	b.programs = make([][2]*program, len(distinct)+1)
	for i, p := range prefixes {
		if err := b.table.Insert(p, number[keys[i]]); err != nil {
			return err
		}
	}
	return nil
}

// program gives what a local identity runs; those to whom the same policies apply
// share it.
func (b *linearBuilder) program(id int, dir flow.Direction) *program {
	var applicable []int
	for i, p := range b.policies {
		if p.Applies(dir) && selects(p.Policy, &b.identities[id]) {
			applicable = append(applicable, i)
		}
	}
	key := fmt.Sprint(dir, applicable)
	if p := b.programsByKey[key]; p != nil {
		return p
	}
	out := new(program)
	tier := -1
	for _, i := range applicable {
		p := b.policies[i]
		if p.tier != tier {
			tier = p.tier
			out.segments = append(out.segments, segment{end: b.tiers[tier].DefaultAction})
		}
		seg := &out.segments[len(out.segments)-1]
		for k := range p.Rules(dir) {
			seg.rules = append(seg.rules, b.rule(&p.Rules(dir)[k], p.Namespace, dir, p.first[dir]+uint32(k)))
		}
	}
	for i := range out.segments {
		out.segments[i].rules = slices.Clip(out.segments[i].rules)
	}
	b.programsByKey[key] = out
	return out
}

func (b *linearBuilder) rule(r *policy.Rule, namespace string, dir flow.Direction, number uint32) linearRule {
	proto, ports, stated := portsOf(r)
	if !stated {
		ports = flow.PortRange{Min: 0, Max: 65535}
	}
	return linearRule{
		set: b.set(peerOf(r, dir), namespace, number), min: ports.Min, span: ports.Max - ports.Min,
		proto: proto, anyProto: proto == 0, action: r.Action, number: number,
	}
}

// set gives the classes that the peer of a rule may have: each set once, or full
// ones for each rule.
func (b *linearBuilder) set(e *policy.EntityRule, namespace string, number uint32) *classSet {
	if !namesPods(e) && len(e.Nets) == 0 && len(e.NotNets) == 0 {
		return nil
	}
	asked := ""
	if namesPods(e) {
		asked = fmt.Sprintf("%s|%v|%v|", namespace, e.Selector, e.NamespaceSelector)
		if e.ServiceAccounts != nil {
			asked += fmt.Sprint(e.ServiceAccounts.Names)
		}
	}
	key := fmt.Sprint(asked, e.Nets, e.NotNets)
	if b.full {
		key = fmt.Sprint(number)
	}
	if s := b.sets[key]; s != nil {
		return s
	}
	bits := make([]uint64, b.words)
	if namesPods(e) {
		copy(bits, b.podBits(asked, e, namespace))
	} else {
		for i := range bits {
			bits[i] = ^uint64(0)
		}
	}
	if len(e.Nets) > 0 {
		inside := b.netBits(e.Nets)
		for i := range bits {
			bits[i] &= inside[i]
		}
	}
	if len(e.NotNets) > 0 {
		outside := b.netBits(e.NotNets)
		for i := range bits {
			bits[i] &^= outside[i]
		}
	}
	s := new(classSet)
	b.sets[key] = s
	if b.full {
		s.words = bits
		return s
	}
	for len(bits) > 0 && bits[0] == 0 {
		bits = bits[1:]
		s.first++
	}
	for len(bits) > 0 && bits[len(bits)-1] == 0 {
		bits = bits[:len(bits)-1]
	}
	s.words = slices.Clone(bits)
	return s
}

func (b *linearBuilder) podBits(key string, e *policy.EntityRule, namespace string) []uint64 {
	if bits := b.pods[key]; bits != nil {
		return bits
	}
	bits := make([]uint64, b.words)
	for id := range b.identities {
		if matchesPod(e, namespace, &b.identities[id]) {
			mark(bits, b.classesOfIdentity[id])
		}
	}
	b.pods[key] = bits
	return bits
}

func (b *linearBuilder) netBits(nets []netip.Prefix) []uint64 {
	bits := make([]uint64, b.words)
	for _, n := range nets {
		mark(bits, b.classesOfNet[b.nets[n]])
	}
	return bits
}

func mark(bits []uint64, classes []uint32) {
	for _, c := range classes {
		bits[c/64] |= 1 << (c % 64)
	}
}
