package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/postern-project/postern/bench/report"
)

// inside times single answers within the process, message in and message out, in
// rounds: by the wall clock, with whatever disturbed it, of which the best round is what
// others disturbed least, and by the thread's processor time, without those.
func (w *world) inside(r *report.Report, name string) error {
	const rounds, n = 5, 200_000
	for i := range 50_000 { // caches, and the answers that are kept
		w.server.Answer(w.encoded[i%len(w.encoded)])
	}
	runtime.LockOSThread() // whose time is measured
	defer runtime.UnlockOSThread()
	took, busy := make([]time.Duration, n), make([]time.Duration, n)
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
	var median, p999, busy999 []float64
	for range rounds {
		for i := range took {
			m := w.encoded[i*7919%len(w.encoded)]
			start := time.Now()
			w.server.Answer(m)
			took[i] = time.Since(start)
		}
		for i := range busy {
			m := w.encoded[i*7919%len(w.encoded)]
			start := threadTime()
			w.server.Answer(m)
			busy[i] = threadTime() - start
		}
		slices.Sort(took)
		slices.Sort(busy)
		median, p999, busy999 = append(median, us(took[n/2])), append(p999, us(took[n*999/1000])), append(busy999, us(busy[n*999/1000]))
	}
	r.Add("authz/"+name+"/inside-median-us", slices.Min(median), report.None)
	r.Add("authz/"+name+"/inside-p99.9-us", slices.Min(p999), report.AtMost(1000))
	r.Add("authz/"+name+"/inside-p99.9-worst-round-us", slices.Max(p999), report.None)
	r.Add("authz/"+name+"/inside-p99.9-cpu-us", slices.Min(busy999), report.None)
	return nil
}

// threadTime is the processor time of this thread.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// connections and inFlight are what the proxies of a busy node have: a connection
// each of a few threads, and requests that wait.
const connections, inFlight = 4, 60

// load is one round of checks by one sort of client.
type load func(messages int) (p999 time.Duration, err error)

// overSocket measures what checks over gRPC cost the process that answers them.
func (w *world) overSocket(r *report.Report, name string) error {
	c, err := startChild()
	if err != nil {
		return err
	}
	defer c.stop()
	full, err := w.fullClients(c.path)
	if err != nil {
		return err
	}
	lean, err := w.leanClients(c.path)
	if err != nil {
		return err
	}
	for _, of := range []struct {
		name string
		load load
		// shared is what client and server must reach together on two processors.
		shared report.Target
	}{{"grpc", full, report.None}, {"lean", lean, report.AtLeast(50_000)}} {
		const rounds, n = 4, 48_000
		var costs, rates, slow []float64
		for i := range rounds + 1 {
			before, err := c.cpu()
			if err != nil {
				return err
			}
			start := time.Now()
			p999, err := of.load(n)
			if err != nil {
				return err
			}
			took := time.Since(start)
			after, err := c.cpu()
			if err != nil {
				return err
			}
			if i == 0 {
				continue // connections, caches
			}
			costs = append(costs, (after-before).Seconds()*1e6/n)
			rates = append(rates, n/took.Seconds())
			slow = append(slow, float64(p999.Microseconds())/1000)
		}
		cost := slices.Min(costs)
		at := "authz/" + name + "/" + of.name
		r.Add(at+"-server-us", cost, report.None)
		r.Add(at+"-per-s-of-two-cores", 2e6/cost, report.AtLeast(50_000))
		r.Add(at+"-per-s-shared", slices.Max(rates), of.shared)
		if slow[0] > 0 {
			r.Add(at+"-p99.9-ms", slices.Min(slow), report.None)
		}
	}
	return nil
}

// fullClients are gRPC's own, with Envoy's messages.
func (w *world) fullClients(path string) (load, error) {
	var clients []authv3.AuthorizationClient
	for range connections {
		c, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		clients = append(clients, authv3.NewAuthorizationClient(c)) // open until the process ends
	}
	return func(n int) (time.Duration, error) {
		each := n / (connections * inFlight)
		took := make([][]time.Duration, connections*inFlight)
		errs := make(chan error, len(took))
		var wait sync.WaitGroup
		for k := range took {
			wait.Go(func() {
				for i := range each {
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) // as Envoy, which always sets one
					began := time.Now()
					got, err := clients[k%len(clients)].Check(ctx, w.messages[(k*each+i)%len(w.messages)])
					cancel()
					if err == nil && got.Status == nil {
						err = fmt.Errorf("an answer without a status")
					}
					if err != nil {
						errs <- err
						return
					}
					took[k] = append(took[k], time.Since(began))
				}
			})
		}
		wait.Wait()
		select {
		case err := <-errs:
			return 0, err
		default:
		}
		all := slices.Concat(took...)
		slices.Sort(all)
		return all[len(all)*999/1000], nil
	}, nil
}

// leanClients cost little: they leave the processors to the server.
func (w *world) leanClients(path string) (load, error) {
	var clients []*lean
	for range connections {
		c, err := newLean(path, w.encoded)
		if err != nil {
			return nil, err
		}
		clients = append(clients, c)
	}
	return func(n int) (time.Duration, error) {
		errs := make(chan error, len(clients))
		for _, c := range clients {
			go func() { errs <- c.run(n/len(clients), inFlight) }()
		}
		for range clients {
			if err := <-errs; err != nil {
				return 0, err
			}
		}
		return 0, nil
	}, nil
}
