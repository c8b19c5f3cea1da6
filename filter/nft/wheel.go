package nft

import (
	"net/netip"
	"slices"
)

// Wheel gives out epochs, and knows what of the past still holds in each.
//
// An epoch's number is used again after a full turn, and no flow may carry it from
// the turn before. So the wheel has two halves, and none is entered before marks of
// its epochs have been taken off all flows. That is one walk over conntrack in half
// a turn, and there is half a turn of time for it.
//
// A packet that waits in the queue holds on to its conntrack entry also when conntrack
// has forgotten it, and no walk finds that. So none may wait for a quarter of a turn.
//
// A Wheel is not safe for concurrent use.
type Wheel struct {
	epochs  uint32
	current uint32
	past    []passed // the latest first
	unclean [2]bool
	lost    bool // see Forget
	engine  uint32
	answers bool // see Answers
}

// passed is an epoch whose flows still hold, unless narrowed by one of the changes
// since.
type passed struct {
	epoch    uint32
	narrowed []netip.Addr // by the change that ended it
}

const (
	// maxPast is how many epochs back a flow may have been silent and still go on
	// without a question.
	maxPast = 8
	// maxDirty is how many addresses the dirty set may hold. Beyond, to judge all flows
	// again costs less than to say which.
	maxDirty = 4096
)

// NewWheel returns a wheel of that many epochs, of which the kernel is in current. Flows may
// carry marks of any: the table may be one that somebody has put back in. So the next epoch
// is the first of the other half.
func NewWheel(epochs, current uint32) *Wheel {
	w := &Wheel{epochs: epochs, current: current}
	w.Distrust()
	return w
}

// Enters tells which half, 0 or 1, the next epoch is the first of; ok is false if it is
// the first of none. The half must be clean then, no verdict loop may have a decision
// of it that the kernel has not got yet, and the engine must not answer by it.
func (w *Wheel) Enters() (half int, ok bool) {
	half = w.Half((w.current + 1) % w.epochs)
	return half, half != w.Half(w.current)
}

// Unclean tells whether flows may carry marks of the half.
func (w *Wheel) Unclean(half int) bool { return w.unclean[half] }

// Leaves tells which half may be made clean now: the one that neither the present
// epoch, nor that by which the engine answers, nor one whose flows still hold is in. ok is false if there is none, or it is
// clean.
func (w *Wheel) Leaves() (half int, ok bool) {
	half = 1 - w.Half(w.current)
	if w.answers && w.Half(w.engine) == half || slices.ContainsFunc(w.past, func(p passed) bool { return w.Half(p.epoch) == half }) {
		return half, false
	}
	return half, w.unclean[half]
}

// Answers is told by which epoch the engine answers; ok is false if it answers by
// none. It falls behind where the kernel refuses change after change. A half must not
// be entered while the engine answers by it.
func (w *Wheel) Answers(epoch uint32, ok bool) { w.engine, w.answers = epoch, ok }

// Stalls tells whether the engine answers by an epoch of the half.
func (w *Wheel) Stalls(half int) bool { return w.answers && w.Half(w.engine) == half }

// Clean is told that no flow carries a mark of the half any more.
func (w *Wheel) Clean(half int) { w.unclean[half] = false }

// Next begins the next epoch. narrowed are the addresses of which some verdict may
// have become a denial; all stands for every address.
func (w *Wheel) Next(narrowed []netip.Addr, all bool) (epoch uint32, past []uint32, dirty []netip.Addr) {
	w.past = slices.Insert(w.past, 0, passed{w.current, narrowed})
	w.past = w.past[:min(len(w.past), maxPast, int(w.epochs/4))]
	if all || w.lost {
		w.past, w.lost = nil, false
	}
	total := 0
	for i, p := range w.past {
		if total += len(p.narrowed); total > maxDirty {
			w.past = w.past[:i]
			break
		}
	}
	w.current = (w.current + 1) % w.epochs
	w.unclean[w.Half(w.current)] = true
	for _, p := range w.past {
		past = append(past, p.epoch)
		dirty = append(dirty, p.narrowed...)
	}
	slices.SortFunc(dirty, netip.Addr.Compare)
	return w.current, past, slices.Compact(dirty)
}

// Forget is called where it is not certain that the kernel is in the present epoch:
// in the next one nothing of the past holds. The caches of the epoch before that may
// be those of an earlier one.
func (w *Wheel) Forget() { w.lost = true }

// Distrust is called where rules that are not ours have been in the kernel: nothing of
// the past holds, and flows may carry marks of any epoch, also of those that come next.
// So the next one is in the other half, and that must be made clean first.
func (w *Wheel) Distrust() {
	w.lost, w.unclean = true, [2]bool{true, true}
	w.current = uint32(w.Half(w.current)+1)*w.epochs/2 - 1
}

// Half is the half that an epoch is in, 0 or 1.
func (w *Wheel) Half(epoch uint32) int { return int(epoch / (w.epochs / 2)) }

// Half gives what the conntrack mark of flows that were judged in one half of the
// epochs, 0 or 1, is under a mask: of accepted ones and of denied ones.
func (m Marks) Half(half int) (value, mask uint32) {
	const judged = state(stateFlow & stateDenied) // a bit pattern that no other state has
	return m.at(judged, uint32(half)*m.Epochs()/2), m.at(judged, m.Epochs()/2)
}

// AnyHalf is the same for all epochs.
func (m Marks) AnyHalf() (value, mask uint32) {
	return m.at(stateFlow&stateDenied, 0), m.at(stateFlow&stateDenied, 0)
}
