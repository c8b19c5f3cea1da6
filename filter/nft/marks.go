package nft

import (
	"fmt"
	"math/bits"
)

// DefaultMask is the part of the packet mark and of the conntrack mark that
// postern owns unless told otherwise. kube-proxy uses 0xc000, and most network
// plugins stay below bit 24.
const DefaultMask = 0xff000000

// minMaskBits is how wide the mask must be: three bits of state and three of the
// epoch. Few epochs are no danger, but each turn of the wheel costs a walk over
// conntrack.
const minMaskBits = stateBits + 3

// stateBits is how many bits hold a state. They are the low ones of the field under
// the mask, and the epoch has the rest:
//
//	0xff000000   eeee esss 0000 0000 0000 0000 0000 0000
const stateBits = 3

// state is what a packet or a flow is known to be. Packets and flows use different
// values, so that a tool which saves or restores whole marks cannot turn the one
// into the other.
type state uint32

const (
	stateNone  state = 0 // nothing known
	stateLocal state = 1 // packet, before the queue: sent by this host itself, from its own address
	stateAsked state = 2 // packet, to the queue; in the place of an epoch, what conntrack knows

	// From the queue, with the epoch of the policy that decided.
	statePass  state = 3 // packet: accepted
	stateLearn state = 4 // packet: accepted, and so is every flow between the two addresses to the port
	stateDeny  state = 6 // packet: denied, and so is every such flow

	// With the epoch of the policy that decided.
	stateFlow   state = 5 // flow: accepted
	stateDenied state = 7 // flow: denied
)

// Marks lays postern's values out in the packet mark and the conntrack mark. All
// other bits belong to others and are never changed.
type Marks struct{ mask uint32 }

// NewMarks returns the layout under a mask, which must be contiguous and at
// least 6 bits wide.
func NewMarks(mask uint32) (Marks, error) {
	run := mask >> bits.TrailingZeros32(mask)
	if mask == 0 || run&(run+1) != 0 || bits.OnesCount32(mask) < minMaskBits {
		return Marks{}, fmt.Errorf("mark mask %#x: want at least %d contiguous bits, such as %#x", mask, minMaskBits, uint32(DefaultMask))
	}
	return Marks{mask}, nil
}

// Mask is the part of a mark that is postern's.
func (m Marks) Mask() uint32 { return m.mask }

// Epochs is how many epochs there are; they are numbered from 0 and used in turn.
func (m Marks) Epochs() uint32 { return uint32(1) << (bits.OnesCount32(m.mask) - stateBits) }

// EpochShift is by how many bits an epoch is shifted in a mark.
func (m Marks) EpochShift() int { return bits.TrailingZeros32(m.mask) + stateBits }

// What a packet carries under Mask when it comes from the queue. The epoch of the
// policy that decided, shifted by EpochShift, is added to it.

// Pass: accepted.
func (m Marks) Pass() uint32 { return m.at(statePass, 0) }

// Learn: accepted, and so is every flow of its protocol between the two addresses
// to the same port.
func (m Marks) Learn() uint32 { return m.at(stateLearn, 0) }

// Deny: denied, and so is every such flow.
func (m Marks) Deny() uint32 { return m.at(stateDeny, 0) }

// What a packet carries under Mask when it comes to the queue.

// Reply: it goes against the direction its flow began in.
func (m Marks) Reply() uint32 { return m.at(stateAsked, 0) }

// Taken: it is no SYN and its flow is new to conntrack, which may have the
// direction wrong.
func (m Marks) Taken() uint32 { return m.at(stateAsked, 1) }

// Doubt: it is no SYN, and going by the flow's ports conntrack has its direction wrong.
func (m Marks) Doubt() uint32 { return m.at(stateAsked, 2) }

// Asked: nothing is known of it, where packets that get no answer are counted; elsewhere it
// carries nothing.
func (m Marks) Asked() uint32 { return m.at(stateAsked, 3) }

// Flow is what the conntrack mark of a flow carries under Mask that was accepted in
// an epoch.
func (m Marks) Flow(epoch uint32) uint32 { return m.at(stateFlow, epoch) }

// Denied is the same for a flow that was denied.
func (m Marks) Denied(epoch uint32) uint32 { return m.at(stateDenied, epoch) }

// Judged tells from a conntrack mark in which epoch its flow was judged and how; ok
// is false if it was not.
func (m Marks) Judged(mark uint32) (epoch uint32, accepted, ok bool) {
	s := state(mark & m.stateMask() >> bits.TrailingZeros32(m.mask))
	return mark & m.mask >> m.EpochShift(), s == stateFlow, s == stateFlow || s == stateDenied
}

func (m Marks) at(s state, epoch uint32) uint32 {
	return uint32(s)<<bits.TrailingZeros32(m.mask) | epoch<<m.EpochShift()
}

// stateMask covers the three state bits.
func (m Marks) stateMask() uint32 { return m.at(1<<stateBits-1, 0) }
