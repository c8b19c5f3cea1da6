package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern-project/postern/bench/report"
	"github.com/postern-project/postern/test/apiserver"
	"github.com/postern-project/postern/test/lab"
)

func main() {
	s := size{}
	flag.IntVar(&s.pods, "pods", 100_000, "pods")
	flag.IntVar(&s.accounts, "accounts", 10_000, "service accounts")
	flag.IntVar(&s.policies, "policies", 10_000, "policies")
	flag.IntVar(&s.nodes, "nodes", 1000, "nodes that the pods are spread over")
	rounds := flag.Int("rounds", 100, "changes of each kind whose latency is measured")
	rate := flag.Int("rate", 100, "events a second")
	data := flag.String("data", "", "directory for what the loaded API server stores: one of the same size is used instead of loading again")
	loadOnly := flag.Bool("load", false, "load into -data, and measure nothing")
	write := flag.String("write", "", "the file whose table is to be replaced")
	flag.Parse()
	if *loadOnly && *data == "" {
		fmt.Fprintln(os.Stderr, "kube: -load needs -data")
		os.Exit(2)
	}
	r := report.New()
	err, met := run(r, s, *data, *loadOnly, *rounds, *rate), *loadOnly
	if err == nil && !*loadOnly {
		met, err = r.Finish(*write)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kube:", err)
	}
	if err != nil || !met {
		os.Exit(1)
	}
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "kube: "+format+"\n", args...) }

func run(r *report.Report, s size, data string, loadOnly bool, rounds, rate int) error {
	dir, err := os.MkdirTemp("", "postern-bench-kube")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	if data == "" {
		data = dir
	}
	data = filepath.Join(data, s.String())
	if _, err := os.Stat(data); errors.Is(err, os.ErrNotExist) {
		if err := fill(s, root, data); err != nil {
			return fmt.Errorf("load: %w", err)
		}
	}
	if loadOnly {
		return nil
	}
	return measure(r, s, root, dir, data, rounds, rate)
}

// busy lets loader and events ask as much as the machine can answer.
var busy = []string{"--max-requests-inflight", "2000", "--max-mutating-requests-inflight", "1000"}

// fill loads an API server and saves what it stores.
func fill(s size, root, data string) (err error) {
	ctx := context.Background()
	if err := os.MkdirAll(filepath.Dir(data), 0o755); err != nil {
		return err
	}
	server, err := apiserver.StartWith(apiserver.Options{Args: busy, NewEtcd: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	if err := server.Apply(ctx, filepath.Join(root, "deploy/crds"), filepath.Join(root, "deploy/kubernetes/namespace.yaml"), filepath.Join(root, "deploy/kubernetes/rbac.yaml")); err != nil {
		return err
	}
	c, err := newCluster(server.Admin(), s)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := c.load(ctx, server); err != nil {
		return err
	}
	say("loaded in %.0f s", time.Since(began).Seconds())
	return server.Save(data)
}

func measure(r *report.Report, s size, root, dir, data string, rounds, rate int) (err error) {
	ctx := context.Background()
	program := filepath.Join(dir, "postern")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "./cmd/postern")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	server, err := apiserver.StartWith(apiserver.Options{Args: busy, NewEtcd: true, Data: data})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	c, err := newCluster(server.Admin(), s)
	if err != nil {
		return err
	}
	if err := c.warm(ctx); err != nil {
		return err
	}
	if err := c.complete(ctx); err != nil {
		return err
	}

	// Two pods of this node that exist for real.
	l, err := lab.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	client, err := l.AddPod("client", address(s.pods))
	if err != nil {
		return err
	}
	destination, err := l.AddPod("server", address(s.pods+1))
	if err != nil {
		return err
	}
	if err := c.probes(ctx, client, destination); err != nil {
		return err
	}
	u, err := url.Parse(server.Admin().Host)
	if err != nil {
		return err
	}
	f, err := l.Node.Forward(u.Host)
	if err != nil {
		return err
	}
	defer f.Close()
	kubeconfig, err := server.Kubeconfig("system:serviceaccount:postern:postern")
	if err != nil {
		return err
	}

	begin := time.Now()
	d, err := l.Node.StartDaemon(program, "run", "--kubeconfig", kubeconfig, "--node", localNode, "--state-file", filepath.Join(dir, "state"),
		"--socket", filepath.Join(dir, "socket"), "--flow-log", "none", "--log-format", "json")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Stop(syscall.SIGTERM)) }()
	if _, _, err := d.Wait(0, 5*time.Minute, lab.Message("enforcing")); err != nil {
		return err
	}
	r.Add("start/enforcing-s", time.Since(begin).Seconds(), report.AtMost(10))
	m, err := memory(d.PID())
	if err != nil {
		return err
	}
	r.Add("start/resident-MB", m["VmHWM"], report.AtMost(300))
	say("enforcing after %.1f s, %.0f MB at most", time.Since(begin).Seconds(), m["VmHWM"])

	// The quiet: memory that the start has left goes back.
	time.Sleep(30 * time.Second)
	churning, stop := context.WithCancel(ctx)
	defer stop()
	type result struct {
		n   int
		err error
	}
	churned := make(chan result, 1)
	churnBegan := time.Now()
	go func() { n, err := c.churn(churning, rate); churned <- result{n, err} }()
	time.Sleep(5 * time.Second)
	cpu0, err := cpu(d.PID())
	if err != nil {
		return err
	}
	const window = 30 * time.Second
	time.Sleep(window)
	cpu1, err := cpu(d.PID())
	if err != nil {
		return err
	}
	if m, err = memory(d.PID()); err != nil {
		return err
	}
	r.Add("steady/resident-MB", m["VmRSS"], report.AtMost(250))
	r.Add("steady/cores", (cpu1-cpu0)/window.Seconds(), report.AtMost(0.2))
	say("steady: %.0f MB, %.2f cores", m["VmRSS"], (cpu1-cpu0)/window.Seconds())

	p, err := startProbe(client, destination)
	if err != nil {
		return err
	}
	defer p.close()
	for _, change := range c.changes() {
		all, err := p.latencies(ctx, rounds, change.on, change.off)
		if err != nil {
			return fmt.Errorf("%s: %w", change.name, err)
		}
		// The next change has to be what turns the access on.
		if err := change.off(ctx); err != nil {
			return fmt.Errorf("%s: %w", change.name, err)
		}
		r.Add("latency/"+change.name+"/p50-ms", quantile(all, 0.5), report.AtMost(20))
		r.Add("latency/"+change.name+"/p99-ms", quantile(all, 0.99), report.AtMost(100))
		say("%s: p50 %.1f ms, p99 %.1f ms", change.name, quantile(all, 0.5), quantile(all, 0.99))
	}
	stop()
	of := <-churned
	if of.err != nil {
		return fmt.Errorf("churn: %w", of.err)
	}
	r.Add("churn/events-per-s", float64(of.n)/time.Since(churnBegan).Seconds(), report.AtLeast(0.95*float64(rate)))
	return nil
}

