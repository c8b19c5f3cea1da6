package kube

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/test/apiserver"
)

// The tests of this file are against a real API server. Each of the two is started by
// the first test that needs it: benchmarks and fuzzing need none.
var (
	server  *apiserver.Server                  // of the test that runs
	servers = make(map[bool]*apiserver.Server) // by whether it has watch lists
)

func TestMain(m *testing.M) {
	code := m.Run()
	for _, s := range servers {
		if err := s.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// use makes an API server the one of the test that runs: with watch lists, or with an
// older etcd, where it has only pages.
func use(t *testing.T, watchLists bool) {
	t.Helper()
	if servers[watchLists] == nil {
		s, err := apiserver.StartWith(apiserver.Options{NewEtcd: watchLists})
		if err != nil {
			t.Fatal(err)
		}
		servers[watchLists] = s
	}
	server = servers[watchLists]
}

// onBoth runs a test against both API servers.
func onBoth(t *testing.T, test func(t *testing.T)) {
	for name, watchLists := range map[string]bool{"pages": false, "watch lists": true} {
		t.Run(name, func(t *testing.T) {
			use(t, watchLists)
			t.Cleanup(func() { server = nil })
			test(t)
		})
	}
}

// patience for what the API server or the source has to do. Nothing is asserted on
// how long it takes.
const long = 60 * time.Second

// follower is a source at work.
type follower struct {
	*testing.T
	source *Source
	store  *k8ssync.Store
	log    *log
}

type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// follow runs a source until the test ends.
func follow(t *testing.T, rc *rest.Config, config Config) *follower {
	t.Helper()
	f := &follower{T: t, store: k8ssync.NewStore(), log: &log{}}
	if config.Node == "" {
		config.Node = "n1"
	}
	var err error
	if f.source, err = newSource(config, rc, f.store, zerolog.New(f.log)); err != nil {
		t.Fatal(err)
	}
	f.source.rediscoverEvery = 500 * time.Millisecond
	f.source.report.spread = 0
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- f.source.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the source:\n%s", f.log)
		}
	})
	return f
}

func (f *follower) sync() *follower {
	f.Helper()
	select {
	case <-f.source.Synced():
	case <-time.After(long):
		f.Fatalf("not synced: %+v", f.source.Status())
	}
	return f
}

// until waits for something to become so.
func (f *follower) until(what string, ok func() bool) {
	f.Helper()
	for deadline := time.Now().Add(long); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.Fatalf("%s: it did not come to this; %+v", what, f.source.Status())
		}
	}
}

func (f *follower) kind(resource string) Kind {
	for _, k := range f.source.Status().Kinds {
		if strings.HasPrefix(k.Resource, resource+".") {
			return k
		}
	}
	return Kind{}
}

// pod gives the endpoint of a pod, or nil.
func (f *follower) pod(namespace, name string) *policy.Endpoint {
	for _, e := range f.store.Snapshot().Endpoints {
		if e.Namespace == namespace && e.Name == name {
			return e
		}
	}
	return nil
}

func (f *follower) policy(k policy.Key) *policy.Policy {
	for _, p := range f.store.Snapshot().Policies {
		if p.Key() == k {
			return p
		}
	}
	return nil
}

// cluster writes to the API server, in a namespace that is the test's own.
type cluster struct {
	*testing.T
	*kubernetes.Clientset
	ns string
}

var namespaces atomic.Int64

func newCluster(t *testing.T) *cluster {
	t.Helper()
	if server == nil {
		use(t, false)
	}
	set, err := kubernetes.NewForConfig(server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t, set, fmt.Sprintf("t%d", namespaces.Add(1))}
	c.apply(`
apiVersion: v1
kind: Namespace
metadata: {name: NS, labels: {env: test}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: NS, labels: {role: web}}
`)
	return c
}

// apply writes manifests in which NS stands for the namespace.
func (c *cluster) apply(text string) {
	c.Helper()
	if err := server.ApplyYAML(c.Context(), strings.ReplaceAll(text, "NS", c.ns)); err != nil {
		c.Fatal(err)
	}
}

