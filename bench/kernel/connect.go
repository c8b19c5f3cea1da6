package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/postern-project/postern/bench/measure"
	"github.com/postern-project/postern/bench/report"
)

// entry is a contestant of the part connect with the load it gets.
type entry struct {
	name, kind string
	fresh      bool // every tuple new
	*contestant
	many, one []loaded  // of each round, with manyWorkers and with one
	bare      []loaded  // with manyWorkers, of bare connections
	cpu       []float64 // µs a connection, of the decider, with manyWorkers
	bareCPU   []float64
	// uses of the decider over all rounds, for the coarse clock
	userTotal   time.Duration
	connections int
	// queued is how many packets went to the queue for the connections.
	queued int
}

const manyWorkers = 8

// A contestant is loaded three times a round, for connectRound each.
// Rounds are short and many, so that those that are compared meet the machine in the same mood.
const (
	connectRound = 200 * time.Millisecond
	connectTimes = 3 // as many rounds as other parts have
)

// connections measures the rate of new connections, what connect(2) takes, and the
// processor time of who decides.
func connections(r *report.Report, o options) (err error) {
	entries := []*entry{ // ours between those that it is compared with
		{name: "none", kind: "none"},
		{name: "conntrack", kind: "conntrack"},
		{name: "learned", kind: "postern"},
		{name: "static", kind: "static"},
		{name: "raw", kind: "raw", fresh: true},
		{name: "new", kind: "postern", fresh: true},
		{name: "callback", kind: "callback", fresh: true},
	}
	of := map[string]*entry{}
	for _, e := range entries {
		if e.contestant, err = newContestant(e.kind, e.name, o); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, e.close()) }()
		of[e.name] = e
		if err := e.round(true); err != nil { // warm-up
			return err
		}
	}
	if err := inTurn(o, "connect", connectTimes, entries, func(e *entry) error { return e.round(false) }); err != nil {
		return err
	}

	rate := func(l loaded) float64 { return l.rate() }
	p50 := func(l loaded) float64 { return l.P50 }
	p99 := func(l loaded) float64 { return l.P99 }
	for _, e := range entries {
		r.Add("connect/"+e.name+"/c8-per-s", middle(e.many, rate), report.None)
		r.Add("connect/"+e.name+"/c1-per-s", middle(e.one, rate), report.None)
		r.Add("connect/"+e.name+"/bare-per-s", middle(e.bare, rate), report.None)
		r.Add("connect/"+e.name+"/p50-us", middle(e.one, p50), report.None)
		r.Add("connect/"+e.name+"/p99-us", middle(e.one, p99), report.None)
		if e.decider != 0 {
			r.Add("connect/"+e.name+"/cpu-us", measure.Median(e.cpu), report.None)
			r.Add("connect/"+e.name+"/cpu-outside-kernel-us", e.user(), report.None)
			// The proof that the load was what it is called.
			want := report.AtLeast(0.99)
			if e.name == "learned" {
				want = report.AtMost(0.01)
			}
			r.Add("connect/"+e.name+"/queued-x-connections", float64(e.queued)/float64(e.connections), want)
		}
		if failures := e.failures(); failures > 0 {
			target := report.None
			if e.kind == "postern" {
				target = report.AtMost(0)
			}
			r.Add("connect/"+e.name+"/failures", float64(failures), target)
		}
	}
	learned, fresh := of["learned"], of["new"]
	for _, c := range []struct {
		name     string
		us, them *entry
		target   report.Target
	}{
		{"learned/x-conntrack", learned, of["conntrack"], report.AtLeast(0.85)},
		{"learned/x-static", learned, of["static"], report.AtLeast(0.97)},
		{"new/x-raw", fresh, of["raw"], report.AtLeast(0.90)},
		{"new/x-callback", fresh, of["callback"], report.AtLeast(1.6)},
	} {
		r.Add("connect/"+c.name, ratio(c.us.many, c.them.many, rate), c.target)
		r.Add("connect/"+c.name+"-c1", ratio(c.us.one, c.them.one, rate), report.None)
		r.Add("connect/"+c.name+"-bare", ratio(c.us.bare, c.them.bare, rate), report.None)
	}
	// What could be reached at best: a loop that decides nothing, and no loop at all.
	for _, name := range []string{"raw", "conntrack"} {
		r.Add("connect/"+name+"/x-callback", ratio(of[name].many, of["callback"].many, rate), report.None)
		r.Add("connect/"+name+"/x-callback-bare", ratio(of[name].bare, of["callback"].bare, rate), report.None)
	}
	var added []float64
	for i := range learned.one {
		added = append(added, learned.one[i].P50-of["conntrack"].one[i].P50)
	}
	r.Add("connect/learned/added-p50-us", measure.Median(added), report.AtMost(25))
	r.Add("connect/learned/p99-x-conntrack", ratio(learned.one, of["conntrack"].one, p99), report.AtMost(1.2))
	r.Add("connect/new/cpu-x-callback", measure.MedianRatio(fresh.cpu, of["callback"].cpu), report.AtMost(0.5))
	r.Add("connect/new/cpu-x-callback-bare", measure.MedianRatio(fresh.bareCPU, of["callback"].bareCPU), report.None)
	r.Add("connect/raw/cpu-x-callback", measure.MedianRatio(of["raw"].cpu, of["callback"].cpu), report.None)
	r.Add("connect/new/cpu-outside-kernel-x-callback", fresh.user()/of["callback"].user(), report.AtMost(0.5))
	return nil
}