// probes creates the two pods, their accounts, and the policy between them.
func (c *cluster) probes(ctx context.Context, client, destination *lab.Host) error {
	if err := c.typedAccounts(ctx, "client-sa", "server-sa"); err != nil {
		return err
	}
	if err := c.writePod(ctx, "ns-00", "client", localNode, "client-sa", map[string]string{"may": "no"}, client.Addr4()); err != nil {
		return err
	}
	if err := c.writePod(ctx, "ns-00", "server", localNode, "server-sa", map[string]string{"role": "server"}, destination.Addr4()); err != nil {
		return err
	}
	o := policyObject(0)
	o.SetName("probe")
	o.Object["spec"] = map[string]any{"order": 1.0, "selector": "role == 'server'", "ingress": rulesFor("may == 'yes'")}
	_, err := c.dynamic.Resource(policyResource).Namespace("ns-00").Create(ctx, o, create)
	return err
}

// rulesFor allows by the account's label, by the pod's label, and by what the policy
// says itself: each change measures one of them.
func rulesFor(selector string) []any {
	return []any{
		map[string]any{"action": "Allow", "source": map[string]any{"serviceAccounts": map[string]any{"selector": "may == 'yes'"}}},
		map[string]any{"action": "Allow", "source": map[string]any{"selector": selector}},
	}
}

// change is a way to turn the probe's access on and off.
type change struct {
	name    string
	on, off func(context.Context) error
}

func (c *cluster) changes() []change {
	account := func(value string) func(context.Context) error {
		return func(ctx context.Context) error { return c.labelAccount(ctx, "ns-00", "client-sa", "may", value) }
	}
	pod := func(value string) func(context.Context) error {
		return func(ctx context.Context) error { return c.labelPod(ctx, "ns-00", "client", "may", value) }
	}
	policy := func(action string) func(context.Context) error {
		return func(ctx context.Context) error {
			return c.patchPolicy(ctx, "ns-00", "probe", fmt.Sprintf(`{"spec":{"ingress":[{"action":%q}]}}`, action))
		}
	}
	return []change{
		{"account-label", account("yes"), account("no")},
		{"pod-label", pod("yes"), pod("no")},
		{"policy", policy("Allow"), policy("Deny")},
	}
}

// memory reads the sizes of a process in MB.
func memory(pid int) (map[string]float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	m := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[2] == "kB" {
			kb, _ := strconv.ParseFloat(f[1], 64)
			m[strings.TrimSuffix(f[0], ":")] = kb * 1024 / 1e6
		}
	}
	return m, nil
}

// cpu reads the processor time of a process in seconds.
func cpu(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	user, err1 := strconv.ParseFloat(string(f[11]), 64)
	system, err2 := strconv.ParseFloat(string(f[12]), 64)
	const ticks = 100 // a second, on every Linux that Go knows
	return (user + system) / ticks, errors.Join(err1, err2)
}

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/postern-project/postern").Output()
	return strings.TrimSpace(string(out)), err
}