// pod writes a pod as it is once it runs. more is added to its YAML's spec.
func (c *cluster) pod(name, address, more string) {
	c.Helper()
	c.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: NS, labels: {app: %s}}
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}]}]%s}
status: {phase: Running, podIP: %q, podIPs: [{ip: %q}]}
`, name, name, more, address, address))
}

func (c *cluster) phase(name string, phase core.PodPhase) {
	c.Helper()
	patch := fmt.Sprintf(`{"status":{"phase":%q}}`, phase)
	if _, err := c.CoreV1().Pods(c.ns).Patch(c.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) deletePod(name string) {
	c.Helper()
	if err := c.CoreV1().Pods(c.ns).Delete(c.Context(), name, *metav1.NewDeleteOptions(0)); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) relabel(account, role string) {
	c.Helper()
	patch := fmt.Sprintf(`{"metadata":{"labels":{"role":%q}}}`, role)
	if _, err := c.CoreV1().ServiceAccounts(c.ns).Patch(c.Context(), account, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		c.Fatal(err)
	}
}

func (f *follower) role(namespace, account string) string {
	for _, a := range f.store.Snapshot().ServiceAccounts {
		if a.Namespace == namespace && a.Name == account {
			return a.Labels["role"]
		}
	}
	return "no account"
}

func TestFollow(t *testing.T) { onBoth(t, testFollow) }

func testFollow(t *testing.T) {
	c := newCluster(t)
	c.pod("before", "10.1.0.1", "")
	f := follow(t, server.Admin(), Config{}).sync()
	e := f.pod(c.ns, "before")
	if e == nil || e.ServiceAccount != "web" || e.Node != "n1" || e.Labels["app"] != "before" || e.UID == "" || len(e.Ports) != 1 || len(e.Addrs) != 1 {
		t.Fatalf("endpoint %+v", e)
	}
	if got := f.role(c.ns, "web"); got != "web" {
		t.Errorf("role %s", got)
	}

	c.pod("after", "10.1.0.2", "")
	c.relabel("web", "other")
	c.apply(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: NS}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s1, namespace: NS, labels: {kubernetes.io/service-name: s}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [10.1.0.1]}]
`)
	f.until("what was written is there", func() bool {
		s := f.store.Snapshot()
		return f.pod(c.ns, "after") != nil && f.role(c.ns, "web") == "other" &&
			f.policy(policy.Key{Kind: policy.KubernetesNetworkPolicy, Namespace: c.ns, Name: "deny"}) != nil &&
			slices.ContainsFunc(s.EndpointSlices, func(e *policy.EndpointSlice) bool {
				return e.Namespace == c.ns && e.Service == "s" && len(e.Addrs) == 1
			})
	})

	// A pod that has ended gives its address to the next at once.
	c.phase("before", core.PodSucceeded)
	c.pod("next", "10.1.0.1", "")
	f.until("the address has changed hands", func() bool { return f.pod(c.ns, "before") == nil && f.pod(c.ns, "next") != nil })
	// A pod of the same name is another pod.
	uid := f.pod(c.ns, "next").UID
	c.deletePod("next")
	c.pod("next", "10.1.0.3", "")
	f.until("the pod was made again", func() bool { e := f.pod(c.ns, "next"); return e != nil && e.UID != uid })

	c.pod("host", "10.1.0.9", ", hostNetwork: true")
	c.apply(`
apiVersion: v1
kind: Pod
metadata: {name: mirror-n1, namespace: NS, annotations: {kubernetes.io/config.mirror: x}}
spec: {nodeName: n1, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.1.0.4}
`)
	f.until("a static pod is there", func() bool { return f.pod(c.ns, "mirror-n1") != nil })
	if e := f.pod(c.ns, "mirror-n1"); e.ServiceAccount != "" {
		t.Errorf("the static pod has the service account %q", e.ServiceAccount)
	}
	if f.pod(c.ns, "host") != nil {
		t.Error("a pod on the host's network is an endpoint")
	}
	if st := f.source.Status(); len(st.Degraded) > 0 || !st.Synced || len(st.Kinds) < len(required) {
		t.Errorf("status %+v", st)
	}

	// Whoever starts now sees the same.
	if d := cmp.Diff(follow(t, server.Admin(), Config{}).sync().store.Snapshot(), f.store.Snapshot(), sameState); d != "" {
		t.Errorf("-started now +followed:\n%s", d)
	}
}

