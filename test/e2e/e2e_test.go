package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern/filter/nfq"
	"github.com/postern-project/postern/test/lab"
)

// program is the binary under test: what PROGRAM_UNDER_TEST names, for a machine that
// has no Go, or else one that is built with the race detector.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if program = os.Getenv("PROGRAM_UNDER_TEST"); program != "" {
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "postern-e2e")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "postern")
		build := exec.Command("go", "build", "-race", "-o", program, "../../cmd/postern")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// queue is the number that tests use.
const queue = 100

// patience is how long an exchange that must succeed may take, and impatience how
// long one that must not is waited for: longer than a retransmitted SYN takes.
const (
	patience   = 15 * time.Second
	impatience = 1200 * time.Millisecond
)

// bench is a lab with a daemon that enforces a directory of manifests.
type bench struct {
	*testing.T
	*lab.Lab
	pods   map[string]*lab.Host
	dir    string
	socket string
	daemon *lab.Daemon
	marker int // see settled
}

// examples are the manifests that the documentation shows.
const examples = "../../docs/examples/service-accounts"

// setup makes a lab with the pods of a directory, whose manifests are copied so
// that the test can change them.
func setup(t *testing.T, manifests string) *bench {
	t.Helper()
	l, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	pods, err := l.AddPods(manifests)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, Lab: l, pods: pods, dir: t.TempDir(), socket: filepath.Join(t.TempDir(), "postern.sock")}
	if err := os.CopyFS(b.dir, os.DirFS(manifests)); err != nil {
		t.Fatal(err)
	}
	return b
}

// start starts the daemon and waits until it enforces.
func (b *bench) start(args ...string) {
	b.Helper()
	b.launch(args...)
	if _, err := b.daemon.WaitEnforcing(0); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) launch(args ...string) {
	b.Helper()
	b.launchWith(append([]string{"--source", b.dir}, args...)...)
}

// launchWith starts the daemon with a source of any kind.
func (b *bench) launchWith(args ...string) {
	b.Helper()
	b.launchUnder(nil, args...)
}

// launchUnder does, by way of another command of the program.
func (b *bench) launchUnder(command []string, args ...string) {
	b.Helper()
	args = append([]string{"run", "--socket", b.socket, "--queue", fmt.Sprint(queue), "--flow-log", "all", "--flow-log-rate", "0", "--flow-log-interval", "0", "--log-format", "json"}, args...)
	args = append(command, args...)
	d, err := b.Node.StartDaemon(program, args...)
	if err != nil {
		b.Fatal(err)
	}
	b.daemon = d
	b.Cleanup(func() {
		if err := d.Stop(syscall.SIGTERM); err != nil {
			b.Errorf("daemon: %v", err)
		}
		if text := d.Text(); strings.Contains(text, "DATA RACE") {
			b.Errorf("the daemon raced:\n%s", text)
		}
	})
}

// write changes a manifest, as an editor or a deployment tool would: aside, and
// renamed. It waits until the daemon enforces the result.
func (b *bench) write(name, text string) {
	b.Helper()
	from := len(b.daemon.Log(0))
	b.writeOnly(name, text)
	if _, err := b.daemon.WaitEnforcing(from); err != nil {
		b.Fatal(err)
	}
}

// edit replaces text in a manifest.
func (b *bench) edit(name, old, new string) {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		b.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		b.Fatalf("%s does not hold %q", name, old)
	}
	b.write(name, strings.Replace(string(text), old, new, 1))
}

// serve listens on every pod and on the node.
func (b *bench) serve(ports ...uint16) {
	b.Helper()
	hosts := []*lab.Host{b.Node}
	for _, p := range b.pods {
		hosts = append(hosts, p)
	}
	for _, h := range hosts {
		s, err := h.Serve(ports...)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
	}
}

// sniff records at a host until the test ends.
func (b *bench) sniff(h *lab.Host) *lab.Sniffer {
	b.Helper()
	s, err := h.Sniff()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Stop(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// kernel reads the kernel's counters of the queue.
func (b *bench) kernel() (s nfq.KernelStats) {
	b.Helper()
	err := b.Node.Do(func() (err error) {
		var ok bool
		if s, ok, err = nfq.ReadKernelStats(queue); err == nil && !ok {
			err = fmt.Errorf("queue %d is not bound", queue)
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// nft runs the nft program on the node and returns what it prints.
func (b *bench) nft(args ...string) string {
	b.Helper()
	var out []byte
	if err := b.Node.Do(func() (err error) {
		out, err = exec.Command("nft", args...).CombinedOutput()
		return err
	}); err != nil {
		b.Fatalf("nft %v: %v: %s", args, err, out)
	}
	return string(out)
}

func at(h *lab.Host, six bool, port uint16) netip.AddrPort {
	if six {
		return netip.AddrPortFrom(h.Addr6(), port)
	}
	return netip.AddrPortFrom(h.Addr4(), port)
}

// bothFamilies runs f for IPv4 and for IPv6.
func bothFamilies(t *testing.T, f func(t *testing.T, six bool)) {
	for _, six := range []bool{false, true} {
		t.Run(map[bool]string{false: "ipv4", true: "ipv6"}[six], func(t *testing.T) { f(t, six) })
	}
}
