package authz

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/tap"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flowlog"
	"github.com/postern-project/postern/internal/latency"
)

// Bounds on what clients may do to the daemon. A proxy opens a connection or two
// for each of its threads.
const (
	// MaxMessage is the longest CheckRequest, in bytes, that is read. Envoy refuses
	// requests whose headers are longer than 60 KiB unless told otherwise.
	MaxMessage = 1 << 20
	// maxReceived is how long a CheckRequest may be that is denied in words without being
	// read. Envoy can be told to take 8192 KiB of headers; what is longer still gets a gRPC
	// error.
	maxReceived = 10 << 20

	maxConns      = 1024 // of all clients; more wait to be accepted
	maxPerProcess = 16   // on the Unix socket
	maxStreams    = 64   // of a connection at once; more wait in the client
	maxHeaders    = 16 << 10
	streamWorkers = 256       // goroutines that live on, with the stack that a check needs; what they cannot take gets one of its own
	window        = 256 << 10 // bytes that may be under way on a connection

	handshakeTimeout = 5 * time.Second
	checkTimeout     = 5 * time.Second // for a check to arrive, if the client sets no time or a longer one
	probeIdle        = 30 * time.Second
	probeTimeout     = 10 * time.Second
)

// Config is what a Server does.
type Config struct {
	// TrustDomains are those whose certificates count; none means any.
	TrustDomains []string
	Options      filter.RequestOptions
	// Ring takes a record of every check. The Server is its producer; nil for none.
	Ring *flowlog.Ring
	// Log is told of panics; nil for nobody. Any goroutine may call it.
	Log func(panicked any, stack []byte)
}

// Stats counts answers. Any goroutine may read.
type Stats struct {
	// Decided counts by verdict and reason.
	Decided filter.Decided
	// Panics counts checks that were denied because postern is at fault.
	Panics atomic.Uint64
	// Unread counts checks that got a gRPC error: too long, compressed, or not whole.
	Unread atomic.Uint64
	// Took has how long answers took, from the message to the bytes of the answer,
	// without the network.
	Took latency.Histogram
}

// Total adds the reasons of a verdict.
func (s *Stats) Total(v filter.Verdict) uint64 { return s.Decided.Total(v) }

// Server answers checks on the ruleset that an engine has in force. Its methods may
// be called by any number of goroutines.
type Server struct {
	engine  *filter.Engine
	reader  reader
	options filter.RequestOptions
	answers answers
	stats   Stats
	log     func(any, []byte)

	mu   sync.Mutex // a ring has one producer
	ring *flowlog.Ring
}

// New returns a Server. It fails on a trust domain that is none.
func New(engine *filter.Engine, cfg Config) (*Server, error) {
	s := &Server{engine: engine, options: cfg.Options, ring: cfg.Ring, log: cfg.Log}
	for _, name := range cfg.TrustDomains {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil || td.Name() != name {
			return nil, fmt.Errorf("trust domain %q: want a name such as cluster.local", name)
		}
		s.reader.trustDomains = append(s.reader.trustDomains, td)
	}
	return s, nil
}

// Stats gives the counters.
func (s *Server) Stats() *Stats { return &s.stats }

// Serve answers on a listener, which it closes, until ctx ends, and returns nil then.
func (s *Server) Serve(ctx context.Context, l *Listener) error {
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{}),
		grpc.MaxRecvMsgSize(maxReceived), grpc.MaxConcurrentStreams(maxStreams), grpc.MaxHeaderListSize(maxHeaders),
		grpc.StaticConnWindowSize(window), grpc.StaticStreamWindowSize(window),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: probeIdle, Timeout: probeTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.InTapHandle(boundTime), grpc.NumStreamWorkers(streamWorkers),
	}
	if l.creds != nil {
		options = append(options, grpc.Creds(l.creds))
	}
	g := grpc.NewServer(options...)
	g.RegisterService(&service, s)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	err := g.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("authorization server: %w", err)
}

// boundTime ends what does not arrive.
func boundTime(ctx context.Context, _ *tap.Info) (context.Context, error) {
	if t, ok := ctx.Deadline(); ok && time.Until(t) <= checkTimeout {
		return ctx, nil // it ends by itself
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	_ = cancel // grpc ends the parent with the stream
	return ctx, nil
}

// service is envoy.service.auth.v3.Authorization with messages of our own, so that
// the codec can read what is needed and cannot fail.
var service = grpc.ServiceDesc{
	ServiceName: authv3.Authorization_ServiceDesc.ServiceName,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Check",
		Handler: func(srv any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			s := srv.(*Server)
			start := time.Now()
			var c check
			if err := dec(&c); err != nil {
				s.stats.Unread.Add(1)
				return nil, err // too long, or the connection is gone
			}
			a := s.answer(&c)
			s.stats.Took.Add(1, time.Since(start))
			return a, nil
		},
	}},
}

// answer is an encoded CheckResponse.
type answer []byte

// codec reads checks and writes answers, both of which are protocol buffers.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	c, ok := v.(*check)
	if !ok {
		return errors.New("authz: not a check")
	}
	if n := data.Len(); n > MaxMessage {
		*c = check{err: fmt.Errorf("a message of %d bytes: want %d at most", n, MaxMessage)}
		return nil
	}
	b := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer b.Free()
	*c = decode(b.ReadOnlyData())
	return nil
}

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(answer)
	if !ok {
		return nil, errors.New("authz: not an answer")
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Answer gives the encoded CheckResponse for an encoded CheckRequest, as a client
// would get it. The bytes must not be changed.
func (s *Server) Answer(message []byte) []byte {
	c := decode(message)
	return s.answer(&c)
}

// answer decides a check, counts and logs it.
func (s *Server) answer(c *check) (a answer) {
	defer func() {
		if p := recover(); p != nil {
			s.stats.Panics.Add(1)
			if s.log != nil {
				s.log(p, debug.Stack())
			}
			a = s.answers.encode(nil, filter.Outcome{})
		}
	}()
	req, problem := s.reader.read(c)
	var o filter.Outcome
	rs := s.engine.Ruleset()
	switch {
	case problem != nil:
		o.Reason = filter.InvalidRequest
	default:
		o, rs = s.engine.DecideRequest(&req, s.options)
	}
	s.stats.Decided[o.Verdict][o.Reason].Add(1)
	if s.ring != nil {
		s.record(c, req, problem, o, rs)
	}
	return s.answers.encode(rs, o)
}

func (s *Server) record(c *check, req filter.Request, problem error, o filter.Outcome, rs *filter.Ruleset) {
	r := flowlog.Record{
		UnixNano: time.Now().UnixNano(), Tuple: req.Tuple, Ruleset: rs,
		Decision: filter.Decision{Verdict: o.Verdict, Reason: o.Reason, Ingress: o},
		Request:  &flowlog.Request{Asked: req, Options: s.options, Source: c.source.principal, Destination: c.destination.principal},
	}
	if problem != nil {
		r.Request.Problem = problem.Error()
	}
	s.mu.Lock()
	s.ring.Put(&r)
	s.mu.Unlock()
}