// TestServerGone: what is known stays while the API server is away, the status says
// so, and what happened meanwhile comes when it is back.
func TestServerGone(t *testing.T) { onBoth(t, testServerGone) }

func testServerGone(t *testing.T) {
	c := newCluster(t)
	c.pod("p", "10.2.0.1", "")
	f := follow(t, server.Admin(), Config{}).sync()
	before := f.store.Snapshot()
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	restarted := false
	defer func() {
		if !restarted {
			_ = server.Continue() // for the other tests
		}
	}()
	f.until("every kind is unreachable", func() bool {
		return !slices.ContainsFunc(f.source.Status().Kinds, func(k Kind) bool { return k.State != Unreachable })
	})
	if f.store.Snapshot() != before {
		t.Error("the snapshot changed")
	}
	if st := f.source.Status(); len(st.Degraded) == 0 || !strings.Contains(strings.Join(st.Degraded, " "), "stays in force") {
		t.Errorf("degraded: %q", st.Degraded)
	}
	f.until("the log says so", func() bool { return strings.Contains(f.log.String(), "degraded: ") })

	// One that starts now says that there is nothing to wait for.
	late := follow(t, server.Admin(), Config{})
	select {
	case <-late.source.Cut():
	case <-late.source.Synced():
		t.Error("synced without an API server")
	case <-time.After(long):
		t.Error("neither synced nor cut")
	}
	if err := server.Continue(); err != nil {
		t.Fatal(err)
	}
	restarted = true
	c.deletePod("p")
	c.pod("q", "10.2.0.2", "")
	for _, f := range []*follower{f, late} {
		f.sync().until("what happened meanwhile is there", func() bool { return f.pod(c.ns, "p") == nil && f.pod(c.ns, "q") != nil })
		f.until("all is well again", func() bool { return len(f.source.Status().Degraded) == 0 })
	}
	f.until("the log says so", func() bool { return strings.Contains(f.log.String(), "followed again") })
}

// TestRightsLost: a kind that may not be read any more is frozen and named; the
// others are followed. A new start without the right is not synced.
func TestRightsLost(t *testing.T) { onBoth(t, testRightsLost) }

