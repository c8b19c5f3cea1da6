package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-project/postern/test/lab"
)

// probe sends a datagram from a new port every millisecond, each a flow of its own,
// and knows when the last arrived.
type probe struct {
	from, to *lab.Host
	last     atomic.Int64 // Unix nanoseconds
	stop     chan struct{}
	done     sync.WaitGroup
}

const probePort = 9000

func startProbe(from, to *lab.Host) (*probe, error) {
	p := &probe{from: from, to: to, stop: make(chan struct{})}
	var server net.PacketConn
	dest := netip.AddrPortFrom(to.Addr4(), probePort)
	if err := to.Do(func() (err error) {
		server, err = net.ListenPacket("udp", dest.String())
		return err
	}); err != nil {
		return nil, err
	}
	p.done.Go(func() {
		buf := make([]byte, 64)
		for {
			if _, _, err := server.ReadFrom(buf); err != nil {
				return
			}
			p.last.Store(time.Now().UnixNano())
		}
	})
	p.done.Go(func() {
		defer server.Close()
		from.Do(func() error {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-p.stop:
					return nil
				case <-tick.C:
				}
				c, err := net.Dial("udp", dest.String())
				if err != nil {
					continue
				}
				c.Write([]byte("probe"))
				c.Close()
			}
		})
	})
	return p, nil
}

func (p *probe) close() { close(p.stop); p.done.Wait() }

// arrives waits until one arrives after a time, and returns when.
func (p *probe) arrives(after time.Time) (time.Time, error) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Microsecond) {
		if last := p.last.Load(); last > after.UnixNano() {
			return time.Unix(0, last), nil
		}
	}
	return time.Time{}, fmt.Errorf("nothing arrived within 30 s of the change")
}

// ceases waits until none arrives any more.
func (p *probe) ceases() error {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if time.Since(time.Unix(0, p.last.Load())) > 100*time.Millisecond {
			return nil
		}
	}
	return fmt.Errorf("datagrams arrive 30 s after the change that forbids them")
}

// latencies turns an access on and off, n times, and gives the time from the API
// write to the first datagram that came through. The write begins when on is called.
func (p *probe) latencies(ctx context.Context, n int, on, off func(context.Context) error) ([]time.Duration, error) {
	var all []time.Duration
	for i := range n + 1 {
		if err := off(ctx); err != nil {
			return nil, err
		}
		if err := p.ceases(); err != nil {
			return nil, err
		}
		begin := time.Now()
		if err := on(ctx); err != nil {
			return nil, err
		}
		at, err := p.arrives(begin)
		if err != nil {
			return nil, err
		}
		if i > 0 { // the first warms up
			all = append(all, at.Sub(begin))
		}
	}
	slices.Sort(all)
	return all, nil
}

func quantile(sorted []time.Duration, q float64) float64 {
	return float64(sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]) / 1e6
}
