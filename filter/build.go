package filter

import (
	"fmt"
	"net/netip"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/trie"
)

// New builds a Ruleset. It fails on a Spec that contradicts itself, such as one
// that names a rule, class or program it does not hold.
func New(spec *Spec) (*Ruleset, error) { return build(spec, NewBuilder()) }

func build(spec *Spec, b *Builder) (*Ruleset, error) {
	if err := spec.check(); err != nil {
		return nil, fmt.Errorf("build ruleset: %w", err)
	}
	for i := range spec.Rules {
		b.AddRule(&spec.Rules[i])
	}
	for i, c := range spec.classSpecs() {
		if i == 0 {
			b.SetClass(0, c)
		} else {
			b.AddClass(c)
		}
	}
	for _, p := range spec.Prefixes {
		if err := b.SetAddresses(p.Prefix, p.Class); err != nil {
			return nil, fmt.Errorf("build ruleset: %w", err)
		}
	}
	for _, ep := range spec.Endpoints {
		for _, a := range ep.Addrs {
			if old, taken := b.endpointOf(a); taken && (old.Hosted || !ep.Hosted) {
				continue // of two the hosted one, or else the first
			}
			if err := b.SetEndpoint(a, ep.EndpointInfo); err != nil {
				return nil, fmt.Errorf("build ruleset: %w", err)
			}
		}
	}
	for _, h := range spec.Hosts {
		var programs [HostChains][2]Program
		for chain, byDir := range h.Programs {
			programs[chain] = [2]Program{spec.Programs[byDir[0]], spec.Programs[byDir[1]]}
		}
		b.SetHost(h.Name, programs)
	}
	b.SetEndpoints(len(spec.Endpoints))
	rs := b.Publish(spec.Generation)
	rs.sizes.Programs = len(spec.Programs)
	return rs, nil
}

// classSpecs turns sets of classes into classes that name their sets.
func (spec *Spec) classSpecs() []ClassSpec {
	out := make([]ClassSpec, len(spec.Classes))
	for i, c := range spec.Classes {
		out[i] = ClassSpec{Conflict: c.Conflict, Hosted: c.Hosted}
		if c.Hosted {
			out[i].Programs = [2]Program{spec.Programs[c.Programs[0]], spec.Programs[c.Programs[1]]}
		}
	}
	seenSets, seenPorts := make(map[*ClassSet]bool), make(map[*ClassPorts]bool)
	addPorts := func(p *ClassPorts) {
		if p == nil || seenPorts[p] {
			return
		}
		seenPorts[p] = true
		for _, k := range p.keys {
			out[k>>24].Ports = append(out[k>>24].Ports, Offer{p, flow.Proto(k >> 16), uint16(k)})
		}
	}
	for i := range spec.Rules {
		for _, side := range []*Side{&spec.Rules[i].Source, &spec.Rules[i].Destination} {
			if s := side.Classes; !s.full() && !seenSets[s] {
				seenSets[s] = true
				for c := range s.members {
					out[c].Sets = append(out[c].Sets, s)
				}
			}
			addPorts(side.Service)
			for _, m := range []*PortMatch{side.Ports, side.NotPorts} {
				if m != nil {
					addPorts(m.Named)
				}
			}
		}
	}
	return out
}

