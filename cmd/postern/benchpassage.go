package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/postern-project/postern/filter/speed"
)

// passage is packets on their way through the kernel.
type passage struct {
	in, out *os.File
	filters bool          // whether policy is between
	room    chan struct{} // one for each packet under way that ought to come out

	mu                       sync.Mutex
	waiting                  map[uint64][]time.Time // when packets were sent, by key
	latency                  speed.Histogram
	count, came, lost, wrong uint64
	denied                   map[uint64]bool
}

// overdue is how long a packet may take before it counts as lost.
const overdue = time.Second

// pass sends every packet once and waits for those that ought to come out.
func (p *passage) pass(ctx context.Context, packets []sent) error {
	timeout := time.NewTimer(overdue)
	defer timeout.Stop()
	p.mu.Lock()
	p.denied = map[uint64]bool{}
	for i := range packets {
		if s := &packets[i]; p.filters && !s.passes {
			p.denied[s.key] = true
		}
	}
	p.mu.Unlock()
	for i := range packets {
		s := &packets[i]
		if i%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if s.passes && s.opens != 0 {
			p.await(s.opens)
		}
		if s.passes || !p.filters {
			timeout.Reset(overdue)
			select {
			case p.room <- struct{}{}:
			case <-timeout.C:
				p.giveUp()
				p.room <- struct{}{}
			}
			p.mu.Lock()
			p.waiting[s.key] = append(p.waiting[s.key], time.Now())
			p.mu.Unlock()
		}
		if _, err := p.in.Write(s.data); err != nil {
			return fmt.Errorf("write to the TUN device: %w", err)
		}
	}
	for end := time.Now().Add(overdue); len(p.room) > 0; {
		if time.Now().After(end) {
			p.giveUp()
			break
		}
		time.Sleep(50 * time.Microsecond)
	}
	p.mu.Lock()
	p.count += uint64(len(packets))
	p.mu.Unlock()
	return nil
}

// await waits until a packet has come out.
func (p *passage) await(key uint64) {
	for end := time.Now().Add(overdue); time.Now().Before(end); time.Sleep(10 * time.Microsecond) {
		p.mu.Lock()
		_, waits := p.waiting[key]
		p.mu.Unlock()
		if !waits {
			return
		}
	}
}

// giveUp counts what is under way as lost.
func (p *passage) giveUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, times := range p.waiting {
		for range times {
			p.lost++
			<-p.room
		}
		delete(p.waiting, key)
	}
}

// receive takes what comes out until the device is closed.
func (p *passage) receive() {
	b := make([]byte, 1<<16)
	for {
		n, err := p.out.Read(b)
		now := time.Now()
		if err != nil {
			return
		}
		if n < 20 {
			continue
		}
		key := passageKey(b[:n])
		p.mu.Lock()
		times, ok := p.waiting[key]
		switch {
		case ok:
			p.latency.Add(int64(now.Sub(times[0])))
			p.came++
			if len(times) == 1 {
				delete(p.waiting, key)
			} else {
				p.waiting[key] = times[1:]
			}
			<-p.room
		case p.denied[key]:
			p.wrong++
		}
		p.mu.Unlock()
	}
}
