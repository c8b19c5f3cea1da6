package vectors

import (
	"fmt"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
)

// Run checks one vector on a world, which may be nil, and returns everything
// that is wrong, each with the layer it is wrong in: selector, convert, engine
// or explain.
func Run(world *Step, v Vector) []error {
	if v.Err != nil {
		return []error{v.Err}
	}
	var errs []error
	for _, s := range v.Selectors {
		errs = append(errs, s.check())
	}
	c := newCluster()
	if world != nil {
		errs = append(errs, c.apply(world)...)
	}
	errs = append(errs, c.step(&v.Step)...)
	for i, s := range v.Steps {
		for _, err := range c.step(&s) {
			if err != nil {
				errs = append(errs, fmt.Errorf("step %d: %w", i+1, err))
			}
		}
	}
	var failed []error
	for _, err := range errs {
		if err != nil {
			failed = append(failed, err)
		}
	}
	return failed
}

// step applies a step and checks its flows.
func (c *cluster) step(s *Step) []error {
	errs := c.apply(s)
	if len(s.Flows) == 0 {
		return errs
	}
	snapshot := c.store.Snapshot()
	rs, notes := compile.Compile(snapshot, compile.Options{Node: Node})
	if rs == nil {
		errs = append(errs, fmt.Errorf("compile: %v", notes))
	}
	layers := layers{engine: rs, explain: explain.New(snapshot, explain.Options{Node: Node})}
	if slices.ContainsFunc(s.Flows, func(f Flow) bool { return f.Chain == L7 }) && rs != nil {
		p, err := newProxy(rs)
		defer p.close()
		if err != nil {
			return append(errs, fmt.Errorf("proxy: %w", err))
		}
		layers.proxy = p
	}
	for _, f := range s.Flows {
		t, err := f.tuple(c.addrs)
		if err != nil {
			errs = append(errs, fmt.Errorf("flow %q: %w", f.Text, err))
			continue
		}
		for _, err := range layers.check(&f, t) {
			errs = append(errs, fmt.Errorf("flow %q: %w", f.Text, err))
		}
	}
	return errs
}

// layers are the two implementations of policy, on one snapshot.
type layers struct {
	engine  *filter.Ruleset
	explain *explain.Evaluator
	// proxy asks the engine about requests; nil if nothing asks for it.
	proxy *proxy
}

// answer is what a layer said about a flow, in words that can be compared.
type answer struct {
	// verdict is one of the words of the flow's chain.
	verdict string
	// why is the reason and what decided, alike in both layers.
	why string
}

// What a host endpoint's chain says where no policy decided. Each layer has
// reasons of its own for that.
const (
	undecided = "undecided"
	noRule    = "no policy's rule"
)

// unable is the answer of a layer that has no way to answer.
func unable(why string) answer { return answer{verdict: "no answer", why: why} }

// check asks every layer and compares with what is expected, and the layers with
// each other.
func (l layers) check(f *Flow, t flow.Tuple) []error {
	var errs []error
	wrong := func(layer string, a answer) {
		if a.verdict != f.Want {
			errs = append(errs, fmt.Errorf("%s: expected %s, got %s (%s)", layer, f.Want, a.verdict, a.why))
		}
	}
	if f.Chain == L7 {
		wrong("explain", l.requested(f, t))
		if l.proxy == nil {
			wrong("proxy", unable("the snapshot does not compile"))
		} else {
			wrong("proxy", l.proxy.ask(f, t))
		}
		return errs
	}
	ex := l.explained(f, t)
	wrong("explain", ex)
	en := l.decided(f, t)
	wrong("engine", en)
	if en.why != ex.why {
		errs = append(errs, fmt.Errorf("engine and explain disagree: %s (%s) and %s (%s)", en.verdict, en.why, ex.verdict, ex.why))
	}
	return errs
}

// hostChains are the host endpoint chains in each layer's terms.
var hostChains = map[Chain]struct {
	engine  filter.HostChain
	explain explain.HostChain
	dir     flow.Direction
}{
	HostIn:       {filter.HostNormal, explain.HostNormal, flow.Ingress},
	HostOut:      {filter.HostNormal, explain.HostNormal, flow.Egress},
	ForwardIn:    {filter.HostForward, explain.HostForward, flow.Ingress},
	ForwardOut:   {filter.HostForward, explain.HostForward, flow.Egress},
	UntrackedIn:  {filter.HostUntracked, explain.HostUntracked, flow.Ingress},
	UntrackedOut: {filter.HostUntracked, explain.HostUntracked, flow.Egress},
	PreDNATIn:    {filter.HostPreDNAT, explain.HostPreDNAT, flow.Ingress},
}

