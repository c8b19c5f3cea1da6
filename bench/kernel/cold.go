package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/bench/report"
)

const (
	coldBytes   = 256 << 20
	coldTouches = 2000
	// idleFor is how long a daemon sleeps between two revocations, about.
	idleFor = 2 * time.Second
)

// coldMemory tells what it costs on this machine to read memory that nobody has read for
// a while, since a daemon that sleeps between changes reads little else. One read waits
// for the other, each of another page or nearly so.
func coldMemory(r *report.Report) error {
	mem, err := unix.Mmap(-1, 0, coldBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("map %d bytes: %w", coldBytes, err)
	}
	defer unix.Munmap(mem)
	for i := 0; i < len(mem); i += unix.Getpagesize() {
		mem[i] = 1
	}
	rnd := rand.New(rand.NewPCG(8, 8))
	places := make([]int, coldTouches)
	for i := range places {
		places[i] = rnd.IntN(len(mem)/64-1) * 64
	}
	read := func() float64 { // nanoseconds each
		start, at := time.Now(), 0
		for _, p := range places {
			at = int(mem[p+at]) & 1
		}
		return float64(time.Since(start).Nanoseconds()+int64(at)) / coldTouches
	}
	read()
	r.Add("machine/read-again-ns", read(), report.None)
	time.Sleep(idleFor)
	r.Add("machine/read-after-2-s-ns", read(), report.None)
	return nil
}
