package speed

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/packet"
	"github.com/postern-project/postern/filter/replay"
)

// Load is what Decide is measured with.
type Load struct {
	Engine *filter.Engine
	// Replay is for the flows; its Policy must be the engine's ruleset.
	Replay replay.Config
	// Packets start at their IP headers. They are decided over and over, in order.
	Packets [][]byte
	// Workers is the largest number of threads to measure; each has all packets and
	// a table of flows of its own.
	Workers int
	// Lasts is how long each measurement takes.
	Lasts time.Duration
}

// The names of what Decide measures.
const (
	Decode    = "decode"   // the decoder alone
	NewFlow   = "new flow" // decode and decide every packet, as the verdict loop does
	KnownFlow = "replayed" // decode, find the flow, follow it; decided once
)

// work is one thing to time; each worker makes its own.
type work struct {
	name string
	make func() func(b []byte)
}

func (l *Load) works() []work {
	return []work{
		{Decode, func() func([]byte) {
			return func(b []byte) { packet.Decode(b) }
		}},
		{NewFlow, func() func([]byte) {
			var d filter.Decision
			cache := new(filter.Cache)
			return func(b []byte) {
				if t, st := packet.Decode(b); st == packet.OK {
					cache.DecideInto(l.Engine.Ruleset(), &t, &d)
				}
			}
		}},
		{KnownFlow, func() func([]byte) {
			cfg := l.Replay
			cfg.MaxFlows = max(cfg.MaxFlows, 2*len(l.Packets))
			r, now := replay.New(cfg), int64(time.Second)
			return func(b []byte) {
				now += 200
				r.IP(b, len(b), now)
			}
		}},
	}
}

// Decide measures the load and appends a row for each thing and number of workers.
func Decide(ctx context.Context, l Load, place Row, rows []Row) ([]Row, error) {
	for _, w := range l.works() {
		for _, n := range workerCounts(l.Workers) {
			if ctx.Err() != nil {
				return rows, fmt.Errorf("bench: %w", ctx.Err())
			}
			row := place
			row.Name, row.Workers = w.name, n
			l.measure(&row, w, n)
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// workerCounts doubles up to most.
func workerCounts(most int) []int {
	out := []int{1}
	for n := 2; n < most; n *= 2 {
		out = append(out, n)
	}
	if most > 1 {
		out = append(out, most)
	}
	return out
}

const (
	// chunk is how many packets are timed at once for the rate.
	chunk = 1024
	// every sampleEvery-th packet is timed by itself for the latency, in a round of
	// its own, since to read the clock takes as long as to decide.
	sampleEvery = 4
)

func (l *Load) measure(row *Row, w work, workers int) {
	type outcome struct {
		count   uint64
		cpu     time.Duration
		took    time.Duration
		latency Histogram
	}
	out := make([]outcome, workers)
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	ready.Add(workers)
	for i := range out {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			o, do := &out[i], w.make()
			for _, p := range l.Packets { // flows are known from now on
				do(p)
			}
			ready.Done()
			<-start
			l.rate(do, &o.count, &o.cpu, &o.took)
			l.latency(do, &o.latency)
		})
	}
	ready.Wait()
	runtime.GC()
	close(start)
	done.Wait()
	var sum Histogram
	cpu := time.Duration(0)
	for i := range out {
		o := &out[i]
		row.Count += o.count
		cpu += o.cpu
		row.PerSecond += float64(o.count) / o.took.Seconds()
		sum.Merge(&o.latency)
	}
	row.NS = float64(cpu.Nanoseconds()) / float64(row.Count)
	sum.Fill(row)
	if workers == 1 {
		a := l.allocations(w.make())
		row.Allocs = &a
	}
}

// rate repeats the packets for l.Lasts and tells how many there were, and what time
// they took of the processor and by the clock.
func (l *Load) rate(do func([]byte), count *uint64, cpu, took *time.Duration) {
	at := 0
	begin, beginCPU := time.Now(), threadTime()
	for *took < l.Lasts {
		for range chunk {
			do(l.Packets[at])
			if at++; at == len(l.Packets) {
				at = 0
			}
		}
		*count += chunk
		*took = time.Since(begin)
	}
	*cpu = threadTime() - beginCPU
}

// latency times single packets, without what it takes to read the clock.
func (l *Load) latency(do func([]byte), h *Histogram) {
	var clock []int64
	for range 1001 {
		a := time.Now()
		clock = append(clock, int64(time.Since(a)))
	}
	slices.Sort(clock)
	overhead := clock[len(clock)/2]
	at := 0
	for end := time.Now().Add(l.Lasts / 2); time.Now().Before(end); {
		for i := range chunk {
			p := l.Packets[at]
			if at++; at == len(l.Packets) {
				at = 0
			}
			if i%sampleEvery != 0 {
				do(p)
				continue
			}
			begin := time.Now()
			do(p)
			h.Add(int64(time.Since(begin)) - overhead)
		}
	}
}

// allocations gives the number of allocations for one packet.
func (l *Load) allocations(do func([]byte)) float64 {
	for _, p := range l.Packets {
		do(p)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, p := range l.Packets {
		do(p)
	}
	runtime.ReadMemStats(&after)
	// A few of the runtime's own come with the two readings.
	return float64((after.Mallocs - before.Mallocs) / uint64(len(l.Packets)))
}

// threadTime is the processor time of this thread.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
