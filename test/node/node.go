package node

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/postern-project/postern/test/apiserver"
	programs "github.com/postern-project/postern/test/kubernetes"
	"github.com/postern-project/postern/test/lab"
)

// Name is the node's name in the cluster.
const Name = "node1"

// agentImage is what pods run.
const agentImage = "local/agent:1"

// posternImage is what deploy/Dockerfile makes: the program alone.
const posternImage = "local/postern:1"

const patience = 3 * time.Minute

// Node is a running node and its cluster.
type Node struct {
	*lab.Lab
	API    *apiserver.Server
	Client *kubernetes.Clientset

	dir       string
	forwarder *lab.Forwarder
	programs  []*program
}

// program is one that runs in a network namespace, and dies with this process.
type program struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{}
}

// needs are the programs that must be installed, and Debian's packages of them.
var needs = map[string]string{
	"containerd": "containerd", "ctr": "containerd", "runc": "runc", "nft": "nftables", "unshare": "util-linux",
	"/usr/lib/cni/ptp": "containernetworking-plugins", "/usr/lib/cni/host-local": "containernetworking-plugins",
}

// Start starts a node, in a minute or less once the programs are built. Addresses is
// how many addresses there are for pods: those of pods that are gone are used again.
func Start(addresses int) (_ *Node, err error) {
	for name, deb := range needs {
		if _, err := exec.LookPath(name); err != nil {
			return nil, fmt.Errorf("node: the program %s is missing; Debian has it in the package %s", name, deb)
		}
	}
	n := &Node{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("node: %w", err), n.Close())
		}
	}()
	if n.dir, err = os.MkdirTemp("", "postern-node-"); err != nil {
		return nil, err
	}
	if n.Lab, err = lab.New(); err != nil {
		return nil, err
	}
	if n.API, err = apiserver.Start("--kubelet-preferred-address-types", "InternalIP"); err != nil {
		return nil, err
	}
	if n.Client, err = kubernetes.NewForConfig(n.API.Admin()); err != nil {
		return nil, err
	}
	u, err := url.Parse(n.API.Admin().Host)
	if err != nil {
		return nil, err
	}
	if n.forwarder, err = n.Node.Forward(u.Host); err != nil {
		return nil, err
	}
	if err := n.images(); err != nil {
		return nil, err
	}
	if err := n.files(addresses); err != nil {
		return nil, err
	}
	return n, n.start()
}

