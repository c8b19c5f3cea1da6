//go:build node

package node

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/postern-project/postern/test/apiserver"
	"github.com/postern-project/postern/test/lab"
)

// inCluster: the same by the DaemonSet that is shipped, in the place of the daemon on
// the host: on the host's network, with the rights of its account and no more, and
// ready only once policy is in force.
func (w *world) inCluster() {
	w.check(w.daemon.Stop(syscall.SIGTERM))
	admin, err := apiserver.NewClient(w.API.Admin())
	w.check(err)
	w.serveAPI()
	// Its account may read nothing at first.
	binding := w.read(deployed+"kubernetes/rbac.yaml", "ClusterRoleBinding")
	bindings, err := admin.Resource(binding)
	w.check(err)
	w.check(bindings.Delete(w.Context(), binding.GetName(), metav1.DeleteOptions{}))

	set := w.read(deployed+"kubernetes/daemonset.yaml", "DaemonSet")
	w.local(set)
	w.check(admin.Apply(w.Context(), set))
	w.eventually("the pod of the DaemonSet runs", func(p *core.Pod) bool {
		return p.Status.Phase == core.PodRunning && p.Spec.HostNetwork && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Running != nil
	})
	time.Sleep(impatience)
	if p, err := w.posternPod(w.Context()); err != nil || ready(p) {
		w.Fatalf("the pod is ready and may read nothing: %+v, %v", p, err)
	}
	w.check(w.holds(w.pods[auth], w.pods[db], false)) // nothing decides yet
	w.check(admin.Apply(w.Context(), binding))
	p := w.eventually("it is ready", ready)

	w.becomes(w.pods[api], w.pods[db], true)
	w.check(w.holds(w.pods[auth], w.pods[db], true))
	w.check(w.holds(w.pods[reports], w.pods[db], false))
	w.check(w.holds(w.pods[intern1], w.pods[auth], false))
	w.relabel("reports-sa", "web-frontend")
	w.becomes(w.pods[reports], w.pods[db], true)
	w.relabel("reports-sa", "reports")
	w.becomes(w.pods[reports], w.pods[db], false)
	if n := p.Status.ContainerStatuses[0].RestartCount; n != 0 {
		w.Errorf("the container was started %d times more", n)
	}
	sets, err := admin.Resource(set)
	w.check(err)
	w.check(sets.Delete(w.Context(), set.GetName(), metav1.DeleteOptions{}))
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if p, err := w.posternPod(w.Context()); err == nil && p == nil {
			break
		} else if time.Now().After(deadline) {
			w.Fatalf("the pod of the DaemonSet stays: %+v, %v", p, err)
		}
	}
	w.check(w.holds(w.pods[auth], w.pods[reports], true)) // no policy selects them
	w.start()                                             // as before
}

// read gives the object of a kind from a manifest.
func (w *world) read(path, kind string) *unstructured.Unstructured {
	w.Helper()
	objects, err := apiserver.Read(path)
	w.check(err)
	for _, o := range objects {
		if o.GetKind() == kind {
			return o
		}
	}
	w.Fatalf("%s has no %s", path, kind)
	return nil
}

// local changes of the DaemonSet what an overlay would: the image, which comes from no
// registry here, and the directories of the host, which are not to be this machine's.
func (w *world) local(set *unstructured.Unstructured) {
	w.Helper()
	spec := []string{"spec", "template", "spec"}
	containers, _, err := unstructured.NestedSlice(set.Object, append(spec, "containers")...)
	w.check(err)
	c := containers[0].(map[string]any)
	c["image"], c["imagePullPolicy"] = posternImage, "Never"
	c["readinessProbe"].(map[string]any)["periodSeconds"] = int64(1)
	w.check(unstructured.SetNestedSlice(set.Object, containers, append(spec, "containers")...))
	volumes, _, err := unstructured.NestedSlice(set.Object, append(spec, "volumes")...)
	w.check(err)
	for _, v := range volumes {
		v := v.(map[string]any)
		v["hostPath"].(map[string]any)["path"] = w.path("postern-" + v["name"].(string))
	}
	w.check(unstructured.SetNestedSlice(set.Object, volumes, append(spec, "volumes")...))
}

// serveAPI makes the service "kubernetes" lead to the API server, which listens
// outside of the node's network.
func (w *world) serveAPI() {
	w.Helper()
	u, err := url.Parse(w.API.Admin().Host)
	w.check(err)
	f, err := w.Node.Node.ForwardTo(lab.NodeAddr4.String()+":"+u.Port(), u.Host)
	w.check(err)
	w.Cleanup(func() { f.Close() })
	n, err := strconv.Atoi(u.Port())
	w.check(err)
	port, name := int32(n), "https"
	_, err = w.Client.DiscoveryV1().EndpointSlices("default").Create(w.Context(), &discovery.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "kubernetes-outside", Labels: map[string]string{discovery.LabelServiceName: "kubernetes"}},
		AddressType: discovery.AddressTypeIPv4,
		Endpoints:   []discovery.Endpoint{{Addresses: []string{lab.NodeAddr4.String()}}},
		Ports:       []discovery.EndpointPort{{Name: &name, Port: &port}},
	}, metav1.CreateOptions{})
	w.check(err)
}

// posternPod gives the DaemonSet's pod, nil if there is none.
func (w *world) posternPod(ctx context.Context) (*core.Pod, error) {
	list, err := w.Client.CoreV1().Pods("postern").List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=postern"})
	if err != nil || len(list.Items) == 0 {
		return nil, err
	}
	if len(list.Items) > 1 {
		return nil, fmt.Errorf("%d pods", len(list.Items))
	}
	return &list.Items[0], nil
}

func ready(p *core.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == core.PodReady {
			return c.Status == core.ConditionTrue
		}
	}
	return false
}

func (w *world) eventually(what string, ok func(*core.Pod) bool) *core.Pod {
	w.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		p, err := w.posternPod(w.Context())
		if err == nil && p != nil && ok(p) {
			return p
		}
		if time.Now().After(deadline) {
			log := ""
			if p != nil {
				text, _ := w.Client.CoreV1().Pods("postern").GetLogs(p.Name, &core.PodLogOptions{}).DoRaw(w.Context())
				log = string(text)
			}
			w.Fatalf("%s: it did not come to this: %v\n%+v\n%s\n%s", what, err, p, log, w.Logs())
		}
	}
}
