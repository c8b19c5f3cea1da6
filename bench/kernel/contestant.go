package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter/nfq"
	"github.com/postern-project/postern/test/lab"
)

// Addresses of the labs' pods. The client has all of strangers besides its own, so
// that no tuple need come twice.
var (
	clientAddr   = netip.MustParseAddr("10.244.0.10")
	serverAddr   = netip.MustParseAddr("10.244.0.20")
	attackerAddr = netip.MustParseAddr("10.244.0.66")
	strangers    = netip.MustParsePrefix("10.128.0.0/12")
)

// contestant is a lab with something on its node that lets the load pass.
type contestant struct {
	name                     string
	lab                      *lab.Lab
	client, server, attacker *lab.Host
	children                 []*exec.Cmd
	daemon                   *lab.Daemon
	decider                  int // process id of who decides in user space; 0 for nobody
	dir                      string
	sent                     int // connections of strangers so far
}

// kinds prepare a node, by name.
var kinds = map[string]func(*contestant, options) error{
	"none":      func(*contestant, options) error { return nil },
	"conntrack": (*contestant).conntrackOnly,
	"static":    (*contestant).staticMap,
	"raw":       func(c *contestant, _ options) error { return c.nullLoop("raw") },
	"callback":  func(c *contestant, _ options) error { return c.nullLoop("callback") },
	"postern":   (*contestant).postern,
}

// newContestant makes a lab in which the server listens.
func newContestant(kind, name string, o options) (c *contestant, err error) {
	c = &contestant{name: name}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", name, errors.Join(err, c.close()))
		}
	}()
	if c.lab, err = lab.New(); err != nil {
		return c, err
	}
	for _, p := range []struct {
		host **lab.Host
		name string
		addr netip.Addr
	}{{&c.client, "client", clientAddr}, {&c.server, "server", serverAddr}, {&c.attacker, "attacker", attackerAddr}} {
		if *p.host, err = c.lab.AddPod(p.name, p.addr); err != nil {
			return c, err
		}
	}
	if err := c.route(); err != nil {
		return c, err
	}
	if err := c.start(c.server, "serve", serverAddr.String()); err != nil {
		return c, err
	}
	return c, kinds[kind](c, o)
}

// route lets the client speak with every address of strangers.
func (c *contestant) route() error {
	// The client's link is the first one of the lab.
	if err := c.run(c.client, "ip", "route", "add", "local", strangers.String(), "dev", "lo"); err != nil {
		return err
	}
	if err := c.run(c.lab.Node, "sh", "-c", "ip route add "+strangers.String()+" via "+clientAddr.String()+
		" dev $(ip -o route get "+clientAddr.String()+" | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p') onlink"); err != nil {
		return err
	}
	return nil
}

// forgetSoon keeps conntrack small where there is conntrack: every connection of the
// load ends with a reset.
func (c *contestant) forgetSoon() error {
	return c.lab.Node.Do(func() error {
		return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close", []byte("1"), 0o644)
	})
}

func (c *contestant) conntrackOnly(options) error { return c.rules("ct state established accept\n") }

// staticMap knows the tuples of the load from the beginning.
func (c *contestant) staticMap(options) error {
	var tuples []string
	for port := firstPort; port <= lastPort; port++ {
		tuples = append(tuples, fmt.Sprintf("%s . %s . tcp . %d : accept", clientAddr, serverAddr, port))
	}
	return c.rules("ct state established accept\n" +
		"ip saddr . ip daddr . meta l4proto . th dport vmap { " + strings.Join(tuples, ", ") + " }\n" +
		"ip saddr " + strangers.String() + " accept\n" +
		"ip daddr " + serverAddr.String() + " counter drop\n")
}

// nullLoop queues what begins a flow, the way postern's table does where the kernel
// has no queue expression of its own.
func (c *contestant) nullLoop(child string) error {
	if err := c.start(c.lab.Node, child); err != nil {
		return err
	}
	c.decider = c.children[len(c.children)-1].Process.Pid
	if err := c.rules("ct state established accept\nct state invalid drop\nqueue num 100\n"); err == nil {
		return nil
	}
	if err := c.rules("ct state established accept\nct state invalid drop\n"); err != nil {
		return err
	}
	return c.lab.Node.Do(queueThroughTarget)
}

// rules makes a table with one chain where postern has its own.
func (c *contestant) rules(text string) error {
	table := "table inet t\ndelete table inet t\ntable inet t {\nchain c {\ntype filter hook postrouting priority srcnat - 5\n" + text + "}\n}\n"
	if err := c.lab.Node.Do(func() error {
		nft := exec.Command("nft", "-f", "-")
		nft.Stdin = strings.NewReader(table)
		if out, err := nft.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	}); err != nil {
		return err
	}
	return c.forgetSoon()
}

// postern lets the client in by its service account and strangers by address.
func (c *contestant) postern(o options) error {
	dir, err := os.MkdirTemp("", "postern-bench")
	if err != nil {
		return err
	}
	c.dir = dir
	if err := os.WriteFile(filepath.Join(dir, "world.yaml"), []byte(manifests), 0o644); err != nil {
		return err
	}
	if c.daemon, err = c.lab.Node.StartDaemon(o.program, "run", "--source", dir, "--socket", "", "--log-format", "json",
		"--queue", fmt.Sprint(queueNumber)); err != nil {
		return err
	}
	if _, err := c.daemon.WaitEnforcing(0); err != nil {
		return err
	}
	c.decider = c.daemon.PID()
	return c.forgetSoon()
}