// images builds the programs that pods run, and their images: the agent, whose image is
// the sandbox's too, and postern.
func (n *Node) images() error {
	for _, of := range []struct{ name, image, source string }{
		{"agent", agentImage, "github.com/postern-project/postern/test/node/agent"},
		{"postern", posternImage, "github.com/postern-project/postern/cmd/postern"},
	} {
		build := exec.Command("go", "build", "-trimpath", "-o", n.path(of.name), of.source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build: %w\n%s", err, out)
		}
		if err := writeImage(n.path(of.name+".tar"), of.image, n.path(of.name)); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) path(name string) string { return filepath.Join(n.dir, name) }

// files writes what the programs read.
func (n *Node) files(addresses int) error {
	cni := fmt.Sprintf(`{"cniVersion":"0.4.0","name":"lab","plugins":[{"type":"ptp","ipam":{"type":"host-local","dataDir":%q,
		"ranges":[[{"subnet":"10.244.1.0/24","rangeStart":"10.244.1.10","rangeEnd":"10.244.1.%d"}],[{"subnet":"fd00:244:1::/64","rangeStart":"fd00:244:1::10","rangeEnd":"fd00:244:1::%x"}]],
		"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}]}`, n.path("ipam"), 9+addresses, 15+addresses)
	containerd := fmt.Sprintf(`version = 2
root = %q
state = %q
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = %q
`, n.path("ctd"), n.path("run"), n.path("containerd.sock"), agentImage, n.path("cni"))
	kubelet := fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /
containerRuntimeEndpoint: unix://%s
failSwapOn: false
enforceNodeAllocatable: []
evictionHard: {nodefs.available: "1%%", imagefs.available: "1%%", memory.available: "100Mi"}
makeIPTablesUtilChains: false
syncFrequency: 2s
`, n.path("containerd.sock"))
	// containerd and kubelet share one namespace of processes and mounts: when its
	// first process is killed, everything in it goes, and every mount too.
	script := fmt.Sprintf(`set -eu
mount --make-rshared / 2>/dev/null || true
containerd -c %s >%s 2>&1 &
i=0
until ctr -a %s version >/dev/null 2>&1; do i=$((i+1)); [ $i -lt 300 ] || exit 1; sleep 0.2; done
for image in %[4]s %[5]s; do ctr -a %[3]s -n k8s.io images import $image >/dev/null; done
exec "$@"
`, n.path("containerd.toml"), n.path("containerd.log"), n.path("containerd.sock"), n.path("agent.tar"), n.path("postern.tar"))
	if err := os.MkdirAll(n.path("cni"), 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{"cni/10-ptp.conflist": cni, "containerd.toml": containerd, "kubelet.yaml": kubelet, "start.sh": script} {
		if err := os.WriteFile(n.path(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// start starts the programs, and waits until the node is ready for pods.
func (n *Node) start() error {
	kubeconfig, err := n.API.Kubeconfig("")
	if err != nil {
		return err
	}
	path := map[string]string{}
	for _, name := range []string{"kubelet", "kube-proxy", "kube-controller-manager", "kube-scheduler"} {
		if path[name], err = programs.Program(name); err != nil {
			return err
		}
	}
	if err := n.Node.Do(func() error { return exec.Command("ip", "route", "add", "default", "dev", "node0").Run() }); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	key, ca := n.API.Files()
	for _, p := range [][]string{
		{path["kube-controller-manager"], "--kubeconfig", kubeconfig, "--service-account-private-key-file", key, "--root-ca-file", ca, "--leader-elect=false", "--use-service-account-credentials", "--secure-port", "0",
			"--allocate-node-cidrs", "--cluster-cidr", "10.244.1.0/24,fd00:244:1::/64", "--node-cidr-mask-size-ipv4", "24", "--node-cidr-mask-size-ipv6", "64"},
		{path["kube-scheduler"], "--kubeconfig", kubeconfig, "--leader-elect=false", "--secure-port", "0"},
		{"unshare", "--pid", "--fork", "--kill-child=KILL", "--mount", "--mount-proc", "sh", n.path("start.sh"),
			path["kubelet"], "--config", n.path("kubelet.yaml"), "--kubeconfig", kubeconfig, "--hostname-override", Name, "--node-ip", lab.NodeAddr4.String() + "," + lab.NodeAddr6.String(), "--root-dir", n.path("kubelet")},
		{path["kube-proxy"], "--kubeconfig", kubeconfig, "--hostname-override", Name, "--proxy-mode", "nftables", "--cluster-cidr", "10.244.0.0/16,fd00:244::/32", "--conntrack-max-per-core", "0"},
	} {
		if err := n.run(p...); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		node, err := n.Client.CoreV1().Nodes().Get(ctx, Name, metav1.GetOptions{})
		if err == nil {
			for _, c := range node.Status.Conditions {
				if c.Type == "Ready" && c.Status == "True" && len(node.Spec.PodCIDRs) == 2 {
					return nil
				}
			}
		}
		for _, p := range n.programs {
			select {
			case <-p.exited:
				return fmt.Errorf("%s ended: %s", p.name, n.Logs())
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the node did not become ready: %v: %s", err, n.Logs())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// run starts a program in the node's network namespace.
func (n *Node) run(args ...string) error {
	p := &program{name: filepath.Base(args[0]), cmd: exec.Command(args[0], args[1:]...), exited: make(chan struct{})}
	log, err := os.Create(n.path(p.name + ".log"))
	if err != nil {
		return err
	}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	// The thread that starts it must live as long as it: see Pdeathsig.
	go n.Node.Do(func() error {
		defer log.Close()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.cmd.Wait()
			close(p.exited)
		}
		return nil
	})
	if err := <-started; err != nil {
		return err
	}
	n.programs = append(n.programs, p)
	return nil
}

// Logs are the ends of the programs' logs.
func (n *Node) Logs() string {
	var all strings.Builder
	logs, _ := filepath.Glob(n.path("*.log"))
	for _, l := range logs {
		text, _ := os.ReadFile(l)
		fmt.Fprintf(&all, "\n--- %s\n%s", filepath.Base(l), text[max(0, len(text)-2500):])
	}
	return all.String()
}

// Close ends all programs and pods, and removes what they made.
func (n *Node) Close() error {
	var errs []error
	for i := range n.programs {
		p := n.programs[len(n.programs)-1-i]
		p.cmd.Process.Kill()
		<-p.exited
	}
	if n.forwarder != nil {
		errs = append(errs, n.forwarder.Close())
	}
	if n.API != nil {
		errs = append(errs, n.API.Close())
	}
	if n.Lab != nil {
		errs = append(errs, n.Lab.Close())
	}
	removeCgroups("/sys/fs/cgroup/kubepods")
	if n.dir != "" {
		errs = append(errs, removeAll(n.dir))
	}
	return errors.Join(errs...)
}

// removeCgroups removes the directories that kubelet made; those of another kubelet
// are not empty and stay.
func removeCgroups(dir string) {
	var dirs []string
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for i := range dirs {
		syscall.Rmdir(dirs[len(dirs)-1-i])
	}
}

// removeAll removes a directory whose mounts may take a moment to go.
func removeAll(dir string) (err error) {
	for range 50 {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}
