package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/postern-project/postern/conntrack"
	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/filter/dataplane"
	"github.com/postern-project/postern/filter/flowlog"
	"github.com/postern-project/postern/filter/hostlink"
	"github.com/postern-project/postern/filter/live"
	"github.com/postern-project/postern/filter/metrics"
	"github.com/postern-project/postern/filter/nfq"
	"github.com/postern-project/postern/filter/nft"
	"github.com/postern-project/postern/filter/observe"
	"github.com/postern-project/postern/internal/notify"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
	"github.com/postern-project/postern/k8ssync/kube"
	"github.com/postern-project/postern/k8ssync/saved"
)

// ringSize is how many decisions of one queue may wait to be logged: what a loop decides in
// some 80 ms at its highest rate, which is more than passes between two rounds of the Writer.
const ringSize = 16384

// quietFor is how long the log is not told of further changes of a cluster.
const quietFor = 5 * time.Second

// retryAfter is the pause before a change that the kernel refused is tried again.
const retryAfter = time.Second

// daemon is postern at work. Its tasks are the source, the loop that applies what
// the source brings, one verdict loop a queue, and the flow log; the end of one is
// the end of all.
type daemon struct {
	log     zerolog.Logger
	cfg     runConfig
	nft     *nft.Conn
	via     nft.QueueVia
	table   *nft.Table
	engine  *filter.Engine
	lock    *nfq.Lock
	queues  []*nfq.Queue
	rings   []*flowlog.Ring
	store   *k8ssync.Store
	source  k8ssync.Source
	applier *dataplane.Applier
	// conntrack is the applier's.
	conntrack *conntrack.Conn
	gate      *gatekeeper
	flows     *flowlog.Writer
	feed      observe.Feed      // of the socket's clients
	staged    *compile.Compiler // of the pending view, while something is staged
	stagedIn  stagedCount       // of the state in force
	hosts     int               // host endpoints, of which the log was told
	said      map[string]bool   // what the compiler found, of which the log was told
	// saidInForce is when the log was last told of a change.
	saidInForce time.Time
	// socket is nil if nobody may ask; inForce is what they are told.
	socket  *net.UnixListener
	authz   *authzServer // nil if no proxy may ask
	metrics *metrics.Metrics
	web     []webListener
	// level is the log's, and reloads has what became of the settings.
	level     level
	staleness staleness
	reloads   reloads
	inForce   atomic.Pointer[control.State]
	// marks are those of the rules, and kernelState is what they enforce, for the loop that
	// applies policy. view is for who looks at flows that live: see liveflows.go.
	marks       nft.Marks
	kernelState nft.State
	view        atomic.Pointer[live.View]
	ends        *live.Ends         // nil if they are not logged
	ended       *conntrack.Watcher // of ends
	hits        *live.Hits         // nil if the caches are not read
	cached      *nft.Cached        // of hits
	// supervisor is systemd, or a keeper; stored is what it kept of the process
	// before. first is closed when a first state is in force.
	supervisor *notify.Supervisor
	stored     map[string]int
	first      chan struct{}
	began      sync.Once
	// directory or cluster is the source, whichever it is. progress is what status tells.
	directory *file.Source
	cluster   *kube.Source
	progress  progress
	// links finds the links of pods, for the check of source addresses.
	links       *hostlink.Watcher
	podLinks    atomic.Pointer[[]int] // that links has found last
	sourcesConn *nft.Conn
	guard       tableGuard
	// counts reads what is counted of packets, dropped ones by cause.
	counts     *dataplane.Counts
	countsConn *nft.Conn
}

// run enforces until ctx ends.
func run(ctx context.Context, cfg runConfig, stderr io.Writer) error {
	if err := cfg.check(); err != nil {
		return err
	}
	if err := cfg.nameNode(); err != nil {
		return err
	}
	log, err := newLogger(stderr, cfg.logFormat, "trace")
	if err != nil {
		return err
	}
	d := &daemon{cfg: cfg, engine: &filter.Engine{}, store: k8ssync.NewStore(), first: make(chan struct{})}
	d.level.set(cfg.logLevel)
	log = log.Hook(&d.level)
	d.log = log
	d.reloads.wanted = make(chan reloaded)
	d.staleness.began = time.Now()
	if d.supervisor, d.stored, err = notify.FromEnvironment(); err != nil {
		return err
	}
	if d.gate, err = newGatekeeper(cfg.assertions, log); err != nil {
		return err
	}
	if cfg.kubeconfig != "" {
		d.store = k8ssync.NewLargeStore()
	}
	defer d.close()
	d.findPods(ctx)
	if err := d.open(); err != nil {
		return err
	}
	return d.serve(ctx)
}

