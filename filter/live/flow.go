package live

import (
	"net/netip"
	"slices"
	"time"

	"github.com/postern-project/postern/conntrack"
	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/nft"
)

// Flow is one flow, for people and programs outside. Names come from API objects and may
// hold anything.
type Flow struct {
	Proto string `json:"protocol"`
	// Src and Dst are the ends as policy judges them: after destination NAT, before
	// source NAT, and Src began.
	Src End `json:"src"`
	Dst End `json:"dst"`
	// ICMPType and ICMPCode are those of the first packet, and nil for other protocols.
	ICMPType *uint8 `json:"icmp_type,omitempty"`
	ICMPCode *uint8 `json:"icmp_code,omitempty"`
	// TCPState is conntrack's word, such as established; empty for other protocols.
	TCPState string `json:"tcp_state,omitempty"`

	// Verdict is what was decided: allow, deny, or none if nothing is remembered.
	Verdict  string   `json:"verdict"`
	Standing Standing `json:"standing"`
	// What decides such a flow now, empty unless it says the same as Verdict.
	Reason string `json:"reason,omitempty"`
	Tier   string `json:"tier,omitempty"`
	Policy string `json:"policy,omitempty"` // namespace/name, or name
	Rule   *int   `json:"rule,omitempty"`   // from 0; nil for the end of a tier

	// AgeSeconds is nil where the kernel did not note when the flow began, and Sent (by
	// Src) and Answered are nil where it does not count.
	AgeSeconds *float64 `json:"age_seconds,omitempty"`
	Sent       *Count   `json:"sent,omitempty"`
	Answered   *Count   `json:"answered,omitempty"`
	// LeftSeconds is how long the kernel remembers the flow if no packet comes.
	LeftSeconds int `json:"left_seconds"`
	// Translated is nil for a flow whose addresses nobody changes.
	Translated *Translation `json:"translated,omitempty"`
	Zone       uint16       `json:"zone,omitempty"`
}

// Standing is what becomes of a flow's next packet.
type Standing string

const (
	// Current: judged by the policy in force, and not asked about again.
	Current Standing = "current"
	// Kept: accepted by an earlier policy, and what changed since is not about it. The
	// kernel accepts its next packet without a question.
	Kept Standing = "kept"
	// Again: its next packet is judged.
	Again Standing = "again"
)

// End is one end of a flow. Pod and Account are "namespace/name", empty where the
// address is no pod's, and Account also where the pod has none.
type End struct {
	Addr    netip.Addr `json:"address"`
	Port    uint16     `json:"port,omitempty"`
	Pod     string     `json:"pod,omitempty"`
	Account string     `json:"account,omitempty"`
}

// Count is what went one way; bytes with IP headers.
type Count struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Translation is a flow on the wire, on the side of who began and on that of who answers.
// Ports are 0 for protocols without.
type Translation struct {
	Original Addresses `json:"original"`
	Reply    Addresses `json:"reply"`
	// Destination: the sender spoke to another address or port than that of Dst, such as
	// a service's. Source: the receiver sees another address or port than that of Src.
	Destination bool `json:"destination"`
	Source      bool `json:"source"`
}

// Addresses are those of one direction's packets.
type Addresses struct {
	Src netip.AddrPort `json:"src"`
	Dst netip.AddrPort `json:"dst"`
}

// View is what is in force, to look at flows by. It is read only.
type View struct {
	Marks   nft.Marks
	Ruleset *filter.Ruleset
	// Epoch, Past and dirty are the kernel's (nft.State). Keep: flows that were
	// accepted go on whatever came later.
	Epoch uint32
	Past  []uint32
	Keep  bool
	dirty []netip.Addr // sorted
}

// NewView returns the view of a state, whose dirty addresses are sorted. The state is the
// View's from then on.
func NewView(m nft.Marks, rs *filter.Ruleset, s *nft.State, keep bool) *View {
	return &View{Marks: m, Ruleset: rs, Epoch: s.Epoch, Past: s.Past, Keep: keep, dirty: s.Dirty}
}

