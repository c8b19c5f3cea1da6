package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/dataplane"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
)

// big is an API server with many objects, which it makes as they are asked for, in
// pages: the memory that a test measures is the source's. Objects are as large as
// those of real clusters, with managed fields, environment, volumes and conditions.
type big struct {
	pods, accounts, namespaces, policies int
	encoder, frame                       kruntime.Encoder
	// changed are pods that watches tell of.
	changed chan *core.Pod
}

func newBig(pods, accounts, namespaces int) *big {
	s := typedScheme()
	return &big{pods: pods, accounts: accounts, namespaces: namespaces, encoder: protobuf.NewSerializer(s, s), frame: protobuf.NewRawSerializer(s, s), changed: make(chan *core.Pod)}
}

func (b *big) meta(namespace, name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name, Labels: labels, UID: types.UID(fmt.Sprintf("%032x", name)), ResourceVersion: "5",
		Annotations:   map[string]string{"checksum/config": "0123456789abcdef0123456789abcdef", "prometheus.io/scrape": "true"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kube-controller-manager", FieldsV1: &metav1.FieldsV1{Raw: make([]byte, 900)}}, {Manager: "kubelet", FieldsV1: &metav1.FieldsV1{Raw: make([]byte, 700)}}},
	}
}

func (b *big) namespaceOf(i int) string { return fmt.Sprintf("team-%d", i%b.namespaces) }

// pod gives one of the replicas of a deployment, some ten each.
func (b *big) pod(i int) core.Pod {
	deployment := i / 10
	p := core.Pod{
		ObjectMeta: b.meta(b.namespaceOf(deployment), fmt.Sprintf("app-%d-7d4b9c6f5-%05d", deployment, i), map[string]string{
			"app": fmt.Sprintf("app-%d", deployment), "pod-template-hash": "7d4b9c6f5", "tier": "backend", "version": "v1", "team": fmt.Sprintf("team-%d", deployment%50)}),
		Spec: core.PodSpec{
			NodeName: fmt.Sprintf("node-%d", i%5000), ServiceAccountName: fmt.Sprintf("sa-%d", deployment%b.accounts),
			Volumes: []core.Volume{{Name: "token", VolumeSource: core.VolumeSource{Projected: &core.ProjectedVolumeSource{}}}, {Name: "config"}},
		},
		Status: core.PodStatus{
			Phase: core.PodRunning, PodIP: fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255), HostIP: "192.168.0.1",
			Conditions: []core.PodCondition{{Type: "Ready", Status: "True"}, {Type: "Initialized", Status: "True"}, {Type: "PodScheduled", Status: "True"}, {Type: "ContainersReady", Status: "True"}},
		},
	}
	p.Status.PodIPs = []core.PodIP{{IP: p.Status.PodIP}}
	for c := range 2 {
		container := core.Container{Name: fmt.Sprintf("c%d", c), Image: "registry.example/team/app:1.2.3", Ports: []core.ContainerPort{{Name: "http", ContainerPort: 8080}}}
		for e := range 12 {
			container.Env = append(container.Env, core.EnvVar{Name: fmt.Sprintf("VARIABLE_%d", e), Value: "some value of the usual length"})
		}
		p.Spec.Containers = append(p.Spec.Containers, container)
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, core.ContainerStatus{Name: container.Name, Image: container.Image, ImageID: container.Image + "@sha256:0123456789abcdef0123456789abcdef", ContainerID: "containerd://0123456789abcdef0123456789abcdef"})
	}
	return p
}

func page[T any](n, from, size int, of func(int) T) (items []T, next string) {
	for i := from; i < min(n, from+size); i++ {
		items = append(items, of(i))
	}
	if from+size < n {
		next = strconv.Itoa(from + size)
	}
	return items, next
}

