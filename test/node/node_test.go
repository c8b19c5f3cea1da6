//go:build node

package node

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/postern-project/postern/test/apiserver"
	"github.com/postern-project/postern/test/lab"
)

const (
	examples = "../../docs/examples/service-accounts/"
	deployed = "../../deploy/"
	account  = "system:serviceaccount:postern:postern"
	db53     = 53
	dbPort   = 5432
)

// impatience is how long a flow that must not pass is waited for: longer than a
// retransmitted SYN takes.
const impatience = 1500 * time.Millisecond

// world is a node with the pods of the documentation, and postern.
type world struct {
	*testing.T
	*Node
	program, kubeconfig, state string
	daemon                     *lab.Daemon
	pods                       map[string]*Pod
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// TestNode is one story on one node: each part begins with what the last has left.
func TestNode(t *testing.T) {
	w := &world{T: t, pods: map[string]*Pod{}}
	w.program = filepath.Join(t.TempDir(), "postern")
	if out, err := exec.Command("go", "build", "-race", "-o", w.program, "../../cmd/postern").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	var err error
	// One address more than pods, so that those of pods that go are used again.
	w.Node, err = Start(9)
	w.check(err)
	defer func() { w.check(w.Node.Close()) }()
	w.check(w.API.Apply(t.Context(), deployed+"crds", deployed+"kubernetes/namespace.yaml", deployed+"kubernetes/rbac.yaml", deployed+"guards", deployed+"roles",
		examples+"namespaces.yaml", examples+"serviceaccounts.yaml", examples+"policy-1-names.yaml", examples+"policy-2-labels.yaml", examples+"policy-3-selector.yaml"))
	w.kubeconfig, err = w.API.Kubeconfig(account)
	w.check(err)
	w.state = filepath.Join(t.TempDir(), "state")
	w.start()
	defer func() {
		if t.Failed() {
			log := w.daemon.Text()
			t.Logf("the end of the daemon's log:\n%s", log[max(0, len(log)-5000):])
		}
		w.check(w.daemon.Stop(syscall.SIGTERM))
	}()

	objects, err := apiserver.Read(examples + "pods.yaml")
	w.check(err)
	var created sync.WaitGroup
	var mu sync.Mutex
	for _, o := range objects {
		created.Go(func() {
			spec := o.Object["spec"].(map[string]any)
			p, err := w.Create(o.GetNamespace(), o.GetName(), spec["serviceAccountName"].(string), o.GetLabels())
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			w.pods[o.GetNamespace()+"/"+o.GetName()] = p
		})
	}
	created.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, p := range w.pods {
		w.serve(p)
	}

	for _, part := range []struct {
		name string
		run  func(w *world)
	}{
		{"examples", (*world).examples},
		{"services", (*world).services},
		{"label", (*world).label},
		{"tiers", (*world).tiers},
		{"startup", (*world).startup},
		{"reuse", (*world).reuse},
		{"restart", (*world).restart},
		{"in cluster", (*world).inCluster},
	} {
		t.Run(part.name, func(t *testing.T) {
			of := *w
			of.T = t
			part.run(&of)
			w.daemon = of.daemon
		})
		if t.Failed() {
			return
		}
	}
}

func (w *world) start() {
	w.Helper()
	var err error
	w.daemon, err = w.Node.Node.StartDaemon(w.program, "run", "--kubeconfig", w.kubeconfig, "--node", Name, "--state-file", w.state,
		"--socket", w.state+".sock", "--flow-log", "all", "--flow-log-rate", "0", "--flow-log-interval", "0", "--log-format", "json")
	w.check(err)
	_, _, err = w.daemon.Wait(0, time.Minute, lab.Message("enforcing"))
	w.check(err)
}

func (w *world) serve(p *Pod) {
	w.Helper()
	s, err := p.Serve(dbPort, db53)
	w.check(err)
	w.Cleanup(func() { s.Close() })
}

const (
	db, api, auth, web, reports = "prod-engineering/db", "prod-engineering/api", "prod-engineering/auth", "prod-engineering/web", "prod-engineering/reports"
	intern1, intern2            = "prod-engineering/intern-1", "prod-engineering/intern-2"
)

// documented is what the three examples say.
func documented(from, to string) bool {
	interns := []string{intern1, intern2}
	switch {
	case slices.Contains(interns, from) || slices.Contains(interns, to):
		return slices.Contains(interns, from) && slices.Contains(interns, to)
	case to == db:
		return slices.Contains([]string{api, auth, web}, from)
	}
	return true
}

// passes tells whether an exchange succeeds. If it must not, then nothing of it may
// arrive either.
func passes(from, to *Pod, network string, dest netip.AddrPort, want bool) error {
	if want {
		if err := from.Exchange(network, dest, []byte("hello"), 20*time.Second); err != nil {
			return fmt.Errorf("%s -> %s %s %v: %v, and it should pass", from.Name, to.Name, network, dest, err)
		}
		return nil
	}
	sniffer, err := to.Sniff()
	if err != nil {
		return err
	}
	err = from.Exchange(network, dest, []byte("hello"), impatience)
	if err2 := sniffer.Stop(); err2 != nil {
		return err2
	}
	for _, a := range from.Addrs {
		if n := sniffer.Count(func(p lab.Packet) bool { return p.Src == a && p.DstPort == dest.Port() }); n > 0 {
			return fmt.Errorf("%s -> %s %s %v: %d packets arrived, and none should", from.Name, to.Name, network, dest, n)
		}
	}
	if err == nil {
		return fmt.Errorf("%s -> %s %s %v: an answer came, and it should not pass", from.Name, to.Name, network, dest)
	}
	return nil
}

// holds checks a flow over both families, and TCP and UDP.
func (w *world) holds(from, to *Pod, want bool) error {
	var errs [4]error
	var all sync.WaitGroup
	for i := range errs {
		network, port, addr := "tcp", uint16(dbPort), to.Addr4()
		if i%2 == 1 {
			network, port = "udp", db53
		}
		if i > 1 {
			addr = to.Addr6()
		}
		all.Go(func() { errs[i] = passes(from, to, network, netip.AddrPortFrom(addr, port), want) })
	}
	all.Wait()
	return errors.Join(errs[:]...)
}

// becomes waits until a flow fares as it should, since a change takes its time to
// get here, and then checks that it stays so.
func (w *world) becomes(from, to *Pod, want bool) {
	w.Helper()
	dest := netip.AddrPortFrom(to.Addr4(), dbPort)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if err := from.Exchange("tcp", dest, []byte("hello"), time.Second); (err == nil) == want {
			break
		} else if time.Now().After(deadline) {
			w.Fatalf("%s -> %s: never became %v: %v", from.Name, to.Name, want, err)
		}
	}
	w.check(w.holds(from, to, want))
}