// open claims what only one process can have, before anything in the kernel is
// changed. The lock comes first: it is what a second postern fails on.
func (d *daemon) open() error {
	marks, err := nft.NewMarks(d.cfg.markMask)
	if err != nil {
		return err
	}
	if err := d.takeLock(); err != nil {
		return err
	}
	d.marks = marks
	if err := d.account(); err != nil {
		return err
	}
	if err := d.openFlowLog(); err != nil {
		return err
	}
	queues := nft.Queues{First: d.cfg.queueFirst, Count: d.cfg.queues}
	for i := range queues.Count {
		ring := flowlog.NewRing(ringSize)
		q, err := d.openQueue(nfq.Config{
			FailOpen: d.cfg.exceptions.queueFull == "accept", AcceptUndecodable: d.cfg.exceptions.undecodable == "accept",
			Queue: queues.First + i, MaxLen: d.cfg.queueLen, CopyRange: d.cfg.queueBytes,
			Marks: nfq.Marks{
				Mask: marks.Mask(), Reply: marks.Reply(), Taken: marks.Taken(), Doubt: marks.Doubt(),
				Pass: marks.Pass(), Learn: marks.Learn(), Deny: marks.Deny(), EpochShift: marks.EpochShift(),
			},
			Holds: nfq.Holds{Local: d.cfg.podPrefixes, Time: d.cfg.holdTime, Max: d.cfg.holds, MaxOf: d.cfg.holdsOf, Epochs: marks.Epochs()},
			Ring:  ring,
		})
		if err != nil {
			return err
		}
		d.queues, d.rings = append(d.queues, q), append(d.rings, ring)
		if !q.BufferGranted() {
			d.log.Warn().Uint16("queue", q.Number()).Uint32("queue_length", d.cfg.queueLen).
				Msg("the kernel grants a receive buffer too small for the queue's length, and drops what does not fit: raise net.core.rmem_max or lower --queue-length")
		}
	}
	d.dropStored()
	if d.nft, err = nft.Dial(); err != nil {
		return err
	}
	if d.via, err = d.chooseQueue(); err != nil {
		return err
	}
	if d.table, err = nft.NewTable(d.nft, nft.Config{
		Marks: marks, Queues: queues, Via: d.via,
		ToHost: toHostChoices[d.cfg.toHost], VXLANPort: d.cfg.vxlanPort, AllowTunnels: d.cfg.allowTunnels, JudgeInvalid: d.cfg.invalid == "judge",
		Bypass: d.cfg.exceptions.noDaemon == "accept", CountUnanswered: d.cfg.exceptions.failsOpen(),
		KeepEstablished: d.cfg.established == "keep", Local: d.cfg.podPrefixes, CacheSize: d.cfg.cacheSize,
		Guard: d.cfg.guard, GuardPortless: d.cfg.guardPortless, GuardKnown: d.cfg.guardKnown,
	}); err != nil {
		return err
	}
	if err := d.openSources(); err != nil {
		return err
	}
	if err := d.openCounts(); err != nil {
		return err
	}
	if err := d.openGuard(); err != nil {
		return err
	}
	if d.conntrack, err = conntrack.Dial(); err != nil {
		return err
	}
	loops := make([]dataplane.Loop, len(d.queues))
	for i, q := range d.queues {
		loops[i] = q
	}
	keep := d.cfg.established == "keep"
	d.applier = dataplane.New(d.engine, guarded{d}, &dataplane.Conntrack{Conn: d.conntrack, Marks: marks, Keep: keep}, loops, dataplane.Options{
		Compile: compile.Options{Node: d.cfg.node, Changes: d.store.Changes}, Epochs: marks.Epochs(), Keep: keep,
		Failed: func(err error) {
			d.log.Warn().Err(err).Msg("could not sweep flows that policy denies now; they stop at their next packet")
		},
	})
	if err := d.openSource(); err != nil {
		return err
	}
	if err := d.openAuthz(); err != nil {
		return err
	}
	c := d.cfg.flowLogConfig()
	c.Watch = d.watcher()
	d.flows = flowlog.NewWriter(d.log, c, d.rings...)
	if err := d.openMetrics(); err != nil {
		return err
	}
	if d.cfg.socket == "" {
		return nil
	}
	d.socket, err = control.Listen(d.cfg.socket)
	return err
}

// watcher is who is told of decisions: nobody if there is no socket to ask on.
func (d *daemon) watcher() flowlog.Watcher {
	if d.cfg.socket == "" {
		return nil
	}
	return &d.feed
}

// guarded is the table, and what else must know of the pods here.
type guarded struct{ *daemon }

