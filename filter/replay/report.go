package replay

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/packet"
	"github.com/postern-project/postern/filter/policy"
)

// Report is what a replay comes to.
type Report struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	// Kinds counts packets by what they were taken for, all Kinds with any.
	Kinds map[string]uint64 `json:"kinds"`
	// Undecodable counts packets that postern would drop unread, by packet.Status.
	Undecodable map[string]uint64 `json:"undecodable,omitempty"`
	// CutFirst is the number of the first packet of which too little was captured;
	// 0 if there is none.
	CutFirst uint64 `json:"cutFirst,omitempty"`
	// LooseFragments are fragments whose first one never came.
	LooseFragments uint64 `json:"looseFragments,omitempty"`

	Flows   uint64 `json:"flows"`
	Allowed Volume `json:"allowed"`
	Denied  Volume `json:"denied"`
	Outside Volume `json:"outside"`
	// MidStream are connections whose beginning was not captured.
	MidStream uint64 `json:"midStream,omitempty"`
	// Evicted are flows that the table let go early for want of room. What came of
	// them later was decided again.
	Evicted uint64 `json:"evicted,omitempty"`

	// DeniedPairs are sorted by flows, the most first; MoreDenied are flows of pairs
	// beyond the bound.
	DeniedPairs []Pair `json:"deniedPairs"`
	MoreDenied  Volume `json:"moreDenied"`
	// Changes are set with a baseline only: the pairs whose verdict differs from it.
	Changes     []Pair `json:"changes,omitempty"`
	MoreChanged Volume `json:"moreChanged"`
	// Unknown are addresses without a pod at an end of a flow.
	Unknown     []Unknown `json:"unknown,omitempty"`
	MoreUnknown uint64    `json:"moreUnknown,omitempty"`
}

// Pair is a group of flows with the same ends and outcome.
type Pair struct {
	From EndRef `json:"from"`
	To   EndRef `json:"to"`
	Volume
	// Services are what was asked for, the most flows first; those beyond the bound
	// are in MoreServices.
	Services     []Service  `json:"services"`
	MoreServices uint64     `json:"moreServices,omitempty"`
	Is           Why        `json:"is"`
	Was          *Why       `json:"was,omitempty"`
	Example      flow.Tuple `json:"-"`
	ExampleText  string     `json:"example"`
}

// EndRef names an end: a pod, or an address without one.
type EndRef struct {
	Namespace      string `json:"namespace,omitempty"`
	Pod            string `json:"pod,omitempty"`
	ServiceAccount string `json:"serviceAccount,omitempty"`
	Address        string `json:"address,omitempty"`
}

func (e EndRef) String() string {
	switch {
	case e.Pod == "":
		return e.Address
	case e.ServiceAccount == "":
		return e.Namespace + "/" + e.Pod
	}
	return fmt.Sprintf("%s/%s (%s)", e.Namespace, e.Pod, e.ServiceAccount)
}

// Service is a protocol with its port, or with its ICMP type and code.
type Service struct {
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port,omitempty"`
	ICMPType uint8  `json:"icmpType,omitempty"`
	ICMPCode uint8  `json:"icmpCode,omitempty"`
	Flows    uint64 `json:"flows"`

	proto flow.Proto
}

func (s Service) String() string {
	switch {
	case s.proto.HasPorts():
		return fmt.Sprintf("%s/%d", s.Protocol, s.Port)
	case s.proto == flow.ICMP || s.proto == flow.ICMPv6:
		return fmt.Sprintf("%s:%d/%d", s.Protocol, s.ICMPType, s.ICMPCode)
	case s.proto == flow.UDPLite:
		return s.Protocol
	}
	return "protocol " + s.Protocol
}

// Why is an outcome in names.
type Why struct {
	Verdict   string           `json:"verdict"`
	Reason    string           `json:"reason"`
	Direction string           `json:"direction,omitempty"`
	Tier      string           `json:"tier,omitempty"`
	Rule      *explain.RuleRef `json:"rule,omitempty"` // nil if no rule decided
}

