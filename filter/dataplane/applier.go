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

// Addresses are what the kernel is told of pods, each sorted.
type Addresses struct {
	// Ingress and Egress are of the pods that some policy isolates in that
	// direction: the kernel asks about flows to the ones and from the others.
	Ingress, Egress []netip.Addr
	// Pods are of all pods of this node.
	Pods []netip.Addr
}

func (a Addresses) equal(b Addresses) bool {
	return slices.Equal(a.Ingress, b.Ingress) && slices.Equal(a.Egress, b.Egress) && slices.Equal(a.Pods, b.Pods)
}

// Protect tells the kernel the addresses in the place of those before. It changes
// all or nothing, and does not change the slices.
type Protect func(Addresses) error

// Applier puts snapshots in force, one after the other. It is not safe for
// concurrent use.
type Applier struct {
	engine   *filter.Engine
	protect  Protect
	compiler *compile.Compiler
	// kernel is what the kernel is known to have been told; known is false before
	// the first change and after one that failed.
	kernel Addresses
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
	a.engine.Swap(rs)
	if err := a.tell(Addresses{rs.Protected(flow.Ingress), rs.Protected(flow.Egress), rs.Hosted()}); err != nil {
		return nil, problems, fmt.Errorf("generation %d: protect addresses: %w", s.Generation, err)
	}
	return rs, problems, nil
}

// tell changes the kernel, unless it is known to be right already.
func (a *Applier) tell(want Addresses) error {
	if a.known && want.equal(a.kernel) {
		return nil
	}
	a.known = false
	if err := a.protect(want); err != nil {
		return err
	}
	a.kernel, a.known = want, true
	return nil
}