func (spec *Spec) check() error {
	if len(spec.Classes) == 0 || spec.Classes[0].Hosted || spec.Classes[0].Conflict {
		return fmt.Errorf("class 0 must exist, neither hosted nor conflicting")
	}
	if len(spec.Classes) > trie.MaxValue || len(spec.Rules) >= maxRules {
		return fmt.Errorf("%d classes and %d rules: too many", len(spec.Classes), len(spec.Rules))
	}
	seenPrefixes := make(map[netip.Prefix]struct{}, len(spec.Prefixes))
	for _, p := range spec.Prefixes {
		seenPrefixes[p.Prefix] = struct{}{}
		if !p.Prefix.IsValid() || p.Prefix != p.Prefix.Masked() || p.Prefix.Addr().Is4In6() {
			return fmt.Errorf("prefix %v: not a masked IPv4 or IPv6 prefix", p.Prefix)
		}
		if p.Class == 0 || int(p.Class) >= len(spec.Classes) {
			return fmt.Errorf("prefix %v: class %d, want one from 1 to %d", p.Prefix, p.Class, len(spec.Classes)-1)
		}
	}
	if len(seenPrefixes) != len(spec.Prefixes) {
		return fmt.Errorf("prefixes: some are given twice")
	}
	for i := range spec.Rules {
		if err := spec.checkRule(&spec.Rules[i]); err != nil {
			return fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	seen := make(map[*Segment]bool)
	for i, p := range spec.Programs {
		if err := spec.checkProgram(p, seen); err != nil {
			return fmt.Errorf("program %d: %w", i, err)
		}
	}
	for i, c := range spec.Classes {
		for _, p := range c.Programs {
			if c.Hosted && !spec.podProgram(p) {
				return fmt.Errorf("class %d: program %d is not one for pods", i, p)
			}
		}
	}
	return errorsFirst(spec.checkEndpoints(), spec.checkHosts())
}

func errorsFirst(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (spec *Spec) podProgram(i int) bool {
	return i >= 0 && i < len(spec.Programs) && spec.Programs[i].Final <= FinalAllow
}

func (spec *Spec) checkRule(r *Rule) error {
	if r.Info.Action > Log {
		return fmt.Errorf("action %d", r.Info.Action)
	}
	if r.Info.Direction > flow.Egress {
		return fmt.Errorf("direction %d", r.Info.Direction)
	}
	if r.Info.EndOfTier() {
		bare := Rule{Info: r.Info, IPv4: true, IPv6: true}
		if *r != bare || r.Info.Action != Deny {
			return fmt.Errorf("end of a tier that does more than deny everything")
		}
	}
	for _, s := range []*Side{&r.Source, &r.Destination} {
		if s.Classes != nil && s.Classes.classes != len(spec.Classes) {
			return fmt.Errorf("a set over %d classes where there are %d", s.Classes.classes, len(spec.Classes))
		}
		last := s.Service.lastClass()
		for _, m := range []*PortMatch{s.Ports, s.NotPorts} {
			if m == nil {
				continue
			}
			last = max(last, m.Named.lastClass())
			for _, r := range m.Ranges {
				if r.Min > r.Max {
					return fmt.Errorf("port range %v", r)
				}
			}
		}
		if int(last) >= len(spec.Classes) {
			return fmt.Errorf("a port of class %d of %d", last, len(spec.Classes))
		}
	}
	return nil
}

func (spec *Spec) checkProgram(p Program, seen map[*Segment]bool) error {
	if p.Final > FinalUndecided {
		return fmt.Errorf("final %d", p.Final)
	}
	for _, seg := range p.Segments {
		if seg == nil {
			return fmt.Errorf("nil segment")
		}
		if seen[seg] {
			continue
		}
		seen[seg] = true
		for _, id := range seg.Rules {
			if id == 0 || int(id) > len(spec.Rules) {
				return fmt.Errorf("rule %d of %d", id, len(spec.Rules))
			}
			if spec.Rules[id-1].Info.EndOfTier() {
				return fmt.Errorf("rule %d is the end of a tier", id)
			}
		}
		if int(seg.End) > len(spec.Rules) {
			return fmt.Errorf("end %d of %d rules", seg.End, len(spec.Rules))
		}
		if seg.End != 0 && !spec.Rules[seg.End-1].Info.EndOfTier() {
			return fmt.Errorf("rule %d is not the end of a tier", seg.End)
		}
	}
	return nil
}

func (spec *Spec) checkEndpoints() error {
	covered := make(map[netip.Addr]ClassID, len(spec.Prefixes))
	for _, p := range spec.Prefixes {
		if p.Prefix.IsSingleIP() {
			covered[p.Prefix.Addr()] = p.Class
		}
	}
	for _, ep := range spec.Endpoints {
		for _, a := range ep.Addrs {
			c, ok := covered[a]
			if !ok || ep.Hosted && !spec.Classes[c].Hosted {
				return fmt.Errorf("endpoint %s/%s: address %v has no prefix of its own with a fitting class", ep.Namespace, ep.Name, a)
			}
		}
	}
	return nil
}

func (spec *Spec) checkHosts() error {
	names := make(map[string]bool, len(spec.Hosts))
	for _, h := range spec.Hosts {
		if names[h.Name] {
			return fmt.Errorf("host endpoint %s: given twice", h.Name)
		}
		names[h.Name] = true
		for _, byDir := range h.Programs {
			for _, p := range byDir {
				if p < 0 || p >= len(spec.Programs) {
					return fmt.Errorf("host endpoint %s: program %d of %d", h.Name, p, len(spec.Programs))
				}
			}
		}
	}
	return nil
}