// Explain names an outcome of the ruleset.
func Explain(rs *filter.Ruleset, o Outcome) Why {
	w := Why{Verdict: o.Verdict.String(), Reason: o.Cause.String()}
	if o.Verdict == Outside || o.Cause == FromNode {
		return w
	}
	w.Direction = o.Side.String()
	if o.Rule == 0 {
		return w
	}
	i := rs.RuleInfo(o.Rule)
	w.Tier = i.Tier
	if !i.EndOfTier() {
		w.Rule = &explain.RuleRef{
			Tier: i.Tier, Kind: policy.Kind(i.Kind), Namespace: i.Namespace, Name: i.Name,
			Direction: i.Direction.String(), Index: i.Index, Action: i.Action.String(),
		}
	}
	return w
}

// String is a sentence's end: "denied at ingress by rule …".
func (w Why) String() string {
	if w.Verdict == Outside.String() {
		return "not asked: neither end is a pod"
	}
	text := map[string]string{"allow": "allowed", "deny": "denied"}[w.Verdict]
	if w.Direction != "" {
		text += " at " + w.Direction
	}
	switch {
	case w.Rule != nil:
		return text + " by " + w.Rule.String()
	case w.Reason == filter.EndOfTier.String():
		return text + ": no rule of tier " + w.Tier + " matches"
	case w.Reason == filter.ByProfile.String(), w.Reason == filter.NotHosted.String():
		return text + ": no policy decides"
	case w.Reason == filter.NoProfile.String():
		return text + ": no policy decides, and the pod's namespace is not known"
	case w.Reason == filter.AddressConflict.String():
		return text + ": two pods claim the address"
	case w.Reason == Tunnel.String():
		return text + ": a pod's own tunnel"
	case w.Reason == FromNode.String():
		return text + ": the node reaches its pod"
	}
	return text + ": " + w.Reason
}

// Unknown is an address without a pod.
type Unknown struct {
	Address netip.Addr `json:"address"`
	Flows   uint64     `json:"flows"`
}

// Finish ends all flows and gives the report. The Replayer is used up.
func (r *Replayer) Finish() *Report {
	r.table.end()
	s := &r.sums
	out := &Report{
		Packets: s.packets, Bytes: s.bytes, Kinds: map[string]uint64{}, CutFirst: s.cutFirst, LooseFragments: s.loose,
		Flows: r.table.count, Allowed: s.flows[Allowed], Denied: s.flows[Denied], Outside: s.flows[Outside],
		MidStream: s.midStream, Evicted: r.table.Evicted,
		MoreDenied: s.denied.more, MoreChanged: s.changed.more, MoreUnknown: s.unknownMore,
		DeniedPairs: r.pairs(&s.denied),
	}
	for k, n := range s.kinds {
		if n > 0 {
			out.Kinds[Kind(k).String()] = n
		}
	}
	for st, n := range s.undecodable {
		if n > 0 {
			if out.Undecodable == nil {
				out.Undecodable = map[string]uint64{}
			}
			out.Undecodable[packet.Status(st).String()] = n
		}
	}
	if r.cfg.Baseline != nil {
		out.Changes = r.pairs(&s.changed)
	}
	for a, n := range s.unknown {
		out.Unknown = append(out.Unknown, Unknown{a, n})
	}
	slices.SortFunc(out.Unknown, func(a, b Unknown) int {
		return cmp.Or(cmp.Compare(b.Flows, a.Flows), a.Address.Compare(b.Address))
	})
	return out
}

func (r *Replayer) pairs(p *pairs) []Pair {
	out := []Pair{} // never null
	for _, k := range p.sorted() {
		g := p.of[k]
		o := Pair{
			From: k.from.ref(), To: k.to.ref(), Volume: g.Volume, MoreServices: g.more,
			Is: Explain(r.cfg.Policy, k.now), Example: g.example, ExampleText: g.example.String(),
		}
		if p == &r.sums.changed {
			was := Explain(r.cfg.Baseline, k.baseline)
			o.Was = &was
		}
		for s, n := range g.services {
			v := Service{Protocol: s.proto.String(), Flows: n, proto: s.proto}
			if s.proto.HasPorts() {
				v.Port = s.port
			} else {
				v.ICMPType, v.ICMPCode = uint8(s.port>>8), uint8(s.port)
			}
			o.Services = append(o.Services, v)
		}
		slices.SortFunc(o.Services, func(a, b Service) int {
			return cmp.Or(cmp.Compare(b.Flows, a.Flows), cmp.Compare(a.proto, b.proto), cmp.Compare(a.Port, b.Port),
				cmp.Compare(a.ICMPType, b.ICMPType), cmp.Compare(a.ICMPCode, b.ICMPCode))
		})
		out = append(out, o)
	}
	return out
}

