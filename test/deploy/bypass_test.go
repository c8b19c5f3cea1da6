package deploy

import (
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/postern-project/postern/test/apiserver"
)

// The tests here try to get round the guards: by every kind that pods are made from,
// by every form of writing, by parts of objects and by other ways to say the same.

const bypassCast = shop + `apiVersion: v1
kind: Pod
metadata: {name: running-web-sa, namespace: shop}
spec: {serviceAccountName: web-sa}
---
apiVersion: v1
kind: Pod
metadata: {name: running-db-sa, namespace: shop}
spec: {serviceAccountName: db-sa}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: shop}
spec:
  selector: {matchLabels: {app: a}}
  template: {metadata: {labels: {app: a}}, spec: {serviceAccountName: web-sa, containers: [{name: c, image: i}]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: wide, namespace: shop}
rules:
- {apiGroups: ["", apps, batch], resources: [pods, pods/ephemeralcontainers, replicationcontrollers, podtemplates, deployments, deployments/scale, replicasets, statefulsets, daemonsets, controllerrevisions, jobs, cronjobs], verbs: ["*"]}
- {apiGroups: [""], resources: [serviceaccounts], resourceNames: [web-sa], verbs: [use]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: wide, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: wide}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: wide}]
`

// writing is one way to write an object.
type writing func(t *testing.T, r dynamic.ResourceInterface, o *unstructured.Unstructured) error

var dryRun = []string{metav1.DryRunAll}

var writings = map[string]writing{
	"create": func(t *testing.T, r dynamic.ResourceInterface, o *unstructured.Unstructured) error {
		_, err := r.Create(t.Context(), o, metav1.CreateOptions{DryRun: dryRun})
		return err
	},
	"create by generateName": func(t *testing.T, r dynamic.ResourceInterface, o *unstructured.Unstructured) error {
		o = o.DeepCopy()
		o.SetGenerateName(o.GetName())
		o.SetName("")
		_, err := r.Create(t.Context(), o, metav1.CreateOptions{DryRun: dryRun})
		return err
	},
	"apply": func(t *testing.T, r dynamic.ResourceInterface, o *unstructured.Unstructured) error {
		_, err := r.Apply(t.Context(), o.GetName(), o, metav1.ApplyOptions{DryRun: dryRun, FieldManager: "test", Force: true})
		return err
	},
}

func patch(kind types.PatchType, text string, sub ...string) writing {
	return func(t *testing.T, r dynamic.ResourceInterface, o *unstructured.Unstructured) error {
		_, err := r.Patch(t.Context(), o.GetName(), kind, []byte(text), metav1.PatchOptions{DryRun: dryRun}, sub...)
		return err
	}
}

// tries makes an attempt until it comes out as it should, which roles and guards that
// were just written need.
func tries(t *testing.T, user, title, text string, w writing, allowed bool) {
	t.Helper()
	objects, err := apiserver.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c, err := apiserver.NewClient(server.As(user))
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Resource(objects[0])
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		err := w(t, r, objects[0])
		if allowed && err != nil || !allowed && !(apierrors.IsForbidden(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy")) {
			return fmt.Errorf("%s: %s: allowed should be %v: %v", user, title, allowed, err)
		}
		return nil
	})
}

