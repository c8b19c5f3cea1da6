package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/postern-project/postern/test/lab"
)

// What bench kernel and bench connect run in: network namespaces of their own, made
// by the package that the end-to-end tests use, so that nothing of the host is
// touched and what is measured is what is tested.

// benchWorld is the cluster of both, where no captures are given: the client reaches
// the server by its account, the addresses of strangers by a prefix, and nobody else
// does.
var (
	benchClient    = netip.MustParseAddr("10.244.0.10")
	benchServer    = netip.MustParseAddr("10.244.0.20")
	benchStrangers = netip.MustParsePrefix("10.128.0.0/12")
)

const (
	benchPort  = 7000 // the first of
	benchPorts = 16
	benchQueue = 100
)

var benchManifests = fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: bench}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: client, namespace: bench}
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
`, benchClient, benchServer, benchPort, benchPort+benchPorts-1, benchStrangers, benchPort, benchPort+benchPorts-1)

// benchNode is the node of a lab, and what was started on it.
type benchNode struct {
	*lab.Lab
	undo []func() error
}

func newBenchNode() (*benchNode, error) {
	l, err := lab.New()
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	return &benchNode{Lab: l, undo: []func() error{l.Close}}, nil
}

// close undoes everything, the last first.
func (n *benchNode) close() error {
	var errs []error
	for i := len(n.undo) - 1; i >= 0; i-- {
		errs = append(errs, n.undo[i]())
	}
	n.undo = nil
	return errors.Join(errs...)
}

// sysctl sets values below /proc/sys/net/netfilter on the node, for the sake of the
// measurement: closed connections are forgotten at once, and captured packets pass
// whose checksums an offload never finished or whose windows do not fit.
func (n *benchNode) sysctl(values map[string]string) error {
	return n.Node.Do(func() error {
		for name, v := range values {
			if err := os.WriteFile(filepath.Join("/proc/sys/net/netfilter", name), []byte(v), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}

// run runs a program on a host to its end.
func (n *benchNode) run(h *lab.Host, stdin, program string, args ...string) error {
	return h.Do(func() error {
		cmd := exec.Command(program, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
		return nil
	})
}

// rules makes a table with one chain where postern has its own.
func (n *benchNode) rules(text string) error {
	return n.run(n.Node, "table inet rival {\nchain c {\ntype filter hook postrouting priority srcnat - 5\n"+text+"}\n}\n", "nft", "-f", "-")
}

// postern starts this program's own daemon on the node, with these manifests. At the
// end it must stop in order.
func (n *benchNode) postern(source string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// All load comes from a few addresses, which the guards are there to prevent, and
	// captured packets come from one device, whoever sent them.
	d, err := n.Node.StartDaemon(self, "run", "--source", source, "--socket", "", "--log-format", "json", "--flow-log", "none", "--queue", fmt.Sprint(benchQueue),
		"--guard-rate", "0", "--guard-portless-rate", "0", "--guard-known-rate", "0", "--anti-spoof", "off")
	if err != nil {
		return err
	}
	n.undo = append(n.undo, func() error { return d.Stop(syscall.SIGTERM) })
	_, err = d.WaitEnforcing(0)
	return err
}

// posternHere starts the daemon with the manifests of benchWorld.
func (n *benchNode) posternHere() error {
	dir, err := os.MkdirTemp("", "postern-bench")
	if err != nil {
		return err
	}
	n.undo = append(n.undo, func() error { return os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "world.yaml"), []byte(benchManifests), 0o644); err != nil {
		return err
	}
	return n.postern(dir)
}
