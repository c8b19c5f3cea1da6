package explain

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// printer writes indented lines and keeps the first error.
type printer struct {
	w      io.Writer
	indent int
	err    error
}

// line writes one line. Whatever is not printable becomes U+FFFD: names, labels
// and principals are other people's, and must not reach a terminal as control
// sequences or as lines of their own.
func (p *printer) line(format string, args ...any) {
	if p.err != nil {
		return
	}
	text := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, fmt.Sprintf(format, args...))
	if text != "" {
		text = strings.Repeat("  ", p.indent) + text
	}
	_, p.err = io.WriteString(p.w, text+"\n")
}

// in runs f one level deeper.
func (p *printer) in(f func()) { p.indent++; f(); p.indent-- }

// Text writes the trace for an operator: the verdict and why in the first line,
// then both identities, then what was read. It returns the first error of w.
func (t Trace) Text(w io.Writer) error {
	p := &printer{w: w}
	p.line("%s %s: %s", strings.ToUpper(t.Verdict.String()), t.Tuple, t.why())
	p.nearest(t.decider())
	p.identity("source", t.Source)
	p.identity("destination", t.Destination)
	p.evaluation(t.Evaluation)
	if t.Pending != nil {
		p.line("")
		p.line("if the staged policies were enforced: %s: %s", strings.ToUpper(t.Pending.Verdict.String()), t.Pending.why())
		p.in(func() {
			p.nearest(t.Pending.decider())
			p.evaluation(*t.Pending)
		})
	}
	return p.err
}

// Text writes the trace for an operator, as Trace.Text does.
func (t RequestTrace) Text(w io.Writer) error {
	p := &printer{w: w}
	p.line("%s %s: %s", t.Status, t.Tuple, t.why())
	p.nearest(&t.Ingress)
	p.identity("source", t.Source)
	p.identity("destination", t.Destination)
	if t.Ingress.Direction != "" {
		p.line("")
		p.side(t.Ingress)
	}
	return p.err
}

func (t *RequestTrace) why() string {
	switch {
	case t.Detail != "":
		return t.Detail
	case t.Ingress.Direction == "":
		return (&Evaluation{Reason: t.Reason}).why()
	default:
		return t.Ingress.why()
	}
}

// decider gives the side that Side names, or nil.
func (e *Evaluation) decider() *Side {
	switch e.Side {
	case flow.Egress.String():
		return &e.Egress
	case flow.Ingress.String():
		return &e.Ingress
	default:
		return nil
	}
}

// why explains a verdict in one sentence.
func (e *Evaluation) why() string {
	switch e.Reason {
	case InvalidTuple:
		return "the addresses are missing or of two families"
	case AddressConflict:
		return "two live pods claim one of the addresses, so nobody can tell whose traffic this is"
	case NoLocalEndpoint:
		return "neither address is a pod hosted here"
	}
	s := e.decider()
	if s == nil {
		return string(e.Reason)
	}
	return s.why()
}

func (s *Side) why() string {
	at := fmt.Sprintf("%s of %s", s.Direction, s.Endpoint)
	switch s.Reason {
	case ByRule:
		return fmt.Sprintf("%s: %s", at, s.Rule)
	case EndOfTier:
		return fmt.Sprintf("%s: policies of tier %s select it and no rule matched (end of tier)", at, s.Tier)
	case ByProfile:
		if s.Rule != nil {
			return fmt.Sprintf("%s: %s", at, s.Rule)
		}
		return at + ": no policy decided and the namespace's profile allows"
	case NoProfile:
		return at + ": no policy decided and its namespace or profile is not known or does not allow"
	case NotHosted:
		return s.Direction + ": not an endpoint hosted here, so it constrains nothing"
	case NoPolicy:
		return at + ": no policy applies in this chain"
	case NoMatch:
		return at + ": policies apply in this chain and none decided"
	case AddressConflict:
		return "two live pods claim one of the addresses"
	default:
		return at + ": " + string(s.Reason)
	}
}

// nearest writes the Allow rule that came closest, with all it lacked.
func (p *printer) nearest(s *Side) {
	if s == nil || s.NearestMiss == nil {
		return
	}
	n := s.NearestMiss
	p.in(func() {
		p.line("closest: %s", n.Rule)
		p.in(func() {
			for _, c := range n.Failed {
				p.line("- %s", c.Text)
			}
			switch {
			case n.Shadowed && len(n.Failed) == 0:
				p.line("- it matches, but a rule before it decided")
			case n.Shadowed:
				p.line("- it was not reached: a rule before it decided")
			}
		})
	})
}

