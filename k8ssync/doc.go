// Package k8ssync brings the objects that decisions depend on together: sources
// read them, a Store merges them, and a Snapshot of the Store is what policy is
// compiled from.
//
// A source hands the Store objects that are converted already, one at a time
// with Upsert and Delete or its whole state at once with Replace. What a
// Snapshot holds follows from the state reached, never from the road there, with
// one exception that is meant: an object that became invalid counts with its
// last valid version (spec 1.10). A daemon waits until its source is synced, and
// from then on takes one Snapshot for every signal of Changed; changes that
// arrive together are one Snapshot.
//
//	go source.Run(ctx)
//	<-source.Synced()
//	for range store.Changed() {
//		apply(store.Snapshot())
//	}
package k8ssync