func testRightsLost(t *testing.T) {
	c := newCluster(t)
	role := func(resources string) {
		c.apply(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader-NS}
rules:
- {apiGroups: ["", discovery.k8s.io, networking.k8s.io, projectcalico.org, crd.projectcalico.org, policy.networking.k8s.io], resources: [` + resources + `], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader-NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader-NS}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: reader-NS}]
`)
	}
	const without = "pods, namespaces, endpointslices, networkpolicies, tiers, globalnetworkpolicies, globalnetworksets, clusternetworkpolicies"
	role(without + ", serviceaccounts")
	p, rc := newProxy(t, server.As("reader-"+c.ns))
	c.pod("p", "10.3.0.1", "")
	f := follow(t, rc, Config{NoEvents: true}).sync()

	role(without)
	p.CloseClientConnections() // a watch that is open goes on until its time is over
	f.until("the kind is refused", func() bool { p.CloseClientConnections(); return f.kind("serviceaccounts").State == Refused })
	c.relabel("web", "unseen")
	c.pod("q", "10.3.0.2", "")
	f.until("other kinds are followed", func() bool { return f.pod(c.ns, "q") != nil })
	if got := f.role(c.ns, "web"); got != "web" {
		t.Errorf("role %s, want the one that was known", got)
	}
	if text := strings.Join(f.source.Status().Degraded, "\n"); !strings.Contains(text, "serviceaccounts.v1: refused") || !strings.Contains(text, "forbidden") || strings.Contains(text, "pods.v1") {
		t.Errorf("degraded: %s", text)
	}
	late := follow(t, rc, Config{NoEvents: true})
	late.until("the others are read", func() bool { return late.kind("pods").State == Live })
	select {
	case <-late.source.Synced():
		t.Error("synced without service accounts")
	default:
	}

	role(without + ", serviceaccounts")
	for _, f := range []*follower{f, late} {
		f.sync().until("the label is seen", func() bool { return f.role(c.ns, "web") == "unseen" })
		f.until("all is well again", func() bool { return len(f.source.Status().Degraded) == 0 })
	}
}

// TestExpired: a watch that is told that its version is too old lists again, and
// what it missed is there.
func TestExpired(t *testing.T) { onBoth(t, testExpired) }

func testExpired(t *testing.T) {
	c := newCluster(t)
	c.pod("p", "10.4.0.1", "")
	p, rc := newProxy(t, server.Admin())
	f := follow(t, rc, Config{NoEvents: true}).sync()
	// A watch that ends at once without an event is not gone on with in any case.
	c.pod("event", "10.4.0.3", "")
	f.until("an event is seen", func() bool { return f.pod(c.ns, "event") != nil })
	var expired atomic.Int64
	isPods := func(r *http.Request) bool { return r.URL.Path == "/api/v1/pods" }
	p.reply(func(w http.ResponseWriter, r *http.Request) bool {
		if !isPods(r) || r.URL.Query().Get("watch") == "" || r.URL.Query().Get("sendInitialEvents") != "" || expired.Add(1) > 2 {
			return false
		}
		status(w, http.StatusGone, "Expired")
		return true
	})
	lists := f.kind("pods").Lists
	p.CloseClientConnections()
	c.deletePod("p")
	c.pod("q", "10.4.0.2", "")
	f.until("it listed again", func() bool { return f.kind("pods").Lists > lists })
	f.until("what it missed is there", func() bool { return f.pod(c.ns, "p") == nil && f.pod(c.ns, "q") != nil })
	if expired.Load() == 0 {
		t.Error("no watch was told that it is too old")
	}
}

// TestTooMany: an API server that is too busy is asked again, and not at once.
func TestTooMany(t *testing.T) { onBoth(t, testTooMany) }

func testTooMany(t *testing.T) {
	c := newCluster(t)
	p, rc := newProxy(t, server.Admin())
	var refused atomic.Int64
	p.reply(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/api/v1/pods" || refused.Add(1) > 3 {
			return false
		}
		status(w, http.StatusTooManyRequests, "TooManyRequests")
		return true
	})
	c.pod("p", "10.5.0.1", "")
	f := follow(t, rc, Config{NoEvents: true}).sync()
	if f.pod(c.ns, "p") == nil || refused.Load() < 3 {
		t.Errorf("endpoint %v after %d refusals", f.pod(c.ns, "p"), refused.Load())
	}
}

// TestSlow: a list that is cut in the middle counts for nothing.
func TestSlow(t *testing.T) {
	c := newCluster(t)
	c.pod("p", "10.6.0.1", "")
	p, rc := newProxy(t, server.Admin())
	var cut atomic.Int64
	p.reply(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/api/v1/pods" || r.URL.Query().Get("sendInitialEvents") != "" || cut.Add(1) > 2 {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[`))
		panic(http.ErrAbortHandler)
	})
	f := follow(t, rc, Config{NoEvents: true}).sync()
	if f.pod(c.ns, "p") == nil {
		t.Error("synced without a pod")
	}
}