func (p Party) ref() EndRef {
	e := EndRef{Namespace: p.Namespace, Pod: p.Pod, ServiceAccount: p.ServiceAccount}
	if p.Pod == "" {
		e.Address = p.Addr.String()
	}
	return e
}

// Record is one flow, for lists of them.
type Record struct {
	Flow            uint64     `json:"flow"`
	First           *time.Time `json:"first,omitempty"`
	Last            *time.Time `json:"last,omitempty"`
	Verdict         string     `json:"verdict"`
	From            EndRef     `json:"from"`
	To              EndRef     `json:"to"`
	Source          netip.Addr `json:"source"`
	SourcePort      uint16     `json:"sourcePort,omitempty"`
	Destination     netip.Addr `json:"destination"`
	DestinationPort uint16     `json:"destinationPort,omitempty"`
	Protocol        string     `json:"protocol"`
	ICMPType        *uint8     `json:"icmpType,omitempty"`
	ICMPCode        *uint8     `json:"icmpCode,omitempty"`
	Packets         [2]uint64  `json:"packets"` // in the flow's direction, and back
	Bytes           [2]uint64  `json:"bytes"`
	MidStream       bool       `json:"midStream,omitempty"`
	Why             Why        `json:"why"`
	Baseline        *Why       `json:"baseline,omitempty"`
}

// Record describes a flow of a Replayer with this Config.
func (c *Config) Record(f *Flow) Record {
	t := f.Tuple()
	r := Record{
		Flow: f.Number, Verdict: f.outcome.Verdict.String(), From: party(c.Policy, t.Src).ref(), To: party(c.Policy, t.Dst).ref(),
		Source: t.Src, SourcePort: t.SrcPort, Destination: t.Dst, DestinationPort: t.DstPort, Protocol: t.Proto.String(),
		Packets: f.Packets, Bytes: f.Bytes, MidStream: f.picked, Why: Explain(c.Policy, f.outcome),
		First: stamp(f.First), Last: stamp(f.Last),
	}
	if t.Proto == flow.ICMP || t.Proto == flow.ICMPv6 {
		r.ICMPType, r.ICMPCode = &t.ICMPType, &t.ICMPCode
	}
	if c.Baseline != nil {
		w := Explain(c.Baseline, f.baseOutcome)
		r.Baseline = &w
	}
	return r
}

func stamp(ns int64) *time.Time {
	if ns == 0 {
		return nil
	}
	t := time.Unix(0, ns).UTC()
	return &t
}

// Comment says what became of a packet, in fields that a display filter can look
// for: "verdict=deny direction=ingress reason=rule policy=… rule=… flow=7".
func (c *Config) Comment(n *Note) string {
	var b strings.Builder
	add := func(key, value string) {
		if value == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(key + "=" + printable(value))
	}
	f := n.Flow
	if f == nil {
		add("verdict", map[Kind]string{Undecodable: "deny", Invalid: "deny"}[n.Kind])
		add("packet", n.Kind.String())
		if n.Kind == Undecodable {
			add("reason", n.Status.String())
		}
		return "postern: " + b.String()
	}
	w := Explain(c.Policy, f.outcome)
	add("verdict", w.Verdict)
	add("direction", w.Direction)
	add("reason", w.Reason)
	if w.Rule != nil {
		key := policy.Key{Namespace: w.Rule.Namespace, Name: w.Rule.Name}
		add("policy", strings.TrimPrefix(key.String(), " "))
		add("kind", string(w.Rule.Kind))
		add("rule", fmt.Sprintf("%s[%d]", w.Rule.Direction, w.Rule.Index))
		add("action", w.Rule.Action)
	}
	add("tier", w.Tier)
	if c.Baseline != nil && f.baseOutcome.Verdict != f.outcome.Verdict {
		add("baseline", f.baseOutcome.Verdict.String())
	}
	add("flow", fmt.Sprint(f.Number))
	if n.First {
		add("decided", "here")
	}
	if n.Kind != Member {
		add("packet", n.Kind.String())
	}
	return "postern: " + b.String()
}

// printable takes out what a name in a manifest could do to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, s)
}
