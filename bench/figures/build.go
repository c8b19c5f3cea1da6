package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/bench/gen"
	"github.com/postern-project/postern/bench/measure"
	"github.com/postern-project/postern/bench/report"
)

// buildRules makes 10,800 policies of 3.7 rules each, as smaller clusters have.
const buildRules = 40_000

// built is what a child tells of one build.
type built struct {
	Seconds, Processor float64 // wall time, and processor time of all threads
	Policies           int
	PeakMB, BeforeMB   float64 // peak resident memory, at the end and before the build
}

// builds compiles the largest cluster in processes of their own, which hold the
// snapshot besides, as the daemon does.
func builds(r *report.Report) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var seconds, processor, peak, before []float64
	for range 5 {
		out, err := exec.Command(self, "-child").Output()
		if err != nil {
			return fmt.Errorf("child: %w", err)
		}
		var b built
		if err := json.Unmarshal(out, &b); err != nil {
			return fmt.Errorf("child: %w", err)
		}
		seconds, processor = append(seconds, b.Seconds), append(processor, b.Processor)
		peak, before = append(peak, b.PeakMB), append(before, b.BeforeMB)
	}
	r.Add("build/100k-pods-10k-policies/wall-s", measure.Median(seconds), report.AtMost(1))
	r.Add("build/100k-pods-10k-policies/processor-s", measure.Median(processor), report.None)
	r.Add("build/100k-pods-10k-policies/peak-MB", slices.Max(peak), report.AtMost(200))
	r.Add("build/100k-pods-10k-policies/peak-before-MB", slices.Max(before), report.None)
	return nil
}

// buildOnce is the child.
func buildOnce() error {
	s := gen.Cluster(buildRules, false).Snapshot
	runtime.GC()
	before, err := peakMB()
	if err != nil {
		return err
	}
	processor, start := processTime(), time.Now()
	rs, err := compileWorld(s)
	if err != nil {
		return err
	}
	b := built{Seconds: time.Since(start).Seconds(), Processor: (processTime() - processor).Seconds(), Policies: len(s.Policies), BeforeMB: before}
	if b.PeakMB, err = peakMB(); err != nil {
		return err
	}
	runtime.KeepAlive(rs)
	return json.NewEncoder(os.Stdout).Encode(b)
}

// processTime is the processor time of all threads.
func processTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// peakMB reads VmHWM, the most memory the process ever held (proc(5)).
func peakMB() (float64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmHWM in /proc/self/status")
}