// round loads the contestant, with many workers, with bare connections and with one worker, and
// keeps what came of it unless it only warms up.
func (e *entry) round(warmUp bool) error {
	for _, p := range []plan{
		{workers: manyWorkers, lasts: connectRound},
		{workers: manyWorkers, lasts: connectRound, bare: true},
		{workers: 1, lasts: connectRound},
	} {
		p = known(p)
		if e.fresh {
			p = e.contestant.fresh(p)
		}
		all, user, err := e.processorTime()
		if err != nil {
			return err
		}
		queued, err := e.everQueued()
		if err != nil {
			return err
		}
		l, err := e.load(p)
		if err != nil {
			return err
		}
		all2, user2, err := e.processorTime()
		if err != nil {
			return err
		}
		queued2, err := e.everQueued()
		if err != nil {
			return err
		}
		e.sent += l.Connections + l.Failures
		if l.Failures > 0 {
			fmt.Fprintf(os.Stderr, "kernel: %s: %d of %d connections failed, the first with: %s\n", e.name, l.Failures, e.sent, l.Error)
		}
		cpu := microseconds(all2-all) / float64(l.Connections)
		switch {
		case warmUp:
		case p.workers == 1:
			e.one = append(e.one, l)
		case p.bare:
			e.bare = append(e.bare, l)
			e.bareCPU = append(e.bareCPU, cpu)
		default:
			e.many = append(e.many, l)
			e.cpu = append(e.cpu, cpu)
			e.userTotal += user2 - user
			e.connections += l.Connections
			e.queued += queued2 - queued
		}
	}
	return nil
}

// user is the decider's processor time outside the kernel, in µs a connection.
func (e *entry) user() float64 { return microseconds(e.userTotal) / float64(e.connections) }

func (e *entry) failures() (n int) {
	for _, l := range slices.Concat(e.many, e.bare, e.one) {
		n += l.Failures
	}
	return n
}

// middle is the median of a value over the rounds.
func middle(rounds []loaded, value func(loaded) float64) float64 {
	var all []float64
	for _, l := range rounds {
		all = append(all, value(l))
	}
	return measure.Median(all)
}

// ratio is the median, over the rounds, of a value of ours divided by theirs in the
// same round.
func ratio(us, them []loaded, value func(loaded) float64) float64 {
	var ours, theirs []float64
	for i := range us {
		ours, theirs = append(ours, value(us[i])), append(theirs, value(them[i]))
	}
	return measure.MedianRatio(ours, theirs)
}
