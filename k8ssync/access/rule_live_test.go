package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/postern-project/postern/test/apiserver"
)

// rights are what each user of the tests below has, in the cluster ("") or in a
// namespace: verbs, group, resources and names, in words.
var rights = map[string]map[string][]string{
	"podmaker":  {"prod": {"create pods"}},
	"deployer":  {"prod": {"create,patch pods", "create deployments.apps", "use serviceaccounts/api"}},
	"applier":   {"prod": {"create,patch pods/named", "use serviceaccounts/api"}},
	"elsewhere": {"dev": {"* *", "* *.apps", "* *.projectcalico.org"}},
	"labeller":  {"prod": {"patch serviceaccounts"}},
	"namer":     {"prod": {"patch serviceaccounts/intern-1"}},
	"identity":  {"prod": {"create,delete serviceaccounts"}},
	"spaces":    {"": {"patch namespaces"}},
	"devspace":  {"dev": {"patch namespaces", "patch namespaces/status"}},
	"maker":     {"": {"create namespaces", "create pods"}},
	"relabel":   {"prod": {"patch pods"}},
	"status":    {"prod": {"patch pods/status"}},
	"execs":     {"prod": {"create pods/exec"}},
	"forwards":  {"prod": {"create pods/portforward"}},

	"anypolicy": {"": {"* networkpolicies.projectcalico.org", "* globalnetworkpolicies.projectcalico.org"}}, // and no right in a tier
	"security":  {"": {"* *.projectcalico.org"}},
	"developer": {"": {"get tiers.projectcalico.org/default"}, "prod": {"* networkpolicies.projectcalico.org", "* tier.networkpolicies.projectcalico.org/default.*"}},
	"platform": {"": {"get tiers.projectcalico.org/platform", "get tiers.projectcalico.org/default"},
		"prod": {"* networkpolicies.projectcalico.org", "* tier.networkpolicies.projectcalico.org/platform.*", "update tier.networkpolicies.projectcalico.org/default.*"}},
	"blind":   {"prod": {"* networkpolicies.projectcalico.org", "* tier.networkpolicies.projectcalico.org/platform.*"}},
	"byname":  {"": {"get tiers.projectcalico.org/security"}, "prod": {"* networkpolicies.projectcalico.org", "create tier.networkpolicies.projectcalico.org/db2", "update tier.networkpolicies.projectcalico.org/db"}},
	"orders":  {"": {"patch tiers.projectcalico.org/platform"}},
	"widens":  {"prod": {"* networkpolicies.networking.k8s.io"}},
	"binds":   {"": {"bind clusterroles/admin-of-all"}, "prod": {"create rolebindings.rbac.authorization.k8s.io"}},
	"badbind": {"": {"bind clusterroles/harmless"}, "prod": {"create rolebindings.rbac.authorization.k8s.io"}},
	"grows":   {"": {"escalate,patch clusterroles.rbac.authorization.k8s.io"}},
	"unguard": {"": {"delete validatingadmissionpolicybindings.admissionregistration.k8s.io/tiers.postern"}},
	"tokens":  {"prod": {"create serviceaccounts/token"}},
	"reader":  {"": {"get,list,watch *"}}, // exec among it
	"nobody":  {"": {"get,list,watch pods", "get,list,watch serviceaccounts", "get,list,watch *.projectcalico.org"}},
}

// manifests writes the rights as Roles and bindings.
func manifests() string {
	var b strings.Builder
	for user, in := range rights {
		for namespace, all := range in {
			kind, meta := "ClusterRole", fmt.Sprintf("{name: user-%s}", user)
			if namespace != "" {
				kind, meta = "Role", fmt.Sprintf("{name: user-%s, namespace: %s}", user, namespace)
			}
			fmt.Fprintf(&b, "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: %s\nmetadata: %s\nrules:\n", kind, meta)
			for _, r := range all {
				verbs, resource, _ := strings.Cut(r, " ")
				name := ""
				if i := strings.Index(resource, "/"); i >= 0 && !strings.Contains("status exec token portforward", resource[i+1:]) {
					resource, name = resource[:i], fmt.Sprintf(", resourceNames: [%q]", resource[i+1:])
				}
				group := ""
				if rest, ok := strings.CutPrefix(resource, "tier."); ok {
					plural, g, _ := strings.Cut(rest, ".")
					resource, group = "tier."+plural, g
				} else {
					resource, group, _ = strings.Cut(resource, ".")
				}
				if resource == "clusterroles" {
					group = "rbac.authorization.k8s.io"
				}
				fmt.Fprintf(&b, "- {apiGroups: [%q], resources: [%q], verbs: [\"%s\"]%s}\n", group, resource, strings.ReplaceAll(verbs, ",", `", "`), name)
			}
			fmt.Fprintf(&b, "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: %sBinding\nmetadata: %s\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: %s, name: user-%s}\nsubjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: %s}]\n", kind, meta, kind, user, user)
		}
	}
	return b.String()
}

