package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A connection of the load is: connect, send a byte, read the byte that comes back,
// and close with a reset, so that no port waits. A bare one is closed at once by both ends.

// ports is how many ports the server listens on, from firstPort on.
const (
	ports     = 16
	firstPort = 7000
	// bulkPort takes whatever is sent.
	bulkPort = firstPort + ports
	// Bare connections go to as many ports from barePort on.
	barePort = bulkPort + 1
	lastPort = barePort + ports - 1
)

// plan is the load of one round.
type plan struct {
	to netip.Addr
	// from is the first source address; the connection number n comes from address
	// n/ports behind it, up to sources of them, to port n%ports. So tuples repeat
	// after sources*ports connections.
	from    netip.Addr
	sources int
	first   int // number of the first connection
	most    int // connections
	workers int
	bare    bool
	lasts   time.Duration
}

// loaded is what came of it.
type loaded struct {
	Connections, Failures int
	Error                 string  // of the first failure
	Seconds               float64 // the round really took
	P50, P99              float64 // µs, of connect alone
}

func (l loaded) rate() float64 { return float64(l.Connections) / l.Seconds }

// patience is how long a connection may take before it counts as failed.
const patience = 2 * time.Second

func (p plan) args() []string {
	return []string{"load",
		"-to", p.to.String(), "-from", p.from.String(), "-sources", fmt.Sprint(p.sources),
		"-first", fmt.Sprint(p.first), "-most", fmt.Sprint(p.most), "-workers", fmt.Sprint(p.workers), "-bare=" + fmt.Sprint(p.bare), "-lasts", p.lasts.String(),
	}
}

func loadMain(args []string) error {
	var p plan
	f := flag.NewFlagSet("load", flag.ExitOnError)
	f.TextVar(&p.to, "to", netip.Addr{}, "")
	f.TextVar(&p.from, "from", netip.Addr{}, "")
	f.IntVar(&p.sources, "sources", 1, "")
	f.IntVar(&p.first, "first", 0, "")
	f.IntVar(&p.most, "most", 1, "")
	f.IntVar(&p.workers, "workers", 1, "")
	f.BoolVar(&p.bare, "bare", false, "")
	f.DurationVar(&p.lasts, "lasts", time.Second, "")
	f.Parse(args)
	debug.SetGCPercent(-1) // it lives for a second
	return json.NewEncoder(os.Stdout).Encode(p.run())
}

func (p plan) run() (l loaded) {
	var (
		next    atomic.Int64
		failed  atomic.Int64
		problem atomic.Pointer[string]
		wg      sync.WaitGroup
		took    = make([][]time.Duration, p.workers)
	)
	start := time.Now()
	end := start.Add(p.lasts)
	for w := range p.workers {
		wg.Go(func() {
			for time.Now().Before(end) {
				n := int(next.Add(1)) - 1
				if n >= p.most {
					return
				}
				t, err := p.connect(p.first + n)
				if err != nil {
					failed.Add(1)
					text := err.Error()
					problem.CompareAndSwap(nil, &text)
					continue
				}
				took[w] = append(took[w], t)
			}
		})
	}
	wg.Wait()
	all := slices.Concat(took...)
	l = loaded{Connections: len(all), Failures: int(failed.Load()), Seconds: time.Since(start).Seconds()}
	if t := problem.Load(); t != nil {
		l.Error = *t
	}
	if len(all) > 0 {
		slices.Sort(all)
		l.P50, l.P99 = microseconds(all[len(all)/2]), microseconds(all[len(all)*99/100])
	}
	return l
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// connect makes connection number n and tells how long connect(2) took.
func (p plan) connect(n int) (took time.Duration, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	for _, err := range []error{
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: p.source(n)}),
	} {
		if err != nil {
			return 0, err
		}
	}
	to := &unix.SockaddrInet4{Addr: p.to.As4(), Port: firstPort + n%ports}
	if p.bare {
		to.Port += barePort - firstPort
	}
	start := time.Now()
	err = unix.Connect(fd, to)
	for err == unix.EINTR || err == unix.EALREADY { // a signal of Go's runtime; the connection goes on
		err = unix.Connect(fd, to)
	}
	if err != nil && err != unix.EISCONN {
		return 0, fmt.Errorf("connect: %w", err)
	}
	took = time.Since(start)
	if p.bare {
		return took, nil
	}
	var b [1]byte
	if _, err := unix.Write(fd, b[:]); err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	if n, err := unix.Read(fd, b[:]); err != nil || n != 1 {
		return 0, fmt.Errorf("receive: %d bytes, %w", n, err)
	}
	return took, nil
}

func (p plan) source(n int) [4]byte { return behind(p.from, n/ports%p.sources) }

// behind gives the n-th address after a.
func behind(a netip.Addr, n int) [4]byte {
	b := a.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += uint32(n)
	return [4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
}

// serveMain answers connections on all ports until it is killed. Two threads wait
// at each port, and only for connections on which the byte has arrived, if one comes.
func serveMain(args []string) error {
	at, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	for port := firstPort; port <= lastPort; port++ {
		if port == bulkPort {
			continue
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		serve, wait := answer, 1
		if port >= barePort {
			serve, wait = unix.Close, 0
		}
		for _, err := range []error{
			unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_DEFER_ACCEPT, wait),
			unix.Bind(fd, &unix.SockaddrInet4{Addr: at.As4(), Port: port}),
			unix.Listen(fd, 1024),
		} {
			if err != nil {
				return fmt.Errorf("port %d: %w", port, err)
			}
		}
		for range 2 {
			go func() {
				for {
					// An error is of a connection that was reset while it waited.
					if c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC); err == nil {
						serve(c)
					}
				}
			}()
		}
	}
	if err := swallow(at); err != nil {
		return err
	}
	fmt.Println("listening")
	select {}
}

// answer sends the byte back and closes the connection.
func answer(c int) error {
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	unix.SetsockoptTimeval(c, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	var b [1]byte
	if n, _ := unix.Read(c, b[:]); n == 1 {
		unix.Write(c, b[:])
	}
	return unix.Close(c)
}
