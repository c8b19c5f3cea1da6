package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authorization "k8s.io/api/authorization/v1"
	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"

	"github.com/rs/zerolog"

	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/kube"
	"github.com/postern-project/postern/test/apiserver"
)

var server *apiserver.Server

func TestMain(m *testing.M) { os.Exit(apiserver.Main(m, &server)) }

const deployed = "../../deploy/"

// install applies everything, and waits until the API server knows the roles.
var install = sync.OnceValue(func() error {
	ctx := context.Background()
	if err := server.Apply(ctx, deployed+"crds", deployed+"kubernetes", deployed+"guards", deployed+"roles"); err != nil {
		return err
	}
	set, err := kubernetes.NewForConfig(server.Admin())
	if err != nil {
		return err
	}
	for range 1000 {
		if ok, err := may(ctx, set, postern, authorization.ResourceAttributes{Verb: "watch", Group: "projectcalico.org", Resource: "tiers"}); ok || err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("the role of postern has no effect")
})

// postern is the daemon's account.
const postern = "system:serviceaccount:postern:postern"

// may asks the API server what a user may do.
func may(ctx context.Context, set *kubernetes.Clientset, user string, what authorization.ResourceAttributes) (bool, error) {
	review, err := set.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorization.SubjectAccessReview{
		Spec: authorization.SubjectAccessReviewSpec{User: user, ResourceAttributes: &what},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}

func setup(t *testing.T) *apiserver.Client {
	t.Helper()
	if err := install(); err != nil {
		t.Fatal(err)
	}
	c, err := apiserver.NewClient(server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func apply(t *testing.T, text string) {
	t.Helper()
	if err := server.ApplyYAML(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until f returns nil: the API server reads roles and policies
// through watches of its own.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestKustomizations: every kustomization names all manifests beside it.
func TestKustomizations(t *testing.T) {
	for _, dir := range []string{"crds", "kubernetes", "guards", "roles"} {
		text, err := os.ReadFile(deployed + dir + "/kustomization.yaml")
		if err != nil {
			t.Fatal(err)
		}
		o, err := apiserver.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		listed, _, _ := unstructured.NestedStringSlice(o[0].Object, "resources")
		there, err := os.ReadDir(deployed + dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range there {
			if f.Name() != "kustomization.yaml" && !slices.Contains(listed, f.Name()) {
				t.Errorf("%s/kustomization.yaml does not list %s", dir, f.Name())
			}
		}
		if len(there) != len(listed)+1 {
			t.Errorf("%s: %v in the directory, %v listed", dir, there, listed)
		}
	}
}

// TestDaemonRights follows the cluster with the rights that the DaemonSet's account
// has: they must suffice for all it reads, and for its Events.
func TestDaemonRights(t *testing.T) {
	setup(t)
	apply(t, `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: broken}
spec: {ingress: [{action: Allow, source: {nets: [10.0.0.129/25]}}]}
`) // host bits that the schema cannot see
	kubeconfig, err := server.Kubeconfig(postern)
	if err != nil {
		t.Fatal(err)
	}
	source, err := kube.New(kube.Config{Kubeconfig: kubeconfig, Node: "n1"}, k8ssync.NewStore(), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { source.Run(ctx) })
	defer run.Wait()
	defer cancel()
	select {
	case <-source.Synced():
	case <-time.After(time.Minute):
		t.Fatalf("not synced: %+v", source.Status())
	}
	st := source.Status()
	if len(st.Kinds) != 15 {
		t.Errorf("%d kinds are read, want all but ClusterNetworkPolicy: %+v", len(st.Kinds), st.Kinds)
	}
	for _, k := range st.Kinds {
		if k.State != kube.Live || k.Error != "" {
			t.Errorf("%+v", k)
		}
	}
	set, err := kubernetes.NewForConfig(server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		events, err := set.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.InvolvedObject.Name == "broken" && strings.Contains(e.Message, "host bits") {
				return nil
			}
		}
		return fmt.Errorf("no Event about the policy that cannot be used: %d others", len(events.Items))
	})
}

// TestDaemonRightsAreFew: reading is all, but for Events.
func TestDaemonRightsAreFew(t *testing.T) {
	setup(t)
	set, err := kubernetes.NewForConfig(server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	role, err := set.RbacV1().ClusterRoles().Get(t.Context(), "postern", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range role.Rules {
		want := []string{"list", "watch"}
		// Those that it does not follow stand alone, with less.
		for resource, verbs := range map[string][]string{"events": {"get", "create"}, "nodes": {"get"}} {
			if slices.Contains(r.Resources, resource) {
				want = verbs
				if len(r.Resources) > 1 {
					t.Errorf("%v", r)
				}
			}
		}
		if !slices.Equal(r.Verbs, want) || slices.Contains(r.Resources, "*") || slices.Contains(r.APIGroups, "*") {
			t.Errorf("%v: want %v of named resources", r, want)
		}
	}
	for _, forbidden := range []authorization.ResourceAttributes{
		{Verb: "list", Resource: "secrets"}, {Verb: "get", Resource: "configmaps", Namespace: "postern"}, {Verb: "patch", Resource: "pods"},
		{Verb: "create", Resource: "serviceaccounts", Subresource: "token"}, {Verb: "update", Group: "projectcalico.org", Resource: "tiers"},
	} {
		ok, err := may(t.Context(), set, postern, forbidden)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			t.Errorf("postern may %v", forbidden)
		}
	}
}

// actor is a user with roles.
type actor struct {
	name  string
	roles []string // ClusterRoles, in the cluster
	local []string // in namespace shop
}

// bind gives actors their roles.
func bind(t *testing.T, actors ...actor) {
	t.Helper()
	set, err := kubernetes.NewForConfig(server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range actors {
		subjects := []rbac.Subject{{Kind: "User", APIGroup: rbac.GroupName, Name: a.name}}
		for _, role := range a.roles {
			b := &rbac.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: a.name + "-" + role}, RoleRef: rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: role}, Subjects: subjects}
			if _, err := set.RbacV1().ClusterRoleBindings().Create(t.Context(), b, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatal(err)
			}
		}
		for _, role := range a.local {
			b := &rbac.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: a.name + "-" + role, Namespace: "shop"}, RoleRef: rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: role}, Subjects: subjects}
			if _, err := set.RbacV1().RoleBindings("shop").Create(t.Context(), b, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatal(err)
			}
		}
	}
}

// attempt is something that somebody tries.
type attempt struct {
	user, verb, object string // verb: create, update or delete
	allowed            bool
}

// try makes the attempt without keeping its result, and returns the API server's
// refusal.
func (a attempt) try(t *testing.T) error {
	t.Helper()
	c, err := apiserver.NewClient(server.As(a.user))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := apiserver.Parse([]byte(a.object))
	if err != nil {
		t.Fatal(err)
	}
	o := objects[0]
	r, err := c.Resource(o)
	if err != nil {
		t.Fatal(err)
	}
	dry := []string{metav1.DryRunAll}
	switch a.verb {
	case "create":
		_, err = r.Create(t.Context(), o, metav1.CreateOptions{DryRun: dry})
	case "update":
		admin, err2 := apiserver.NewClient(server.Admin())
		if err2 != nil {
			t.Fatal(err2)
		}
		ar, err2 := admin.Resource(o)
		if err2 != nil {
			t.Fatal(err2)
		}
		is, err2 := ar.Get(t.Context(), o.GetName(), metav1.GetOptions{})
		if err2 != nil {
			t.Fatal(err2)
		}
		o.SetResourceVersion(is.GetResourceVersion())
		_, err = r.Update(t.Context(), o, metav1.UpdateOptions{DryRun: dry})
	case "delete":
		err = r.Delete(t.Context(), o.GetName(), metav1.DeleteOptions{DryRun: dry})
	case "deletecollection":
		err = r.DeleteCollection(t.Context(), metav1.DeleteOptions{DryRun: dry}, metav1.ListOptions{})
	default:
		t.Fatalf("verb %q", a.verb)
	}
	return err
}

// hold checks attempts. The first are retried until the API server knows of roles
// and guards.
func hold(t *testing.T, attempts []attempt) {
	t.Helper()
	for i, a := range attempts {
		check := func() error {
			err := a.try(t)
			if a.allowed && err != nil || !a.allowed && !apierrors.IsForbidden(err) {
				return fmt.Errorf("attempt %d: %s: %s %.300s: allowed should be %v: %v", i, a.user, a.verb, a.object, a.allowed, err)
			}
			return nil
		}
		eventually(t, check)
	}
}

func policyIn(kind, name, tier string) string {
	namespace := ", namespace: shop"
	if strings.Contains(kind, "Global") {
		namespace = ""
	}
	return fmt.Sprintf("{apiVersion: projectcalico.org/v3, kind: %s, metadata: {name: %s%s}, spec: {tier: %s}}", kind, name, namespace, tier)
}

// TestTiers: developers cannot override the security team's policy: not by a policy
// in its tier, not by moving one in or out, not by changing or deleting it, not by
// another kind of policy, and not by moving the tier.
func TestTiers(t *testing.T) {
	setup(t)
	apply(t, `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 10, defaultAction: Pass}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: default}
spec: {order: 1000000}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: guard, namespace: shop}
spec: {tier: security, ingress: [{action: Deny}]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: app, namespace: shop}
spec: {tier: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: all-policies}
rules:
- {apiGroups: [projectcalico.org], resources: [networkpolicies, globalnetworkpolicies, stagednetworkpolicies, stagedkubernetesnetworkpolicies], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: one-policy}
rules:
- {apiGroups: [projectcalico.org], resources: [tiers], resourceNames: [security], verbs: [get]}
- {apiGroups: [projectcalico.org], resources: [tier.networkpolicies], resourceNames: [guard], verbs: [update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: blind}
rules:
- {apiGroups: [projectcalico.org], resources: [tier.networkpolicies], resourceNames: ["security.*"], verbs: [create]}
`)
	bind(t,
		actor{"sam", []string{"postern-security"}, nil},
		actor{"dev", []string{"postern-tier-default"}, []string{"postern-developer"}},
		actor{"ordinary", []string{"all-policies"}, nil}, // everything but rights in a tier
		actor{"helper", []string{"all-policies", "one-policy"}, nil},
		actor{"blind", []string{"all-policies", "blind"}, nil}, // may not get the tier
	)
	const np, gnp, snp, sknp = "NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedKubernetesNetworkPolicy"
	hold(t, []attempt{
		{"sam", "create", policyIn(np, "p", "security"), true},
		{"sam", "create", policyIn(gnp, "p", "security"), true},
		{"sam", "update", policyIn(np, "guard", "default"), true},
		{"sam", "delete", policyIn(np, "guard", "security"), true},
		{"sam", "update", "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: security}, spec: {order: 20}}", true},

		{"dev", "create", policyIn(np, "p", "default"), true},
		{"dev", "create", policyIn(np, "p", `""`), true},
		{"dev", "update", policyIn(np, "app", "default"), true},
		{"dev", "delete", policyIn(np, "app", "default"), true},
		{"dev", "create", policyIn(snp, "p", "default"), true},
		{"dev", "create", policyIn(np, "p", "security"), false},
		{"dev", "create", policyIn(snp, "p", "security"), false},
		{"dev", "create", policyIn(gnp, "p", "default"), false},
		{"dev", "update", policyIn(np, "guard", "security"), false},
		{"dev", "update", policyIn(np, "guard", "default"), false}, // out of the tier
		{"dev", "update", policyIn(np, "app", "security"), false},  // into it
		{"dev", "delete", policyIn(np, "guard", "security"), false},
		{"dev", "create", "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: mine}, spec: {order: 1}}", false},
		{"dev", "update", "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: security}, spec: {order: 2000000}}", false},
		{"dev", "delete", "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: security}}", false},

		{"ordinary", "create", policyIn(np, "p", "security"), false},
		{"ordinary", "create", policyIn(np, "p", "default"), false},
		{"ordinary", "create", policyIn(gnp, "p", "default"), false},
		{"ordinary", "update", policyIn(np, "guard", "security"), false},
		{"ordinary", "delete", policyIn(np, "guard", "security"), false},
		{"ordinary", "deletecollection", policyIn(np, "guard", "security"), false},
		{"ordinary", "create", policyIn(sknp, "p", "") + "", false},
		{"helper", "update", policyIn(np, "guard", "security"), true}, // by the policy's name
		{"helper", "create", policyIn(np, "p", "security"), false},
		{"helper", "delete", policyIn(np, "guard", "security"), false},
		{"blind", "create", policyIn(np, "p", "security"), false},
	})
}

// shop is a namespace with two accounts; other objects follow in the same text.
const shop = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web-sa, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: db-sa, namespace: shop}
---
`

// TestServiceAccounts: who may label accounts, and who may give one to a pod.
func TestServiceAccounts(t *testing.T) {
	setup(t)
	apply(t, shop+`apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: use-web-sa}
