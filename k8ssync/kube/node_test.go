package kube

import (
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestNodeMissing: a node that neither a Node nor a pod has the name of is a fault that
// status and log name, until either is there. A Node without pods is well.
func TestNodeMissing(t *testing.T) {
	c := newCluster(t)
	name := c.ns + "-node"
	missing := func(f *follower) func() bool {
		return func() bool { return f.source.Status().NodeMissing }
	}
	well := func(f *follower) func() bool {
		return func() bool {
			st := f.source.Status()
			return !st.NodeMissing && !strings.Contains(strings.Join(st.Degraded, "\n"), "no pod names")
		}
	}
	node := follow(t, server.Admin(), Config{Node: name}).sync()
	pod := follow(t, server.Admin(), Config{Node: name + "-of-a-pod"}).sync()
	for _, f := range []*follower{node, pod} {
		f.until("the node is missing", missing(f))
		if text := strings.Join(f.source.Status().Degraded, "\n"); !strings.Contains(text, "no pod names node "+f.source.config.Node+", and the cluster has no Node of this name") {
			t.Errorf("degraded: %q", text)
		}
		f.until("the log says so", func() bool {
			return strings.Contains(f.log.String(), "degraded: no pod names node "+f.source.config.Node)
		})
	}
	if _, err := c.CoreV1().Nodes().Create(t.Context(), &core.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.apply(`
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: NS}
spec: {nodeName: ` + name + `-of-a-pod, serviceAccountName: web, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.10.0.1}
`)
	for _, f := range []*follower{node, pod} {
		f.until("all is well", well(f))
		f.until("the log says so", func() bool { return strings.Contains(f.log.String(), "the node is as it should be again") })
	}
	// Who may not read Nodes cannot tell, and says so as long as no pod names the node.
	c.apply(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: blind-NS}
rules: [{apiGroups: ["*"], resources: [pods, namespaces, serviceaccounts, endpointslices, networkpolicies], verbs: [list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: blind-NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: blind-NS}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: blind-NS}]
`)
	blind := server.As("blind-" + c.ns)
	f := follow(t, blind, Config{Node: name, NoEvents: true}).sync()
	f.until("the status tells", func() bool {
		return strings.Contains(strings.Join(f.source.Status().Degraded, "\n"), "is this its name? read node "+name)
	})
	f = follow(t, blind, Config{Node: name + "-of-a-pod", NoEvents: true}).sync()
	f.until("a pod is there", func() bool { return f.pod(c.ns, "p") != nil })
	if !well(f)() {
		t.Errorf("degraded: %q", f.source.Status().Degraded)
	}
}
