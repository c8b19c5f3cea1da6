package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/postern-project/postern/test/lab"
)

// The exceptions of docs/operate.md, each with the fault that brings it about: with the
// default nothing passes, and where a setting lets packets pass, they are counted.

// stopped is the daemon while it answers nobody: a thread may go on for a while after the
// signal was sent, so all are waited for.
func (b *bench) stopped(f func()) {
	b.Helper()
	if err := syscall.Kill(b.daemon.PID(), syscall.SIGSTOP); err != nil {
		b.Fatal(err)
	}
	defer syscall.Kill(b.daemon.PID(), syscall.SIGCONT)
	eventually(b.T, "every thread of the daemon is stopped", func() bool {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", b.daemon.PID()))
		if err != nil || len(files) == 0 {
			b.Fatalf("no threads of process %d: %v", b.daemon.PID(), err)
		}
		for _, file := range files {
			// proc(5): the state is the word after the name, which is in brackets.
			text, err := os.ReadFile(file)
			if err != nil || !strings.Contains(string(text), ") T ") {
				return false
			}
		}
		return true
	})
	f()
}

// denied sends numbered packets that policy denies, of a flow each.
func (b *bench) denied(n int, port uint16) {
	b.Helper()
	from, to := b.pods["prod-engineering/reports"], b.pods["prod-engineering/db"]
	for i := range n {
		if err := from.Send(udp(at(from, false, uint16(10000+i)), at(to, false, port), []byte("x"))); err != nil {
			b.Fatal(err)
		}
	}
}

func TestQueueFull(t *testing.T) {
	for action, passes := range map[string]bool{"drop": false, "accept": true} {
		t.Run(action, func(t *testing.T) {
			b := setup(t, examples)
			b.start("--queue-full", action, "--queue-length", "4", "--metrics-listen", listenAddress)
			sink := b.sniff(b.pods["prod-engineering/db"])
			arrived := func() int { return sink.Count(func(p lab.Packet) bool { return p.DstPort == 514 }) }
			eventually(t, "the queue is empty", func() bool { return b.kernel().Waiting == 0 })
			noRoom := 0
			b.stopped(func() {
				b.denied(12, 514)
				eventually(t, "the queue is full", func() bool { return b.kernel().Waiting == 4 })
				if passes {
					eventually(t, "what has no room passes", func() bool { return arrived() >= 8 })
					noRoom = arrived()
				} else {
					eventually(t, "what has no room is dropped", func() bool { return b.kernel().QueueDropped >= 8 })
					noRoom = int(b.kernel().QueueDropped)
				}
			})
			cause := `postern_dropped_packets_total{cause="queue-full"}`
			if passes {
				cause = `postern_failed_open_packets_total{cause="unanswered"}`
			}
			eventually(t, "it is counted", func() bool { return b.metric(cause) == float64(noRoom) })
			eventually(t, "those that waited are denied", func() bool {
				return b.kernel().Waiting == 0 && b.metric(`postern_dropped_packets_total{cause="policy"}`) >= 1
			})
			if n := arrived(); passes && n != noRoom || !passes && n != 0 || n == 12 {
				t.Errorf("%d packets arrived, and %d had no room", n, noRoom)
			}
		})
	}
}

func TestNoDaemon(t *testing.T) {
	t.Parallel()
	for action, passes := range map[string]bool{"drop": false, "accept": true} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			b := setup(t, examples)
			b.start("--no-daemon", action)
			sink := b.sniff(b.pods["prod-engineering/db"])
			arrived := func() int { return sink.Count(func(p lab.Packet) bool { return p.DstPort == 514 }) }
			b.denied(3, 513) // another port than later, since denied ways are remembered
			eventually(t, "they are denied", func() bool { return b.kernel().Waiting == 0 && b.kernel().LastID > 0 })
			if err := b.daemon.Stop(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			b.denied(5, 514)
			if passes {
				eventually(t, "they pass", func() bool { return arrived() == 5 })
			}
			// A next one judges, and tells what passed without it.
			b.start("--no-daemon", action, "--metrics-listen", listenAddress)
			if passes {
				if n := b.metric(`postern_failed_open_packets_total{cause="unanswered"}`); n != 5 {
					t.Errorf("%v packets are counted", n)
				}
			} else if n := arrived(); n != 0 {
				t.Errorf("%d packets arrived", n)
			}
			was := arrived()
			b.denied(2, 515)
			eventually(t, "the next one denies", func() bool { return b.metric(`postern_dropped_packets_total{cause="policy"}`) >= 1 })
			if n := sink.Count(func(p lab.Packet) bool { return p.DstPort == 515 }); n != 0 || arrived() != was {
				t.Errorf("%d packets arrived", n)
			}
		})
	}
}