var manifests = fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: bench}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: bench}
spec: {serviceAccountName: client}
status: {podIPs: [{ip: %s}], phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: bench, labels: {app: server}}
spec: {serviceAccountName: server}
status: {podIPs: [{ip: %s}], phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: attacker, namespace: bench}
spec: {serviceAccountName: attacker}
status: {podIPs: [{ip: %s}], phase: Running}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: server, namespace: bench}
spec:
  selector: app == 'server'
  types: [Ingress]
  ingress:
  - action: Allow
    protocol: TCP
    source: {serviceAccounts: {names: [client]}}
    destination: {ports: ["%d:%d"]}
  - action: Allow
    protocol: TCP
    source: {nets: [%s]}
    destination: {ports: ["%d:%d"]}
`, clientAddr, serverAddr, attackerAddr, firstPort, lastPort, strangers, firstPort, lastPort)

// start runs a child on a host and waits until it says that it listens.
func (c *contestant) start(h *lab.Host, args ...string) error {
	cmd, err := child(args...)
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := h.Start(cmd); err != nil {
		return err
	}
	c.children = append(c.children, cmd)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "listening\n" {
		return fmt.Errorf("child %v did not begin: %q, %v", args, line, err)
	}
	return nil
}

// child is this program as a child process that ends with this one.
func child(args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1") // signals interrupt system calls
	_, err = cmd.StdinPipe()                                    // closed with this process, which is the child's sign to end
	return cmd, err
}

// run runs a program on a host to its end.
func (c *contestant) run(h *lab.Host, program string, args ...string) error {
	return h.Do(func() error {
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s %v: %w: %s", program, args, err, out)
		}
		return nil
	})
}

// load puts a plan's load on the lab and waits for its end.
func (c *contestant) load(p plan) (l loaded, err error) {
	cmd, err := child(p.args()...)
	if err != nil {
		return l, err
	}
	var out strings.Builder
	cmd.Stdout = &out
	if err := c.client.Start(cmd); err != nil {
		return l, err
	}
	if err := cmd.Wait(); err != nil {
		return l, fmt.Errorf("%s: load: %w", c.name, err)
	}
	if err := json.Unmarshal([]byte(out.String()), &l); err != nil {
		return l, fmt.Errorf("%s: load: %w", c.name, err)
	}
	if l.Connections == 0 {
		return l, fmt.Errorf("%s: no connection succeeded, %d failed: %s", c.name, l.Failures, l.Error)
	}
	return l, nil
}

// known completes a plan for load from one address, so that its tuples come again and again.
func known(p plan) plan {
	p.to, p.from, p.sources, p.most = serverAddr, clientAddr, 1, mostConnections
	return p
}

// fresh completes a plan for load whose tuples have not been seen before in this lab.
func (c *contestant) fresh(p plan) plan {
	p.to, p.from, p.sources, p.first, p.most = serverAddr, strangers.Addr().Next(), 1<<20, c.sent, mostConnections
	return p
}

// mostConnections bounds the load of a round.
const mostConnections = 60_000

// processorTime is what the decider has used so far: in all, and outside the kernel.
// The second is counted by the clock's ticks.
func (c *contestant) processorTime() (all, user time.Duration, err error) {
	if c.decider == 0 {
		return 0, 0, nil
	}
	for clock, to := range map[int]*time.Duration{2: &all, 1: &user} {
		// linux/posix-timers.h: the complement of the process id, and which clock.
		var t unix.Timespec
		if err := unix.ClockGettime(int32(^c.decider<<3|clock), &t); err != nil {
			return 0, 0, fmt.Errorf("%s: clock of process %d: %w", c.name, c.decider, err)
		}
		*to = time.Duration(t.Nano())
	}
	return all, user, nil
}

// everQueued is how many packets have been handed to the decider.
func (c *contestant) everQueued() (n int, err error) {
	if c.decider == 0 {
		return 0, nil
	}
	err = c.lab.Node.Do(func() error {
		s, ok, err := nfq.ReadKernelStats(queueNumber)
		if err == nil && !ok {
			err = fmt.Errorf("%s: queue %d is not bound", c.name, queueNumber)
		}
		n = int(s.LastID)
		return err
	})
	return n, err
}

func (c *contestant) close() error {
	var errs []error
	if c.daemon != nil {
		errs = append(errs, c.daemon.Stop(syscall.SIGTERM))
	}
	for _, cmd := range c.children {
		cmd.Process.Kill()
		cmd.Wait()
	}
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	if c.lab != nil {
		errs = append(errs, c.lab.Close())
	}
	return errors.Join(errs...)
}

// buildProgram builds postern as it is released.
func buildProgram() (program string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "postern-bench")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	program = filepath.Join(dir, "postern")
	build := exec.Command("go", "build", "-C", "..", "-trimpath", "-o", program, "./cmd/postern")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		remove()
		return "", nil, fmt.Errorf("build postern: %w: %s", err, out)
	}
	return program, remove, nil
}
