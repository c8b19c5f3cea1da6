package nfq

// Override is what a Queue answers in the place of policy.
type Override int32

const (
	// NoOverride: what policy says.
	NoOverride Override = iota
	// DenyAll drops all packets of which flows are not known yet, and AllowAll lets them
	// pass, for reason filter.Stale. The kernel learns nothing from either.
	DenyAll
	AllowAll
)

// Override sets what is answered from the next packet on. Any goroutine may call it.
func (q *Queue) Override(o Override) { q.override.Store(int32(o)) }