func TestUndecodable(t *testing.T) {
	t.Parallel()
	for action, passes := range map[string]bool{"drop": false, "accept": true} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			b := setup(t, examples)
			b.start("--undecodable", action, "--metrics-listen", listenAddress)
			from, to := b.pods["prod-engineering/api"], b.pods["prod-engineering/db"]
			sink := b.sniff(to)
			// A protocol that conntrack does not look into, in a packet with more extension
			// headers than are read.
			opts := make([]byte, 8)
			ip := lab.IP(from.Addr6(), to.Addr6(), layers.IPProtocolIPv6Destination)
			var chain []byte
			for i := range 9 {
				next := byte(layers.IPProtocolIPv6Destination)
				if i == 8 {
					next = 253 // for experiments (RFC 3692)
				}
				opts[0], opts[1], opts[2], opts[3] = next, 0, 1, 4 // one PadN of six bytes
				chain = append(chain, opts...)
			}
			if err := from.Send(lab.Build(ip, gopacket.Payload(append(chain, "data"...)))); err != nil {
				t.Fatal(err)
			}
			if passes {
				eventually(t, "it passes", func() bool { return sink.Count(lab.From(from.Addr6())) >= 1 })
				eventually(t, "it is counted", func() bool { return b.metric(`postern_failed_open_packets_total{cause="undecodable"}`) == 1 })
				return
			}
			eventually(t, "it is counted", func() bool { return b.metric(`postern_dropped_packets_total{cause="undecodable"}`) == 1 })
			if n := sink.Count(lab.From(from.Addr6())); n != 0 {
				t.Errorf("%d packets arrived", n)
			}
		})
	}
}

// TestStale: a cluster that is out of reach for too long, and comes back.
func TestStale(t *testing.T) {
	t.Parallel()
	c := setupCluster(t)
	c.serve(5432)
	const api, reports, db = "prod-engineering/api", "prod-engineering/reports", "prod-engineering/db"
	run := func(action string) {
		t.Helper()
		c.launchWith("--kubeconfig", c.kubeconfig, "--node", "n1", "--state-file", c.state, "--stale", action, "--stale-after", "1s", "--metrics-listen", listenAddress)
		if _, err := c.daemon.WaitEnforcing(0); err != nil {
			t.Fatalf("%v\n%s", err, c.daemon.Text())
		}
	}
	cut := func() {
		t.Helper()
		if err := c.server.Kill(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.daemon.Wait(0, 2*time.Minute, lab.Message("the cluster has been out of reach for too long")); err != nil {
			t.Fatalf("%v\n%s", err, c.daemon.Text())
		}
	}
	run("drop")
	c.eventually(api, db, true) // which the kernel remembers
	cut()
	c.eventually(api, db, false)
	if n := c.metric(`postern_dropped_packets_total{cause="stale"}`); n < 1 {
		t.Errorf("%v packets are counted", n)
	}
	if code, text := c.status(); code != 0 || !strings.Contains(text, "out of reach for longer than --stale-after; new flows: drop") {
		t.Errorf("status %d:\n%s", code, text)
	}
	if err := c.server.Continue(); err != nil {
		t.Fatal(err)
	}
	c.eventually(api, db, true)
	c.eventually(reports, db, false)

	c.stopAndWait()
	run("accept")
	cut()
	c.eventually(reports, db, true)
	if n := c.metric(`postern_failed_open_packets_total{cause="stale"}`); n < 1 {
		t.Errorf("%v packets are counted", n)
	}
}
