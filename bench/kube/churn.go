package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// churn writes events at a rate until ctx ends: of ten, five change a pod's label,
// three a service account's, and two a policy's order. It returns how many were
// written and the first error.
func (c *cluster) churn(ctx context.Context, rate int) (written int, err error) {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	var n atomic.Int64
	var first atomic.Pointer[error]
	var all sync.WaitGroup
	defer func() {
		all.Wait()
		written = int(n.Load())
		if e := first.Load(); e != nil {
			err = *e
		}
	}()
	r := rand.New(rand.NewPCG(1, 2))
	busy := make(chan struct{}, workers)
	for event := 0; ; event++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		i, value := r.IntN(c.pods), fmt.Sprintf("x%d", event)
		select {
		case busy <- struct{}{}:
		case <-ctx.Done():
			return
		}
		all.Go(func() {
			defer func() { <-busy }()
			var err error
			switch event % 10 {
			default:
				err = c.labelPod(context.WithoutCancel(ctx), namespace(i), podName(i), "version", value)
			case 0, 3, 6:
				i %= c.accounts
				err = c.labelAccount(context.WithoutCancel(ctx), namespace(i), account(i), "tier", fmt.Sprintf("tier-%d", event%7))
			case 1, 5:
				i %= c.policies
				err = c.patchPolicy(context.WithoutCancel(ctx), namespace(i), policyName(i), fmt.Sprintf(`{"spec":{"order":%d}}`, event%100))
			}
			if err != nil {
				first.CompareAndSwap(nil, &err)
				return
			}
			n.Add(1)
		})
	}
}
