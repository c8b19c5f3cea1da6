package e2e

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
	"github.com/postern-project/postern/k8ssync/saved"
	"github.com/postern-project/postern/test/apiserver"
	"github.com/postern-project/postern/test/lab"
)

// cluster is a bench whose daemon follows a real API server.
type cluster struct {
	*bench
	server     *apiserver.Server
	kubeconfig string
	state      string
}

// setupCluster puts what deploy has, and the examples, into an API server that the
// node can reach.
func setupCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{bench: setup(t, examples), state: filepath.Join(t.TempDir(), "state")}
	var err error
	if c.server, err = apiserver.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.server.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := c.server.Apply(context.Background(), "../../deploy/crds", "../../deploy/kubernetes"); err != nil {
		t.Fatal(err)
	}
	// With the rights that deploy gives it, and no others.
	if c.kubeconfig, err = c.server.Kubeconfig("system:serviceaccount:postern:postern"); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(c.server.Admin().Host)
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Node.Forward(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	for _, name := range []string{"namespaces", "serviceaccounts", "pods", "policy-1-names", "policy-2-labels", "policy-3-selector"} {
		text, err := os.ReadFile(filepath.Join(examples, name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		// Pods of a cluster name their node.
		c.apply(strings.ReplaceAll(string(text), "  serviceAccountName:", "  nodeName: n1\n  containers: [{name: c, image: i}]\n  serviceAccountName:"))
	}
	return c
}

func (c *cluster) apply(text string) {
	c.Helper()
	if err := c.server.ApplyYAML(context.Background(), text); err != nil {
		c.Fatal(err)
	}
}

// run starts the daemon as on a cluster's node.
func (c *cluster) run() {
	c.Helper()
	c.launchWith("--kubeconfig", c.kubeconfig, "--node", "n1", "--pod-cidr", "none", "--state-file", c.state)
	if _, err := c.daemon.WaitEnforcing(0); err != nil {
		c.Fatalf("%v\n%s", err, c.daemon.Text())
	}
}

// relabel changes a label of a service account.
func (c *cluster) relabel(account, app string) {
	c.Helper()
	c.apply(fmt.Sprintf("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: %s, namespace: prod-engineering, labels: {app: %s}}\n", account, app))
}

// end writes that a pod has done its work.
func (c *cluster) end(pod string) {
	c.Helper()
	set, err := kubernetes.NewForConfig(c.server.Admin())
	if err != nil {
		c.Fatal(err)
	}
	if _, err := set.CoreV1().Pods("prod-engineering").Patch(context.Background(), pod, types.MergePatchType, []byte(`{"status":{"phase":"Succeeded"}}`), metav1.PatchOptions{}, "status"); err != nil {
		c.Fatal(err)
	}
}

// eventually waits until a flow fares as it should: a change takes its time on the
// way here. From then on it must stay so.
func (c *cluster) eventually(from, dest string, want bool) {
	c.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		err := c.pods[from].Exchange("tcp", at(c.pods[dest], false, 5432), []byte("hello"), time.Second)
		if (err == nil) == want {
			break
		}
		if time.Now().After(deadline) {
			c.Fatalf("%s -> %s: got an answer: %v, want %v; the daemon's log:\n%s", from, dest, err == nil, want, c.daemon.Text())
		}
	}
	c.reaches(from, dest, false, want)
}

func (c *cluster) status() (code int, text string) {
	c.Helper()
	code, text, _ = ask(c.T, nil, "status", "--socket", c.socket)
	return code, text
}

// TestCluster follows a cluster with real packets: the documented examples, a label
// that changes, an address that changes hands, an API server that goes, a daemon
// that starts without it, and its return.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := setupCluster(t)
	c.serve(5432)
	c.run()
	const reports, web, api, db = "prod-engineering/reports", "prod-engineering/web", "prod-engineering/api", "prod-engineering/db"
	t.Run("examples", func(t *testing.T) { c.holdsTable(t) })

	c.relabel("reports-sa", "web-frontend")
	c.eventually(reports, db, true)
	c.relabel("reports-sa", "reports")
	c.eventually(reports, db, false)

	// api's pod ends, and its address goes to a pod that runs as another account.
	c.reaches(api, db, false, true)
	addr := c.pods[api].Addr4()
	c.end("api")
	c.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: thief, namespace: prod-engineering}
