package k8ssync

import (
	"maps"
	"slices"
	"weak"

	"github.com/postern-project/postern/filter/policy"
)

// maxJournal bounds the changes that a journal remembers. At some hundred bytes
// each they are next to nothing, and somebody who is further behind is better off
// comparing two snapshots.
const maxJournal = 4096

// journal remembers how the last snapshots came from each other. Snapshots are
// known by their address, so that one of another store is never taken for one of
// this; they are held weakly, since each may have a list of 100,000 pods.
type journal struct {
	first weak.Pointer[policy.Snapshot] // that steps lead from
	steps []journalStep
	size  int // changes in steps
}

type journalStep struct {
	to      weak.Pointer[policy.Snapshot]
	changes []change
}

// add notes the changes that lead to the next snapshot.
func (j *journal) add(to *policy.Snapshot, changes []change) {
	j.steps = append(j.steps, journalStep{weak.Make(to), changes})
	j.size += len(changes)
	for j.size > maxJournal || len(j.steps) > maxJournal {
		j.size -= len(j.steps[0].changes)
		j.first, j.steps[0] = j.steps[0].to, journalStep{}
		j.steps = j.steps[1:]
	}
}

// between joins the steps from one snapshot to another.
func (j *journal) between(from, to *policy.Snapshot) (changes []policy.Change, ok bool) {
	begin, end := j.position(from), j.position(to)
	if begin < 0 || end < begin {
		return nil, false
	}
	net := make(map[string]policy.Change)
	for _, step := range j.steps[begin:end] {
		for _, ch := range step.changes {
			if earlier, known := net[ch.key]; known {
				ch.Old = earlier.Old
			}
			net[ch.key] = ch.Change
		}
	}
	for _, key := range slices.Sorted(maps.Keys(net)) {
		if ch := net[key]; ch.Old != ch.New {
			changes = append(changes, ch)
		}
	}
	return changes, true
}

// position gives how many steps lead to a snapshot, -1 if it is not known.
func (j *journal) position(s *policy.Snapshot) int {
	if s == nil {
		return -1
	}
	at := weak.Make(s)
	if at == j.first {
		return 0
	}
	for i := len(j.steps); i > 0; i-- {
		if j.steps[i-1].to == at {
			return i
		}
	}
	return -1
}
