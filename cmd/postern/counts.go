package main

import (
	"github.com/postern-project/postern/filter/dataplane"
	"github.com/postern-project/postern/filter/nft"
)

// openCounts prepares reading what rules and queues count, with a connection of its
// own: whoever asks does not wait for a change that is under way.
func (d *daemon) openCounts() (err error) {
	if d.countsConn, err = nft.Dial(); err != nil {
		return err
	}
	d.counts = dataplane.NewCounts(d.countsConn, d.queues)
	return nil
}
