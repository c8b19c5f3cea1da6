package kube

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
)

// Times of a Source.
const (
	// rediscoverEvery is how often optional kinds are looked for.
	rediscoverEvery = 30 * time.Second
	// syncPatience is how long a start may take before a saved state is better
	// than none.
	syncPatience = 15 * time.Second
)

// Config is what a Source is made of.
type Config struct {
	// Kubeconfig is a file's path, or InCluster.
	Kubeconfig string
	// Node is the name of this node; it reports what is wrong with its own pods.
	Node string
	// Saved gives the state that was in force before the start, or nil. It is
	// asked at most once, if a namespace was being deleted at that time: its
	// policies may be gone from the API server already. May be nil.
	Saved func() (*policy.Snapshot, error)
	// WatchNode: PodCIDRs is what PodCIDRs gave before the start, and Status tells if
	// the node has others, or none.
	WatchNode bool
	PodCIDRs  []netip.Prefix
	// NoEvents turns Kubernetes Events about unusable objects off.
	NoEvents bool
}

// Source keeps a store at the state of an API server.
type Source struct {
	store   *k8ssync.Store
	log     zerolog.Logger
	config  Config
	clients *clients
	synced  chan struct{}
	cut     chan struct{}
	report  *reporter

	rediscoverEvery time.Duration

	mu      sync.Mutex
	pending []op
	wake    chan struct{} // capacity 1
	again   chan struct{} // capacity 1: discover now
	current map[policy.Kind]*feed
	coming  map[policy.Kind]*feed // will take current's place with their first list
	absent  map[policy.Kind]int   // discoveries in a row that did not find current's resource
	found   error                 // why the last discovery failed
	foundAt time.Time             // zero before the first that succeeded
	// nodeSaid is what is wrong with this node, and nodeMissing that nobody knows it.
	nodeSaid    string
	nodeMissing bool
	nodeLogged  time.Time // discover's

	life lifecycle // Run's
	kept atomic.Int64
}

var _ k8ssync.Source = (*Source)(nil)

// New gives a source that will read into store. Nothing is asked of the API server
// before Run.
func New(config Config, store *k8ssync.Store, log zerolog.Logger) (*Source, error) {
	rc, err := loadConfig(config.Kubeconfig)
	if err != nil {
		return nil, err
	}
	return newSource(config, rc, store, log)
}

func newSource(config Config, rc *rest.Config, store *k8ssync.Store, log zerolog.Logger) (*Source, error) {
	quietKlog(log)
	c, err := newClients(rc)
	if err != nil {
		return nil, err
	}
	s := &Source{
		store: store, log: log, config: config, clients: c,
		synced: make(chan struct{}), cut: make(chan struct{}),
		rediscoverEvery: rediscoverEvery,
		wake:            make(chan struct{}, 1), again: make(chan struct{}, 1),
		current: make(map[policy.Kind]*feed), coming: make(map[policy.Kind]*feed), absent: make(map[policy.Kind]int),
		life: newLifecycle(),
	}
	s.report, err = newReporter(c, config.Node, store, log)
	return s, err
}

var klogOnce sync.Once

// quietKlog sends what client-go logs, which is for its developers, to the debug
// level.
func quietKlog(log zerolog.Logger) {
	klogOnce.Do(func() {
		klog.SetLogger(funcr.New(func(prefix, args string) {
			log.Debug().Str("client_go", prefix+args).Msg("client-go")
		}, funcr.Options{}))
	})
}

// DefaultNode is the name of this node where no flag says it: NODE_NAME, which a
// DaemonSet sets from the pod's own spec.nodeName, or the host's name.
func DefaultNode() (string, error) {
	if name := os.Getenv("NODE_NAME"); name != "" {
		return name, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("name of this node: %w", err)
	}
	return name, nil
}

// Synced implements k8ssync.Source.
func (s *Source) Synced() <-chan struct{} { return s.synced }

// Cut is closed when the API server could not be reached, or was too slow, before
// the source was synced: a saved state is better than none then. The source goes
// on trying.
func (s *Source) Cut() <-chan struct{} { return s.cut }

// Run implements k8ssync.Source. It returns nil when ctx ends and never anything
// else: whatever is wrong with the API server may be mended.
func (s *Source) Run(ctx context.Context) error {
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { s.discover(ctx, tasks); return nil })
	tasks.Go(func() error { gather(ctx, s.wake, s.flush); return nil })
	tasks.Go(func() error { s.supervise(ctx); return nil })
	if !s.config.NoEvents {
		tasks.Go(func() error { s.report.run(ctx); return nil })
	}
	return tasks.Wait()
}

func (s *Source) isSynced() bool {
	select {
	case <-s.synced:
		return true
	default:
		return false
	}
}

// deliver takes a change of a feed.
func (s *Source) deliver(o op) {
	s.mu.Lock()
	s.pending = append(s.pending, o)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// flush changes the store once for all that is pending.
func (s *Source) flush(now time.Time) {
	s.mu.Lock()
	ops := s.pending
	s.pending = nil
	ops, complete := s.admit(ops)
	s.mu.Unlock()

	for _, o := range ops {
		s.report.note(o)
	}
	first := complete && !s.isSynced()
	s.store.Update(func(b *k8ssync.Batch) {
		s.life.apply(b, ops, now)
		if first {
			s.seed(b)
		}
	})
	s.kept.Store(int64(s.life.count()))
	if first {
		close(s.synced)
		s.rediscover() // whether the node hosts pods can be told now
	}
}

// admit lets a coming feed take its kind over with its first list, drops what
// feeds say that are not current any more, and tells whether every feed has
// listed. The caller holds mu.
func (s *Source) admit(ops []op) (admitted []op, complete bool) {
	for _, o := range ops {
		kind := o.from.of.kind
		if s.coming[kind] == o.from && o.all != nil {
			if old := s.current[kind]; old != nil && old.of != o.from.of {
				old.stop()
				s.log.Info().Stringer("resource", old.of).Stringer("by", o.from.of).Msg("kind is now read from another resource")
			}
			s.current[kind] = o.from
			delete(s.coming, kind)
		}
		if s.current[kind] == o.from {
			admitted = append(admitted, o)
		}
		if o.from.ended && o.all != nil {
			delete(s.current, kind) // what comes after its end does not count
		}
	}
	return admitted, !s.foundAt.IsZero() && len(s.coming) == 0
}

// seed keeps what a namespace that is being deleted had before the start.
func (s *Source) seed(b *k8ssync.Batch) {
	if s.config.Saved == nil || !s.life.anyTerminating(b) {
		return
	}
	saved, err := s.config.Saved()
	if err != nil {
		s.log.Error().Err(err).Msg("a namespace is being deleted and its earlier policies cannot be read: what the API server deleted of them already is not in force")
		return
	}
	if saved != nil {
		s.life.seed(b, saved)
	}
}