func (b *big) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch {
	case q.Get("sendInitialEvents") != "":
		status(w, http.StatusUnprocessableEntity, "Invalid") // as with an etcd before 3.5
		return
	case q.Get("watch") != "":
		w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf;stream=watch")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		b.watch(w, r)
		return
	}
	from, _ := strconv.Atoi(q.Get("continue"))
	size, _ := strconv.Atoi(q.Get("limit"))
	meta := metav1.ListMeta{ResourceVersion: "10"}
	var list kruntime.Object
	switch r.URL.Path {
	case "/api/v1/pods":
		l := &core.PodList{ListMeta: meta}
		l.Items, l.Continue = page(b.pods, from, size, b.pod)
		list = l
	case "/api/v1/serviceaccounts":
		l := &core.ServiceAccountList{ListMeta: meta}
		l.Items, l.Continue = page(b.accounts, from, size, func(i int) core.ServiceAccount {
			return core.ServiceAccount{ObjectMeta: b.meta(b.namespaceOf(i), fmt.Sprintf("sa-%d", i), map[string]string{"role": fmt.Sprintf("role-%d", i%100)})}
		})
		list = l
	case "/api/v1/namespaces":
		l := &core.NamespaceList{ListMeta: meta}
		l.Items, l.Continue = page(b.namespaces, from, size, func(i int) core.Namespace {
			return core.Namespace{ObjectMeta: b.meta("", b.namespaceOf(i), map[string]string{"env": "prod"})}
		})
		list = l
	case "/apis/discovery.k8s.io/v1/endpointslices":
		l := &discovery.EndpointSliceList{ListMeta: meta}
		l.Items, l.Continue = page(b.pods/10, from, size, func(i int) discovery.EndpointSlice {
			s := discovery.EndpointSlice{ObjectMeta: b.meta(b.namespaceOf(i), fmt.Sprintf("app-%d-x", i), map[string]string{discovery.LabelServiceName: fmt.Sprintf("app-%d", i)}), AddressType: discovery.AddressTypeIPv4}
			port := int32(8080)
			s.Ports = []discovery.EndpointPort{{Port: &port}}
			for j := range 10 {
				s.Endpoints = append(s.Endpoints, discovery.Endpoint{Addresses: []string{b.pod(10*i + j).Status.PodIP}, TargetRef: &core.ObjectReference{Name: "pod"}})
			}
			return s
		})
		list = l
	case "/apis/networking.k8s.io/v1/networkpolicies":
		w.Header().Set("Content-Type", "application/json")
		items, next := page(b.policies, from, size, func(i int) json.RawMessage {
			return json.RawMessage(fmt.Sprintf(`{"metadata":{"name":"allow-%[1]d","namespace":%[2]q,"resourceVersion":"5"},"spec":{"podSelector":{"matchLabels":{"app":"app-%[1]d"}},`+
				`"policyTypes":["Ingress"],"ingress":[{"from":[{"namespaceSelector":{},"podSelector":{"matchLabels":{"app":"app-%[3]d"}}}],"ports":[{"port":8080}]}]}}`, i, b.namespaceOf(i), i*7%b.policies))
		})
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": "NetworkPolicyList", "apiVersion": "networking.k8s.io/v1",
			"metadata": map[string]string{"resourceVersion": "10", "continue": next}, "items": append([]json.RawMessage{}, items...)})
		return
	default:
		status(w, http.StatusNotFound, "NotFound")
		return
	}
	kinds, _, _ := typedScheme().ObjectKinds(list)
	list.GetObjectKind().SetGroupVersionKind(kinds[0])
	w.Header().Set("Content-Type", kruntime.ContentTypeProtobuf)
	_ = b.encoder.Encode(list, w)
}

// watch tells of changed pods, on the watch for pods.
func (b *big) watch(w http.ResponseWriter, r *http.Request) {
	changed := b.changed
	if r.URL.Path != "/api/v1/pods" {
		changed = nil
	}
	frames := protobuf.LengthDelimitedFramer.NewFrameWriter(w)
	for {
		select {
		case <-r.Context().Done():
			return
		case p := <-changed:
			var object, event bytes.Buffer
			p.Kind, p.APIVersion = "Pod", "v1"
			_ = b.encoder.Encode(p, &object)
			_ = b.frame.Encode(&metav1.WatchEvent{Type: "MODIFIED", Object: kruntime.RawExtension{Raw: object.Bytes()}}, &event)
			_, _ = frames.Write(event.Bytes())
			w.(http.Flusher).Flush()
		}
	}
}

