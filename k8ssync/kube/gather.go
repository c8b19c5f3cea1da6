package kube

import (
	"context"
	"time"
)

// Times of gather.
const (
	// quiet is how long nothing must come for what came to be one change. The watches
	// of an API server are not in step: of a policy and a pod that were written one
	// after the other, which takes a millisecond or more, the pod may come first.
	quiet = 2 * time.Millisecond
	// patience is how long a change may go on before it is applied all the same.
	patience = 20 * time.Millisecond
)

// gather calls flush for what wake tells of, together if it comes together: once
// nothing came for quiet, and patience after the first at the latest. It returns when
// ctx ends. What putting a change in force costs is bounded by who does it.
func gather(ctx context.Context, wake <-chan struct{}, flush func(now time.Time)) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var deadline time.Time // zero if nothing is pending
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
			now := time.Now()
			if deadline.IsZero() {
				deadline = now.Add(patience)
			}
			timer.Reset(min(quiet, deadline.Sub(now)))
		case now := <-timer.C:
			deadline = time.Time{}
			flush(now)
		}
	}
}
