package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync/file"
	"github.com/postern-project/postern/k8ssync/kube"
	"github.com/postern-project/postern/k8ssync/saved"
)

// defaultStateFile is where what a cluster's source brought is saved.
const defaultStateFile = "/var/lib/postern/state"

// settleAfter is how long after the first state memory is given back: the buffers of
// its lists are free then.
const settleAfter = 15 * time.Second

// openSource makes the source that the flags name.
func (d *daemon) openSource() (err error) {
	if d.cfg.kubeconfig == "" {
		d.directory = file.New(d.cfg.source, d.store, d.log)
		d.source = d.directory
		return nil
	}
	lean(reserveAtStart)
	d.cluster, err = kube.New(kube.Config{
		Kubeconfig: d.cfg.kubeconfig, Node: d.cfg.node, Saved: d.savedState, NoEvents: !d.cfg.events,
		WatchNode: len(d.cfg.podCIDRs) == 0, PodCIDRs: d.cfg.podPrefixes,
	}, d.store, d.log)
	d.source = d.cluster
	return err
}

// What the garbage collector keeps in reserve, in percent of what lives: less than its
// default, since a daemon on every node of a large cluster costs memory on all of them,
// and has CPU to spare. While the cluster is read that is in a hurry, it has more.
const (
	reserveAtStart = 50
	reserve        = 16
)