// TestAccountBypasses: no way to an account that one may not use. Each way is tried
// with an account that one may use too: it is the guard that refuses.
func TestAccountBypasses(t *testing.T) {
	setup(t)
	apply(t, bypassCast)
	of := func(version, kind, spec string) func(string) string {
		return func(account string) string {
			return fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: w, namespace: shop}, %s}", version, kind, strings.ReplaceAll(spec, "ACCOUNT", account))
		}
	}
	const pod = "spec: {serviceAccountName: ACCOUNT, containers: [{name: c, image: i}]}"
	const once = "spec: {serviceAccountName: ACCOUNT, restartPolicy: Never, containers: [{name: c, image: i}]}"
	const template = "template: {metadata: {labels: {app: a}}, " + pod + "}"
	const selected = "spec: {selector: {matchLabels: {app: a}}, " + template + "}"
	kinds := map[string]func(string) string{
		"Pod":                   of("v1", "Pod", pod),
		"Pod, old field":        of("v1", "Pod", "spec: {serviceAccount: ACCOUNT, containers: [{name: c, image: i}]}"),
		"Pod, old field beside": of("v1", "Pod", `spec: {serviceAccountName: "", serviceAccount: ACCOUNT, containers: [{name: c, image: i}]}`),
		"ReplicationController": of("v1", "ReplicationController", "spec: {selector: {app: a}, "+template+"}"),
		"PodTemplate":           of("v1", "PodTemplate", template),
		"Deployment":            of("apps/v1", "Deployment", selected),
		"ReplicaSet":            of("apps/v1", "ReplicaSet", selected),
		"StatefulSet":           of("apps/v1", "StatefulSet", "spec: {serviceName: s, selector: {matchLabels: {app: a}}, "+template+"}"),
		"DaemonSet":             of("apps/v1", "DaemonSet", selected),
		"ControllerRevision":    of("apps/v1", "ControllerRevision", "revision: 1, data: {spec: {"+template+"}}"),
		"Job":                   of("batch/v1", "Job", "spec: {template: {"+once+"}}"),
		"CronJob":               of("batch/v1", "CronJob", "spec: {schedule: '* * * * *', jobTemplate: {spec: {template: {"+once+"}}}}"),
	}
	for kind, text := range kinds {
		for how, w := range writings {
			tries(t, "wide", kind+", "+how, text("web-sa"), w, true)
			tries(t, "wide", kind+", "+how, text("db-sa"), w, false)
		}
	}
	app := "{apiVersion: apps/v1, kind: Deployment, metadata: {name: app, namespace: shop}}"
	for account, allowed := range map[string]bool{"web-sa": true, "db-sa": false} {
		for _, p := range []struct {
			kind types.PatchType
			text string
		}{
			{types.MergePatchType, `{"spec": {"template": {"spec": {"serviceAccountName": %q}}}}`},
			{types.StrategicMergePatchType, `{"spec": {"template": {"spec": {"serviceAccountName": %q}}}}`},
			{types.MergePatchType, `{"spec": {"template": {"spec": {"serviceAccountName": null, "serviceAccount": %q}}}}`},
			{types.JSONPatchType, `[{"op": "replace", "path": "/spec/template/spec/serviceAccountName", "value": %q}]`},
		} {
			tries(t, "wide", string(p.kind)+" "+account, app, patch(p.kind, fmt.Sprintf(p.text, account)), allowed)
		}
		// A container that is added to a pod runs with its account.
		running := "{apiVersion: v1, kind: Pod, metadata: {name: running-" + account + ", namespace: shop}}"
		add := patch(types.StrategicMergePatchType, `{"spec": {"ephemeralContainers": [{"name": "e", "image": "i", "terminationMessagePolicy": "File", "imagePullPolicy": "Always"}]}}`, "ephemeralcontainers")
		tries(t, "wide", "ephemeral container with "+account, running, add, allowed)
		tries(t, "wide", "another image with "+account, running, patch(types.StrategicMergePatchType, `{"spec": {"containers": [{"name": "main", "image": "other"}]}}`), allowed)
	}
	// Scaling makes more of what was checked.
	tries(t, "wide", "scale", app, patch(types.MergePatchType, `{"spec": {"replicas": 3}}`, "scale"), true)
}

// TestTierBypasses: no way into a tier that one has no right in, whatever verb the
// request has, and in neither of Calico's groups.
func TestTierBypasses(t *testing.T) {
	setup(t)
	apply(t, `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: secured}
spec: {order: 11}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: networkpolicies.crd.projectcalico.org}
spec:
  group: crd.projectcalico.org
  scope: Namespaced
  names: {kind: NetworkPolicy, plural: networkpolicies, singular: networkpolicy}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: in-one-tier}
rules:
- {apiGroups: [projectcalico.org, crd.projectcalico.org], resources: ["networkpolicies", globalnetworkpolicies, stagednetworkpolicies, stagedglobalnetworkpolicies], verbs: ["*"]}
- {apiGroups: [projectcalico.org], resources: ["*"], resourceNames: [default.*, secured.evil, "*", "secure*"], verbs: ["*"]}
- {apiGroups: [projectcalico.org], resources: [tiers], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: in-one-tier}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: in-one-tier}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: one-tier}]
`)
	for _, kind := range []string{"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"} {
		for how, w := range writings {
			// An apply of another's object takes it over; of one that is not there it creates.
			tries(t, "one-tier", kind+", "+how, policyIn(kind, "mine", "default"), w, true)
			tries(t, "one-tier", kind+", "+how, policyIn(kind, "mine", "secured"), w, false)
		}
	}
	apply(t, "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: theirs, namespace: shop}, spec: {tier: secured}}\n---\n"+policyIn("NetworkPolicy", "ours", "default"))
	theirs, ours := policyIn("NetworkPolicy", "theirs", "secured"), policyIn("NetworkPolicy", "ours", "default")
	for _, p := range []struct {
		kind types.PatchType
		text string
	}{
		{types.MergePatchType, `{"spec": {"tier": null}}`}, // back to default, out of theirs
		{types.MergePatchType, `{"metadata": {"labels": {"a": "b"}}}`},
		{types.JSONPatchType, `[{"op": "add", "path": "/spec/order", "value": 1}]`},
	} {
		tries(t, "one-tier", p.text, theirs, patch(p.kind, p.text), false)
		tries(t, "one-tier", p.text, ours, patch(p.kind, p.text), true)
	}
	tries(t, "one-tier", "into it", ours, patch(types.MergePatchType, `{"spec": {"tier": "secured"}}`), false)

	stored := strings.NewReplacer("projectcalico.org/v3", "crd.projectcalico.org/v1", "name: p", "name: default.p")
	tries(t, "one-tier", "storage", stored.Replace(policyIn("NetworkPolicy", "p", "default")), writings["create"], true)
	tries(t, "one-tier", "storage", stored.Replace(policyIn("NetworkPolicy", "p", "secured")), writings["create"], false)
}
