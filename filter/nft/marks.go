package nft

import (
	"fmt"
	"math/bits"
)

// DefaultMask is the part of the packet mark and of the conntrack mark that
// postern owns unless told otherwise. kube-proxy uses 0xc000, and most network
// plugins stay below bit 24.
const DefaultMask = 0xff000000

// maskBits is how wide the mask must be: three bits of state, and five that are
// reserved for a policy epoch.
const maskBits = 8

// state is the low three bits of the field under the mask. Packets and flows use
// different values, so that a tool which saves or restores whole marks cannot
// turn the one into the other.
type state uint32

const (
	stateNone  state = 0 // nothing known
	stateLocal state = 1 // packet: sent by this host itself, from its own address
	stateReply state = 2 // packet, to the queue: goes against its flow's direction
	statePass  state = 3 // packet, from the queue: accepted
	stateFlow  state = 5 // flow: accepted
)

const stateBits = 7

// Marks lays postern's values out in the packet mark and the conntrack mark. All
// other bits belong to others and are never changed.
type Marks struct{ mask uint32 }

// NewMarks returns the layout under a mask, which must be contiguous and at
// least 8 bits wide.
func NewMarks(mask uint32) (Marks, error) {
	run := mask >> bits.TrailingZeros32(mask)
	if mask == 0 || run&(run+1) != 0 || bits.OnesCount32(mask) < maskBits {
		return Marks{}, fmt.Errorf("mark mask %#x: want at least %d contiguous bits, such as %#x", mask, maskBits, uint32(DefaultMask))
	}
	return Marks{mask}, nil
}

// Mask is the part of a mark that is postern's.
func (m Marks) Mask() uint32 { return m.mask }

// Accept is what a packet carries under Mask when the queue has accepted it.
func (m Marks) Accept() uint32 { return m.at(statePass) }

// Reply is what a packet carries under Mask when it comes to the queue and goes
// against the direction its flow began in.
func (m Marks) Reply() uint32 { return m.at(stateReply) }

// Flow is what an accepted flow's conntrack mark carries under Mask.
func (m Marks) Flow() uint32 { return m.at(stateFlow) }

func (m Marks) at(s state) uint32 { return uint32(s) << bits.TrailingZeros32(m.mask) }

// stateMask covers the three state bits.
func (m Marks) stateMask() uint32 { return m.at(stateBits) }
