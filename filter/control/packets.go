package control

// Packets is what became of packets since the daemon started, and how its queues are.
// Counters only grow.
type Packets struct {
	// Decided counts the packets that the verdict loops decided, by verdict and reason;
	// those of which there are none are left out.
	Decided []Decided `json:"decided,omitempty"`
	// Undecodable counts packets that could not be decoded, by what is wrong with them.
	Undecodable map[string]uint64 `json:"undecodable,omitempty"`
	Queues      []Queue           `json:"queues,omitempty"`
	Holds       Holds             `json:"holds"`
	// Kernel has the counters of the table in the kernel, by name; empty where there is
	// no table. KernelError says why they could not be read.
	Kernel      map[string]uint64 `json:"kernel,omitempty"`
	KernelError string            `json:"kernel_error,omitempty"`
	// Dropped counts dropped packets by cause, of which policy is one; every cause is
	// there. FailedOpen counts those that passed unjudged since the settings say so.
	Dropped    map[string]uint64 `json:"dropped,omitempty"`
	FailedOpen map[string]uint64 `json:"failed_open,omitempty"`
	// Answers is how long packets waited for their answer within this process.
	Answers Latency `json:"answers"`
	// Log is what became of decisions on their way to the flow log.
	Log FlowLog `json:"flow_log"`
}

// FlowLog counts decisions: Lines were written, Repeated counted in a line of their like,
// SampledOut accepted and not chosen, Suppressed over the rate, and Lost for want of room.
type FlowLog struct {
	Lines      uint64 `json:"lines"`
	Repeated   uint64 `json:"repeated"`
	SampledOut uint64 `json:"sampled_out"`
	Suppressed uint64 `json:"suppressed"`
	Lost       uint64 `json:"lost"`
}

// Decided is one verdict for one reason, and how often it was given.
type Decided struct {
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	Count   uint64 `json:"count"`
}

// Queue is one queue of the kernel with its verdict loop.
type Queue struct {
	Number uint16 `json:"number"`
	// Bound tells whether the kernel knows the queue. Waiting are the packets in it now.
	Bound   bool   `json:"bound"`
	Waiting uint64 `json:"waiting"`
	// Full counts packets that the kernel dropped because the queue was full, Unread those
	// that it dropped because the socket was.
	Full   uint64 `json:"full"`
	Unread uint64 `json:"unread"`
	// Batches counts system calls that brought packets. Malformed, Refused and Retries count
	// messages that could not be read, verdicts for packets that were gone, and sends that
	// were repeated for want of memory.
	Batches   uint64 `json:"batches"`
	Malformed uint64 `json:"malformed"`
	Refused   uint64 `json:"refused"`
	Retries   uint64 `json:"retries"`
	// SinceAlive is how long ago the loop came round last, in seconds; negative if it never
	// did.
	SinceAlive float64 `json:"since_alive_seconds"`
}

// Holds is what became of packets whose pod was not known yet.
type Holds struct {
	Now     uint64 `json:"now"`
	Held    uint64 `json:"held"`
	Decided uint64 `json:"decided"`
	Expired uint64 `json:"expired"`
	Refused uint64 `json:"refused"`
}

// Latency is a histogram: Within[i] packets took no longer than Bounds[i] seconds and
// longer than the bound before; Within has one more, of those that took longer than all.
// Sum is in seconds.
type Latency struct {
	Bounds []float64 `json:"bounds,omitempty"`
	Within []uint64  `json:"within,omitempty"`
	Sum    float64   `json:"sum"`
}

// Total sums what was decided with one verdict.
func (p *Packets) Total(verdict string) (n uint64) {
	for _, d := range p.Decided {
		if d.Verdict == verdict {
			n += d.Count
		}
	}
	return n
}

// Requests is what became of the requests that proxies asked about. Faults counts those
// that were denied because postern is at fault.
type Requests struct {
	Decided []Decided `json:"decided,omitempty"`
	Faults  uint64    `json:"faults"`
	Answers Latency   `json:"answers"`
}