func (v *View) isDirty(a netip.Addr) bool {
	_, found := slices.BinarySearchFunc(v.dirty, a, netip.Addr.Compare)
	return found
}

// standing reads a conntrack mark.
func (v *View) standing(mark uint32, t *flow.Tuple) (verdict string, s Standing) {
	epoch, accepted, ok := v.Marks.Judged(mark)
	switch {
	case !ok:
		return "none", Again
	case accepted && (epoch == v.Epoch || v.Keep):
		return "allow", Current
	case accepted:
		for _, p := range v.Past {
			if p == epoch && !v.isDirty(t.Src) && !v.isDirty(t.Dst) {
				return "allow", Kept
			}
		}
		return "allow", Again
	case epoch == v.Epoch:
		return "deny", Current
	default:
		return "deny", Again
	}
}

// Describe tells all there is to say of an entry. names is the ruleset that knows who was at
// the ends.
func (v *View) Describe(e *conntrack.Entry, names *filter.Ruleset, now time.Time) Flow {
	t := e.Tuple()
	f := Flow{
		Proto: t.Proto.String(), Src: endOf(names, t.Src, t.SrcPort), Dst: endOf(names, t.Dst, t.DstPort),
		TCPState: e.State, LeftSeconds: int(e.Left / time.Second), Translated: translation(e), Zone: e.Zone,
	}
	if t.Proto == flow.ICMP || t.Proto == flow.ICMPv6 {
		f.ICMPType, f.ICMPCode = &t.ICMPType, &t.ICMPCode
	}
	f.Verdict, f.Standing = v.standing(e.Mark, &t)
	f.reason(names, t)
	if !e.Start.IsZero() {
		end := now
		if !e.End.IsZero() {
			end = e.End
		}
		age := max(end.Sub(e.Start), 0).Seconds()
		f.AgeSeconds = &age
	}
	if e.Counted {
		f.Sent, f.Answered = &Count{e.Sent.Packets, e.Sent.Bytes}, &Count{e.Answered.Packets, e.Answered.Bytes}
	}
	return f
}

func endOf(rs *filter.Ruleset, a netip.Addr, port uint16) End {
	e := End{Addr: a, Port: port}
	if ep, ok := rs.Endpoint(a); ok {
		e.Pod = ep.Namespace + "/" + ep.Name
		if ep.ServiceAccount != "" {
			e.Account = ep.Namespace + "/" + ep.ServiceAccount
		}
	}
	return e
}

// reason tells what decides such a flow, if it decides as it was decided. A flow that
// conntrack may have the wrong way round may have been decided by both directions.
func (f *Flow) reason(rs *filter.Ruleset, t flow.Tuple) {
	d := rs.Decide(t)
	if d.Verdict.String() != f.Verdict || d.Reason == filter.NoLocalEndpoint {
		return
	}
	f.Reason = d.Reason.String()
	id := d.Outcome().Rule
	if id == 0 {
		return
	}
	i := rs.RuleInfo(id)
	f.Tier = i.Tier
	if i.EndOfTier() {
		return
	}
	f.Policy, f.Rule = i.Name, &i.Index
	if i.Namespace != "" {
		f.Policy = i.Namespace + "/" + i.Name
	}
}

func translation(e *conntrack.Entry) *Translation {
	back := e.Answer.Reverse()
	o := &e.Original
	destination := o.Dst != back.Dst || o.DstPort != back.DstPort
	source := o.Src != back.Src || o.SrcPort != back.SrcPort
	if !destination && !source {
		return nil
	}
	ends := func(t *flow.Tuple) Addresses {
		return Addresses{netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, t.DstPort)}
	}
	return &Translation{Original: ends(o), Reply: ends(&e.Answer), Destination: destination, Source: source}
}