// TestWatchList: where there are watch lists no page is asked for, and one that is cut
// before its end counts for nothing.
func TestWatchList(t *testing.T) {
	use(t, true)
	t.Cleanup(func() { server = nil })
	c := newCluster(t)
	c.pod("p", "10.16.0.1", "")
	p, rc := newProxy(t, server.Admin())
	phantom := podFrame(t, &core.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: "phantom", ResourceVersion: "1"},
		Spec: core.PodSpec{NodeName: "n1"}, Status: core.PodStatus{Phase: core.PodRunning, PodIPs: []core.PodIP{{IP: "10.16.0.2"}}},
	})
	var cut, pages atomic.Int64
	p.reply(func(w http.ResponseWriter, r *http.Request) bool {
		q := r.URL.Query()
		if r.URL.Path != "/api/v1/pods" {
			return false
		}
		if q.Get("watch") == "" {
			pages.Add(1)
		}
		if q.Get("sendInitialEvents") == "" || cut.Add(1) > 2 {
			return false
		}
		w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf;stream=watch")
		_, _ = w.Write(phantom)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	f := follow(t, rc, Config{NoEvents: true})
	seen := false
	for synced := false; !synced; {
		select {
		case <-f.source.Synced():
			synced = true
		case <-f.store.Changed():
		case <-time.After(long):
			t.Fatalf("not synced: %+v", f.source.Status())
		}
		seen = seen || f.pod(c.ns, "phantom") != nil
	}
	if seen || f.pod(c.ns, "p") == nil {
		t.Errorf("a pod of a list that was cut is there: %v; one of the whole list: %v", seen, f.pod(c.ns, "p"))
	}
	if cut.Load() < 3 || pages.Load() > 0 {
		t.Errorf("%d watch lists and %d pages of pods were asked for", cut.Load(), pages.Load())
	}
	c.pod("q", "10.16.0.3", "")
	f.until("the watch goes on after the list", func() bool { return f.pod(c.ns, "q") != nil })
	if k := f.kind("pods"); k.Lists != 1 {
		t.Errorf("%d lists", k.Lists)
	}
}

// podFrame is a pod as it comes over a watch.
func podFrame(t *testing.T, p *core.Pod) []byte {
	t.Helper()
	s := typedScheme()
	var object, event, frame bytes.Buffer
	err := protobuf.NewSerializer(s, s).Encode(p, &object)
	if err == nil {
		err = protobuf.NewRawSerializer(s, s).Encode(&metav1.WatchEvent{Type: "ADDED", Object: kruntime.RawExtension{Raw: object.Bytes()}}, &event)
	}
	if err == nil {
		_, err = protobuf.LengthDelimitedFramer.NewFrameWriter(&frame).Write(event.Bytes())
	}
	if err != nil {
		t.Fatal(err)
	}
	return frame.Bytes()
}

// TestNamespaceDeleted is lifecycle's promise at the real API server, which marks a
// namespace before its contents go.
func TestNamespaceDeleted(t *testing.T) {
	c := newCluster(t)
	c.pod("p", "10.7.0.1", "")
	c.apply(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: NS}
spec: {podSelector: {}, policyTypes: [Ingress]}
`)
	f := follow(t, server.Admin(), Config{}).sync()
	deny := policy.Key{Kind: policy.KubernetesNetworkPolicy, Namespace: c.ns, Name: "deny"}
	if err := c.CoreV1().Namespaces().Delete(t.Context(), c.ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.NetworkingV1().NetworkPolicies(c.ns).Delete(t.Context(), "deny", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.CoreV1().ServiceAccounts(c.ns).Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.until("both are kept", func() bool { return f.source.Status().Kept == 2 })
	if f.policy(deny) == nil || f.role(c.ns, "web") != "web" {
		t.Error("the policy or the account is gone before the pod")
	}
	saved := f.store.Snapshot()
	late := follow(t, server.Admin(), Config{Saved: func() (*policy.Snapshot, error) { return saved, nil }}).sync()
	if late.policy(deny) == nil || late.role(c.ns, "web") != "web" {
		t.Error("after a restart the policy or the account is gone before the pod")
	}
	c.deletePod("p")
	for _, f := range []*follower{f, late} {
		f.until("all is gone", func() bool {
			return f.policy(deny) == nil && f.role(c.ns, "web") == "no account" && f.source.Status().Kept == 0
		})
	}
}

// definition is a CustomResourceDefinition of one of Calico's kinds, as far as the
// source can tell.
func definition(group, version, plural, kind, scope string) string {
	return fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[1]s.%[2]s}
spec:
  group: %[2]s
  scope: %[5]s
  names: {plural: %[1]s, kind: %[4]s, listKind: %[4]sList}
  versions:
  - name: %[3]s
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`, plural, group, version, kind, scope)
}

