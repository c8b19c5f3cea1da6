package k8ssync

import "context"

// Source feeds one Store. A Store has one source: Replace states everything
// there is.
type Source interface {
	// Run keeps the store at the state of what it reads until ctx ends, and then
	// returns nil. Any other error means that it cannot go on. It is called once.
	Run(ctx context.Context) error
	// Synced is closed when the first complete state is in the store. Before that
	// nothing may be decided from the store.
	Synced() <-chan struct{}
}
