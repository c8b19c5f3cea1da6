package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Status is how well a Source follows the API server.
type Status struct {
	// Synced: the first complete state was there.
	Synced bool
	Kinds  []Kind
	// Degraded says, in one sentence each, what is not as it should be; empty if all
	// is well.
	Degraded []string
	// NodeMissing: no pod names this node, and the API server knows no such Node, or
	// does not say. Degraded has it too.
	NodeMissing bool
	// Kept counts objects that the API server has deleted and that stay in force
	// until the pods of their namespace are gone.
	Kept int
	// EventsWritten counts the Events about unusable objects that this node wrote, or
	// found written by another; EventsFailed those that could not be written, each
	// attempt.
	EventsWritten, EventsFailed uint64

	undiscovered bool // the last discovery failed
}

// Status tells how the source is now. It is safe for concurrent use.
func (s *Source) Status() Status {
	now := time.Now()
	s.mu.Lock()
	found, discovered, nodeSaid, nodeMissing := s.found, !s.foundAt.IsZero(), s.nodeSaid, s.nodeMissing
	feeds := make([]*feed, 0, len(s.current)+len(s.coming))
	for _, f := range s.current {
		if !f.ended {
			feeds = append(feeds, f)
		}
	}
	for _, f := range s.coming {
		feeds = append(feeds, f)
	}
	s.mu.Unlock()

	st := Status{Synced: s.isSynced(), NodeMissing: nodeMissing, Kept: int(s.kept.Load()), undiscovered: found != nil}
	counts, refuted := s.store.Counts(), s.report.refuted()
	for _, f := range feeds {
		k := f.status(now)
		k.Count, k.Refuted = counts[k.Of], refuted[k.Of]
		st.Kinds = append(st.Kinds, k)
	}
	st.EventsWritten, st.EventsFailed = s.report.counts()
	sortKinds(st.Kinds)
	if found != nil {
		if discovered {
			st.Degraded = append(st.Degraded, "discovery of optional kinds fails, kinds that came or went are not noticed: "+found.Error())
		} else {
			st.Degraded = append(st.Degraded, "the API server was not reached yet: "+found.Error())
		}
	}
	st.Degraded = append(st.Degraded, degraded(st.Kinds)...)
	if nodeSaid != "" {
		st.Degraded = append(st.Degraded, nodeSaid)
	}
	return st
}

// degraded gives one sentence for all kinds that fail in the same way.
func degraded(kinds []Kind) (out []string) {
	type failure struct {
		state State
		text  string
	}
	var order []failure
	resources := make(map[failure][]string)
	for _, k := range kinds {
		if k.State == Live || k.State == Syncing {
			continue
		}
		f := failure{k.State, k.Error}
		if k.State == Unreachable {
			f.text = "" // differs by URL only; the first stands for all
		}
		if resources[f] == nil {
			order = append(order, f)
		}
		resources[f] = append(resources[f], k.Resource)
	}
	for _, f := range order {
		text := f.text
		if text == "" {
			at := slices.IndexFunc(kinds, func(k Kind) bool { return k.State == f.state })
			text = kinds[at].Error
		}
		out = append(out, fmt.Sprintf("%s: %s: what was known last stays in force: %s", strings.Join(resources[f], ", "), f.state, text))
	}
	return out
}

// Times of supervise.
const (
	superviseEvery = 250 * time.Millisecond
	remindEvery    = time.Minute
)

// supervise logs when the source begins and ends to be degraded, and gives a start
// up for late.
func (s *Source) supervise(ctx context.Context) {
	ticker := time.NewTicker(superviseEvery)
	defer ticker.Stop()
	start := time.Now()
	var said string
	var saidAt, since time.Time
	cut := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		st := s.Status()
		if !cut && !st.Synced && (unreachable(st) || time.Since(start) > syncPatience) {
			cut = true
			close(s.cut)
		}
		state := summary(st)
		switch {
		case state == said && (state == "" || time.Since(saidAt) < remindEvery):
			continue
		case state == "":
			s.log.Info().Dur("after", time.Since(since)).Msg("the API server is followed again, nothing was missed")
		default:
			if said == "" {
				since = time.Now()
			}
			s.log.Error().Strs("degraded", st.Degraded).Time("since", since).Msg("degraded: the API server is not followed completely")
		}
		said, saidAt = state, time.Now()
	}
}

// summary is equal for states that need not be told apart in the log. What is wrong
// with the node is logged where it is found.
func summary(st Status) string {
	var b strings.Builder
	for _, k := range st.Kinds {
		if k.State != Live && k.State != Syncing {
			fmt.Fprintf(&b, "%s %s\n", k.Resource, k.State)
		}
	}
	if b.Len() == 0 && st.undiscovered {
		return "discovery"
	}
	return b.String()
}

func unreachable(st Status) bool {
	return len(st.Kinds) == 0 && len(st.Degraded) > 0 || slices.ContainsFunc(st.Kinds, func(k Kind) bool { return k.State == Unreachable })
}