// examples: who reaches whom, over both families, TCP and UDP.
func (w *world) examples() {
	// Policy takes a moment to get to pods that have just been made.
	w.becomes(w.pods[web], w.pods[db], true)
	var all sync.WaitGroup
	for from, a := range w.pods {
		for to, b := range w.pods {
			if from == to {
				continue
			}
			all.Go(func() {
				if err := w.holds(a, b, documented(from, to)); err != nil {
					w.Error(err)
				}
			})
		}
	}
	all.Wait()
}

// services: kube-proxy's translation comes before the decision.
func (w *world) services() {
	dual := core.IPFamilyPolicyRequireDualStack
	s, err := w.Client.CoreV1().Services("prod-engineering").Create(w.Context(), &core.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "db"},
		Spec: core.ServiceSpec{Selector: map[string]string{"app": "db"}, IPFamilyPolicy: &dual, Ports: []core.ServicePort{
			{Name: "sql", Protocol: core.ProtocolTCP, Port: 15432, TargetPort: intstr.FromInt32(dbPort)},
			{Name: "dns", Protocol: core.ProtocolUDP, Port: 1053, TargetPort: intstr.FromInt32(db53)},
		}},
	}, metav1.CreateOptions{})
	w.check(err)
	if len(s.Spec.ClusterIPs) != 2 {
		w.Fatalf("the service has the addresses %v", s.Spec.ClusterIPs)
	}
	for _, ip := range s.Spec.ClusterIPs {
		a := netip.MustParseAddr(ip)
		for network, port := range map[string]uint16{"tcp": 15432, "udp": 1053} {
			dest := netip.AddrPortFrom(a, port)
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
				err := w.pods[api].Exchange(network, dest, []byte("hello"), time.Second)
				if err == nil {
					break
				}
				if time.Now().After(deadline) {
					w.Fatalf("api -> service db %s %v: %v", network, dest, err)
				}
			}
			sniffer, err := w.pods[db].Sniff()
			w.check(err)
			if err := w.pods[reports].Exchange(network, dest, []byte("hello"), impatience); err == nil {
				w.Errorf("reports -> service db %s %v: an answer came", network, dest)
			}
			w.check(sniffer.Stop())
			for _, from := range w.pods[reports].Addrs {
				if n := sniffer.Count(lab.From(from)); n > 0 {
					w.Errorf("reports -> service db %s %v: %d packets arrived", network, dest, n)
				}
			}
		}
	}
}