rules: [{apiGroups: [""], resources: [serviceaccounts], resourceNames: [web-sa], verbs: [use]}]
`)
	bind(t,
		actor{"ida", nil, []string{"postern-identities"}},
		actor{"deployer", nil, []string{"postern-deployer", "use-web-sa"}},
		actor{"dev2", nil, []string{"postern-developer"}},
	)
	label := "{apiVersion: v1, kind: ServiceAccount, metadata: {name: web-sa, namespace: shop, labels: {role: admin}}}"
	pod := func(account string) string {
		return "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop}, spec: {serviceAccountName: " + account + ", containers: [{name: c, image: i}]}}"
	}
	template := func(version, kind, account string) string {
		of := "template: {metadata: {labels: {app: a}}, spec: {serviceAccountName: " + account + ", restartPolicy: %s, containers: [{name: c, image: i}]}}"
		switch kind {
		case "Job":
			of = fmt.Sprintf(of, "Never")
		case "CronJob":
			of = "schedule: '* * * * *', jobTemplate: {spec: {" + fmt.Sprintf(of, "Never") + "}}"
		case "StatefulSet":
			of = "serviceName: s, selector: {matchLabels: {app: a}}, " + fmt.Sprintf(of, "Always")
		default:
			of = "selector: {matchLabels: {app: a}}, " + fmt.Sprintf(of, "Always")
		}
		return "{apiVersion: " + version + ", kind: " + kind + ", metadata: {name: w, namespace: shop}, spec: {" + of + "}}"
	}
	attempts := []attempt{
		{"ida", "update", label, true},
		{"ida", "create", "{apiVersion: v1, kind: ServiceAccount, metadata: {name: new-sa, namespace: shop}}", true},
		{"ida", "create", "{apiVersion: v1, kind: ServiceAccount, metadata: {name: new-sa, namespace: default}}", false},
		{"deployer", "update", label, false},
		{"dev2", "update", label, false},
		{"deployer", "create", "{apiVersion: v1, kind: ServiceAccount, metadata: {name: new-sa, namespace: shop}}", false},

		{"deployer", "create", pod("web-sa"), true},
		{"deployer", "create", pod("default"), true},
		{"deployer", "create", pod("db-sa"), false},
		{"dev2", "create", pod("web-sa"), false},
	}
	for _, w := range [][2]string{{"apps/v1", "Deployment"}, {"apps/v1", "StatefulSet"}, {"batch/v1", "Job"}, {"batch/v1", "CronJob"}} {
		attempts = append(attempts,
			attempt{"deployer", "create", template(w[0], w[1], "web-sa"), true},
			attempt{"deployer", "create", template(w[0], w[1], "db-sa"), false})
	}
	hold(t, attempts)
	// What the cluster itself makes of a workload was checked before.
	hold(t, []attempt{{"system:serviceaccount:kube-system:replicaset-controller", "create", pod("db-sa"), true}})
}