// cpu is what the process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// start runs a source until it is synced; stop ends it.
func start(b *testing.B, url string) (store *k8ssync.Store, stop func()) {
	store = k8ssync.NewLargeStore()
	src, err := newSource(Config{NoEvents: true}, &rest.Config{Host: url}, store, zerolog.New(io.Discard))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- src.Run(ctx) }()
	select {
	case <-src.Synced():
	case <-time.After(5 * time.Minute):
		b.Fatalf("%+v", src.Status())
	}
	return store, func() { cancel(); <-done }
}

// BenchmarkChurn follows a cluster of 100,000 pods and 10,000 policies in which 100
// pods a second are relabelled, and puts each state in force in an engine. It
// reports the CPU that takes, the server's small part included, and how long an
// event takes from the server's socket to the engine.
func BenchmarkChurn(b *testing.B) {
	const pods, rate, seconds = 100_000, 100, 15
	api := newBig(pods, 10_000, 500)
	api.policies = 10_000
	s := httptest.NewServer(api)
	defer s.Close()
	for range b.N {
		begin := time.Now()
		store, stop := start(b, s.URL)
		engine := &filter.Engine{}
		applier := dataplane.New(engine, &wire{}, noFlows{}, nil, dataplane.Options{Compile: compile.Options{Node: "node-1", Changes: store.Changes}, Epochs: 32})
		last := store.Snapshot()
		if _, _, err := applier.Apply(last); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(begin).Seconds(), "s/start")

		var mu sync.Mutex
		sent := make(map[string]time.Time)
		var took []time.Duration
		go func() {
			tick := time.NewTicker(time.Second / rate)
			defer tick.Stop()
			for n := 0; n < rate*seconds; n++ {
				<-tick.C
				p := api.pod(n * 7919 % pods)
				p.Labels["version"], p.ResourceVersion = fmt.Sprint("n", n), fmt.Sprint(100+n)
				mu.Lock()
				sent[p.Labels["version"]] = time.Now()
				mu.Unlock()
				api.changed <- &p
			}
		}()
		used, from := cpu(b), time.Now()
		applies := 0
		for len(took) < rate*seconds {
			<-store.Changed()
			now := store.Snapshot()
			if _, _, err := applier.Apply(now); err != nil {
				b.Fatal(err)
			}
			applies++
			changes, ok := store.Changes(last, now)
			if !ok {
				b.Fatal("the store forgot")
			}
			mu.Lock()
			for _, ch := range changes {
				if at, ok := sent[ch.New.(*policy.Endpoint).Labels["version"]]; ok {
					took = append(took, time.Since(at))
				}
			}
			mu.Unlock()
			last = now
		}
		b.ReportMetric(float64(cpu(b)-used)/float64(time.Since(from)), "cores")
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/p50")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms/p99")
		b.ReportMetric(float64(applies)/seconds, "applies/s")
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/1e6, "MB/live")
		b.ReportMetric(float64(m.Sys)/1e6, "MB/sys")
		runtime.KeepAlive(engine)
		stop()
	}
}

// BenchmarkSync reads 100,000 pods, 10,000 service accounts and 10,000 endpoint
// slices over HTTP, until the store has them. B/pod is all that is live afterwards,
// by pod; the other kinds are in it.
func BenchmarkSync(b *testing.B) {
	const pods = 100_000
	s := httptest.NewServer(newBig(pods, 10_000, 500))
	defer s.Close()
	live := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	for range b.N {
		before := live()
		begin := time.Now()
		store, stop := start(b, s.URL)
		synced := time.Since(begin)
		if n := store.Snapshot().NumPods(); n != pods {
			b.Fatalf("%d endpoints", n)
		}
		b.ReportMetric(synced.Seconds(), "s/sync")
		b.ReportMetric((live()-before)/pods, "B/pod")
		runtime.KeepAlive(store)
		stop()
	}
}