// label: the label of a service account turns an access on and off, with the pods as
// they are.
func (w *world) label() {
	w.relabel("reports-sa", "web-frontend")
	w.becomes(w.pods[reports], w.pods[db], true)
	w.relabel("reports-sa", "reports")
	w.becomes(w.pods[reports], w.pods[db], false)
}

func (w *world) relabel(account, app string) {
	w.Helper()
	w.check(w.API.ApplyYAML(w.Context(), fmt.Sprintf("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: %s, namespace: prod-engineering, labels: {app: %s}}\n", account, app)))
}

// tiers: what the security team denies in its tier no developer can allow: neither
// by policy of their own, nor by writing into the tier, which the API server refuses.
func (w *world) tiers() {
	w.check(w.API.ApplyYAML(w.Context(), `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: dev, namespace: prod-engineering}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: postern-developer}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: dev}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: dev-tier-default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: postern-tier-default}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: dev}]
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 10}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: no-api, namespace: prod-engineering}
spec:
  tier: security
  selector: app == "db"
  ingress:
  - {action: Deny, source: {serviceAccounts: {names: [api-service]}}}
  - {action: Pass}
`))
	w.becomes(w.pods[api], w.pods[db], false)
	w.check(w.holds(w.pods[auth], w.pods[db], true))

	dev, err := apiserver.NewClient(w.API.As("dev"))
	w.check(err)
	const open = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: %s, namespace: prod-engineering}, spec: {tier: %s, order: 1, selector: 'app == \"db\"', ingress: [{action: Allow}]}}"
	write := func(name, tier string) error {
		o, err := apiserver.Parse(fmt.Appendf(nil, open, name, tier))
		w.check(err)
		return dev.Apply(w.Context(), o[0])
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := write("open", "default")
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			w.Fatal(err)
		}
	}
	w.becomes(w.pods[reports], w.pods[db], true) // it is in force
	w.check(w.holds(w.pods[api], w.pods[db], false))
	for _, name := range []string{"open", "no-api", "another"} {
		if err := write(name, "security"); !apierrors.IsForbidden(err) {
			w.Errorf("a developer writes policy %s in tier security: %v", name, err)
		}
	}
	w.check(w.holds(w.pods[api], w.pods[db], false))
	admin, err := apiserver.NewClient(w.API.Admin())
	w.check(err)
	for _, name := range []string{"open", "no-api"} {
		o, err := apiserver.Parse(fmt.Appendf(nil, open, name, ""))
		w.check(err)
		r, err := admin.Resource(o[0])
		w.check(err)
		w.check(r.Delete(w.Context(), name, metav1.DeleteOptions{}))
	}
	w.becomes(w.pods[reports], w.pods[db], false)
	w.becomes(w.pods[api], w.pods[db], true)
}