func (c *cluster) undefine(name string) {
	c.Helper()
	client, err := rest.UnversionedRESTClientFor(&rest.Config{Host: server.Admin().Host, BearerToken: server.Admin().BearerToken, TLSClientConfig: server.Admin().TLSClientConfig,
		ContentConfig: rest.ContentConfig{NegotiatedSerializer: scheme.Codecs.WithoutConversion()}})
	if err != nil {
		c.Fatal(err)
	}
	if err := client.Delete().AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" + name).Do(c.Context()).Error(); err != nil {
		c.Fatal(err)
	}
}

// TestKindsComeAndGo: Calico's kinds are read as soon as they are served, from the
// group that counts, and are gone with their definition.
func TestKindsComeAndGo(t *testing.T) {
	c := newCluster(t)
	f := follow(t, server.Admin(), Config{}).sync()
	allow := policy.Key{Kind: policy.GlobalNetworkPolicy, Name: "allow-" + c.ns}
	if f.kind("globalnetworkpolicies").Resource != "" {
		t.Fatalf("status %+v: another test has defined the kind", f.source.Status())
	}
	c.apply(definition("crd.projectcalico.org", "v1", "globalnetworkpolicies", "GlobalNetworkPolicy", "Cluster"))
	stored := strings.ReplaceAll(`
apiVersion: GROUP
kind: GlobalNetworkPolicy
metadata: {name: allow-NS}
spec: {order: ORDER, types: [Ingress], ingress: [{action: Allow}]}
`, "GROUP", "crd.projectcalico.org/v1")
	c.apply(strings.ReplaceAll(stored, "ORDER", "7"))
	f.until("the stored policy is there", func() bool { p := f.policy(allow); return p != nil && p.Order == 7 })

	// Now projectcalico.org/v3 is served as well, and counts.
	c.apply(definition("projectcalico.org", "v3", "globalnetworkpolicies", "GlobalNetworkPolicy", "Cluster"))
	c.apply(strings.ReplaceAll(strings.ReplaceAll(stored, "crd.projectcalico.org/v1", "projectcalico.org/v3"), "ORDER", "8"))
	f.until("the policy of the other group is there", func() bool { p := f.policy(allow); return p != nil && p.Order == 8 })
	f.until("only that group is read", func() bool {
		return f.kind("globalnetworkpolicies").Resource == "globalnetworkpolicies.projectcalico.org/v3"
	})
	c.apply(strings.ReplaceAll(stored, "ORDER", "9"))
	c.pod("marker", "10.8.0.1", "")
	f.until("a later event is seen", func() bool { return f.pod(c.ns, "marker") != nil })
	if p := f.policy(allow); p == nil || p.Order != 8 {
		t.Errorf("policy %+v, want that of projectcalico.org", p)
	}

	// An invalid version of it does not replace the valid one, and an Event tells.
	c.apply(strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(stored, "crd.projectcalico.org/v1", "projectcalico.org/v3"), "ORDER", "8"), "action: Allow", "action: Permit"))
	f.until("the problem is known", func() bool { return len(f.store.Problems()) > 0 })
	if k := f.kind("globalnetworkpolicies"); k.Objects != 1 || k.Unusable != 1 || k.Held != 1 {
		t.Errorf("of the policy is told: %+v", k)
	}
	if p := f.policy(allow); p == nil || len(p.Ingress) != 1 || p.Ingress[0].Action != policy.Allow {
		t.Errorf("policy %+v, want its last valid version", p)
	}
	var event core.Event
	f.until("an Event tells", func() bool {
		list, err := c.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + allow.Name})
		if err != nil || len(list.Items) == 0 {
			return false
		}
		event = list.Items[0]
		return true
	})
	if event.Reason != "NotUsable" || event.Type != "Warning" || event.InvolvedObject.APIVersion != "projectcalico.org/v3" || event.InvolvedObject.Kind != "GlobalNetworkPolicy" ||
		event.InvolvedObject.UID == "" || !strings.Contains(event.Message, "spec.ingress[0].action") {
		t.Errorf("event %+v", event)
	}
	// A second node that sees the same writes no second one.
	other := follow(t, server.Admin(), Config{Node: "n2"}).sync()
	other.until("it has told", func() bool { return other.source.Status().EventsWritten > 0 })
	if list, err := c.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + allow.Name}); err != nil || len(list.Items) != 1 {
		t.Errorf("%d Events, %v; want one", len(list.Items), err)
	}

	c.undefine("globalnetworkpolicies.projectcalico.org")
	c.undefine("globalnetworkpolicies.crd.projectcalico.org")
	f.until("the policy is gone", func() bool { return f.policy(allow) == nil })
	f.until("the kind is not read", func() bool { return f.kind("globalnetworkpolicies").Resource == "" })
	f.until("all is well", func() bool { return len(f.source.Status().Degraded) == 0 })
	c.pod("last", "10.8.0.2", "")
	f.until("the rest is followed", func() bool { return f.pod(c.ns, "last") != nil })
}

