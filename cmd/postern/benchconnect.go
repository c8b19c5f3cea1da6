package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/nfq"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/speed"
	"github.com/postern-project/postern/test/lab"
)

// benchConnectConfig is what the flags of bench connect say.
type benchConnectConfig struct {
	benchFlags
	rounds, workers int
}

func newBenchConnectCommand() *cobra.Command {
	var c benchConnectConfig
	cmd := &cobra.Command{
		Use:   "connect",
		Short: "Measure new connections through a node, with postern and without",
		Long: `Measure new TCP connections from one pod to another through the node between them, in
network namespaces made for it: without any filter, with connection tracking only,
with a static map of the tuples in nftables, with a verdict loop that accepts
everything, and with postern: cold, where no connection is like one before, and
learned, where all are.

A connection is connect, a byte there and back, and a reset; its latency is that of
connect. Rounds go from one to the next, so that whatever else the machine does meets
all alike. The benchmark of the source tree, make bench-kernel, adds rivals and floods.

Needs root, nft and, where the kernel has no queue for nftables, iptables. Nothing of
the host is changed.`,
		Example: `  postern bench connect --save connect.json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	c.register(f, 500*time.Millisecond)
	f.IntVar(&c.rounds, "rounds", 5, "how often each is measured")
	f.IntVar(&c.workers, "workers", 4, "connections at the same time")
	return cmd
}

// connectKind is one way to have a node.
type connectKind struct {
	name    string
	prepare func(*benchNode) error
	cold    bool // no tuple twice
}

var connectKinds = []connectKind{
	{"no filter", func(*benchNode) error { return nil }, false},
	{"conntrack only", func(n *benchNode) error { return n.rules("ct state established accept\n") }, false},
	{"static map", staticMap, false},
	{"null loop", nullLoop, true},
	{"postern cold", (*benchNode).posternHere, true},
	{"postern learned", (*benchNode).posternHere, false},
}

// connectRun is a kind with its lab and what came of it.
type connectRun struct {
	connectKind
	*benchNode
	client, server *lab.Host
	sent           atomic.Int64 // connections of strangers
	row            speed.Row
	latency        speed.Histogram
	took           time.Duration
}

func (c *benchConnectConfig) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	switch err := c.check(); {
	case err != nil:
		return err
	case c.rounds < 1 || c.rounds > 1000:
		return usageError("--rounds %d: want 1 to 1000", c.rounds)
	case c.workers < 1 || c.workers > 256:
		return usageError("--workers %d: want 1 to 256", c.workers)
	}
	earlier, err := c.earlier("connect")
	if err != nil {
		return err
	}
	r := speed.NewResult("connect", version, "connections")
	r.Reference = "conntrack only"
	r.Settings["duration"], r.Settings["rounds"], r.Settings["connections at once"] = c.lasts.String(), fmt.Sprint(c.rounds), fmt.Sprint(c.workers)
	var runs []*connectRun
	defer func() {
		for _, run := range runs {
			err = errors.Join(err, run.close())
		}
	}()
	for _, kind := range connectKinds {
		run := &connectRun{connectKind: kind}
		if run.benchNode, err = newBenchNode(); err != nil {
			return err
		}
		runs = append(runs, run)
		if err := run.begin(); err != nil {
			return fmt.Errorf("bench: %s: %w", kind.name, err)
		}
		if err := run.round(c.lasts/5, c.workers); err != nil { // warm-up
			return fmt.Errorf("bench: %s: %w", kind.name, err)
		}
		run.row, run.latency, run.took = speed.Row{}, speed.Histogram{}, 0
	}
	for n := range c.rounds {
		for _, run := range runs {
			if ctx.Err() != nil {
				return fmt.Errorf("bench: %w", ctx.Err())
			}
			if err := run.round(c.lasts, c.workers); err != nil {
				return fmt.Errorf("bench: %s: %w", run.name, err)
			}
		}
		fmt.Fprintf(stderr, "postern: round %d of %d\n", n+1, c.rounds)
	}
	for _, run := range runs {
		run.row.Name = run.name
		run.row.PerSecond = float64(run.row.Count-run.row.Lost) / run.took.Seconds()
		run.latency.Fill(&run.row)
		r.Rows = append(r.Rows, run.row)
	}
	return c.finish(r, earlier, stdout)
}

// begin makes client and server and what stands between them.
func (r *connectRun) begin() (err error) {
	if r.client, err = r.AddPod("client", benchClient); err != nil {
		return err
	}
	if r.server, err = r.AddPod("server", benchServer); err != nil {
		return err
	}
	// The client has the addresses of all strangers too.
	if err := r.run(r.client, "", "ip", "route", "add", "local", benchStrangers.String(), "dev", "lo"); err != nil {
		return err
	}
	// Its link is the first that the lab has made.
	if err := r.run(r.Node, "", "sh", "-c", fmt.Sprintf("ip route add %s via %s dev $(ip -o route show %s | sed 's/.* dev \\([^ ]*\\).*/\\1/') onlink",
		benchStrangers, benchClient, benchClient)); err != nil {
		return err
	}
	if err := r.serve(); err != nil {
		return err
	}
	if err := r.prepare(r.benchNode); err != nil {
		return err
	}
	return r.sysctl(map[string]string{"nf_conntrack_tcp_timeout_close": "1"})
}

// serve answers a byte on each port.
func (r *connectRun) serve() error {
	return r.server.Do(func() error {
		for i := range benchPorts {
			l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(benchServer, uint16(benchPort+i))))
			if err != nil {
				return err
			}
			r.undo = append(r.undo, l.Close)
			go func() {
				for {
					c, err := l.AcceptTCP()
					if errors.Is(err, net.ErrClosed) {
						return
					}
					if err == nil {
						go answerByte(c)
					}
				}
			}()
		}
		return nil
	})
}

func answerByte(c *net.TCPConn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(connectPatience))
	var b [1]byte
	if _, err := c.Read(b[:]); err == nil {
		c.Write(b[:])
		c.Read(b[:]) // until it is reset
	}
}

const connectPatience = 2 * time.Second

// mostPerRound bounds the connections of a round.
const mostPerRound = 60_000

// round puts load on for a while.
func (r *connectRun) round(lasts time.Duration, workers int) error {
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		problem  error
		count    atomic.Int64
		lost     atomic.Int64
		start    = time.Now()
		end      = start.Add(lasts)
		firstOne = r.sent.Load()
	)
	for range workers {
		wg.Go(func() {
			var h speed.Histogram
			err := r.client.Do(func() error {
				var last error
				for time.Now().Before(end) && r.sent.Load()-firstOne < mostPerRound {
					count.Add(1)
					took, err := r.connect(int(r.sent.Add(1)))
					if err != nil {
						lost.Add(1)
						last = err
						continue
					}
					h.Add(int64(took))
				}
				return last
			})
			mu.Lock()
			defer mu.Unlock()
			r.latency.Merge(&h)
			if err != nil {
				problem = err
			}
		})
	}
	wg.Wait()
	r.took += time.Since(start)
	r.row.Count += uint64(count.Load())
	r.row.Lost += uint64(lost.Load())
	if count.Load() == lost.Load() {
		return fmt.Errorf("no connection came about: %w", problem)
	}
	return nil
}

// connect makes connection number n, on a locked thread of the client, and tells how
// long connect(2) took.
func (r *connectRun) connect(n int) (time.Duration, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	src := benchClient.As4()
	if r.cold {
		// From a new address each time the ports have been gone through.
		src = benchStrangers.Addr().As4()
		binary.BigEndian.PutUint32(src[:], binary.BigEndian.Uint32(src[:])+1+uint32(n/benchPorts)%(1<<20-2))
	}
	tv := unix.NsecToTimeval(connectPatience.Nanoseconds())
	if err := errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: src}),
	); err != nil {
		return 0, err
	}
	start := time.Now()
	to := &unix.SockaddrInet4{Addr: benchServer.As4(), Port: benchPort + n%benchPorts}
	err = unix.Connect(fd, to)
	for err == unix.EINTR || err == unix.EALREADY { // a signal of the runtime; the connection goes on
		err = unix.Connect(fd, to)
	}
	if err != nil && err != unix.EISCONN {
		return 0, fmt.Errorf("connect: %w", err)
	}
	took := time.Since(start)
	var b [1]byte
	if _, err := retried(func() (int, error) { return unix.Write(fd, b[:]) }); err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	if n, err := retried(func() (int, error) { return unix.Read(fd, b[:]) }); err != nil || n != 1 {
		return 0, fmt.Errorf("receive: %d bytes, %w", n, err)
	}
	return took, nil
}

func retried(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != unix.EINTR {
			return n, err
		}
	}
}

// staticMap knows the tuples beforehand.
func staticMap(n *benchNode) error {
	text := "ct state established accept\nip saddr . ip daddr . meta l4proto . th dport vmap { "
	for i := range benchPorts {
		text += fmt.Sprintf("%s . %s . tcp . %d : accept, ", benchClient, benchServer, benchPort+i)
	}
	return n.rules(text + "}\nip daddr " + benchServer.String() + " counter drop\n")
}

// nullLoop is postern's verdict loop with nothing to decide: no policy selects anyone.
func nullLoop(n *benchNode) error {
	s := &policy.Snapshot{Generation: 1, Namespaces: []*policy.Namespace{{Name: "bench"}}, Endpoints: []*policy.Endpoint{{
		Namespace: "bench", Name: "server", Addrs: []netip.Addr{benchServer},
	}}}
	rs, _ := compile.Compile(s, compile.Options{})
	if rs == nil {
		return errors.New("compile an empty world")
	}
	engine := new(filter.Engine)
	engine.Swap(rs)
	const mask, accepted, reply = 0xff000000, 0x03000000, 0x02000000
	var q *nfq.Queue
	if err := n.Node.Do(func() (err error) {
		q, err = nfq.Open(nfq.Config{Queue: benchQueue, MaxLen: nfq.DefaultMaxLen, CopyRange: nfq.DefaultCopyRange, Marks: nfq.Marks{Mask: mask, Reply: reply, Pass: accepted, Learn: accepted}}, engine)
		return err
	}); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	n.undo = append(n.undo, func() error {
		stop()
		return errors.Join(<-ended, q.Close())
	})
	native := n.rules(fmt.Sprintf("ct state established accept\nmeta mark & %#x == %#x accept\nqueue num %d\n", mask, accepted, benchQueue))
	if native == nil {
		return nil
	}
	for _, rule := range [][]string{
		{"-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"},
		{"-m", "mark", "--mark", fmt.Sprintf("%#x/%#x", accepted, mask), "-j", "ACCEPT"},
		{"-j", "NFQUEUE", "--queue-num", fmt.Sprint(benchQueue)},
	} {
		if err := n.run(n.Node, "", "iptables", append([]string{"-w", "-t", "mangle", "-A", "POSTROUTING"}, rule...)...); err != nil {
			return fmt.Errorf("a queue by nft: %w; by iptables: %w", native, err)
		}
	}
	return nil
}
