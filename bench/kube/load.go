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

// String names the size and what is loaded: of another version it is another cluster.
func (s size) String() string {
	return fmt.Sprintf("cluster-v1-%d-%d-%d-%d", s.pods, s.accounts, s.policies, s.nodes)
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
		"metadata": map[string]any{"name": policyName(i), "namespace": namespace(i)},
		"spec": map[string]any{
			"order": float64(i % 100), "selector": fmt.Sprintf("app == 'app-%d'", i/namespaces%100),
			"ingress": []any{map[string]any{"action": "Allow", "protocol": "TCP", "source": peer, "destination": map[string]any{"ports": []any{int64(80), int64(443)}}}},
		},
	}}
}

// podLabels are equal for the pods of one account: they are one deployment's.
func (c *cluster) podLabels(i int) map[string]string {
	i %= c.accounts
	return map[string]string{"app": fmt.Sprintf("app-%d", i/namespaces%100), "version": fmt.Sprintf("v%d", i%3), "pod-template-hash": fmt.Sprintf("%08x", uint32(i)*2654435761)}
}

// warm waits until the API server has read what it stores into its caches.
func (c *cluster) warm(ctx context.Context) error {
	nothing := metav1.ListOptions{ResourceVersion: "0", FieldSelector: "metadata.name=nothing"}
	if _, err := c.typed.CoreV1().Pods("").List(ctx, nothing); err != nil {
		return err
	}
	if _, err := c.typed.CoreV1().ServiceAccounts("").List(ctx, nothing); err != nil {
		return err
	}
	_, err := c.dynamic.Resource(policyResource).List(ctx, nothing)
	return err
}

// complete holds what the API server serves against what was loaded.
func (c *cluster) complete(ctx context.Context) error {
	one := metav1.ListOptions{Limit: 1}
	pods, err := c.typed.CoreV1().Pods("").List(ctx, one)
	if err != nil {
		return err
	}
	policies, err := c.dynamic.Resource(policyResource).List(ctx, one)
	if err != nil {
		return err
	}
	for what, n := range map[string][2]int{"pods": {served(pods.RemainingItemCount), c.pods}, "policies": {served(policies.GetRemainingItemCount()), c.policies}} {
		if n[0] != n[1] {
			return fmt.Errorf("the API server has %d %s, and %d were loaded", n[0], what, n[1])
		}
	}
	say("the API server serves %d pods and %d policies", c.pods, c.policies)
	return nil
}

// served is the number of objects of which a list has the first.
func served(remaining *int64) int {
	if remaining == nil {
		return 1
	}
	return int(*remaining) + 1
}

func (c *cluster) createPod(ctx context.Context, i int) error {
	return c.writePod(ctx, namespace(i), podName(i), c.node(i), account(i%c.accounts), c.podLabels(i), address(i), address6(i))
}

func podName(i int) string { return fmt.Sprintf("pod-%d", i/namespaces) }

func policyName(i int) string { return fmt.Sprintf("policy-%d", i/namespaces) }

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
	p.Status.PodIPs = podIPs(addrs...)
	p.Status.PodIP = addrs[0].String()
	_, err = pods.UpdateStatus(ctx, p, metav1.UpdateOptions{})
	return err
}

func podIPs(addrs ...netip.Addr) (ips []core.PodIP) {
	for _, a := range addrs {
		ips = append(ips, core.PodIP{IP: a.String()})
	}
	return ips
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
