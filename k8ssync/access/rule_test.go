package access

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const town = `
{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {env: x}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: b}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: a}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: one, namespace: a, labels: {role: x}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: b}}
---
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: first}, spec: {order: 1}}
---
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: passes}, spec: {order: 2, defaultAction: Pass}}
---
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: third}, spec: {order: 3}}
---
`

// ask reads manifests and asks about a rule.
func ask(t *testing.T, manifests, rule string) Report {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(manifests), 0o600); err != nil {
		t.Fatal(err)
	}
	o, warnings, err := ReadDirectory(dir)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	r, err := Ask(&o, rule)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// may is a user's right to a verb on a resource, such as "patch pods in a".
func may(right string) string {
	verb, resource, _ := strings.Cut(right, " ")
	resource, namespace, _ := strings.Cut(resource, " in ")
	resource, group, _ := strings.Cut(resource, ".")
	kind, meta := "ClusterRole", "{name: u}"
	if namespace != "" {
		kind, meta = "Role", "{name: u, namespace: "+namespace+"}"
	}
	return fmt.Sprintf(`
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: %s, metadata: %s, rules: [{apiGroups: [%q], resources: [%q], verbs: [%q]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: %[1]sBinding, metadata: %[2]s, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: %[1]s, name: u},
  subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: u}]}
`, kind, meta, group, resource, verb)
}

