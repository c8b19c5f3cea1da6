package nfq

import "time"

// patience is how many times the loop may still look for a next packet before it sleeps;
// the zero value does not look. A look that finds nothing takes some 0.7 us, and to sleep and
// be woken several, most of which whoever sends the packet pays for. So a find pays for
// as many looks as it saves, and where they seldom find anything they end by themselves: one
// look in four finds a packet under a flood of new flows, one in thirty where eight clients
// connect in turn (2026-11-30, two cores). A short wait gives a few to try again with.
//
// KVM's halt polling bounds its looking by the same two signs, with a time in the place of a
// number. A number needs no clock, and time in which others run costs nothing.
type patience int

const (
	findWorth = 16
	// mostLooks take some 20 us.
	mostLooks = 32
	fewLooks  = 4
	// shortWait is so little that the next packet may come while the loop looks.
	shortWait = 40 * time.Microsecond
)

// found is to be called when a look, not the first one after a batch, found a packet.
func (p *patience) found() { *p = min(*p+findWorth, mostLooks) }

// missed is to be called when a look found none.
func (p *patience) missed() { *p-- }

// waited tells how long the loop had no packet.
func (p *patience) waited(d time.Duration) {
	if d < shortWait {
		*p = max(*p, fewLooks)
	}
}