// decided asks the engine.
func (l layers) decided(f *Flow, t flow.Tuple) answer {
	if l.engine == nil {
		return unable("the snapshot does not compile")
	}
	switch f.Chain {
	case Both:
		d := l.engine.Decide(t)
		why := fmt.Sprintf("%s at %s: egress %s", d.Reason, d.Side, l.outcome(d.Egress))
		if d.Egress.Verdict == filter.Accept {
			why += ", ingress " + l.outcome(d.Ingress)
		}
		if d.Reason == filter.AddressConflict || d.Reason == filter.NoLocalEndpoint || d.Reason == filter.InvalidTuple {
			why = d.Reason.String() // no side decided
		}
		return answer{d.Verdict.String(), why}
	case IngressOnly:
		o := l.engine.DecideSide(t, flow.Ingress)
		return answer{o.Verdict.String(), l.outcome(o)}
	case EgressOnly:
		o := l.engine.DecideSide(t, flow.Egress)
		return answer{o.Verdict.String(), l.outcome(o)}
	}
	h, ok := hostChains[f.Chain]
	if !ok {
		return unable("there is no chain " + string(f.Chain))
	}
	o, ok := l.engine.DecideHost(f.HostEndpoint, h.engine, h.dir, t)
	switch {
	case !ok:
		return unable("no host endpoint " + f.HostEndpoint)
	case o.Undecided:
		return answer{"none", undecided}
	default:
		return answer{o.Verdict.String(), l.hostOutcome(o.Outcome)}
	}
}

// outcome prints reason and deciding rule of one end.
func (l layers) outcome(o filter.Outcome) string {
	s := o.Reason.String()
	if o.Reason == filter.ByRule || o.Reason == filter.EndOfTier {
		s += decider(l.engine.RuleInfo(o.Rule))
	}
	if o.Logged {
		s += " logged"
	}
	return s
}

// hostOutcome is outcome without the reasons that only one layer has.
func (l layers) hostOutcome(o filter.Outcome) string {
	if o.Reason == filter.ByRule || o.Reason == filter.EndOfTier {
		return l.outcome(o)
	}
	return noRule
}

// decider prints what decided: a rule, or the end of a tier.
func decider(i filter.RuleInfo) string {
	if i.EndOfTier() {
		return fmt.Sprintf(" of tier %s", i.Tier)
	}
	return ruleName(i.Tier, i.Kind, i.Namespace, i.Name, i.Direction.String(), i.Index)
}

func ruleName(tier, kind, namespace, name, direction string, index int) string {
	return fmt.Sprintf(" %s[%d] of %s %s/%s in tier %q", direction, index, kind, namespace, name, tier)
}

// explained asks the explainer.
func (l layers) explained(f *Flow, t flow.Tuple) answer {
	switch f.Chain {
	case Both:
		tr := l.explain.Explain(t)
		why := fmt.Sprintf("%s at %s: egress %s", tr.Reason, tr.Side, side(tr.Egress))
		if tr.Egress.Verdict == explain.Allow {
			why += ", ingress " + side(tr.Ingress)
		}
		if tr.Side == "" {
			why = string(tr.Reason)
		}
		return answer{tr.Verdict.String(), why}
	case IngressOnly:
		s := l.explain.EvaluateSide(t, flow.Ingress)
		return answer{s.Verdict.String(), side(s)}
	case EgressOnly:
		s := l.explain.EvaluateSide(t, flow.Egress)
		return answer{s.Verdict.String(), side(s)}
	}
	h, ok := hostChains[f.Chain]
	if !ok {
		return unable("there is no chain " + string(f.Chain))
	}
	s, err := l.explain.EvaluateHost(f.HostEndpoint, h.explain, h.dir, t)
	switch {
	case err != nil:
		return unable(err.Error())
	case s.Verdict == explain.None:
		return answer{"none", undecided}
	case s.Reason == explain.ByRule || s.Reason == explain.EndOfTier:
		return answer{s.Verdict.String(), side(s)}
	default:
		return answer{s.Verdict.String(), noRule}
	}
}

// requested asks the explainer for an answer at the application layer.
func (l layers) requested(f *Flow, t flow.Tuple) answer {
	req := explain.Request{
		Source:      explain.Peer{Principal: f.From},
		Destination: explain.Peer{Principal: f.To},
	}
	if f.Method != "" {
		req.HTTP = &explain.HTTP{Method: f.Method, Path: f.Path}
	}
	tr := l.explain.ExplainRequest(t, req)
	return answer{string(tr.Status), strings.TrimSpace(fmt.Sprintf("%s %s %s", tr.Reason, tr.Detail, side(tr.Ingress)))}
}

// side prints reason and deciding rule of one end.
func side(s explain.Side) string {
	why := string(s.Reason)
	switch {
	case s.Reason == explain.EndOfTier:
		why += " of tier " + s.Tier
	case s.Reason == explain.ByRule && s.Rule != nil:
		r := s.Rule
		why += ruleName(r.Tier, string(r.Kind), r.Namespace, r.Name, r.Direction, r.Index)
	}
	if len(s.Logs) > 0 {
		why += " logged"
	}
	return why
}
