package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/postern-project/postern/filter"
)

// sweeper works on the kernel's flows after a change of policy, one task at a time and
// on a goroutine that lives as long as there is one. Nothing waits for it: packets of
// every flow are judged as they come. It stops flows that send none.
type sweeper struct {
	flows  Flows
	failed func(error)

	mu      sync.Mutex
	next    *task
	running chan struct{} // closed when the goroutine ends; nil if there is none
	clean   [2]bool       // halves of the wheel that it has made clean
	doubts  int           // how often what had been made clean was in doubt
}

// task is what a change asks for, or several.
type task struct {
	rs          *filter.Ruleset
	epoch       uint32
	dirty, gone []netip.Addr
	all         bool
	forget      [2]bool // halves of the wheel to make clean
}

// add asks for a task, joined to that which has not begun yet.
func (s *sweeper) add(t task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		t.dirty, t.gone = slices.Concat(s.next.dirty, t.dirty), slices.Concat(s.next.gone, t.gone)
		t.all = t.all || s.next.all
		for half, is := range s.next.forget {
			t.forget[half] = t.forget[half] || is
		}
	}
	s.next = &t
	if s.running == nil {
		s.running = make(chan struct{})
		go s.run(s.running)
	}
}

func (s *sweeper) run(done chan struct{}) {
	defer close(done)
	for {
		s.mu.Lock()
		t := s.next
		s.next = nil
		if t == nil {
			s.running = nil
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		s.do(t)
	}
}

func (s *sweeper) do(t *task) {
	if t.all || len(t.dirty)+len(t.gone) > 0 {
		if err := s.flows.Judge(t.rs, t.epoch, t.dirty, t.all, t.gone); err != nil && s.failed != nil {
			s.failed(fmt.Errorf("judge flows that live: %w", err))
		}
	}
	for half, is := range t.forget {
		if !is {
			continue
		}
		s.mu.Lock()
		doubts := s.doubts
		s.mu.Unlock()
		if err := s.flows.Forget(half); err == nil {
			s.mu.Lock()
			s.clean[half] = s.doubts == doubts
			s.mu.Unlock()
		} else if s.failed != nil {
			s.failed(fmt.Errorf("take old marks off flows: %w", err))
		}
	}
}

// wait waits until nothing is left to do.
func (s *sweeper) wait() {
	s.mu.Lock()
	running := s.running
	s.mu.Unlock()
	if running != nil {
		<-running
	}
}

// distrust says that flows may have got marks of any epoch until now.
func (s *sweeper) distrust() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clean = [2]bool{}
	s.doubts++
}

// cleaned tells what was made clean since it was asked last.
func (s *sweeper) cleaned() (clean [2]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clean, s.clean = s.clean, clean
	return clean
}

// sweep asks for what follows a change.
func (a *Applier) sweep(first bool, dirty []netip.Addr, all bool, gone []netip.Addr) {
	a.learnClean()
	t := task{rs: a.rs, epoch: a.state.Epoch, gone: gone}
	if !first && !a.options.Keep {
		t.dirty, t.all = dirty, all
	}
	if half, ok := a.wheel.Leaves(); ok && !a.leaving[half] {
		t.forget[half], a.leaving[half] = true, true
	}
	if t.all || len(t.dirty)+len(t.gone) > 0 || t.forget != [2]bool{} {
		a.sweeper.add(t)
	}
}

// learnClean tells the wheel what the sweeper has made clean. A half stays so until it is
// entered: the kernel writes the marks of the present epoch only, and the sweeper has
// none older than that at work when a half is entered.
func (a *Applier) learnClean() {
	for half, is := range a.sweeper.cleaned() {
		if is {
			a.wheel.Clean(half)
			a.leaving[half] = false
		}
	}
}

// join waits for the sweeper.
func (a *Applier) join() {
	a.sweeper.wait()
	a.learnClean()
	a.leaving = [2]bool{}
}

// Close waits for what Apply has begun. Nothing may be applied after it.
func (a *Applier) Close() { a.join() }
