package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter/capture"
	"github.com/postern-project/postern/filter/replay"
	"github.com/postern-project/postern/filter/speed"
)

// benchKernelConfig is what the flags of bench kernel say.
type benchKernelConfig struct {
	benchFlags
	replay          replayConfig
	packets, window int
}

func newBenchKernelCommand() *cobra.Command {
	c := benchKernelConfig{replay: replayConfig{invalid: "drop", midStream: "kernel", maxFlows: replay.DefaultMaxFlows, output: "text"}}
	cmd := &cobra.Command{
		Use:   "kernel [CAPTURE...]",
		Short: "Measure packets through the kernel's queue",
		Long: `Replay packets through a real kernel: in a network namespace made for it they are
written to one TUN device and, as far as policy lets them, come out of another, without
any filter, with connection tracking only, and with postern's table and queue between.

Packets are those of the captures, judged by --policy, over and over with connection
tracking emptied between; or else generated ones, each the first of a flow of its own. Left
out are fragments, which the kernel puts together, and what nobody would have sent:
all but the first packet of a denied flow. What ought to come out and does not is lost;
what comes out and ought not is an error.

Needs root, and nft for the comparison. Nothing of the host is changed.

Exit code: 0 done, 1 slower than --fail-below allows, 2 usage, 4 postern let something
through that policy denies.`,
		Example: `  postern bench kernel
  postern bench kernel traffic.pcap --policy ./manifests --save kernel.json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	c.register(f, 2*time.Second)
	f.StringVar(&c.replay.policy, "policy", "", "with captures: directory of manifests to judge by, pods included")
	f.IntVar(&c.packets, "packets", 1<<14, "packets to hold in memory at most")
	f.IntVar(&c.window, "window", 64, "packets under way at the same time")
	return cmd
}

// sent is a packet to send.
type sent struct {
	data   []byte
	key    uint64 // of what the way through does not change
	passes bool   // says policy
	// opens is the key of the packet that began the flow, without whose coming out
	// nobody would have sent this one; 0 for that packet itself.
	opens uint64
}

func (c *benchKernelConfig) run(ctx context.Context, captures []string, stdin io.Reader, stdout, stderr io.Writer) (err error) {
	switch err := c.check(); {
	case err != nil:
		return err
	case c.packets < 1 || c.packets > 1<<20:
		return usageError("--packets %d: want 1 to %d", c.packets, 1<<20)
	case c.window < 1 || c.window > 4096:
		return usageError("--window %d: want 1 to 4096", c.window)
	}
	if err := checkTraffic(captures, c.replay); err != nil {
		return err
	}
	earlier, err := c.earlier("kernel")
	if err != nil {
		return err
	}
	r := speed.NewResult("kernel", version, "packets")
	r.Reference = "conntrack only"
	r.Settings["duration"], r.Settings["window"], r.Settings["traffic"] = c.lasts.String(), fmt.Sprint(c.window), speed.Generated
	packets := generatedSYNs(c.packets)
	if len(captures) > 0 {
		r.Settings["traffic"] = strings.Join(captures, " ")
		if packets, err = c.captured(captures, stdin, stderr); err != nil {
			return err
		}
	}
	denied := 0
	for _, p := range packets {
		if !p.passes {
			denied++
		}
	}
	r.Settings["packets"] = fmt.Sprintf("%d, %d of them denied", len(packets), denied)
	var runs []*kernelRun
	defer func() {
		for _, run := range runs {
			err = errors.Join(err, run.close())
		}
	}()
	for _, kind := range []struct {
		name    string
		filters bool
		prepare func(*benchNode) error
	}{
		{"no filter", false, func(*benchNode) error { return nil }},
		{"conntrack only", false, func(n *benchNode) error { return n.rules("ct state established accept\n") }},
		{"postern", true, func(n *benchNode) error {
			if len(captures) > 0 {
				return n.postern(c.replay.policy)
			}
			return n.posternHere()
		}},
	} {
		run := &kernelRun{row: speed.Row{Name: kind.name}}
		runs = append(runs, run)
		if err := run.begin(ctx, packets, c.window, kind.filters, kind.prepare); err != nil {
			return fmt.Errorf("bench: %s: %w", kind.name, err)
		}
	}
	for range kernelRounds {
		for _, run := range runs {
			if err := run.round(ctx, packets, c.lasts/kernelRounds); err != nil {
				return fmt.Errorf("bench: %s: %w", run.row.Name, err)
			}
		}
	}
	for _, run := range runs {
		if err := run.finish(); err != nil {
			return fmt.Errorf("bench: %s: %w", run.row.Name, err)
		}
		r.Rows = append(r.Rows, run.row)
	}
	return c.finish(r, earlier, stdout)
}

// generatedSYNs open connections from strangers, one in eight to a port that policy
// denies.
func generatedSYNs(n int) (out []sent) {
	for i := range n {
		src := benchStrangers.Addr().As4()
		binary.BigEndian.PutUint32(src[:], binary.BigEndian.Uint32(src[:])+1+uint32(i))
		port, passes := uint16(benchPort+i%benchPorts), i%8 != 7
		if !passes {
			port = 22
		}
		out = append(out, newSent(speed.Opening(netip.AddrFrom4(src), benchServer, uint16(1024+i%60000), port), passes))
	}
	return out
}

// captured reads packets and what policy says of them.
func (c *benchKernelConfig) captured(names []string, stdin io.Reader, stderr io.Writer) (out []sent, err error) {
	cfg, err := c.replay.config(stderr)
	if err != nil {
		return nil, err
	}
	r := replay.New(cfg)
	opened := map[uint64]uint64{}
	err = eachPacket(names, stdin, func(p *capture.Packet) bool {
		n := r.Packet(p)
		length := p.Length - len(p.Frame) + len(p.IP)
		fragment := len(p.IP) > 8 && p.IP[0]>>4 == 4 && (p.IP[6]&0x3f|p.IP[7]) != 0 || len(p.IP) > 6 && p.IP[0]>>4 == 6 && p.IP[6] == 44
		if n.Kind != replay.Member || fragment || length > maxTUN {
			return true
		}
		denied := n.Flow.Outcome().Verdict == replay.Denied
		if denied && !n.First { // nobody would have sent it
			return true
		}
		b := make([]byte, length) // what was not captured is zeros
		copy(b, p.IP)
		next := newSent(b, !denied)
		if n.First {
			opened[n.Flow.Number] = next.key
		} else {
			next.opens = opened[n.Flow.Number]
		}
		out = append(out, next)
		return len(out) < c.packets
	})
	switch {
	case err != nil:
		return nil, err
	case len(out) == 0:
		return nil, usageError("bench kernel: no packet in %s can be sent", oneLine(strings.Join(names, ", ")))
	case !slices.ContainsFunc(out, func(s sent) bool { return s.passes }):
		return nil, usageError("bench kernel: policy denies every flow in %s, so nothing would come out", oneLine(strings.Join(names, ", ")))
	}
	return out, nil
}

var benchSeed = maphash.MakeSeed()

// newSent makes a packet fit to be sent: with hops left, nothing behind its stated
// length, and a checksum that holds. b is kept.
func newSent(b []byte, passes bool) sent {
	switch b[0] >> 4 {
	case 4:
		if total := int(binary.BigEndian.Uint16(b[2:])); total >= 20 && total < len(b) {
			b = b[:total] // padding of a short frame
		}
		b[8] = 64
		header := b[:min(int(b[0]&0xf)*4, len(b))]
		header[10], header[11] = 0, 0
		sum := uint32(0)
		for i := 0; i+1 < len(header); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(header[i:]))
		}
		for sum>>16 != 0 {
			sum = sum&0xffff + sum>>16
		}
		binary.BigEndian.PutUint16(header[10:], ^uint16(sum))
	case 6:
		b[7] = 64
	}
	return sent{data: b, key: passageKey(b), passes: passes}
}

// passageKey identifies a packet before and after it was forwarded.
func passageKey(b []byte) uint64 {
	var head [96]byte
	n := copy(head[:], b)
	if head[0]>>4 == 4 {
		head[8], head[10], head[11] = 0, 0, 0 // hops left and checksum
	} else {
		head[7] = 0
	}
	return maphash.Bytes(benchSeed, head[:n])
}

// kernelRounds is how often turns are taken, so that whatever else the machine does
// meets all alike.
const kernelRounds = 5

// kernelRun is a node of its own through which packets go, and what came of it.
type kernelRun struct {
	*benchNode
	passage
	reader sync.WaitGroup
	took   time.Duration
	row    speed.Row
}

// begin makes the node and sends the packets once, to warm up.
func (r *kernelRun) begin(ctx context.Context, packets []sent, window int, filters bool, prepare func(*benchNode) error) (err error) {
	if r.benchNode, err = newBenchNode(); err != nil {
		return err
	}
	r.passage = passage{waiting: map[uint64][]time.Time{}, filters: filters, room: make(chan struct{}, window)}
	if r.in, r.out, err = r.tunnels(); err != nil {
		return err
	}
	if err := prepare(r.benchNode); err != nil {
		return err
	}
	if err := r.sysctl(map[string]string{"nf_conntrack_checksum": "0", "nf_conntrack_tcp_be_liberal": "1"}); err != nil {
		return err
	}
	r.reader.Go(r.receive)
	if err := r.pass(ctx, packets); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latency, r.came, r.lost, r.count, r.wrong = speed.Histogram{}, 0, 0, 0, 0
	return nil
}

// round sends the packets for a while, with connection tracking emptied before each
// time.
func (r *kernelRun) round(ctx context.Context, packets []sent, lasts time.Duration) error {
	// To empty a large table of connections can take longer than a small capture.
	for took, begin := time.Duration(0), time.Now(); took < lasts && (took == 0 || time.Since(begin) < 3*lasts); {
		if err := r.Node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
			return fmt.Errorf("flush conntrack: %w", err)
		}
		start := time.Now()
		if err := r.pass(ctx, packets); err != nil {
			return err
		}
		took += time.Since(start)
		r.took += time.Since(start)
	}
	return nil
}

func (r *kernelRun) finish() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wrong > 0 {
		return fmt.Errorf("%d packets came out that policy denies", r.wrong)
	}
	r.row.PerSecond, r.row.Count, r.row.Lost = float64(r.count)/r.took.Seconds(), r.count, r.lost
	r.latency.Fill(&r.row)
	return nil
}

// close ends the reader and takes the node away.
func (r *kernelRun) close() error {
	if r.out != nil {
		r.out.Close()
	}
	r.reader.Wait()
	if r.benchNode == nil {
		return nil
	}
	return r.benchNode.close()
}

// maxTUN is the largest packet that passes.
const maxTUN = 65_000

// tunnels makes a device to write packets to and one, the default route, from which
// they come.
func (n *benchNode) tunnels() (in, out *os.File, err error) {
	open := func(name string) (*os.File, error) {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open /dev/net/tun: %w", err)
		}
		req, err := unix.NewIfreq(name)
		if err == nil {
			req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("make TUN device %s: %w", name, err)
		}
		f := os.NewFile(uintptr(fd), name)
		n.undo = append(n.undo, func() error {
			if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
				return err
			}
			return nil
		})
		link, err := netlink.LinkByName(name)
		if err != nil {
			return f, err
		}
		if err := errors.Join(netlink.LinkSetMTU(link, maxTUN), netlink.LinkSetTxQLen(link, 10_000), netlink.LinkSetUp(link)); err != nil {
			return f, fmt.Errorf("set up %s: %w", name, err)
		}
		return f, nil
	}
	err = n.Node.Do(func() (err error) {
		if in, err = open("in0"); err != nil {
			return err
		}
		if out, err = open("out0"); err != nil {
			return err
		}
		link, err := netlink.LinkByName("out0")
		if err != nil {
			return err
		}
		for _, dst := range []string{"0.0.0.0/0", "::/0"} {
			to, err := netlink.ParseIPNet(dst)
			if err != nil {
				return err
			}
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: to}); err != nil {
				return fmt.Errorf("route %s: %w", dst, err)
			}
		}
		return nil
	})
	return in, out, err
}
