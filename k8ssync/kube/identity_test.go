package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-project/postern/filter/policy"
)

// TestIdentities takes pods and accounts of a real API server through what may happen
// to who an address belongs to.
func TestIdentities(t *testing.T) {
	c := newCluster(t)
	c.pod("ends", "10.11.0.1", "")
	c.pod("stays", "10.11.0.2", "")
	f := follow(t, server.Admin(), Config{}).sync()

	// An account that is made again is another object under a name that pods have.
	accounts := c.CoreV1().ServiceAccounts(c.ns)
	old, err := accounts.Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := accounts.Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.until("its labels are gone", func() bool { return f.role(c.ns, "web") == "no account" })
	if e := f.pod(c.ns, "stays"); e == nil || e.ServiceAccount != "web" {
		t.Errorf("endpoint %+v, want one that names the account", e)
	}
	c.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: NS, labels: {role: again}}\n")
	f.until("the labels are those of the new one", func() bool { return f.role(c.ns, "web") == "again" })
	if now, err := accounts.Get(t.Context(), "web", metav1.GetOptions{}); err != nil || now.UID == old.UID {
		t.Errorf("the account is %v, %v; want another UID than %v", now.UID, err, old.UID)
	}

	// A pod that is being deleted has its address until it has ended.
	pods := c.CoreV1().Pods(c.ns)
	if err := pods.Delete(t.Context(), "ends", *metav1.NewDeleteOptions(600)); err != nil {
		t.Fatal(err)
	}
	p, err := pods.Get(t.Context(), "ends", metav1.GetOptions{})
	if err != nil || p.DeletionTimestamp == nil {
		t.Fatalf("the pod is not being deleted: %v, %v", p, err)
	}
	c.pod("marker", "10.11.0.3", "")
	f.until("a later event is seen", func() bool { return f.pod(c.ns, "marker") != nil })
	if f.pod(c.ns, "ends") == nil {
		t.Error("a pod that is being deleted is no endpoint any more")
	}
	c.phase("ends", core.PodFailed)
	f.until("a pod that has ended is no endpoint", func() bool { return f.pod(c.ns, "ends") == nil })
	if _, err := pods.Get(t.Context(), "ends", metav1.GetOptions{}); err != nil {
		t.Errorf("the object of the pod that has ended: %v", err)
	}

	// A static pod, by its mirror: made again it is another.
	mirror := func(address string) {
		c.apply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: static-n1, namespace: NS, annotations: {kubernetes.io/config.mirror: x}}
spec: {nodeName: n1, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: %[1]s, podIPs: [{ip: %[1]s}]}
`, address))
	}
	mirror("10.11.0.4")
	f.until("the static pod is there", func() bool { return f.pod(c.ns, "static-n1") != nil })
	uid := f.pod(c.ns, "static-n1").UID
	c.deletePod("static-n1")
	mirror("10.11.0.1") // an address that another pod had
	f.until("the static pod is another", func() bool {
		e := f.pod(c.ns, "static-n1")
		return e != nil && e.UID != uid && e.ServiceAccount == "" && e.Addrs[0].String() == "10.11.0.1"
	})
}

// TestUnusable: of every kind that may hold what postern cannot use, an object that it
// cannot use is told by an Event, in the status that metrics are made of, and as a
// problem that names object and field.
func TestUnusable(t *testing.T) {
	c := newCluster(t)
	f := follow(t, server.Admin(), Config{}).sync()
	objects := []struct {
		kind         policy.Kind
		plural, body string
		namespaced   bool
	}{
		{policy.TierKind, "tiers", "spec: {order: soon}", false},
		{policy.NetworkPolicy, "networkpolicies", "spec: {ingress: [{action: Permit}]}", true},
		{policy.StagedNetworkPolicy, "stagednetworkpolicies", "spec: {ingress: [{action: Permit}]}", true},
		{policy.StagedGlobalNetworkPolicy, "stagedglobalnetworkpolicies", "spec: {ingress: [{action: Permit}]}", false},
		{policy.StagedKubernetesNetworkPolicy, "stagedkubernetesnetworkpolicies", "spec: {podSelector: 7}", true},
		{policy.NetworkSetKind, "networksets", "spec: {nets: [everywhere]}", true},
		{policy.GlobalNetworkSet, "globalnetworksets", "spec: {nets: [everywhere]}", false},
		{policy.HostEndpointKind, "hostendpoints", "spec: {expectedIPs: [nowhere]}", false},
		{policy.ProfileKind, "profiles", "spec: {labelsToApply: 7}", false},
	}
	kindOf := func(plural string) string {
		for _, r := range calico(calicoV3) {
			if r.plural == plural {
				return r.object
			}
		}
		t.Fatalf("no kind has the plural %s", plural)
		return ""
	}
	for _, o := range objects {
		scope := "Cluster"
		if o.namespaced {
			scope = "Namespaced"
		}
		c.apply(definition("projectcalico.org", "v3", o.plural, kindOf(o.plural), scope))
		defer c.undefine(o.plural + ".projectcalico.org")
	}
	for _, o := range objects {
		namespace := ""
		if o.namespaced {
			namespace = ", namespace: NS"
		}
		c.apply("apiVersion: projectcalico.org/v3\nkind: " + kindOf(o.plural) + "\nmetadata: {name: bad-NS" + namespace + "}\n" + o.body + "\n")
	}
	for _, o := range objects {
		f.until(string(o.kind)+" is told as a problem", func() bool {
			return slices.ContainsFunc(f.store.Problems(), func(p policy.Problem) bool {
				return p.Object.Kind == o.kind && p.Object.Name == "bad-"+c.ns && strings.HasPrefix(p.Field, "spec")
			})
		})
		f.until(string(o.kind)+" is counted", func() bool { return f.kind(o.plural+".projectcalico").Unusable == 1 })
	}
	f.until("an Event is written about each", func() bool {
		list, err := c.CoreV1().Events("").List(t.Context(), metav1.ListOptions{FieldSelector: "reason=NotUsable,involvedObject.name=bad-" + c.ns})
		if err != nil {
			return false
		}
		told := map[string]bool{}
		for _, e := range list.Items {
			told[e.InvolvedObject.Kind] = e.InvolvedObject.UID != "" && strings.HasPrefix(e.Message, "spec")
		}
		for _, o := range objects {
			if !told[kindOf(o.plural)] {
				return false
			}
		}
		return true
	})
}