const cast = `
apiVersion: v1
kind: Namespace
metadata: {name: prod}
---
apiVersion: v1
kind: Namespace
metadata: {name: dev}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: prod}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: dev}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: api, namespace: prod}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: api, namespace: dev}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: intern-1, namespace: prod, labels: {role: intern}}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: prod, labels: {app: db}}
spec: {serviceAccountName: default}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: platform}
spec: {order: 5}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 10, defaultAction: Deny}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: prod}
spec:
  tier: security
  selector: app == "db"
  ingress:
  - {action: Allow, source: {serviceAccounts: {names: [api]}}}
  - {action: Deny, source: {serviceAccounts: {selector: role == "intern"}}}
  - {action: Allow, source: {namespaceSelector: env == "ops", selector: app == "scraper"}}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: app, namespace: prod}
spec: {tier: default, selector: app == "web", ingress: [{action: Deny, source: {serviceAccounts: {names: [intern-1]}}}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: admin-of-all}
rules: [{apiGroups: [""], resources: [pods], verbs: [create]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: harmless}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]
`

var stage = sync.OnceValue(func() error {
	ctx := context.Background()
	if err := server.Apply(ctx, "../../deploy/crds", "../../deploy/guards"); err != nil {
		return err
	}
	return server.ApplyYAML(ctx, cast+manifests())
})

// deed is something that leads to the access, as a request to the API server.
type deed struct {
	title string
	// what and right are those of a Found that tells of it.
	what, right string
	do          func(ctx context.Context, c *apiserver.Client) error
	// except: of these it is told by another right, or in another form.
	except []string
}

var dry = []string{metav1.DryRunAll}

func object(text string) *unstructured.Unstructured {
	list, err := apiserver.Parse([]byte(text))
	if err != nil || len(list) != 1 {
		panic(fmt.Sprintf("%s: %v", text, err))
	}
	return list[0]
}

func creates(text string) func(context.Context, *apiserver.Client) error {
	return func(ctx context.Context, c *apiserver.Client) error {
		o := object(text)
		r, err := c.Resource(o)
		if err != nil {
			return err
		}
		_, err = r.Create(ctx, o, metav1.CreateOptions{DryRun: dry})
		return err
	}
}

func applies(text string) func(context.Context, *apiserver.Client) error {
	return func(ctx context.Context, c *apiserver.Client) error {
		o := object(text)
		r, err := c.Resource(o)
		if err != nil {
			return err
		}
		_, err = r.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{DryRun: dry, FieldManager: "test", Force: true})
		return err
	}
}

// patches sets a label, or what the patch says, and looks that it is set.
func patches(text, patch string, sub ...string) func(context.Context, *apiserver.Client) error {
	return func(ctx context.Context, c *apiserver.Client) error {
		o := object(text)
		r, err := c.Resource(o)
		if err != nil {
			return err
		}
		is, err := r.Patch(ctx, o.GetName(), types.MergePatchType, []byte(patch), metav1.PatchOptions{DryRun: dry}, sub...)
		if err == nil && strings.Contains(patch, `"labels"`) && is.GetLabels()["try"] != "it" {
			return errors.New("the label is not set, though the request went through")
		}
		return err
	}
}

func deletes(text string, collection bool) func(context.Context, *apiserver.Client) error {
	return func(ctx context.Context, c *apiserver.Client) error {
		o := object(text)
		r, err := c.Resource(o)
		if err != nil {
			return err
		}
		if collection {
			return r.DeleteCollection(ctx, metav1.DeleteOptions{DryRun: dry}, metav1.ListOptions{FieldSelector: "metadata.name=" + o.GetName()})
		}
		return r.Delete(ctx, o.GetName(), metav1.DeleteOptions{DryRun: dry})
	}
}

func podAs(name, account, namespace string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: %s}, spec: {serviceAccountName: %s, containers: [{name: c, image: i}]}}", name, namespace, account)
}

func networkPolicy(kind, name, tier string) string {
	namespace := ", namespace: prod"
	if kind == "GlobalNetworkPolicy" {
		namespace = ""
	}
	return fmt.Sprintf("{apiVersion: projectcalico.org/v3, kind: %s, metadata: {name: %s%s}, spec: {tier: %s, order: -1}}", kind, name, namespace, tier)
}