func (p *printer) identity(side string, id Identity) {
	p.line("%-12s %s", side, id.Address)
	p.in(func() {
		if id.Unknown {
			p.line("external: no pod, network set or host endpoint has this address")
		}
		if id.Conflict {
			p.line("conflict: %d live pods claim this address", len(id.Pods))
		}
		for _, o := range id.Pods {
			p.line("pod %s/%s, %s%s%s", o.Namespace, o.Name, podAccount(o), nodeText(o.Node), hostedText(id))
			p.in(func() {
				p.labels("labels", o.Labels, "")
				p.labels("namespace labels", o.Labels, namespacePrefix)
				p.labels("service account labels", o.Labels, accountPrefix)
			})
		}
		for _, o := range slices.Concat(id.NetworkSets, id.HostEndpoints) {
			p.line("%s%s", policy.Key{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}, nodeText(o.Node))
			p.in(func() {
				p.labels("labels", o.Labels, "")
				p.labels("namespace labels", o.Labels, namespacePrefix)
			})
		}
	})
}

// podAccount names a pod's service account, and says so where its labels are
// missing because the object is.
func podAccount(o Object) string {
	switch _, known := o.Labels[accountPrefix+nameLabel]; {
	case o.ServiceAccount == "":
		return "no service account"
	case !known:
		return "service account " + o.ServiceAccount + " (no such object)"
	default:
		return "service account " + o.ServiceAccount
	}
}

func hostedText(id Identity) string {
	if id.Hosted || id.Conflict {
		return ""
	}
	return ", not hosted here"
}

func nodeText(node string) string {
	if node == "" {
		return ""
	}
	return ", node " + node
}

// labels writes the labels with a prefix, without it; or, for no prefix, those
// that are not derived.
func (p *printer) labels(title string, labels map[string]string, prefix string) {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		switch key, found := strings.CutPrefix(k, prefix); {
		case !found, prefix != "" && key == nameLabel: // the name stands above
		case prefix == "" && isDerived(k):
		default:
			list = append(list, key+"="+labels[k])
		}
	}
	if len(list) > 0 {
		p.line("%s: %s", title, strings.Join(list, " "))
	}
}

func (p *printer) evaluation(e Evaluation) {
	for _, s := range []Side{e.Egress, e.Ingress} {
		p.line("")
		p.side(s)
	}
}

func (p *printer) side(s Side) {
	note := ""
	if s.NotReached {
		note = " (not evaluated by the engine: egress drops first)"
	}
	if s.Endpoint == "" {
		why := string(s.Reason)
		if s.Reason == NotHosted {
			why += " (this end is no pod that this node decides for)"
		}
		p.line("%s: %s, %s%s", s.Direction, s.Verdict, why, note)
		return
	}
	p.line("%s of %s: %s, %s%s", s.Direction, s.Endpoint, s.Verdict, s.Reason, note)
	p.in(func() {
		if len(s.Tiers) == 0 {
			p.line("no policy selects it for %s", s.Direction)
		}
		for _, t := range s.Tiers {
			p.tier(t)
		}
		for _, f := range s.Profiles {
			unknown := ""
			if f.Unknown {
				unknown = " (it is not known: no Profile, or no Namespace, of that name)"
			}
			p.line("profile %s: %s%s", f.Name, f.Outcome, unknown)
			p.in(func() { p.rules(f.Rules) })
		}
	})
	if s.NotReached { // of the deciding side it stands at the top
		p.nearest(&s)
	}
}

func (p *printer) tier(t TierStep) {
	order := ", no Tier object"
	if t.Order != nil {
		order = ", order " + number(*t.Order)
	}
	p.line("tier %s%s: %s", t.Name, order, t.Outcome)
	p.in(func() {
		for _, s := range t.Policies {
			key := policy.Key{Kind: s.Kind, Namespace: s.Namespace, Name: s.Name}
			order := "last"
			if s.Order != nil {
				order = number(*s.Order)
			}
			skipped := ""
			if s.Skipped {
				skipped = " (not read)"
			}
			p.line("%s, order %s%s", key, order, skipped)
			if s.Skipped {
				continue
			}
			p.in(func() {
				p.rules(s.Rules)
				switch {
				case s.Unread > 0:
					p.line("%d more not read", s.Unread)
				case len(s.Rules) == 0:
					p.line("no rules")
				}
			})
		}
	})
}

func (p *printer) rules(rules []RuleStep) {
	for _, r := range rules {
		if r.Matched {
			p.line("rule %d %s: matches", r.Index, r.Action)
			continue
		}
		p.line("rule %d %s: no, %s", r.Index, r.Action, r.Failed.Text)
	}
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
