package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter/capture"
	"github.com/postern-project/postern/test/lab"
)

// recorder writes down what the node receives from its pods, each packet once and
// before any rule has seen it.
type recorder struct {
	fd   int
	stop chan struct{}
	done sync.WaitGroup
	w    *capture.Writer
	err  error
}

func (b *bench) record(path string) *recorder {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	r := &recorder{stop: make(chan struct{})}
	if r.w, err = capture.NewWriter(f, "e2e"); err != nil {
		b.Fatal(err)
	}
	if err := b.Node.Do(func() (err error) {
		all := int(uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8)
		r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all)
		if err != nil {
			return err
		}
		tv := unix.NsecToTimeval(int64(20 * time.Millisecond))
		return errors.Join(unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
			unix.SetsockoptTimeval(r.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	}); err != nil {
		b.Fatal(err)
	}
	r.done.Go(func() {
		defer f.Close()
		r.run()
	})
	return r
}

func (r *recorder) run() {
	buf := make([]byte, 1<<17)
	for {
		n, from, err := unix.Recvfrom(r.fd, buf, 0)
		switch {
		case err == nil:
			ll, ok := from.(*unix.SockaddrLinklayer)
			ip := ok && (ll.Protocol == 0x0008 || ll.Protocol == 0xdd86)
			if !ip || ll.Pkttype == unix.PACKET_OUTGOING {
				continue
			}
			p := &capture.Packet{Time: time.Now(), Link: capture.Raw, Frame: buf[:n], Length: n}
			if r.err = r.w.Write(p, ""); r.err != nil {
				return
			}
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			select {
			case <-r.stop:
				r.err = r.w.Flush()
				return
			default:
			}
		default:
			r.err = err
			return
		}
	}
}

func (r *recorder) end() error {
	close(r.stop)
	r.done.Wait()
	return errors.Join(r.err, unix.Close(r.fd))
}

// judged is what is said of a flow, live or replayed.
type judged struct{ verdict, reason, direction, tier, policy, rule string }

// TestReplayEqualsLive records live traffic of many kinds on its way into the node
// and replays it: every flow that the daemon decided has the same verdict, reason and
// rule in the replay, and every flow of the replay was decided so by the daemon, or
// concerns no pod that a policy selects.
func TestReplayEqualsLive(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432, 53)
	b.start()
	path := filepath.Join(t.TempDir(), "live.pcapng")
	r := b.record(path)

	names := []string{"prod-engineering/api", "prod-engineering/auth", "prod-engineering/web", "prod-engineering/reports", "staging/api"}
	var wg sync.WaitGroup
	for _, name := range names {
		pod := b.pods[name]
		for _, to := range []string{"prod-engineering/db", "prod-engineering/web"} {
			if to == name {
				continue
			}
			for _, six := range []bool{false, true} {
				for _, network := range []string{"tcp", "udp"} {
					dst := at(b.pods[to], six, 5432)
					wg.Go(func() { pod.Exchange(network, dst, make([]byte, 3000), impatience) })
				}
			}
		}
	}
	wg.Wait()
	db := b.pods["prod-engineering/db"]
	for _, name := range names {
		for _, six := range []bool{false, true} {
			for _, packet := range crafted(b.pods[name], db, six) {
				if err := b.pods[name].Send(packet); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	eventually(t, "the queue is empty", func() bool { return b.kernel().Waiting == 0 })
	time.Sleep(300 * time.Millisecond) // for the log, which is written a moment later
	if err := r.end(); err != nil {
		t.Fatal(err)
	}

	live := map[string]judged{}
	for _, l := range b.daemon.Log(0) {
		if l.Text("message") != "flow" {
			continue
		}
		key := strings.Join([]string{l.Text("proto"), l.Text("src"), l.Text("dst"), l.Text("dport"), l.Text("icmp_type")}, " ")
		j := judged{l.Text("verdict"), l.Text("reason"), l.Text("direction"), l.Text("tier"), l.Text("policy"), l.Text("rule")}
		if before, ok := live[key]; ok && before != j {
			t.Errorf("%s: decided as %v and as %v", key, before, j)
		}
		live[key] = j
	}

	replay := exec.Command(program, "replay", path, "--policy", b.dir, "-o", "jsonl")
	var stderr bytes.Buffer
	replay.Stderr = &stderr
	out, err := replay.Output()
	if err != nil {
		t.Fatalf("replay: %v: %s", err, stderr.String())
	}
	replayed := map[string]bool{}
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var f struct {
			Verdict, Protocol, Source, Destination string
			DestinationPort                        uint16
			ICMPType                               *uint8
			Why                                    struct {
				Reason, Direction, Tier string
				Rule                    *struct {
					Namespace, Name string
					Index           int
				}
			}
		}
		if err := d.Decode(&f); err != nil {
			t.Fatal(err)
		}
		port, typ := "", ""
		if f.DestinationPort != 0 {
			port = fmt.Sprint(f.DestinationPort)
		}
		if f.ICMPType != nil {
			typ = fmt.Sprint(*f.ICMPType)
		}
		key := strings.Join([]string{f.Protocol, f.Source, f.Destination, port, typ}, " ")
		j := judged{verdict: f.Verdict, reason: f.Why.Reason, direction: f.Why.Direction, tier: f.Why.Tier}
		if w := f.Why.Rule; w != nil {
			j.policy, j.rule = w.Namespace+"/"+w.Name, fmt.Sprint(w.Index)
		}
		replayed[key] = true
		want, asked := live[key]
		switch {
		case asked && j != want:
			t.Errorf("%s: replayed %v, live %v", key, j, want)
		case asked, j.reason == "tunnel": // which the kernel drops unasked
		case j.verdict != "allow", j.reason != "profile":
			t.Errorf("%s: replayed %v, and the daemon was not asked", key, j)
		}
	}
	denied := 0
	for key, j := range live {
		if !replayed[key] {
			t.Errorf("%s: live %v, not in the replay", key, j)
		}
		if j.verdict == "deny" {
			denied++
		}
	}
	if denied < 10 || len(live)-denied < 10 {
		t.Errorf("%d flows were decided, %d of them denied: too few to tell", len(live), denied)
	}
}

// crafted are packets that programs do not send.
func crafted(from, to *lab.Host, six bool) [][]byte {
	src, dst := at(from, six, 4001), at(to, six, 5432)
	ip := func(proto layers.IPProtocol) gopacket.SerializableLayer { return lab.IP(src.Addr(), dst.Addr(), proto) }
	echo := lab.Build(ip(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 7})
	stray := lab.Build(ip(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(0, 0), Id: 9})
	if six {
		echo = lab.Build(ip(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}, &layers.ICMPv6Echo{Identifier: 7})
		stray = lab.Build(ip(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(129, 0)}, &layers.ICMPv6Echo{Identifier: 9})
	}
	tcp := func(sport, dport uint16, l layers.TCP) []byte {
		l.SrcPort, l.DstPort, l.Window, l.Seq = layers.TCPPort(sport), layers.TCPPort(dport), 1000, 1
		return lab.Build(ip(layers.IPProtocolTCP), &l)
	}
	return [][]byte{
		echo, echo, stray,
		tcp(4001, 81, layers.TCP{SYN: true}), tcp(4001, 81, layers.TCP{SYN: true}),
		tcp(4002, 82, layers.TCP{SYN: true, ACK: true, Ack: 1}),
		tcp(4003, 83, layers.TCP{ACK: true, Ack: 1}), // picked up
		tcp(4004, 84, layers.TCP{RST: true}),
		tcp(4005, 85, layers.TCP{FIN: true, ACK: true, Ack: 1}),
		tcp(4006, 86, layers.TCP{}),
		udp(at(from, six, 4001), at(to, six, 4789), []byte("no tunnel, though it looks like one")),
		lab.Build(ip(layers.IPProtocolSCTP), &layers.SCTP{SrcPort: 4001, DstPort: 5432},
			&layers.SCTPInit{SCTPChunk: layers.SCTPChunk{Type: layers.SCTPChunkTypeInit, Length: 20}, InitiateTag: 1, AdvertisedReceiverWindowCredit: 1500, OutboundStreams: 1, InboundStreams: 1, InitialTSN: 1}),
		lab.Build(ip(layers.IPProtocolGRE), gopacket.Payload([]byte{0, 0, 8, 0, 1, 2, 3, 4})),
		lab.Build(ip(253), gopacket.Payload("anything")),
	}
}