spec: {nodeName: n1, serviceAccountName: reports-sa, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: %[1]s, podIPs: [{ip: %[1]s}]}
`, addr))
	c.eventually(api, db, false) // from the same address

	if code, text := c.status(); code != 0 || strings.Contains(text, "DEGRADED") || !strings.Contains(text, "networkpolicies.projectcalico.org/v3") {
		t.Errorf("status %d:\n%s", code, text)
	}
	c.stopAndWait() // saves what is in force
	if err := c.server.Kill(); err != nil {
		t.Fatal(err)
	}
	c.run()
	if _, _, err := c.daemon.Wait(0, time.Minute, lab.Message("the API server cannot be reached or is slow: enforcing the state that was saved last")); err != nil {
		t.Errorf("%v\n%s", err, c.daemon.Text())
	}
	c.reaches(reports, db, false, false)
	c.reaches(web, db, false, true)
	if code, text := c.status(); code != 0 || !strings.Contains(text, "DEGRADED") || !strings.Contains(text, "saved at") {
		t.Errorf("status without the API server %d:\n%s", code, text)
	}
	if code, _, _ := ask(t, nil, "status", "--socket", c.socket, "--strict"); code != 1 {
		t.Errorf("strict status without the API server: %d, want 1", code)
	}

	if err := c.server.Continue(); err != nil {
		t.Fatal(err)
	}
	c.relabel("reports-sa", "web-frontend")
	c.eventually(reports, db, true)

	// It goes while the daemon follows it: nothing changes.
	if err := c.server.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.daemon.Wait(0, time.Minute, lab.Message("degraded: the API server is not followed completely")); err != nil {
		t.Error(err)
	}
	c.reaches(reports, db, false, true)
	c.reaches("prod-engineering/intern-1", web, false, false)
	if err := c.server.Continue(); err != nil {
		t.Fatal(err)
	}
	c.relabel("reports-sa", "reports")
	c.eventually(reports, db, false)

	// Under a name that the cluster does not know it protects nothing, and says so.
	c.stopAndWait()
	c.launchWith("--kubeconfig", c.kubeconfig, "--node", "misspelt", "--pod-cidr", "none", "--state-file", "")
	if _, _, err := c.daemon.Wait(0, time.Minute, func(l lab.Line) bool {
		return strings.HasPrefix(l.Text("message"), "degraded: no pod names node misspelt, and the cluster has no Node of this name")
	}); err != nil {
		t.Fatalf("%v\n%s", err, c.daemon.Text())
	}
	if code, text, _ := ask(t, nil, "status", "--socket", c.socket, "--strict"); code != 1 || !strings.Contains(text, "no pod names node misspelt") {
		t.Errorf("strict status of a misspelt node %d:\n%s", code, text)
	}
}

// unreachable is the kubeconfig of an API server that is not there.
func unreachable(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "kubeconfig")
	text := `{"apiVersion":"v1","kind":"Config","clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:1"}}],` +
		`"contexts":[{"name":"x","context":{"cluster":"c","user":""}}],"current-context":"x"}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSavedStateInForce: while a saved state is in force, because the API server has not been
// reached since the start, the table is repaired, settings are reloaded, and what is to be
// done about an old state is done.
func TestSavedStateInForce(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	objects, err := file.Load(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	store := k8ssync.NewStore()
	store.Replace(objects)
	dir := t.TempDir()
	state, config := filepath.Join(dir, "state"), filepath.Join(dir, "postern.yaml")
	if err := saved.Write(state, "n1", store.Snapshot()); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "postern.yaml", "logLevel: info\n")
	b.launchWith("--kubeconfig", unreachable(t), "--node", "n1", "--pod-cidr", "none", "--state-file", state, "--config", config, "--stale", "drop", "--stale-after", "15s")
	next, err := b.daemon.WaitEnforcing(0)
	if err != nil {
		t.Fatalf("%v\n%s", err, b.daemon.Text())
	}
	if _, next, err = b.daemon.Wait(next, 20*time.Second, lab.Message("checking source addresses")); err != nil {
		t.Fatal(err)
	}
	b.holds()
	b.nft("flush", "ruleset")
	b.repaired(next)
	writeFile(t, dir, "postern.yaml", "logLevel: debug\n")
	if _, _, err := b.daemon.Wait(next, 20*time.Second, lab.Message("reloaded the settings")); err != nil {
		t.Error(err)
	}
	if _, _, err := b.daemon.Wait(0, time.Minute, lab.Message("the cluster has been out of reach for too long")); err != nil {
		t.Fatal(err)
	}
	b.reaches(api, db, false, false)
}

// TestDamagedState: a saved state that was changed is refused, loudly, and nothing
// is enforced from it.
func TestDamagedState(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	state := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(state, []byte("postern-state {\"format\":1,\"policy\":1,\"node\":\"n1\"}\nend 0 00\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	kubeconfig := unreachable(t)
	b.launchWith("--kubeconfig", kubeconfig, "--node", "n1", "--state-file", state)
	line, _, err := b.daemon.Wait(0, time.Minute, lab.Message("the API server cannot be reached or is slow, and the saved state cannot be used: nothing is applied until the API server has told everything"))
	if err != nil || !strings.Contains(line.Text("error"), "checksum") {
		t.Fatalf("%v %v\n%s", line, err, b.daemon.Text())
	}
	if code, text, _ := ask(t, nil, "status", "--socket", b.socket); code != 1 || !strings.Contains(text, "NOT enforcing") || !strings.Contains(text, "connection refused") {
		t.Errorf("status %d:\n%s", code, text)
	}
	if table := b.nft("list", "tables"); strings.Contains(table, "postern") {
		t.Errorf("the kernel was touched: %s", table)
	}
}

// stopAndWait ends the daemon as its service manager would.
func (c *cluster) stopAndWait() {
	c.Helper()
	if err := c.daemon.Stop(syscall.SIGTERM); err != nil {
		c.Errorf("daemon: %v", err)
	}
}
