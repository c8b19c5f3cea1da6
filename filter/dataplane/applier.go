package dataplane

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// Protect makes the kernel ask about flows to the addresses in ingress and from
// those in egress, and about no others. It changes all or nothing. The slices are
// sorted and must not be changed.
type Protect func(ingress, egress []netip.Addr) error

// Applier puts snapshots in force, one after the other. It is not safe for
// concurrent use.
type Applier struct {
	engine   *filter.Engine
	protect  Protect
	compiler *compile.Compiler
	// kernel is what the kernel is known to protect, by flow.Direction; known is
	// false before the first change and after one that failed.
	kernel [2][]netip.Addr
	known  bool
}

// New returns an Applier that publishes to engine and to the kernel.
func New(engine *filter.Engine, protect Protect, options compile.Options) *Applier {
	return &Applier{engine: engine, protect: protect, compiler: compile.New(options)}
}

// Apply puts a snapshot in force and returns the ruleset that it became, with what
// the compiler found wrong with the snapshot. After an error the Ruleset is nil and
// the caller must apply again, the same snapshot or a later one: the kernel may
// protect less than the ruleset in force asks for.
func (a *Applier) Apply(s *policy.Snapshot) (*filter.Ruleset, []policy.Problem, error) {
	rs, problems := a.compiler.Apply(s)
	if rs == nil {
		return nil, problems, fmt.Errorf("generation %d: compile: no ruleset", s.Generation)
	}
	next := [2][]netip.Addr{flow.Ingress: rs.Protected(flow.Ingress), flow.Egress: rs.Protected(flow.Egress)}

	if a.known {
		var kept [2][]netip.Addr
		for d := range kept {
			kept[d] = intersect(a.kernel[d], next[d])
		}
		if err := a.tell(kept); err != nil {
			return nil, problems, fmt.Errorf("generation %d: withdraw addresses: %w", s.Generation, err)
		}
	}
	a.engine.Swap(rs)
	if err := a.tell(next); err != nil {
		return nil, problems, fmt.Errorf("generation %d: protect addresses: %w", s.Generation, err)
	}
	return rs, problems, nil
}

// tell changes the kernel, unless it is known to be right already.
func (a *Applier) tell(want [2][]netip.Addr) error {
	if a.known && slices.Equal(want[flow.Ingress], a.kernel[flow.Ingress]) && slices.Equal(want[flow.Egress], a.kernel[flow.Egress]) {
		return nil
	}
	a.known = false
	if err := a.protect(want[flow.Ingress], want[flow.Egress]); err != nil {
		return err
	}
	a.kernel, a.known = want, true
	return nil
}

// intersect gives what both sorted slices hold.
func intersect(a, b []netip.Addr) (both []netip.Addr) {
	for _, x := range a {
		if _, ok := slices.BinarySearchFunc(b, x, netip.Addr.Compare); ok {
			both = append(both, x)
		}
	}
	return both
}
