package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/nft"
	"github.com/postern-project/postern/filter/policy"
)

// Kernel is what the Applier tells of a change. *nft.Table is one.
type Kernel interface {
	// Apply puts a state in force in the place of that before, in one step. After an
	// error either may be in force.
	Apply(nft.State) error
	// Distrust says that somebody else has changed what is there: the next Apply puts
	// all of it in.
	Distrust()
	// Epoch is the epoch that the kernel is in; ok is false if it is in none.
	Epoch() (epoch uint32, ok bool, err error)
}

// Flows are the flows that live in the kernel.
type Flows interface {
	// Forget takes the marks of an accepted or denied flow off every flow that was
	// judged in one half of the epochs, 0 or 1; where accepted ones are kept, of denied ones.
	Forget(half int) error
	// Judge looks at every flow that was accepted and has one of the addresses at an
	// end, or at every one if all is set. Those that the ruleset denies are marked so, in
	// the epoch; those with an address of gone are deleted.
	Judge(rs *filter.Ruleset, epoch uint32, dirty []netip.Addr, all bool, gone []netip.Addr) error
}

// Loop is a verdict loop.
type Loop interface {
	// Answering tells by which epoch the loop has decided what the kernel has not been
	// told yet; ok is false if there is nothing.
	Answering() (epoch uint32, ok bool)
	// Wake makes the loop look at the packets that wait for a pod.
	Wake()
}

// Options say how changes are put in force.
type Options struct {
	Compile compile.Options
	// Epochs is how many the kernel's marks have room for.
	Epochs uint32
	// Keep leaves flows alone that were accepted: policy is for new ones.
	Keep bool
	// Failed is told of sweeps that failed, if it is not nil. Flows are stopped at their
	// next packet all the same. It may be called by another goroutine.
	Failed func(error)
}

// Applier puts snapshots in force, one after the other. It is not safe for
// concurrent use.
type Applier struct {
	engine   *filter.Engine
	kernel   Kernel
	flows    Flows
	loops    []Loop
	options  Options
	compiler *compile.Compiler
	wheel    *nft.Wheel // nil before the first change
	// state and rs are what is in force; known is false if that is not certain.
	state  nft.State
	rs     *filter.Ruleset
	known  bool
	forget bool // the next change is to make the kernel forget allowed ways
	// effect is that of the changes that were compiled and are not in force yet.
	effect  compile.Effect
	sweeper *sweeper
	leaving [2]bool // halves of the wheel that the sweeper was asked to make clean
}

// New returns an Applier that publishes to engine and to the kernel.
func New(engine *filter.Engine, kernel Kernel, flows Flows, loops []Loop, options Options) *Applier {
	return &Applier{
		engine: engine, kernel: kernel, flows: flows, loops: loops, options: options,
		compiler: compile.New(options.Compile), sweeper: &sweeper{flows: flows, failed: options.Failed},
	}
}

// Apply puts a snapshot in force and returns the ruleset that it became, with what
// the compiler found wrong with the snapshot. After an error the Ruleset is nil and
// the caller must apply again, the same snapshot or a later one.
func (a *Applier) Apply(s *policy.Snapshot) (*filter.Ruleset, []policy.Problem, error) {
	rs, problems := a.compiler.Apply(s)
	if rs == nil {
		return nil, problems, fmt.Errorf("generation %d: compile: no ruleset", s.Generation)
	}
	a.effect = a.effect.Join(a.compiler.Effect())
	if err := a.apply(rs); err != nil {
		return nil, problems, fmt.Errorf("generation %d: %w", s.Generation, err)
	}
	for _, l := range a.loops {
		l.Wake()
	}
	return rs, problems, nil
}

// Repair puts what is in force into the kernel again, after somebody else has changed it
// or taken it out. Nothing that the kernel remembers counts: caches are empty, and every
// flow is judged, at its next packet and by the sweeper. Before a first state is in
// force there is nothing to repair. After an error the caller must repair again, or apply.
func (a *Applier) Repair() error {
	if a.rs == nil {
		return nil
	}
	a.kernel.Distrust()
	a.wheel.Distrust()
	a.sweeper.distrust()
	a.known, a.leaving = false, [2]bool{}
	return a.apply(a.rs)
}

// ForgetWays makes the kernel ask about every new flow again, also of those ways that it
// remembers. Flows that live go on. After an error it is tried again with the next Apply.
func (a *Applier) ForgetWays() error {
	if a.rs == nil {
		return nil
	}
	a.forget = true
	return a.apply(a.rs)
}

