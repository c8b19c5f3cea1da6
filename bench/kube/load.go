package main

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// size is how large the cluster is.
type size struct {
	pods, accounts, policies, nodes int
}

const (
	namespaces = 100
	localNode  = "node-0"
	workers    = 24
)

var policyResource = schema.GroupVersionResource{Group: "projectcalico.org", Version: "v3", Resource: "networkpolicies"}

// cluster writes objects to an API server.
type cluster struct {
	size
	typed   *kubernetes.Clientset
	dynamic *dynamic.DynamicClient
}

func newCluster(config *rest.Config, s size) (*cluster, error) {
	proto := rest.CopyConfig(config)
	proto.ContentType = runtime.ContentTypeProtobuf
	typed, err := kubernetes.NewForConfig(proto)
	if err != nil {
		return nil, err
	}
	d, err := dynamic.NewForConfig(config)
	return &cluster{size: s, typed: typed, dynamic: d}, err
}

func namespace(i int) string { return fmt.Sprintf("ns-%02d", i%namespaces) }

func account(i int) string { return fmt.Sprintf("sa-%d", i/namespaces) }

// address of pod i, and of its second family.
func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 1 + byte(i>>16), byte(i >> 8), byte(i)})
}

func address6(i int) netip.Addr {
	a := netip.MustParseAddr("fd00:244::").As16()
	a[13], a[14], a[15] = byte(i>>16), byte(i>>8), byte(i)
	return netip.AddrFrom16(a)
}

// node of pod i: those of one namespace are spread.
func (c *cluster) node(i int) string { return fmt.Sprintf("node-%d", i/namespaces%c.nodes) }

// parallel runs f for 0 to n-1, and stops at the first error.
func parallel(n int, f func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(i); err != nil && !apierrors.IsAlreadyExists(err) {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// load creates everything.
func (c *cluster) load(ctx context.Context, progress func(string)) error {
	progress("namespaces and service accounts")
	if err := parallel(namespaces, func(i int) error {
		_, err := c.typed.CoreV1().Namespaces().Create(ctx, &core.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace(i), Labels: map[string]string{"team": fmt.Sprintf("t%d", i%10)}}}, metav1.CreateOptions{})
		return err
	}); err != nil {
		return err
	}
	if err := parallel(c.accounts, func(i int) error {
		_, err := c.typed.CoreV1().ServiceAccounts(namespace(i)).Create(ctx, &core.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account(i), Labels: accountLabels(i)}}, metav1.CreateOptions{})
		return err
	}); err != nil {
		return err
	}
	progress("policies")
	if err := parallel(c.policies, func(i int) error {
		_, err := c.dynamic.Resource(policyResource).Namespace(namespace(i)).Create(ctx, policyObject(i), metav1.CreateOptions{})
		return err
	}); err != nil {
		return err
	}
	progress("pods")
	return parallel(c.pods, func(i int) error { return c.createPod(ctx, i) })
}

func accountLabels(i int) map[string]string {
	return map[string]string{"tier": fmt.Sprintf("tier-%d", i%7), "owner": fmt.Sprintf("owner-%d", i%50)}
}

// policyObject protects the pods of one application: by accounts' labels, by names,
// and by the labels of pods.
func policyObject(i int) *unstructured.Unstructured {
	peer := map[string]any{"serviceAccounts": map[string]any{"selector": fmt.Sprintf("tier == 'tier-%d'", i%7)}}
	switch i % 3 {
	case 1:
		peer = map[string]any{"serviceAccounts": map[string]any{"names": []any{account(i), "front", "back"}}}
	case 2:
		peer = map[string]any{"selector": fmt.Sprintf("app == 'app-%d'", i/namespaces%100)}
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
		"metadata": map[string]any{"name": fmt.Sprintf("policy-%d", i/namespaces), "namespace": namespace(i)},
		"spec": map[string]any{
			"order": float64(i % 100), "selector": fmt.Sprintf("app == 'app-%d'", i/namespaces%100),
			"ingress": []any{map[string]any{"action": "Allow", "protocol": "TCP", "source": peer, "destination": map[string]any{"ports": []any{int64(80), int64(443)}}}},
		},
	}}
}

func podLabels(i int) map[string]string {
	return map[string]string{"app": fmt.Sprintf("app-%d", i/namespaces%100), "version": fmt.Sprintf("v%d", i%3), "pod-template-hash": fmt.Sprintf("%08x", i*2654435761)}
}

func (c *cluster) createPod(ctx context.Context, i int) error {
	return c.writePod(ctx, namespace(i), fmt.Sprintf("pod-%d", i/namespaces), c.node(i), account(i%c.accounts), podLabels(i), address(i), address6(i))
}

// writePod creates a pod and says that it runs.
func (c *cluster) writePod(ctx context.Context, namespace, name, node, account string, labels map[string]string, addrs ...netip.Addr) error {
	pods := c.typed.CoreV1().Pods(namespace)
	p, err := pods.Create(ctx, &core.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: core.PodSpec{
			NodeName: node, ServiceAccountName: account,
			Containers: []core.Container{{Name: "main", Image: "registry.example/team/application:v1.2.3", Ports: []core.ContainerPort{{Name: "http", ContainerPort: 80}},
				Env: []core.EnvVar{{Name: "MODE", Value: "production"}, {Name: "LOG_LEVEL", Value: "info"}}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	p.Status.Phase = core.PodRunning
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, core.PodIP{IP: a.String()})
	}
	p.Status.PodIP = addrs[0].String()
	_, err = pods.UpdateStatus(ctx, p, metav1.UpdateOptions{})
	return err
}

// label patches one label.
func (c *cluster) labelAccount(ctx context.Context, namespace, name, key, value string) error {
	_, err := c.typed.CoreV1().ServiceAccounts(namespace).Patch(ctx, name, types.MergePatchType, labelPatch(key, value), metav1.PatchOptions{})
	return err
}

func (c *cluster) labelPod(ctx context.Context, namespace, name, key, value string) error {
	_, err := c.typed.CoreV1().Pods(namespace).Patch(ctx, name, types.MergePatchType, labelPatch(key, value), metav1.PatchOptions{})
	return err
}

func labelPatch(key, value string) []byte {
	return fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, key, value)
}

func (c *cluster) patchPolicy(ctx context.Context, namespace, name, patch string) error {
	_, err := c.dynamic.Resource(policyResource).Namespace(namespace).Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

var create = metav1.CreateOptions{}

func (c *cluster) typedAccounts(ctx context.Context, names ...string) error {
	for _, name := range names {
		if _, err := c.typed.CoreV1().ServiceAccounts("ns-00").Create(ctx, &core.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, create); err != nil {
			return err
		}
	}
	return nil
}
