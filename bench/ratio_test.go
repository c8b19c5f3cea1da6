package bench

import (
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// threadTime is the processor time this thread has used: it leaves out what other
// processes took from us, though not what they did to the caches.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// chase makes one dependent look-up of each address.
func chase(lookup func(netip.Addr) uint32, addrs []netip.Addr) uint32 {
	v := uint32(0)
	for i := range addrs {
		v = lookup(addrs[(uint32(i)+v>>30)&(probeCount-1)])
	}
	return v
}

// BenchmarkRatio takes turns between trie and both kinds of bart, so that all
// meet the same noise, and reports medians of thread time in ns per dependent
// look-up and the ratios. An operation is one turn of each.
func BenchmarkRatio(b *testing.B) {
	for _, t := range tables() {
		var lookups []func(netip.Addr) uint32
		for _, r := range rivals[:3] {
			lookups = append(lookups, r.build(t.routes))
		}
		for _, set := range []struct {
			name  string
			addrs []netip.Addr
		}{{"host", t.hits}, {"net", t.nets}} {
			b.Run(t.name+"/"+set.name, func(b *testing.B) {
				runtime.LockOSThread() // of the goroutine that threadTime is about
				defer runtime.UnlockOSThread()
				spent := make([][]float64, len(lookups))
				for b.Loop() {
					for i, lookup := range lookups {
						sink += chase(lookup, set.addrs) // the caches are this rival's now
						start := threadTime()
						sink += chase(lookup, set.addrs)
						spent[i] = append(spent[i], float64(threadTime()-start)/probeCount)
					}
				}
				for i := range spent {
					slices.Sort(spent[i])
				}
				median := func(i int) float64 { return spent[i][len(spent[i])/2] }
				b.ReportMetric(median(0), "trie-ns")
				b.ReportMetric(median(1), "bart-ns")
				b.ReportMetric(median(2), "fast-ns")
				b.ReportMetric(median(0)/median(1), "x-bart")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
