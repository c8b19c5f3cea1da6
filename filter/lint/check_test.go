package lint

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
)

// cluster is what the manifests of the tests are linted together with.
const cluster = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {env: prod}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: lab, labels: {env: test}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: api, namespace: shop, labels: {role: backend}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: web-frontend, namespace: shop, labels: {role: front}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: spare, namespace: shop}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot, namespace: lab, labels: {role: robot}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: database}}, spec: {serviceAccountName: db},
 status: {phase: Running, podIPs: [{ip: 10.0.1.1}, {ip: "fd00:1::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: api, namespace: shop, labels: {app: backend}}, spec: {serviceAccountName: api},
 status: {phase: Running, podIPs: [{ip: 10.0.1.2}, {ip: "fd00:1::2"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {serviceAccountName: web-frontend},
 status: {phase: Running, podIPs: [{ip: 10.0.1.3}, {ip: "fd00:1::3"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: robot, namespace: lab, labels: {app: robot}}, spec: {serviceAccountName: robot},
 status: {phase: Running, podIPs: [{ip: 10.0.2.1}]}}
`

const dnsPod = `
{apiVersion: v1, kind: Pod, metadata: {name: dns, namespace: kube-system, labels: {k8s-app: kube-dns}},
 status: {phase: Running, podIPs: [{ip: 10.0.9.9}]}}
`

// asking is a pod whose sidecar asks about requests.
const asking = `
---
{apiVersion: v1, kind: Pod, metadata: {name: asking, namespace: shop, labels: {app: asking, postern: authz}},
 status: {phase: Running, podIPs: [{ip: 10.0.1.9}, {ip: "fd00:1::9"}]}}
`

// np and gnp write a policy for the pods of app == "database".
func np(spec string) string {
	return `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: {selector: app == "database", ` + spec + `}}`
}

func gnp(spec string) string {
	return `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {` + spec + `}}`
}

func globalSet(labels string) string {
	return `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: s, labels: {` + labels + `}}, spec: {nets: [192.0.2.0/24]}}`
}

// read gives the snapshot of manifests, which must be valid.
func read(t *testing.T, manifests ...string) *policy.Snapshot {
	t.Helper()
	objects, err := file.Parse("test.yaml", []byte(strings.Join(manifests, "\n---\n")))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		for _, p := range o.Problems {
			t.Errorf("test manifest: %v", p)
		}
	}
	store := k8ssync.NewStore()
	store.Replace(objects)
	return store.Snapshot()
}

func texts(findings []Finding) (out []string) {
	for _, f := range findings {
		out = append(out, f.String()+" "+f.Advice)
	}
	return out
}

func TestFindings(t *testing.T) {
	t.Parallel()
	const allow = "ingress: [{action: Allow}]"
	untested := maps.Clone(severities)
	for _, id := range []string{Unreadable, Invalid, ConversionWarning} { // not Check's
		delete(untested, id)
	}
	for _, tt := range []struct {
		name string
		id   string
		// bad has the finding once, and no other; clean has none at all.
		bad, clean string
		field      string // of the finding
		text       string // within its message or advice
	}{
		{
			id:    AccountClauseNeverMatches,
			bad:   np(`ingress: [{action: Allow, source: {namespaceSelector: global(), serviceAccounts: {names: [api]}}}]`),
			clean: np(`ingress: [{action: Allow, source: {namespaceSelector: all(), serviceAccounts: {names: [api]}}}]`),
			field: "spec.ingress[0].source.serviceAccounts", text: "all()",
		},
		{
			id:    AccountNotFound,
			bad:   np(`ingress: [{action: Allow, source: {serviceAccounts: {names: [api, web-fronted]}}}]`),
			clean: np(`ingress: [{action: Allow, source: {serviceAccounts: {names: [api, web-frontend]}}}]`),
			field: "spec.ingress[0].source.serviceAccounts.names[1]", text: "did you mean web-frontend?",
		},
		{
			name:  "in the namespaces selected",
			id:    AccountNotFound,
			bad:   np(`ingress: [{action: Allow, source: {namespaceSelector: env == "test", serviceAccounts: {names: [api]}}}]`),
			clean: np(`ingress: [{action: Allow, source: {namespaceSelector: env == "test", serviceAccounts: {names: [robot]}}}]`),
			field: "spec.ingress[0].source.serviceAccounts.names[0]",
		},
		{
			id:    AccountInOtherNamespace,
			bad:   np(`ingress: [{action: Allow, source: {serviceAccounts: {names: [robot]}}}]`),
			clean: np(`ingress: [{action: Allow, source: {namespaceSelector: projectcalico.org/name == "lab", serviceAccounts: {names: [robot]}}}]`),
			field: "spec.ingress[0].source.serviceAccounts.names[0]", text: `projectcalico.org/name == "lab"`,
		},
		{
			id:    AccountUnused,
			bad:   np(`ingress: [{action: Allow, source: {serviceAccounts: {names: [spare]}}}]`),
			clean: np(`ingress: [{action: Allow, source: {serviceAccounts: {names: [db]}}}]`), // has no object, but a pod
			field: "spec.ingress[0].source.serviceAccounts.names[0]",
		},
		{
			id:    AccountSelectorMatchesNothing,
			bad:   np(`ingress: [{action: Allow, source: {serviceAccounts: {selector: role == "robot"}}}]`),
			clean: np(`ingress: [{action: Allow, source: {serviceAccounts: {selector: role == "front"}}}]`),
			field: "spec.ingress[0].source.serviceAccounts.selector", text: "of namespace shop",
		},
		{
			id:    AccountNamesAndSelector,
			bad:   np(`ingress: [{action: Allow, source: {serviceAccounts: {names: [api], selector: role == "front"}}}]`),
			clean: np(`ingress: [{action: Allow, source: {serviceAccounts: {names: [api], selector: role == "backend"}}}]`),
			field: "spec.ingress[0].source.serviceAccounts", text: "two rules",
		},
		{
			name:  "an account without object satisfies a negation",
			id:    AccountNamesAndSelector,
			bad:   np(`ingress: [{action: Allow, source: {serviceAccounts: {names: [api], selector: role != "backend"}}}]`),
			clean: np(`ingress: [{action: Allow, source: {serviceAccounts: {names: [db], selector: role != "backend"}}}]`),
			field: "spec.ingress[0].source.serviceAccounts",
		},
		{
			id:    NegativeAccountSelector, // V048
			bad:   gnp(`selector: app == "database", ingress: [{action: Allow, source: {serviceAccounts: {selector: all()}}}]`),
			clean: gnp(`selector: app == "database", ingress: [{action: Allow, source: {namespaceSelector: all(), serviceAccounts: {selector: all()}}}]`),
			field: "spec.ingress[0].source.serviceAccounts.selector",
		},
		{
			name:  "of a policy",
			id:    NegativeAccountSelector,
			bad:   gnp(`serviceAccountSelector: role != "front"`),
			clean: gnp(`namespaceSelector: all(), serviceAccountSelector: role != "front"`),
			field: "spec.serviceAccountSelector",
		},
		{
			id:    NegativeNamespaceSelector, // V041
			bad:   np(`ingress: [{action: Allow, source: {namespaceSelector: env != "prod"}}]`) + "\n---\n" + globalSet("some: label"),
			clean: np(`ingress: [{action: Allow, source: {namespaceSelector: env != "prod" && has(projectcalico.org/name)}}]`) + "\n---\n" + globalSet("some: label"),
			field: "spec.ingress[0].source.namespaceSelector", text: "GlobalNetworkSet s",
		},
		{
			name:  "with a selector, only what is there counts",
			id:    NegativeNamespaceSelector,
			bad:   np(`ingress: [{action: Allow, source: {namespaceSelector: env != "prod", selector: app == "robot"}}]`) + "\n---\n" + globalSet("app: robot"),
			clean: np(`ingress: [{action: Allow, source: {namespaceSelector: env != "prod", selector: app == "robot"}}]`) + "\n---\n" + globalSet("app: other"),
			field: "spec.ingress[0].source.namespaceSelector",
		},
		{
			name:  "of a policy", // V108
			id:    NegativeNamespaceSelector,
			bad:   gnp(`namespaceSelector: env != "prod"`),
			clean: gnp(`namespaceSelector: env != "prod", selector: all()`),
			field: "spec.namespaceSelector", text: "selector: all()",
		},
		{
			id:    NamespaceNotFound,
			bad:   `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: p, namespace: shopp}, spec: {` + allow + `}}`,
			clean: np(allow),
			field: "metadata.namespace", text: "did you mean shop?",
		},
		{
			id:    NamespaceSelectorNoMatch,
			bad:   np(`ingress: [{action: Allow, source: {namespaceSelector: env == "staging"}}]`),
			clean: np(`ingress: [{action: Allow, source: {namespaceSelector: env == "test"}}]`),
			field: "spec.ingress[0].source.namespaceSelector",
		},
		{
			id:    SelectorMatchesNothing,
			bad:   np(`ingress: [{action: Allow, source: {selector: app == "robot"}}]`),
			clean: np(`ingress: [{action: Allow, source: {namespaceSelector: all(), selector: app == "robot"}}]`),
			field: "spec.ingress[0].source.selector", text: "namespaceSelector",
		},
		{
			name:  "together",
			id:    SelectorMatchesNothing,
			bad:   np(`ingress: [{action: Allow, source: {selector: app == "web", serviceAccounts: {names: [api]}}}]`),
			clean: np(`ingress: [{action: Allow, source: {selector: app == "web", serviceAccounts: {names: [web-frontend]}}}]`),
			field: "spec.ingress[0].source", text: "AND",
		},
		{
			name:  "global() without global sets",
			id:    SelectorMatchesNothing,
			bad:   np(`ingress: [{action: Allow, source: {namespaceSelector: global()}}]`),
			clean: np(`ingress: [{action: Allow, source: {namespaceSelector: global()}}]`) + "\n---\n" + globalSet(""),
			field: "spec.ingress[0].source.namespaceSelector",
		},
		{
			name: "of Kubernetes' own policy",
			id:   SelectorMatchesNothing,
			bad: `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop},
				spec: {podSelector: {matchLabels: {app: database}}, ingress: [{from: [{podSelector: {matchLabels: {app: robot}}}]}]}}`,
			clean: `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop},
				spec: {podSelector: {matchLabels: {app: database}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}, {namespaceSelector: {}}]}]}}`,
			field: "spec.ingress[0].from",
		},
		{
			id:    PolicySelectsNothing,
			bad:   `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: {selector: app == "robot"}}`,
			clean: `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: p, namespace: lab}, spec: {selector: app == "robot"}}`,
			field: "spec.selector", text: `in namespace shop by app == "robot"`,
		},
		{
			id:    SelectsEverything,
			bad:   gnp(allow),
			clean: gnp("selector: all(), " + allow),
			field: "spec.selector", text: "kube-system",
		},
		{
			id: ServiceNotFound,
			bad: np(`egress: [{action: Allow, destination: {services: {name: payment}}}]`) +
				"\n---\n{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: payments-1, namespace: shop, labels: {kubernetes.io/service-name: payments}}, addressType: IPv4, endpoints: [], ports: []}",
			clean: np(`egress: [{action: Allow, destination: {services: {name: payments}}}]`) +
				"\n---\n{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: payments-1, namespace: shop, labels: {kubernetes.io/service-name: payments}}, addressType: IPv4, endpoints: [], ports: []}",
			field: "spec.egress[0].destination.services", text: "did you mean payments?",
		},
		{
			id:    MisspeltLabel,
			bad:   np(`ingress: [{action: Allow, source: {serviceAccounts: {selector: roel == "front"}}}]`),
			clean: np(`ingress: [{action: Allow, source: {serviceAccounts: {selector: role == "front"}}}]`),
			field: "spec.ingress[0].source.serviceAccounts.selector", text: "did you mean role?",
		},
		{
			id:    LabelOfOtherKind,
			bad:   np(`ingress: [{action: Allow, source: {selector: role == "front"}}]`),
			clean: np(`ingress: [{action: Allow, source: {serviceAccounts: {selector: role == "front"}}}]`),
			field: "spec.ingress[0].source.selector", text: "serviceAccounts.selector",
		},
		{
			id:    UnknownLabel,
			bad:   np(`ingress: [{action: Allow, source: {selector: "!has(quarantine)"}}]`),
			clean: np(`ingress: [{action: Allow, source: {selector: has(app)}}]`),
			field: "spec.ingress[0].source.selector",
		},
		{
			id:    LogOnlyIsolates,
			bad:   np(`ingress: [{action: Log}]`),
			clean: np(`ingress: [{action: Log}, {action: Allow}]`),
			field: "spec.ingress", text: "Log decides nothing",
		},
		{
			name: "not in a tier that ends in Pass",
			id:   LogOnlyIsolates,
			bad:  "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: watch}, spec: {order: 1}}\n---\n" + np(`tier: watch, ingress: [{action: Log}]`),
			clean: "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: watch}, spec: {order: 1, defaultAction: Pass}}\n---\n" +
				np(`tier: watch, ingress: [{action: Log}]`),
			field: "spec.ingress",
		},
		{
			id:    InertRules,
			bad:   np(`types: [Ingress], ingress: [{action: Allow}], egress: [{action: Deny}]`),
			clean: np(`ingress: [{action: Allow}], egress: [{action: Deny}]`),
			field: "spec.egress", text: "add Egress to types",
		},
		{
			id: ShadowedRule,
			bad: np(`ingress: [{action: Allow, protocol: TCP, source: {selector: app == "web"}},
				{action: Deny, protocol: TCP, source: {selector: app == "web"}, destination: {ports: [22]}}]`),
			clean: np(`ingress: [{action: Deny, protocol: TCP, source: {selector: app == "web"}, destination: {ports: [22]}},
				{action: Allow, protocol: TCP, source: {selector: app == "web"}}]`),
			field: "spec.ingress[1]", text: "spec.ingress[0] (Allow)",
		},
		{
			name: "of Kubernetes' own policy, only if every peer is",
			id:   ShadowedRule,
			bad: `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop},
				spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}, {from: [{podSelector: {}}, {podSelector: {}}], ports: [{port: 80}]}]}}`,
			clean: `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop},
				spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}, {podSelector: {}}]}, {from: [{podSelector: {}}, {namespaceSelector: {}}], ports: [{port: 80}]}]}}`,
			field: "spec.ingress[1]",
		},
		{
			id: UnreachablePolicy,
			bad: np(`order: 2, ingress: [{action: Allow, source: {selector: app == "web"}}]`) + "\n---\n" +
				strings.Replace(np(`order: 1, ingress: [{action: Log}, {action: Deny}]`), "name: p", "name: first", 1),
			clean: np(`order: 1, ingress: [{action: Allow, source: {selector: app == "web"}}]`) + "\n---\n" +
				strings.Replace(np(`order: 2, ingress: [{action: Log}, {action: Deny}]`), "name: p", "name: first", 1),
			field: "spec.ingress", text: "NetworkPolicy shop/first",
		},
		{
			name: "only if it is for the same pods",
			id:   UnreachablePolicy,
			bad: np(`order: 2, ingress: [{action: Allow, source: {selector: app == "web"}}]`) + "\n---\n" +
				`{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: first}, spec: {order: 1, selector: all(), ingress: [{action: Deny}]}}`,
			clean: np(`order: 2, ingress: [{action: Allow, source: {selector: app == "web"}}]`) + "\n---\n" +
				`{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: first}, spec: {order: 1, selector: app == "web", ingress: [{action: Deny}]}}`,
			field: "spec.ingress",
		},
		{
			id:    TierNotFound,
			bad:   np("tier: security, " + allow),
			clean: "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: security}, spec: {order: 1}}\n---\n" + np("tier: security, "+allow),
			field: "spec.tier", text: "after all other tiers",
		},
		{
			id:  PassInLastTier,
			bad: np(`ingress: [{action: Pass}]`),
			clean: "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: security}, spec: {order: 1}}\n---\n" +
				np(`tier: security, ingress: [{action: Pass}]`) + "\n---\n" + strings.Replace(np(allow), "name: p", "name: q", 1),
			field: "spec.ingress[0]", text: "Pass allows",
		},
		{
			id: OrderTie,
			bad: np(`order: 5, ingress: [{action: Allow, source: {selector: app == "web"}}]`) + "\n---\n" +
				strings.Replace(np(`order: 5, ingress: [{action: Deny, protocol: TCP}]`), "name: p", "name: a", 1),
			clean: np(`order: 5, ingress: [{action: Allow, source: {selector: app == "web"}}]`) + "\n---\n" +
				strings.Replace(np(`order: 5, ingress: [{action: Allow, protocol: TCP}]`), "name: p", "name: a", 1),
			field: "spec.order", text: "NetworkPolicy shop/a",
		},
		{
			id:    NamedPortAnyProtocol,
			bad:   np(`ingress: [{action: Allow, destination: {ports: [dns]}}]`),
			clean: np(`ingress: [{action: Allow, protocol: UDP, destination: {ports: [dns]}}]`),
			field: "spec.ingress[0].destination.ports",
		},
		{
			id:    DenyOneFamily, // V072
			bad:   np(`ingress: [{action: Deny, source: {nets: [0.0.0.0/0]}}, {action: Allow}]`),
			clean: np(`ingress: [{action: Deny, source: {nets: [0.0.0.0/0]}}, {action: Deny, source: {nets: ["::/0"]}}, {action: Allow}]`),
			field: "spec.ingress[0].source.nets", text: "IPv6 is not denied",
		},
		{
			name:  "a range that holds no pod of both families",
			id:    DenyOneFamily,
			bad:   np(`ingress: [{action: Deny, source: {nets: [10.0.1.0/24]}}, {action: Allow}]`),
			clean: np(`ingress: [{action: Deny, source: {nets: [10.0.2.0/24]}}, {action: Allow}]`),
			field: "spec.ingress[0].source.nets", text: "pod shop/api",
		},
		{
			name:  "all but some",
			id:    DenyOneFamily,
			bad:   np(`ingress: [{action: Deny, source: {notNets: [10.0.0.0/8]}}, {action: Allow}]`),
			clean: np(`ingress: [{action: Deny, ipVersion: 4, source: {notNets: [10.0.0.0/8]}}, {action: Allow}]`),
			field: "spec.ingress[0].source.notNets",
		},
		{
			id:    NotNetsOneFamily, // V071
			bad:   np(`ingress: [{action: Allow, source: {notNets: [10.0.2.0/24]}}]`),
			clean: np(`ingress: [{action: Allow, source: {notNets: [10.0.2.0/24]}}, {action: Allow, source: {notNets: ["fd00:2::/64"]}}]`),
			field: "spec.ingress[0].source.notNets", text: "never matches IPv6",
		},
		{
			id:    HTTPNotEnforced,
			bad:   np(`ingress: [{action: Allow, http: {methods: [GET]}}]`),
			clean: np(`ingress: [{action: Allow}]`),
			field: "spec.ingress[0].http", text: "plain Allow",
		},
		{
			name:  "where a sidecar asks",
			id:    HTTPNotEnforced,
			bad:   gnp(`selector: 'app in {"database", "asking"}', ingress: [{action: Allow, http: {methods: [GET]}}]`) + asking,
			clean: gnp(`selector: app == "asking", ingress: [{action: Allow, http: {methods: [GET]}}]`) + asking,
			field: "spec.ingress[0].http", text: "requests to Pod shop/db: packets",
		},
		{
			name:  "how to make it ask",
			id:    HTTPNotEnforced,
			bad:   np(`ingress: [{action: Allow, http: {paths: [{exact: /}]}}]`),
			clean: np(`ingress: [{action: Allow}]`),
			field: "spec.ingress[0].http", text: "label postern: authz and the annotations sidecar.istio.io/userVolume",
		},
		{
			id:    HostEndpointNotEnforced,
			bad:   `{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}, spec: {node: node1, interfaceName: eth0}}`,
			clean: globalSet(""),
		},
		{
			id:    HostPolicyNotEnforced,
			bad:   gnp(`selector: has(app), applyOnForward: true, preDNAT: true, types: [Ingress], ` + allow),
			clean: gnp(`selector: has(app), ` + allow),
			field: "spec.preDNAT", text: "does nothing",
		},
		{
			name:  "applyOnForward",
			id:    HostPolicyNotEnforced,
			bad:   gnp(`selector: has(app), applyOnForward: true, ` + allow),
			clean: gnp(`selector: has(app), applyOnForward: false, ` + allow),
			field: "spec.applyOnForward", text: "as any other",
		},
		{
			id:    ReservedLabel,
			bad:   globalSet("pcsa.role: backend"),
			clean: globalSet("role: backend"),
			field: "metadata.labels[pcsa.role]",
		},
		{
			name: "of a pod",
			id:   ReservedLabel,
			bad: `{apiVersion: v1, kind: Pod, metadata: {name: evil, namespace: shop, labels: {projectcalico.org/serviceaccount: api}},
				spec: {serviceAccountName: db}, status: {phase: Running, podIP: 10.0.1.9}}`,
			clean: `{apiVersion: v1, kind: Pod, metadata: {name: fine, namespace: shop, labels: {projectcalico.org/serviceaccount: db}},
				spec: {serviceAccountName: db}, status: {phase: Running, podIP: 10.0.1.9}}`,
			field: "metadata.labels[projectcalico.org/serviceaccount]", text: "spec.serviceAccountName",
		},
		{
			id:    DNSCutOff,
			bad:   np(`egress: [{action: Allow, destination: {selector: app == "web"}}]`) + "\n---\n" + dnsPod,
			clean: np(`egress: [{action: Allow, destination: {selector: app == "web"}}]`),
			field: "spec.egress", text: "Pod kube-system/dns): shop/db",
		},
		{
			name:  "allowed",
			id:    DNSCutOff,
			bad:   np(`egress: [{action: Deny, protocol: UDP}, {action: Deny, protocol: TCP}, {action: Allow}]`) + "\n---\n" + dnsPod,
			clean: np(`egress: [{action: Allow, protocol: UDP, destination: {ports: [53]}}]`) + "\n---\n" + dnsPod,
			field: "spec.egress",
		},
		{
			name: "elsewhere",
			id:   DNSCutOff,
			bad:  np(`egress: [{action: Allow, protocol: TCP, destination: {ports: [443], nets: [10.0.1.0/24]}}]`) + "\n---\n" + dnsPod,
			// A name server on each node, outside of any pod network.
			clean: np(`egress: [{action: Allow, protocol: UDP, destination: {ports: [53], nets: [169.254.20.10/32]}}]`) + "\n---\n" + dnsPod,
			field: "spec.egress",
		},
	} {
		delete(untested, tt.id)
		t.Run(strings.TrimSpace(tt.id+" "+tt.name), func(t *testing.T) {
			t.Parallel()
			got := Check(read(t, cluster, tt.bad))
			if len(got) != 1 || got[0].ID != tt.id || got[0].Field != tt.field || got[0].Severity != severities[tt.id] ||
				!strings.Contains(got[0].Message+" "+got[0].Advice, tt.text) {
				t.Errorf("got  %q\nwant one %s of %q with %q", texts(got), tt.id, tt.field, tt.text)
			}
			if got := Check(read(t, cluster, tt.clean)); len(got) > 0 {
				t.Errorf("the mended manifest has findings:\n%s", strings.Join(texts(got), "\n"))
			}
		})
	}
	if len(untested) > 0 {
		t.Errorf("findings without a manifest: %v", untested)
	}
}

// TestPoliciesAlone: without the objects they speak of, nothing is said of names
// and labels.
func TestPoliciesAlone(t *testing.T) {
	t.Parallel()
	got := Check(read(t, np(`ingress: [{action: Allow, source: {selector: nobody == "here", namespaceSelector: no == "where", serviceAccounts: {names: [ghost], selector: no == "label"}}},
		{action: Allow, source: {services: {name: none}}}]`)))
	if len(got) > 0 {
		t.Errorf("findings:\n%s", strings.Join(texts(got), "\n"))
	}
}

func TestCheckIsStable(t *testing.T) {
	t.Parallel()
	s := read(t, cluster, dnsPod, globalSet("pcsa.role: x, pcns.env: v, projectcalico.org/orchestrator: z"),
		np(`ingress: [{action: Log}], egress: [{action: Deny}]`), gnp(`ingress: [{action: Pass}, {action: Pass}]`))
	want := Check(s)
	if len(want) < 6 {
		t.Errorf("only %q", texts(want))
	}
	for range 20 {
		if diff := cmp.Diff(want, Check(s)); diff != "" {
			t.Fatalf("differs from run to run:\n%s", diff)
		}
	}
}

func TestSeverities(t *testing.T) {
	t.Parallel()
	for id, s := range severities {
		if s.rank() < 0 || strings.ToLower(id) != id || strings.ContainsAny(id, " _") {
			t.Errorf("%s is %q", id, s)
		}
	}
	if !Error.AtLeast(Warning) || !Warning.AtLeast(Warning) || Info.AtLeast(Warning) || Severity("").AtLeast(Info) {
		t.Error("severities are not in order")
	}
	if SeverityOf("no-such-finding") != "" {
		t.Error("an unknown finding has a severity")
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	candidates := []string{"app", "environment", "role", "web-frontend"}
	for name, want := range map[string]string{
		"roel": "role", "Role": "role", "enviroment": "environment", "web-fronted": "web-frontend", "ap": "app", "a": "", "rule": "role",
		"tier": "", "": "", "app": "", "APP": "app", "apps": "app",
	} {
		if got := nearest(name, slices.Clone(candidates)); got != want {
			t.Errorf("nearest(%q) is %q, want %q", name, got, want)
		}
	}
}
