package main

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/postern-project/postern/bench/gen"
	"github.com/postern-project/postern/bench/measure"
	"github.com/postern-project/postern/bench/report"
)

const decideRounds = 25

// decisions measures whole clusters of growing numbers of rules, side by side.
func decisions(r *report.Report) error {
	for _, security := range []bool{false, true} {
		name := "decide"
		if security {
			name = "decide-security"
		}
		if err := decideCluster(r, name, security); err != nil {
			return err
		}
	}
	return nil
}

// The targets are for 10,002 rules; the flat curve is held between 1,002 and
// 100,008.
func decideCluster(r *report.Report, name string, security bool) error {
	sizes := []int{11, 103, 1_002, 10_002, 100_008}
	const small, middle, large = 2, 3, 4
	var contests []*contest
	var flows [][]gen.Flow
	for _, rules := range sizes {
		w := gen.Cluster(rules, security)
		flows = append(flows, w.Flows)
		c, err := newContest(w, gen.Zipf(w.Flows))
		if err != nil {
			return fmt.Errorf("%d rules: %w", rules, err)
		}
		contests = append(contests, c)
	}
	const each = 7 // contestants of a size
	var contestants []measure.Contestant
	for _, c := range contests {
		contestants = append(contestants, c.decide(), walk(c, c.linear, len(c.stream)), walk(c, c.full, len(c.stream)), c.lookUp(), c.evaluate(200),
			c.decideUncached(), c.walkCached())
	}
	times := measure.Turns(decideRounds, contestants)
	for i, rules := range sizes {
		of := times[i*each:]
		ns, ratio, allocs := report.None, report.None, report.None
		if i == middle {
			ns, ratio, allocs = report.AtMost(50), report.AtMost(0.6), report.AtMost(0)
		}
		prefix := fmt.Sprintf("%s/%d", name, rules)
		r.Add(prefix+"/engine-ns", of[0], ns)
		r.Add(prefix+"/engine-uncached-ns", of[5], report.None)
		r.Add(prefix+"/cache-hits-x", contests[i].hits(), report.None)
		r.Add(prefix+"/linear-ns", of[1], report.None)
		r.Add(prefix+"/linear-cached-ns", of[6], report.None)
		r.Add(prefix+"/linear-full-sets-ns", of[2], report.None)
		r.Add(prefix+"/lookups-ns", of[3], report.None)
		r.Add(prefix+"/naive-ns", of[4], report.None)
		r.Add(prefix+"/x-linear", of[0]/of[1], ratio)
		r.Add(prefix+"/uncached-x-linear", of[5]/of[1], report.None)
		r.Add(prefix+"/x-linear-cached", of[0]/of[6], report.None)
		r.Add(prefix+"/allocs", contests[i].allocs(), allocs)
	}
	r.Add(name+"/x-100008-of-1002", times[large*each]/times[small*each], report.AtMost(1.4))
	if !security {
		r.Add(name+"/10002/x-two-workers", twoWorkers(contests[middle].decide), report.AtLeast(1.9))
		uncachable(r, contests[middle], "decide-uniform/10002", gen.Uniform(flows[middle]))
		uncachable(r, contests[middle], "decide-scan/10002", gen.Scan(flows[middle]))
	}
	return nil
}

// uncachable measures what the cache costs on traffic that it is of little use for.
func uncachable(r *report.Report, c *contest, prefix string, stream []gen.Flow) {
	other := *c
	other.stream = stream
	times := measure.Turns(decideRounds, []measure.Contestant{other.decide(), other.decideUncached(), walk(&other, c.linear, len(stream))})
	r.Add(prefix+"/engine-ns", times[0], report.None)
	r.Add(prefix+"/engine-uncached-ns", times[1], report.None)
	r.Add(prefix+"/cache-hits-x", other.hits(), report.None)
	r.Add(prefix+"/linear-ns", times[2], report.None)
	r.Add(prefix+"/x-engine-uncached", times[0]/times[1], report.None)
}

// twoWorkers gives how many times the decisions of one worker two make at once, each
// with a cache of its own.
// It counts by processor time of the two threads: what is lost to other processes
// is not counted, what they lose to each other is.
func twoWorkers(worker func() measure.Contestant) float64 {
	const rounds, runs = 15, 16
	contestants := [2]measure.Contestant{worker(), worker()}
	var ratios []float64
	for range rounds {
		alone := perSecond(contestants[0], runs)
		var both [2]float64
		var start, wait sync.WaitGroup
		start.Add(2)
		for w := range both {
			wait.Go(func() {
				start.Done()
				start.Wait()
				both[w] = perSecond(contestants[w], runs)
			})
		}
		wait.Wait()
		ratios = append(ratios, (both[0]+both[1])/alone)
	}
	return measure.Median(ratios)
}

func perSecond(c measure.Contestant, runs int) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c.Run(0)
	start := measure.ThreadTime()
	for range runs {
		c.Run(0)
	}
	return float64(runs*c.Ops) / (measure.ThreadTime() - start).Seconds()
}