// TestWays asks about one rule and one right each: what it leads to, if to anything.
func TestWays(t *testing.T) {
	np := func(spec string) string {
		return "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: p, namespace: a}, spec: {" + spec + "}}"
	}
	gnp := func(spec string) string {
		return "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {" + spec + "}}"
	}
	byName := np("ingress: [{action: Allow, source: {serviceAccounts: {names: [one]}}}]")
	byLabel := np("ingress: [{action: Allow, source: {serviceAccounts: {selector: role == 'x'}}}]")
	newName := np("ingress: [{action: Allow, source: {serviceAccounts: {names: [two]}}}]")
	denied := np("ingress: [{action: Deny, source: {serviceAccounts: {selector: role == 'x'}}}]")
	anywhere := gnp("selector: app == 'db', ingress: [{action: Allow, source: {namespaceSelector: env == 'x'}}]")
	negative := gnp("selector: app == 'db', ingress: [{action: Allow, source: {namespaceSelector: env != 'x'}}]")
	named := gnp("ingress: [{action: Allow, source: {namespaceSelector: projectcalico.org/name == 'c'}}]")
	pods := np("ingress: [{action: Allow, source: {selector: app == 'web'}}]")
	nets := np("selector: app == 'db', ingress: [{action: Allow, source: {nets: [10.0.0.0/8]}}]")
	out := np("selector: app == 'web', egress: [{action: Allow, destination: {namespaceSelector: env == 'x', selector: app == 'db'}}]")
	service := np("egress: [{action: Allow, destination: {services: {name: s, namespace: b}}}]")
	notRole := np("ingress: [{action: Allow, source: {serviceAccounts: {selector: role != 'x'}}}]")
	tiers := func(action, tier string) string {
		return np("tier: " + tier + ", order: 5, ingress: [{action: " + action + ", source: {serviceAccounts: {names: [one]}}}]")
	}
	for _, tc := range []struct{ title, policy, right, want string }{
		{"with the account", byName, "create pods in a", "destination: run a pod that the rule matches; source: run a pod that the rule matches"},
		{"elsewhere", byName, "create pods in b", ""},
		{"a part of a pod", byName, "update pods/ephemeralcontainers in a", "source: get into a pod that the rule matches"},
		{"any pod's kubelet", byName, "create nodes/proxy", "source: get into a pod that the rule matches"},
		{"a name that is taken", byName, "create serviceaccounts in a", ""},
		{"a name that is not", newName, "create serviceaccounts in a", "source: make an account whose pods the rule matches"},
		{"labels do not matter", byName, "patch serviceaccounts in a", ""},
		{"label an account", byLabel, "patch serviceaccounts in a", "source: label the account so that the rule matches its pods"},
		{"make one with labels", byLabel, "create serviceaccounts in a", "source: make an account whose pods the rule matches"},
		{"label one out", denied, "update serviceaccounts in a", "source: label the account so that the rule no longer matches its pods"},
		{"remove its labels", denied, "delete serviceaccounts in a", "source: remove the account and its labels so that the rule no longer matches its pods"},
		{"remove an account into it", notRole, "deletecollection serviceaccounts in a", "source: remove the account and its labels so that the rule matches its pods"},
		{"an account that the rule does not match", denied, "create pods in a", "source: run a pod that the rule does not match, beside those it does"},
		{"a rule on pods' labels", pods, "patch pods in a", "source: label a pod so that the rule matches it"},
		{"and their status", pods, "patch pods/status in a", "destination: give a pod that the rule matches another address; source: give a pod that the rule matches another address; source: label a pod so that the rule matches it"},
		{"a namespace that does not match", anywhere, "update namespaces/finalize", "source: label the namespace so that the rule matches its pods"},
		{"one that does, no longer", negative, "patch namespaces in a", "source: label the namespace so that the rule matches its pods"},
		{"a name that no label changes", named, "patch namespaces", ""},
		{"addresses of a set", pods, "create networksets.projectcalico.org in a", "source: say which addresses a set has that the rule matches"},
		{"of a global set", pods, "create globalnetworksets.projectcalico.org", ""},
		{"of a global set that lacks the label", negative, "update globalnetworksets.projectcalico.org", "source: say which addresses a set has that the rule matches"},
		{"of no set, by account", byName, "create networksets.projectcalico.org in a", ""},
		{"nobody is named", nets, "create pods in b", ""},
		{"but protected", nets, "patch pods in a", "destination: label a pod so that the rule matches it; destination: label a pod so that the rule no longer matches it"},
		{"who goes out", out, "create daemonsets.apps in a", "destination: run a pod that the rule matches; source: run a pod that the rule matches"},
		{"who is reached", out, "get pods/portforward in a", "destination: reach the ports of a pod through the API server"},
		{"the service's addresses", service, "create endpointslices.discovery.k8s.io in b", "destination: say which addresses the service has"},
		{"another service's", service, "create endpointslices.discovery.k8s.io in a", ""},

		{"the policy", byName, "patch networkpolicies.projectcalico.org in a", "change the rule's policy; write policy that allows it to others"},
		{"another namespace's", byName, "create networkpolicies.projectcalico.org in b", ""},
		{"everybody's", byName, "create globalnetworkpolicies.projectcalico.org", "write policy that allows it to others"},
		{"its kind", byName, "delete customresourcedefinitions.apiextensions.k8s.io", "take away the kind of the rule's policy, and all of it"},
		{"Kubernetes' in an earlier tier", tiers("Allow", "first"), "create networkpolicies.networking.k8s.io in a", ""},
		{"Kubernetes' behind a tier that passes", tiers("Allow", "passes"), "create networkpolicies.networking.k8s.io in a", ""}, // the third does not
		{"Kubernetes' after a denial", tiers("Deny", "default"), "create networkpolicies.networking.k8s.io in a", ""},
		{"Kubernetes' beside an allowance", tiers("Allow", "default"), "create networkpolicies.networking.k8s.io in a", "write policy that allows it to others"},
		{"for the whole cluster", tiers("Deny", "third"), "create clusternetworkpolicies.policy.networking.k8s.io", ""},
		{"for the whole cluster, first", byName, "create clusternetworkpolicies.policy.networking.k8s.io", "write policy that allows it to others"},
		{"move a tier", byName, "update tiers.projectcalico.org", "change, move or remove a tier"},
		{"a tier alone", byName, "create tiers.projectcalico.org", ""},
		{"what others write", byName, "create mutatingwebhookconfigurations.admissionregistration.k8s.io", "change what others write, on its way"},
	} {
		rule := "a/p ingress[0]"
		if strings.Contains(tc.policy, "Global") {
			rule = "p ingress[0]"
		}
		if strings.Contains(tc.policy, "egress") {
			rule = strings.Replace(rule, "ingress", "egress", 1)
		}
		var told []string
		for _, f := range ask(t, town+tc.policy+may(tc.right), rule).Ways {
			told = append(told, strings.TrimPrefix(f.Side+": "+f.What, ": "))
		}
		slices.Sort(told)
		if got := strings.Join(slices.Compact(told), "; "); got != tc.want {
			t.Errorf("%s: %s leads to %q, want %q", tc.title, tc.right, got, tc.want)
		}
	}
}