const labelled = `{"metadata": {"labels": {"try": "it"}}}`

// TestRuleLive: who is reported to be able to may do it in the API server, and who is
// not is refused: the requests are made, by each user.
func TestRuleLive(t *testing.T) {
	if err := stage(); err != nil {
		t.Fatal(err)
	}
	clients := map[string]*apiserver.Client{}
	for user := range rights {
		c, err := apiserver.NewClient(server.As(user))
		if err != nil {
			t.Fatal(err)
		}
		clients[user] = c
	}
	db, pod := networkPolicy("NetworkPolicy", "db", "security"), podAs("db", "default", "prod")
	intern := "{apiVersion: v1, kind: ServiceAccount, metadata: {name: intern-1, namespace: prod}}"
	dev := "{apiVersion: v1, kind: Namespace, metadata: {name: dev}}"
	policies := []deed{
		{"in its tier", "write policy that decides before it, in tier security", "create networkpolicies.projectcalico.org in prod", creates(networkPolicy("NetworkPolicy", "p", "security")), []string{"byname"}},
		{"in an earlier tier", "write policy that decides before it, in tier platform", "create networkpolicies.projectcalico.org in prod", creates(networkPolicy("NetworkPolicy", "p", "platform")), nil},
		{"by name", "write policy that decides before it, in tier security", "create networkpolicies.projectcalico.org in prod + get tiers.projectcalico.org/security + create tier.networkpolicies.projectcalico.org/db2 in prod", creates(networkPolicy("NetworkPolicy", "db2", "security")), []string{"security"}},
		{"global", "write policy that decides before it, in tier security", "create globalnetworkpolicies.projectcalico.org", creates(networkPolicy("GlobalNetworkPolicy", "p", "security")), nil},
		{"move another in", "write policy that decides before it, in tier platform", "patch networkpolicies.projectcalico.org/app in prod", patches(networkPolicy("NetworkPolicy", "app", "default"), `{"spec": {"tier": "platform"}}`), nil},
		{"change", "change the rule's policy", "patch networkpolicies.projectcalico.org/db in prod", patches(db, labelled), nil},
		{"delete", "remove the rule's policy", "delete networkpolicies.projectcalico.org/db in prod", deletes(db, false), nil},
		{"delete all", "remove the rule's policy", "deletecollection networkpolicies.projectcalico.org in prod", deletes(db, true), nil},
		{"move a tier", "change, move or remove a tier", "patch tiers.projectcalico.org", patches("{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: platform}}", `{"spec": {"order": 50}}`), nil},
		{"delete a tier", "change, move or remove a tier", "delete tiers.projectcalico.org", deletes("{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: platform}}", false), nil},
		{"new tier", "make a tier that decides first, and write policy in it", "create networkpolicies.projectcalico.org", creates("{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: mine}, spec: {order: 1}}"), nil},
		{"remove the guard", "take away the guard of tiers", "delete validatingadmissionpolicybindings", deletes("{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding, metadata: {name: tiers.postern}}", false), nil},
		{"bind", "give itself such a right", "create rolebindings.rbac.authorization.k8s.io", creates(`{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: b, namespace: prod}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin-of-all}, subjects: [{kind: User, name: x, apiGroup: rbac.authorization.k8s.io}]}`), nil},
		{"escalate", "give itself such a right", "patch clusterroles.rbac.authorization.k8s.io", patches("{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: harmless}}", `{"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}`), nil},
	}
	labels := []deed{
		{"label a pod", "destination: label a pod so that the rule no longer matches it", "patch pods in prod", patches(pod, labelled), nil},
		{"label it by its status", "destination: label a pod so that the rule no longer matches it", "patch pods/status in prod", patches(pod, labelled, "status"), nil},
	}
	for _, rule := range []struct {
		name  string
		deeds []deed
	}{
		{"ingress[0] of NetworkPolicy prod/db", []deed{
			{"run a pod", "source: run a pod that the rule matches", "create pods in prod", creates(podAs("p", "api", "prod")), nil},
			{"apply a pod", "source: run a pod that the rule matches", "create pods/named in prod", applies(podAs("named", "api", "prod")), []string{"deployer", "podmaker"}},
			{"run a deployment", "source: run a pod that the rule matches", "create deployments.apps in prod", creates("{apiVersion: apps/v1, kind: Deployment, metadata: {name: p, namespace: prod}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {serviceAccountName: api, containers: [{name: c, image: i}]}}}}"), nil},
			{"another address", "source: give a pod that the rule matches another address", "patch pods/status in prod", patches(pod, `{"status": {"podIP": "10.9.9.9", "podIPs": [{"ip": "10.9.9.9"}]}}`, "status"), nil},
		}},
		{"ingress[1] of NetworkPolicy prod/db", []deed{
			{"label the account", "source: label the account so that the rule no longer matches its pods", "patch serviceaccounts/intern-1 in prod", patches(intern, labelled), nil},
			{"delete the account", "source: remove the account", "delete serviceaccounts/intern-1 in prod", deletes(intern, false), nil},
			{"run another pod", "source: run a pod that the rule does not match", "create pods in prod", creates(podAs("p", "default", "prod")), nil},
		}},
		{"ingress[2] of NetworkPolicy prod/db", []deed{
			{"label the namespace", "source: label the namespace so that the rule matches its pods", "patch namespaces", patches(dev, labelled), nil},
			{"by its status", "source: label the namespace so that the rule matches its pods", "patch namespaces/status", patches(dev, labelled, "status"), nil},
			{"make a namespace", "source: make a namespace whose pods the rule matches", "create namespaces", creates("{apiVersion: v1, kind: Namespace, metadata: {name: new, labels: {env: ops}}}"), nil},
		}},
		{"NetworkPolicy prod/app ingress[0]", []deed{
			{"in tier default", "write policy that decides before it, in tier default", "create networkpolicies.projectcalico.org in prod", creates(networkPolicy("NetworkPolicy", "p", "default")), nil},
			{"in an earlier tier", "write policy that decides before it, in tier security", "create networkpolicies.projectcalico.org in prod", creates(networkPolicy("NetworkPolicy", "p", "security")), []string{"byname"}},
			{"of Kubernetes", "write policy that decides before it", "create networkpolicies.networking.k8s.io in prod", creates("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: prod}, spec: {podSelector: {}}}"), nil},
		}},
	} {
		deeds := rule.deeds
		if strings.Contains(rule.name, "ingress[1] of") {
			deeds = append(deeds, policies...)
		}
		if strings.Contains(rule.name, "prod/db") {
			deeds = append(deeds, labels...)
		}
		t.Run(rule.name, func(t *testing.T) { liveRule(t, clients, rule.name, deeds) })
	}
}