// startup: pods that send from their first moment on, when postern does not know
// them yet. Nothing of one that policy denies arrives at a protected pod at any time,
// and what policy allows does in the end.
func (w *world) startup() {
	for _, test := range []struct {
		account, to string
		want        bool
	}{
		{"reports-sa", db, false}, // the other end is protected
		{"api-service", db, true},
		{"intern-a", auth, false}, // only the new pod's own egress policy is about it
	} {
		to := w.pods[test.to]
		for i, addr := range to.Addrs {
			name := fmt.Sprintf("%s-%d", test.account, i)
			sniffer, err := to.Sniff()
			w.check(err)
			p, err := w.Create("prod-engineering", name, test.account, nil, netip.AddrPortFrom(addr, dbPort).String())
			w.check(err)
			arrived := func() int { return sniffer.Count(lab.From(p.Addrs[i])) }
			if test.want {
				for deadline := time.Now().Add(time.Minute); arrived() == 0; time.Sleep(20 * time.Millisecond) {
					if time.Now().After(deadline) {
						w.Errorf("%s: nothing arrived at %s", name, test.to)
						break
					}
				}
			} else {
				time.Sleep(impatience)
				if n := arrived(); n > 0 {
					w.Errorf("%s: %d packets arrived at %s", name, n, test.to)
				}
			}
			w.check(sniffer.Stop())
			w.check(w.Delete(p))
		}
	}
}

// reuse: a pod that gets the address of one that is gone has its own rights.
func (w *world) reuse() {
	old := w.pods[web]
	w.check(w.Delete(old))
	delete(w.pods, web)
	sniffer, err := w.pods[db].Sniff()
	w.check(err)
	var heirs []*Pod
	found := false
	for i := range 4 {
		p, err := w.Create("prod-engineering", fmt.Sprintf("heir-%d", i), "reports-sa", nil, netip.AddrPortFrom(w.pods[db].Addr4(), dbPort).String())
		w.check(err)
		heirs = append(heirs, p)
		if p.Addr4() == old.Addr4() {
			found = true
			break
		}
		if i == 1 { // two addresses were free, and both are taken
			w.check(w.Delete(heirs[0]))
		}
	}
	if !found {
		w.Errorf("no pod got the address %v of the one that is gone", old.Addr4())
	}
	heir := heirs[len(heirs)-1]
	time.Sleep(impatience)
	w.check(sniffer.Stop())
	for _, a := range old.Addrs {
		if n := sniffer.Count(lab.From(a)); n > 0 {
			w.Errorf("%d packets from %v arrived after its pod was gone", n, a)
		}
	}
	w.check(w.holds(heir, w.pods[db], false))
	for _, p := range heirs {
		if err := w.Node.Delete(p); err != nil && !apierrors.IsNotFound(errors.Unwrap(err)) {
			w.Error(err)
		}
	}
	p, err := w.Create("prod-engineering", "web", "web-sa", map[string]string{"app": "web"})
	w.check(err)
	w.pods[web] = p
	w.serve(p)
	w.becomes(p, w.pods[db], true)
}

// restart: while postern is away new flows of protected pods are dropped, unless the
// kernel remembers their like, and old ones go on; back again it decides as before. From
// auth to db nobody has spoken since long before the last changes.
func (w *world) restart() {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		open, err := w.pods[api].DialTCP(netip.AddrPortFrom(w.pods[db].Addr4(), dbPort), 5*time.Second)
		w.check(err)
		w.check(lab.Echo(open, []byte("before"), 5*time.Second))
		w.check(w.daemon.Stop(sig))
		w.check(w.holds(w.pods[auth], w.pods[db], false))
		w.check(w.holds(w.pods[reports], w.pods[db], false))
		w.check(w.holds(w.pods[reports], w.pods[auth], true)) // no policy selects them
		w.check(lab.Echo(open, []byte("while it is away"), 5*time.Second))
		w.start()
		w.check(lab.Echo(open, []byte("after"), 5*time.Second))
		open.Close()
		w.becomes(w.pods[api], w.pods[db], true)
		w.check(w.holds(w.pods[reports], w.pods[db], false))
		w.check(w.holds(w.pods[intern1], w.pods[auth], false))
	}
}