// TestWarnings: guards that do not refuse are told of, and so are staged policies.
func TestWarnings(t *testing.T) {
	policy := "{apiVersion: projectcalico.org/v3, kind: StagedNetworkPolicy, metadata: {name: p, namespace: a}, spec: {ingress: [{action: Deny}]}}"
	guard := func(failure, actions, match string) string {
		return fmt.Sprintf(`
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: tiers.postern}, spec: {failurePolicy: %s}}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding, metadata: {name: x}, spec: {policyName: tiers.postern, validationActions: [%s]%s}}
`, failure, actions, match)
	}
	for _, tc := range []struct{ manifests, says string }{
		{"", "guard tiers.postern: it is not there"},
		{guard("Fail", "Deny", ""), ""},
		{guard("Fail", "Audit, Deny", ", matchResources: {matchPolicy: Equivalent}"), ""},
		{guard("Fail", "Audit, Warn", ""), "its binding x has validationActions [Audit Warn], without Deny"},
		{guard("Fail", "Deny", ", matchResources: {namespaceSelector: {matchLabels: {a: b}}}"), "its binding x is limited by matchResources"},
		{guard("Ignore", "Deny", ""), "its failurePolicy is Ignore"},
		{strings.Split(guard("Fail", "Deny", ""), "---")[1], "it has no binding"},
		{strings.Split(guard("Fail", "Deny", ""), "---")[2], "there is no such ValidatingAdmissionPolicy"},
	} {
		all := strings.Join(ask(t, town+policy+"\n---\n"+tc.manifests, "StagedNetworkPolicy a/p ingress[0]").Warnings, "\n")
		if !strings.Contains(all, "StagedNetworkPolicy a/p is staged") || strings.Contains(all, "guard tiers.postern") != (tc.says != "") || !strings.Contains(all, tc.says) {
			t.Errorf("%s: warnings\n%s\nwant %q", tc.manifests, all, tc.says)
		}
	}
}

// TestLists: what kubectl prints of many objects is read as they are.
func TestLists(t *testing.T) {
	role := "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: u}, rules: [{apiGroups: [''], resources: [pods], verbs: [create]}]}"
	bare := "{metadata: {name: u}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: u}, subjects: [{kind: User, name: u}]}"
	account := "{apiVersion: v1, kind: ServiceAccount, metadata: {name: web, namespace: a}}"
	text := "{apiVersion: v1, kind: List, items: [" + role + ", " + account + "]}\n---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBindingList, items: [" + bare + "]}"
	r := ask(t, text, "a/web")
	if len(r.Ways) == 0 || r.Ways[0].Subject != (Subject{Kind: "User", Name: "u"}) {
		t.Errorf("%+v", r)
	}
	dir := t.TempDir()
	broken := "{apiVersion: v1, kind: List, items: [{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: r}, rules: [{verb: [get]}]}]}"
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadDirectory(dir); err == nil || !strings.Contains(err.Error(), "items[0]: Role r") {
		t.Errorf("a misspelt field: %v", err)
	}
}

// TestGroups: a service account has what the groups give it that all are in; and a
// binding may name it as a user.
func TestGroups(t *testing.T) {
	binding := func(name, role, subject string) string {
		return fmt.Sprintf("\n---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: %s}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %s}, subjects: [%s]}", name, role, subject)
	}
	role := func(name, verb, resource string) string {
		return fmt.Sprintf("\n---\n{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: %s}, rules: [{apiGroups: [''], resources: [%s], verbs: [%s]}]}", name, resource, verb)
	}
	guard := `
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: service-accounts.postern}, spec: {failurePolicy: Fail}}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding, metadata: {name: x}, spec: {policyName: service-accounts.postern, validationActions: [Deny]}}`
	text := town + guard + role("makes", "create", "pods") + role("uses", "use", "serviceaccounts") +
		binding("makes", "makes", "{kind: User, name: 'system:serviceaccount:b:robot'}, {kind: ServiceAccount, namespace: kube-system, name: controller}") +
		binding("uses", "uses", "{kind: Group, name: 'system:serviceaccounts:b'}")
	who := map[string]string{}
	for _, f := range ask(t, text, "a/one").Ways {
		if f.What == "run a pod with the account" {
			who[f.Subject.String()] = strings.Join(f.Through, ", ")
		}
	}
	want := map[string]string{
		"ServiceAccount b/robot": "ClusterRoleBinding makes of ClusterRole makes, ClusterRoleBinding uses of ClusterRole uses",
		// The guard asks nothing of the cluster's own.
		"ServiceAccount kube-system/controller": "ClusterRoleBinding makes of ClusterRole makes",
	}
	if fmt.Sprint(who) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", who, want)
	}
}