func liveRule(t *testing.T, clients map[string]*apiserver.Client, rule string, deeds []deed) {
	report := askAbout(t, rule)
	for _, d := range deeds {
		yes, no := 0, 0
		for user := range rights {
			told := slices.ContainsFunc(report.Ways, func(f Found) bool {
				what := f.What
				if f.Side != "" {
					what = f.Side + ": " + what
				}
				return f.Subject == Subject{Kind: "User", Name: user} && strings.HasPrefix(what, d.what) && strings.Contains(strings.Join(f.Rights, " + "), d.right)
			})
			if slices.Contains(d.except, user) {
				continue
			}
			err := d.do(t.Context(), clients[user])
			// Guards and roles take effect a moment after they are written.
			for deadline := time.Now().Add(20 * time.Second); (err == nil) != told && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
				err = d.do(t.Context(), clients[user])
			}
			if err != nil && !apierrors.IsForbidden(err) {
				t.Errorf("%s by %s: %v", d.title, user, err)
				continue
			}
			if (err == nil) != told {
				t.Errorf("%s by %s: told %v, and the API server says %v", d.title, user, told, err)
			}
			if told {
				yes++
			} else {
				no++
			}
		}
		if yes == 0 || no == 0 {
			t.Errorf("%s: %d may and %d may not: the test tells nothing", d.title, yes, no)
		}
	}
	for _, user := range []string{"nobody", "elsewhere", "badbind", "blind"} {
		if user == "elsewhere" && strings.Contains(rule, "ingress[2]") {
			continue // makes the pods of its namespace match, once that is labelled
		}
		for _, f := range report.Ways {
			if f.Subject.Name == user {
				t.Errorf("%s is told of: %+v", user, f)
			}
		}
	}
}

// askAbout asks about a rule in the cluster.
func askAbout(t *testing.T, rule string) Report {
	t.Helper()
	o, warnings, err := readCluster(t.Context(), server.Admin())
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	r, err := Ask(&o, rule)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range r.Warnings {
		if !strings.HasPrefix(w, "no service account is known in") { // there is no controller that makes them
			t.Error(w)
		}
	}
	return r
}
