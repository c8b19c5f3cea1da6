package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern/test/lab"
)

// child gives the process that a keeper has started.
func (b *bench) child() int {
	b.Helper()
	pid := 0
	eventually(b.T, "the keeper has a child", func() bool {
		// The kernel lists children by the thread that started them.
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", b.daemon.PID()))
		for _, list := range lists {
			text, _ := os.ReadFile(list)
			if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
				pid = n
			}
		}
		return pid != 0
	})
	return pid
}

// stream sends datagrams, each of a flow of its own, until stop is closed, and returns
// how many it sent.
func (b *bench) stream(from, to string, stop <-chan struct{}) (sent int) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ; ; sent++ {
		select {
		case <-stop:
			return sent
		case <-tick.C:
		}
		src, dst := at(b.pods[from], sent%2 == 1, uint16(10000+sent)), at(b.pods[to], sent%2 == 1, 514)
		if err := b.pods[from].Send(udp(src, dst, binary.BigEndian.AppendUint32(nil, uint32(sent)))); err != nil {
			b.Error(err)
			return sent
		}
	}
}

// TestKeeper: under a keeper no end of the process that answers packets loses a packet
// of an allowed flow or lets one of a denied flow through.
func TestKeeper(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.launchUnder([]string{"keep", "--log-format", "json", "--watchdog", "2s", "--"}, "--source", b.dir)
	next, err := b.daemon.WaitEnforcing(0)
	if err != nil {
		t.Fatal(err)
	}
	db := b.sniff(b.pods["prod-engineering/db"])
	stop := make(chan struct{})
	end := sync.OnceFunc(func() { close(stop) })
	var sent, denied int
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(end)
	wg.Go(func() { sent = b.stream("prod-engineering/api", "prod-engineering/db", stop) })
	wg.Go(func() { denied = b.stream("prod-engineering/reports", "prod-engineering/db", stop) })

	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGABRT, syscall.SIGSTOP, syscall.SIGKILL} {
		time.Sleep(300 * time.Millisecond)
		pid := b.child()
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
		if next, err = b.daemon.WaitEnforcing(next); err != nil {
			t.Fatalf("after %v: %v", sig, err)
		}
		if again := b.child(); again == pid {
			t.Errorf("%v did not end the process", sig)
		}
	}
	time.Sleep(300 * time.Millisecond)
	end()
	wg.Wait()

	arrived := func(from string) int {
		seen := map[uint16]bool{}
		for _, p := range db.Packets() {
			if p.DstPort == 514 && (p.Src == b.pods[from].Addr4() || p.Src == b.pods[from].Addr6()) {
				seen[p.SrcPort] = true
			}
		}
		return len(seen)
	}
	eventually(t, fmt.Sprintf("all %d allowed datagrams arrive", sent), func() bool { return arrived("prod-engineering/api") == sent })
	if n := arrived("prod-engineering/reports"); n != 0 {
		t.Errorf("%d of %d denied datagrams arrived", n, denied)
	}
	if sent < 100 || denied < 100 {
		t.Errorf("%d allowed and %d denied datagrams were sent: too few to mean something", sent, denied)
	}
}

// TestKeeperEnds: a keeper ends with what it keeps when it is told to, or when the
// command line is refused.
func TestKeeperEnds(t *testing.T) {
	b := setup(t, examples)
	d, err := b.Node.StartDaemon(program, "keep", "--log-format", "json", "--", "run", "--source", b.dir, "--queues", "0")
	if err != nil {
		t.Fatal(err)
	}
	b.daemon = d
	eventually(t, "the keeper ends", func() bool { return d.Stop(syscall.Signal(0)) != nil || strings.Contains(d.Text(), "--queues 0") })

	b.launchUnder([]string{"keep", "--log-format", "json", "--"}, "--source", b.dir)
	if _, err := b.daemon.WaitEnforcing(0); err != nil {
		t.Fatal(err)
	}
	pid := b.child()
	if err := b.daemon.Stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("the process is still there: %v", err)
	}
}

// TestKeeperGivesUp: packets wait for a bounded time, and are dropped then.
func TestKeeperGivesUp(t *testing.T) {
	b := setup(t, examples)
	b.launchUnder([]string{"keep", "--log-format", "json", "--grace", "1s", "--"}, "--source", b.dir)
	if _, err := b.daemon.WaitEnforcing(0); err != nil {
		t.Fatal(err)
	}
	// The next process finds no manifest that it can read, and is not ready.
	b.writeOnly("broken.yaml", "kind: [")
	if err := syscall.Kill(b.child(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.daemon.Wait(0, 20*time.Second, func(l lab.Line) bool {
		return strings.HasPrefix(l.Text("message"), "descriptors closed")
	}); err != nil {
		t.Fatal(err)
	}
	b.reaches("prod-engineering/web", "prod-engineering/db", false, false)
	if err := os.Remove(b.dir + "/broken.yaml"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.daemon.WaitEnforcing(1 + len(b.daemon.Log(0)) - 1); err != nil {
		t.Fatal(err)
	}
}

// TestKeeperKeepsOthersAway: also in the moment between two processes no other postern
// can take the place, with queues of its own or with the same.
func TestKeeperKeepsOthersAway(t *testing.T) {
	b := setup(t, examples)
	b.launchUnder([]string{"keep", "--log-format", "json", "--grace", "20s", "--"}, "--source", b.dir)
	if _, err := b.daemon.WaitEnforcing(0); err != nil {
		t.Fatal(err)
	}
	refused := func(when string) {
		t.Helper()
		code, stderr := runOn(t, b.Node, nil, "run", "--source", b.dir, "--log-format", "json", "--queue", "200")
		if want := fmt.Sprintf("process %d (%s keep ", b.daemon.PID(), program); code != 4 || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d, said %q; want 4 and %q", when, code, stderr, want)
		}
	}
	refused("beside a keeper's process")
	// The keeper is stopped, so that for a while there is no other process.
	next := len(b.daemon.Log(0))
	child := b.child()
	for _, to := range []struct {
		pid int
		sig syscall.Signal
	}{{b.daemon.PID(), syscall.SIGSTOP}, {child, syscall.SIGKILL}} {
		if err := syscall.Kill(to.pid, to.sig); err != nil {
			t.Fatal(err)
		}
	}
	refused("between two processes")
	if err := syscall.Kill(b.daemon.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := b.daemon.WaitEnforcing(next); err != nil {
		t.Fatal(err)
	}
	refused("beside the next process")
}