// lean sets the reserve. GOGC in the environment wins.
func lean(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// settle is for after the start. It gives back what reading and compiling a whole cluster took and what is in
// force does not need, once: the runtime would do so in the course of minutes.
func (d *daemon) settle(ctx context.Context) {
	select {
	case <-d.first:
	case <-ctx.Done():
		return
	}
	select {
	case <-d.source.Synced():
	case <-ctx.Done():
		return
	}
	select {
	case <-time.After(settleAfter):
		lean(reserve)
		debug.FreeOSMemory()
	case <-ctx.Done():
	}
}

// findPods asks for the prefixes of this node's pods, unless a flag says them. Without
// an answer nothing is held, which the status says from then on.
func (d *daemon) findPods(ctx context.Context) {
	if d.cfg.kubeconfig == "" || len(d.cfg.podCIDRs) > 0 {
		return
	}
	var err error
	d.cfg.podPrefixes, err = kube.PodCIDRs(ctx, kube.Config{Kubeconfig: d.cfg.kubeconfig, Node: d.cfg.node})
	switch {
	case err != nil:
		d.log.Warn().Err(err).Msg("the prefixes of this node's pods are not known: packets of pods that are not known yet are not held; give --pod-cidr, or none for it")
	case len(d.cfg.podPrefixes) == 0:
		d.log.Warn().Str("node", d.cfg.node).Msg("the node has no spec.podCIDRs: packets of pods that are not known yet are not held; give --pod-cidr, or none for it")
	default:
		d.log.Info().Str("node", d.cfg.node).Stringers("pod_cidr", stringers(d.cfg.podPrefixes)).Msg("packets of this node's pods are held until the pod is known")
	}
}

func stringers(prefixes []netip.Prefix) (out []fmt.Stringer) {
	for _, p := range prefixes {
		out = append(out, p)
	}
	return out
}

// nameNode finds out which node this is, where pods are those of a cluster.
func (c *runConfig) nameNode() (err error) {
	if c.kubeconfig == "" || c.node != "" {
		return nil
	}
	if c.node, err = kube.DefaultNode(); err != nil {
		return fmt.Errorf("%w; give --node", err)
	}
	return nil
}

func (d *daemon) sourceName() string {
	if d.cluster != nil {
		return "cluster of " + d.cfg.kubeconfig
	}
	return d.cfg.source
}

// savedState reads what the last process saved; nil if it saved nothing.
func (d *daemon) savedState() (*policy.Snapshot, error) {
	if d.cfg.stateFile == "" {
		return nil, nil
	}
	s, h, err := saved.Read(d.cfg.stateFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err == nil && h.Node != d.cfg.node {
		err = fmt.Errorf("read the saved state: %s: it is of node %q and this is %q", d.cfg.stateFile, h.Node, d.cfg.node)
	}
	return s, err
}

// loadSaved reads what to begin with where the cluster is out of reach, and when it was
// saved; nil if there is nothing that may be put in force.
func (d *daemon) loadSaved() (*policy.Snapshot, time.Time) {
	if d.cfg.stateFile == "" {
		d.log.Error().Msg("the API server cannot be reached or is slow, and no state is saved (--state-file): nothing is applied until it has told everything")
		return nil, time.Time{}
	}
	s, h, err := saved.Read(d.cfg.stateFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
		d.log.Error().Str("file", d.cfg.stateFile).Msg("the API server cannot be reached or is slow, and no state was saved before: nothing is applied until it has told everything")
	case err != nil:
		d.log.Error().Err(err).Msg("the API server cannot be reached or is slow, and the saved state cannot be used: nothing is applied until the API server has told everything")
	case h.Node != d.cfg.node:
		d.log.Error().Str("file", d.cfg.stateFile).Str("of_node", h.Node).Str("node", d.cfg.node).Msg("the API server cannot be reached or is slow, and the saved state is another node's: nothing is applied until it has told everything")
	case !d.gate.admits(s):
	default:
		d.log.Warn().Str("file", d.cfg.stateFile).Time("saved", h.Time).Dur("age", time.Since(h.Time)).Bool("rebooted_since", !h.ThisBoot()).
			Msg("the API server cannot be reached or is slow: enforcing the state that was saved last")
		return s, h.Time
	}
	return nil, time.Time{}
}

// progress is what the apply loop tells the status.
type progress struct {
	mu       sync.Mutex
	since    time.Time // zero before anything is in force
	applied  time.Time
	saved    time.Time // zero if the state in force is the source's
	problems []policy.Problem
}

func (p *progress) enforced(problems []policy.Problem, saved time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.applied = time.Now()
	if p.since.IsZero() {
		p.since = p.applied
	}
	p.saved, p.problems = saved, problems
}

// fresh is the snapshot in force if it came from the source.
func (d *daemon) fresh() *policy.Snapshot {
	d.progress.mu.Lock()
	old := !d.progress.saved.IsZero()
	d.progress.mu.Unlock()
	if s := d.inForce.Load(); s != nil && !old {
		return s.Snapshot.Complete()
	}
	return nil
}

// status is what clients of the socket are told of the daemon.
func (d *daemon) status() control.Status {
	st := control.Status{
		Node: d.cfg.node, Source: d.sourceName(), Objects: map[string]int{}, UnusableKinds: map[string]int{},
		Repairs: d.guard.Repairs(), Packets: d.packets(), Requests: d.requests(),
	}
	select {
	case <-d.source.Synced():
		st.Synced = true
	default:
	}
	d.progress.mu.Lock()
	st.Since, st.Applied, st.Saved = d.progress.since, d.progress.applied, d.progress.saved
	problems := d.progress.problems
	d.progress.mu.Unlock()
	if s := d.inForce.Load(); s != nil {
		st.Enforcing = true
		st.Generation, st.Pods, st.Policies = s.Snapshot.Generation, s.Snapshot.NumPods(), s.Snapshot.NumPolicies()
		st.Hosted, st.ProtectedIngress, st.ProtectedEgress = len(s.Ruleset.Hosted()), len(s.Ruleset.Protected(flow.Ingress)), len(s.Ruleset.Protected(flow.Egress))
	}
	if !st.Saved.IsZero() {
		st.Degraded = append(st.Degraded, "the state in force is the one that was saved at "+st.Saved.Format(time.RFC3339)+": the cluster has not been read since the start")
	}
	st.Degraded = append(st.Degraded, d.guard.degraded(time.Now())...)
	st.Degraded = append(st.Degraded, d.bridged()...)
	st.Degraded = append(st.Degraded, d.reloads.degraded()...)
	st.Degraded = append(st.Degraded, d.staleness.degraded(d.cfg.exceptions.stale)...)
	if d.directory != nil {
		st.Degraded = append(st.Degraded, d.directory.Degraded()...)
	}
	if d.cluster != nil {
		source := d.cluster.Status()
		st.Degraded = append(st.Degraded, source.Degraded...)
		st.Kept, st.NodeMissing = source.Kept, source.NodeMissing
		for _, k := range source.Kinds {
			st.Kinds = append(st.Kinds, control.Kind{Resource: k.Resource, State: string(k.State), Since: k.Since, Contact: k.Contact, Error: k.Error, Lists: k.Lists, Errors: k.Errors})
		}
	}
	for kind, n := range d.store.Counts() {
		st.Objects[string(kind)] = n.Objects
	}
	held := make(map[policy.Key]bool)
	for _, k := range d.store.Held() {
		held[k] = true
	}
	for _, list := range [][]policy.Problem{d.store.Problems(), problems} {
		for _, p := range list {
			st.UnusableKinds[string(p.Object.Kind)]++
			if st.UnusableTotal++; len(st.Unusable) < control.MaxUnusable {
				st.Unusable = append(st.Unusable, control.Unusable{Problem: p, Held: held[p.Object]})
			}
		}
	}
	return st
}