// Retire makes the kernel forget which ways were allowed, so that without an answer to
// each no new flow of a protected address passes. Flows that live go on. The verdict
// loops must have ended; nothing but Close may follow.
func (a *Applier) Retire() error {
	if a.rs == nil {
		return nil
	}
	if half, ok := a.wheel.Enters(); ok {
		if err := a.enter(half); err != nil {
			return err
		}
	}
	// Not the sets are emptied but another epoch begins: a packet under way on another
	// processor could write to one that has just been emptied.
	last := a.state
	last.Epoch, last.Past, last.Dirty = a.wheel.Next(nil, !a.known)
	last.ForgetWays = true
	if err := a.kernel.Apply(last); err != nil {
		return fmt.Errorf("tell the kernel: %w", err)
	}
	return nil
}

func (a *Applier) apply(rs *filter.Ruleset) error {
	next := nft.State{Ingress: rs.Protected(flow.Ingress), Egress: rs.Protected(flow.Egress), Pods: rs.Hosted()}
	gone := a.gone(rs)
	if a.known && !a.changed(next) && len(gone) == 0 && !a.forget {
		a.engine.Enforce(rs, a.state.Epoch)
		a.rs = rs
		return nil
	}
	if a.wheel == nil {
		if err := a.begin(); err != nil {
			return err
		}
	}
	if half, ok := a.wheel.Enters(); ok {
		if err := a.enter(half); err != nil {
			return err
		}
	}
	all := a.effect.All || !a.known
	dirty := slices.Concat(a.effect.Narrowed, gone)
	next.Epoch, next.Past, next.Dirty = a.wheel.Next(dirty, all)
	next.ForgetWays = a.forget
	a.known = false
	if err := a.kernel.Apply(next); err != nil {
		a.wheel.Forget()
		return fmt.Errorf("tell the kernel: %w", err)
	}
	a.engine.Enforce(rs, next.Epoch)
	a.wheel.Answers(next.Epoch, true)
	first := a.rs == nil
	a.state, a.rs, a.known, a.effect, a.forget = next, rs, true, compile.Effect{}, false
	a.sweep(first, dirty, all, gone)
	return nil
}

// changed tells whether the kernel must be told of anything.
func (a *Applier) changed(next nft.State) bool {
	e := a.effect
	return e.All || e.Widened || len(e.Narrowed) > 0 ||
		!slices.Equal(a.state.Ingress, next.Ingress) || !slices.Equal(a.state.Egress, next.Egress) || !slices.Equal(a.state.Pods, next.Pods)
}

// gone gives the addresses of pods of this node that are nobody's now, or another
// pod's.
func (a *Applier) gone(rs *filter.Ruleset) (gone []netip.Addr) {
	if a.rs == nil || rs.HostsAs(a.rs) {
		return nil
	}
	for _, addr := range a.rs.Hosted() {
		was, _ := a.rs.Endpoint(addr)
		if is, ok := rs.Endpoint(addr); !ok || is != was {
			gone = append(gone, addr)
		}
	}
	return gone
}

// begin finds out which epoch the kernel is in.
func (a *Applier) begin() error {
	epoch, ok, err := a.kernel.Epoch()
	if err != nil {
		return fmt.Errorf("read the epoch: %w", err)
	}
	if !ok {
		epoch = a.options.Epochs - 1 // so that the first is 0
	}
	a.wheel = nft.NewWheel(a.options.Epochs, epoch)
	return nil
}

// patience is how long a verdict loop may take to send what it has decided. It takes
// microseconds, or as long as the process is stopped.
const patience = 5 * time.Second

// enter makes a half of the wheel fit to be entered.
func (a *Applier) enter(half int) error {
	a.join()
	if a.wheel.Stalls(half) {
		// The kernel has refused so many changes that the wheel has come round to what
		// the engine still answers by. Nobody may be accepted for that.
		a.engine.Enforce(nil, 0)
		a.wheel.Answers(0, false)
	}
	for _, l := range a.loops {
		for start := time.Now(); ; time.Sleep(time.Millisecond) {
			epoch, busy := l.Answering()
			if !busy || a.wheel.Half(epoch) != half {
				break
			}
			if time.Since(start) > patience {
				return fmt.Errorf("a queue has not sent what it decided in epoch %d", epoch)
			}
		}
	}
	if !a.wheel.Unclean(half) {
		return nil
	}
	if err := a.flows.Forget(half); err != nil {
		return fmt.Errorf("take old marks off flows: %w", err)
	}
	a.wheel.Clean(half)
	return nil
}