// TestTwoClaimants: two live pods with one address are denied, and an Event on a pod
// of this node tells. What is wrong with another node's pod is that node's to tell.
func TestTwoClaimants(t *testing.T) {
	c := newCluster(t)
	c.pod("one", "10.9.0.1", "")
	c.pod("two", "10.9.0.1", "")
	here, there := follow(t, server.Admin(), Config{Node: "n1"}).sync(), follow(t, server.Admin(), Config{Node: "n2"}).sync()
	for _, f := range []*follower{there, here} {
		rs, problems := compile.Compile(f.store.Snapshot(), compile.Options{Node: f.source.config.Node})
		f.source.Report(problems)
		d := rs.Decide(flow.Tuple{Src: netip.MustParseAddr("10.9.0.1"), Dst: netip.MustParseAddr("192.0.2.1"), Proto: flow.TCP})
		if d.Verdict != filter.Drop || d.Reason != filter.AddressConflict {
			t.Errorf("decision %v %v", d.Verdict, d.Reason)
		}
		if k := f.kind("pods"); k.Refuted != 1 || k.Unusable != 0 || k.Objects < 2 {
			t.Errorf("of the pods is told: %+v", k)
		}
	}
	here.until("an Event tells", func() bool {
		list, err := c.CoreV1().Events(c.ns).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.kind=Pod"})
		return err == nil && len(list.Items) == 1 && strings.Contains(list.Items[0].Message, "10.9.0.1") &&
			list.Items[0].Source.Host == "n1" && list.Items[0].InvolvedObject.UID != ""
	})
	if n := there.source.Status().EventsWritten; n != 0 {
		t.Errorf("the other node wrote %d Events", n)
	}
}

// TestPodCIDRs: the prefixes of the node's object, and what the status says when there
// are none, or others than at the start.
func TestPodCIDRs(t *testing.T) {
	c := newCluster(t)
	name := c.ns + "-node"
	config := Config{Node: name, WatchNode: true}
	read := func() ([]netip.Prefix, error) {
		clients, err := newClients(server.Admin())
		if err != nil {
			t.Fatal(err)
		}
		return clients.podCIDRs(t.Context(), name)
	}
	if _, err := read(); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("a node that does not exist: %v", err)
	}
	n, err := c.CoreV1().Nodes().Create(t.Context(), &core.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read(); err != nil || len(got) != 0 {
		t.Errorf("a node without prefixes: %v, %v", got, err)
	}
	says := func(f *follower, text string) func() bool {
		return func() bool {
			return slices.ContainsFunc(f.source.Status().Degraded, func(d string) bool { return strings.Contains(d, text) })
		}
	}
	f := follow(t, server.Admin(), config).sync()
	f.until("the status tells that there are none", says(f, "no spec.podCIDRs"))
	n.Spec.PodCIDR, n.Spec.PodCIDRs = "10.77.1.0/24", []string{"10.77.1.0/24", "fd00:77:1::/64"}
	if _, err := c.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	f.until("the status tells of a change", says(f, "10.77.1.0/24, fd00:77:1::/64, and postern started with none"))
	want := []netip.Prefix{netip.MustParsePrefix("10.77.1.0/24"), netip.MustParsePrefix("fd00:77:1::/64")}
	got, err := read()
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("the prefixes are %v, %v; want %v", got, err, want)
	}
	config.PodCIDRs = got
	f = follow(t, server.Admin(), config).sync()
	f.until("the status has nothing to tell", func() bool { return len(f.source.Status().Degraded) == 0 })
}