func (g guarded) Apply(s nft.State) error {
	if err := g.table.Apply(s); err != nil {
		return err
	}
	g.kernelState = s
	g.links.Pods(s.Pods)
	return nil
}

func (g guarded) Distrust() { g.table.Distrust() }

func (g guarded) Epoch() (uint32, bool, error) { return g.table.Epoch() }

func (d *daemon) chooseQueue() (nft.QueueVia, error) {
	via, err := nft.Probe(d.nft)
	if err != nil {
		return via, err
	}
	want := queueChoices[d.cfg.queueVia]
	if want == nft.ViaNone || want == via {
		return via, nil
	}
	if err := nft.Try(d.nft, want); err != nil {
		return via, fmt.Errorf("--queue-via %s: this kernel cannot: %w", d.cfg.queueVia, err)
	}
	return want, nil
}

func (d *daemon) serve(parent context.Context) error {
	tasks, ctx := errgroup.WithContext(parent)
	for _, q := range d.queues {
		tasks.Go(func() error { d.awaitFirst(ctx); return q.Run(ctx) })
	}
	tasks.Go(func() error { d.feedWatchdog(ctx); return nil })
	tasks.Go(func() error { return d.flows.Run(ctx) })
	for _, task := range d.flowLogTasks() {
		tasks.Go(func() error { return task(ctx) })
	}
	tasks.Go(func() error { return d.source.Run(ctx) })
	tasks.Go(func() error { return d.apply(ctx) })
	tasks.Go(func() error { return d.checkSources(ctx) })
	tasks.Go(func() error { return d.watchTable(ctx) })
	if d.socket != nil {
		tasks.Go(func() error {
			return control.Serve(ctx, d.socket, control.Daemon{Current: d.current, Status: d.status, Feed: &d.feed, Flows: d.listFlows})
		})
	}
	if d.authz != nil {
		tasks.Go(func() error { return d.authz.run(ctx) })
	}
	if d.cluster != nil {
		tasks.Go(func() error { d.settle(ctx); return nil })
	}
	tasks.Go(func() error { return d.serveWeb(ctx) })
	tasks.Go(func() error { d.watchSettings(ctx); return nil })
	if d.cluster != nil && d.cfg.stateFile != "" {
		keeper := saved.NewKeeper(d.cfg.stateFile, d.cfg.node, d.log)
		tasks.Go(func() error { keeper.Run(ctx, d.fresh); return nil })
	}
	err := tasks.Wait()
	d.notify(d.supervisor.Stopping())
	d.logEnd(err)
	d.logAuthz()
	d.retire()
	if err == nil && d.cfg.cleanup {
		if err := d.table.Remove(); err != nil {
			return err
		}
		d.log.Warn().Msg("removed all rules: nothing is enforced now")
	}
	return err
}

// logEnd says what became of the packets, and what holds from now on.
func (d *daemon) logEnd(err error) {
	p := d.packets()
	var refused, undecodable uint64
	for _, q := range p.Queues {
		refused += q.Refused
	}
	for _, n := range p.Undecodable {
		undecodable += n
	}
	e := d.log.Info()
	if err != nil {
		e = d.log.Error().Err(err)
	}
	if d.hits != nil {
		cached := d.hits.Totals()
		e.Uint64("accepted_from_cache", cached.Allowed).Uint64("denied_from_cache", cached.Denied)
	}
	e.Uint64("accepted", p.Total(filter.Accept.String())).Uint64("denied", p.Total(filter.Drop.String())+undecodable).Uint64("gone_before_verdict", refused).
		Msg("stopped: " + d.held())
}

// held says what holds after the end: what this process put in force, or another before it.
func (d *daemon) held() string {
	if d.inForce.Load() == nil {
		if exists, err := tableExists(); err == nil && !exists {
			return "nothing was in force, and nothing is enforced"
		}
	}
	return "new flows of protected pods are dropped until postern runs again"
}

func (d *daemon) close() {
	for _, q := range d.queues {
		if err := q.Close(); err != nil {
			d.log.Error().Err(err).Uint16("queue", q.Number()).Msg("close queue")
		}
	}
	if d.applier != nil {
		d.applier.Close()
	}
	if d.conntrack != nil {
		d.conntrack.Close()
	}
	d.closeFlowLog()
	for _, c := range []*nft.Conn{d.nft, d.sourcesConn, d.countsConn} {
		if c != nil {
			c.CloseLasting()
		}
	}
	if d.guard.watcher != nil {
		if err := d.guard.watcher.Close(); err != nil {
			d.log.Error().Err(err).Msg("close watcher")
		}
	}
	if d.lock != nil { // last: until here this process may change the kernel
		if err := d.lock.Close(); err != nil {
			d.log.Error().Err(err).Msg("close lock")
		}
	}
}
