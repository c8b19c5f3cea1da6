package saved

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"github.com/postern-project/postern/filter/policy"
)

// How often a Keeper writes at most: not before every, and so that it works at most
// one part in share of the time. A snapshot of 100,000 pods takes half a second.
const (
	every = 10 * time.Second
	share = 100
)

// Keeper writes snapshots to a file as they change.
type Keeper struct {
	path, node string
	log        zerolog.Logger
	every      time.Duration
}

// NewKeeper returns a Keeper for one file. Nothing is written before Run.
func NewKeeper(path, node string, log zerolog.Logger) *Keeper {
	return &Keeper{path: path, node: node, log: log, every: every}
}

// Run writes what current gives, when it is another snapshot than before, until ctx
// ends, and then once more. current may give nil, for nothing yet. Generations are
// those of one store.
func (k *Keeper) Run(ctx context.Context, current func() *policy.Snapshot) {
	var last uint64 // generation; the snapshot itself would be kept alive
	failed := false
	save := func() time.Duration {
		s := current()
		if s == nil || s.Generation == last {
			return 0
		}
		begin := time.Now()
		if err := Write(k.path, k.node, s); err != nil {
			if !failed {
				k.log.Error().Err(err).Msg("a restart without the API server will begin with an older state")
			}
			failed = true
		} else {
			if failed {
				k.log.Info().Str("file", k.path).Msg("the state can be saved again")
			}
			last, failed = s.Generation, false
		}
		return time.Since(begin)
	}
	for {
		took := save()
		select {
		case <-ctx.Done():
			save()
			return
		case <-time.After(max(k.every, share*took)):
		}
	}
}
