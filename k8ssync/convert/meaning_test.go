package convert

import (
	"fmt"
	"strings"
	"testing"
)

// meanings are converted and compared, as text, with testdata/meanings.txt.
var meanings = []struct {
	title, kind, spec string
}{
	{"defaults", np, `{}`},
	{"types from ingress", gnp, `{ingress: [{action: Allow}]}`},
	{"types from egress", gnp, `{egress: [{action: Allow}]}`},
	{"types from both", gnp, `{ingress: [{action: Allow}], egress: [{action: Allow}]}`},
	{"types as stated", gnp, `{types: [Egress], ingress: [{action: Allow}]}`},
	{"everything a policy states", gnp, `{tier: sec, order: -2.5, selector: 'a == "x"', namespaceSelector: has(b), serviceAccountSelector: ' ',
		applyOnForward: true, doNotTrack: true, types: [Ingress, Egress], performanceHints: [AssumeNeededOnEveryNode]}`},
	{"everything a rule states", np, `{ingress: [
		{action: Log, ipVersion: 4, protocol: ICMP, notProtocol: 47, icmp: {type: 8, code: 0}, notICMP: {type: 3}},
		{action: Pass, protocol: "6", source: {nets: [10.0.0.0/8], notNets: [10.1.0.0/16], selector: has(a), notSelector: has(b), namespaceSelector: has(c),
			serviceAccounts: {names: [v, w], selector: has(d)}, ports: [1, "2:3", http], notPorts: [22]}, destination: {namespaceSelector: global()}},
		{action: Allow, protocol: TCP, source: {services: {name: s}}, http: {methods: [GET], paths: [{exact: /a}, {prefix: /b}]}, metadata: {annotations: {x/y: z}}},
		{action: Deny, source: {serviceAccounts: {}, namespaceSelector: '  '}}]}`},
	{"service of another namespace", np, `{egress: [{action: Allow, destination: {services: {name: s, namespace: other}}}]}`},
	{"staged", "StagedNetworkPolicy", `{selector: all()}`},
	{"staged learn", "StagedGlobalNetworkPolicy", `{stagedAction: Learn, preDNAT: true, applyOnForward: true}`},
	{"staged ignore", "StagedNetworkPolicy", `{stagedAction: Ignore}`},
	{"staged deletion", "StagedNetworkPolicy", `{stagedAction: Delete, tier: sec}`},
	{"staged Kubernetes", "StagedKubernetesNetworkPolicy", `{podSelector: {matchLabels: {a: b}}}`},
	{"staged Kubernetes deletion", "StagedKubernetesNetworkPolicy", `{stagedAction: Delete}`},

	{"KNP empty", "KNP", `{podSelector: {}}`},
	{"KNP types", "KNP", `{podSelector: {}, policyTypes: [Egress], ingress: [{}]}`},
	{"KNP egress section", "KNP", `{podSelector: {}, egress: [{}]}`},
	{"KNP terms", "KNP", `{podSelector: {matchLabels: {b: v, a: x}, matchExpressions: [{key: c, operator: In, values: [q, p]},
		{key: d, operator: NotIn, values: [r]}, {key: e, operator: Exists}, {key: f, operator: DoesNotExist}]}}`},
	{"KNP peers", "KNP", `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {a: b}}}, {namespaceSelector: {}}, {namespaceSelector: {matchLabels: {env: prod}}},
		{namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {a: b}}}, {ipBlock: {cidr: 10.0.0.1/16, except: [10.0.2.0/24]}}]}]}`},
	{"KNP ports", "KNP", `{podSelector: {}, egress: [{to: [{podSelector: {}}], ports: [{port: 81}, {port: http}, {protocol: UDP, port: 53}, {protocol: TCP, port: 80}, {port: 82, endPort: 90},
		{protocol: SCTP, port: 7}, {protocol: SCTP}, {port: 100}]}]}`},
	{"KNP labels that would break text", "KNP", `{podSelector: {matchExpressions: [{key: all, operator: In, values: [all]}]}}`},

	{"CNP", "CNP", `{tier: Baseline, priority: 7, subject: {pods: {namespaceSelector: {matchLabels: {env: prod}}, podSelector: {}}},
		ingress: [{action: Accept, from: [{namespaces: {}}, {pods: {namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}}], protocols: [{tcp: {}}, {udp: {destinationPort: {number: 53}}}]}],
		egress: [{action: Deny, to: [{networks: [10.0.0.0/8, "fd00::/8", 192.168.0.0/16]}], protocols: [{sctp: {destinationPort: {range: {start: 1, end: 9}}}}, {destinationNamedPort: http}]},
			{action: Pass, to: [{namespaces: {matchExpressions: [{key: env, operator: Exists}]}}]}]}`},
	{"CNP without rules", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}}`},
	{"CNP that cannot be converted", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{namespaces: {}}, {domainNames: [example.com]}]},
		{action: Pass, to: [{nodes: {}}]}, {action: Deny, to: [{}]}, {action: Accept, to: [{networks: [10.0.0.0/8]}]}]}`},
	{"CNP of which nothing is left", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{nodes: {}}]}]}`},
}

// closed are invalid; what is left of them is compared with testdata/closed.txt
// (spec 1.10).
var closed = []struct {
	title, kind, spec string
}{
	{"KNP rule that is null", "KNP", `{podSelector: {}, ingress: [null]}`},
	{"KNP port that is null", "KNP", `{podSelector: {}, ingress: [{ports: [null]}]}`},
	{"KNP label that is null", "KNP", `{podSelector: {matchLabels: {app: null}}}`},
	{"faulty Allow goes, others stay", np, `{selector: has(a), ingress: [{action: Allow, protocol: X}, {action: Allow}, {action: Deny}]}`},
	{"faulty Pass and Log go", gnp, `{ingress: [{action: Pass, protocol: X}, {action: Log, protocol: X}], egress: [{action: Pass}]}`},
	{"faulty Deny denies everything in its direction", gnp, `{ingress: [{action: Allow}, {action: Deny, source: {nets: [10.0.0.300/16]}}, {action: Allow}], egress: [{action: Allow}]}`},
	{"misspelt Allow", gnp, `{ingress: [{action: allow}]}`},
	{"misspelt Deny", gnp, `{ingress: [{action: deny}, {action: Denny}]}`},
	{"missing action", gnp, `{ingress: [{protocol: TCP}]}`},
	{"action of the wrong type", gnp, `{ingress: [{action: 1}]}`},
	{"one bad net of two", gnp, `{ingress: [{action: Allow, source: {nets: [10.0.0.0/8, x]}}]}`},
	{"misspelt criterion of Allow", gnp, `{ingress: [{action: Allow, source: {serviceAccount: {names: [a]}}}, {action: Allow, source: {nets: [10.0.0.0/8]}}]}`},
	{"misspelt criterion of Deny", gnp, `{ingress: [{action: Deny, source: {serviceAccount: {names: [a]}}}]}`},
	{"criterion of the wrong type", gnp, `{ingress: [{action: Allow, source: {nets: 10.0.0.0/8}}, {action: Allow, source: {nets: [10.0.0.0/8]}}]}`},
	{"port that does not decode", gnp, `{egress: [{action: Deny, protocol: TCP, destination: {ports: ["90:80"]}}, {action: Allow, protocol: TCP, destination: {ports: [99999]}}]}`},
	{"rule that is no mapping", gnp, `{ingress: [Allow, {action: Allow}]}`},
	{"selector", gnp, `{selector: x, ingress: [{action: Deny}]}`},
	{"selector of the wrong type", gnp, `{selector: {a: b}, ingress: [{action: Deny}]}`},
	{"serviceAccountSelector", np, `{selector: has(a), serviceAccountSelector: x, ingress: [{action: Deny}]}`},
	{"misspelt selector", gnp, `{selecter: has(a), ingress: [{action: Deny}]}`},
	{"unknown field beside a selector", gnp, `{selector: has(a), serviceAccountSelecter: has(b), ingress: [{action: Allow}, {action: Deny, protocol: TCP}]}`},
	{"misspelt spec", "", `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: g}, specs: {selector: has(a)}}`},
	{"name at the top", "", `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, name: x, metadata: {name: g}, spec: {selector: has(a), ingress: [{action: Allow}]}}`},
	{"rules that are no list", gnp, `{selector: has(a), ingress: {action: Allow}, egress: [{action: Allow}]}`},
	{"types", gnp, `{types: [ingress], ingress: [{action: Allow}]}`},
	{"types of the wrong type", gnp, `{types: Ingress, ingress: [{action: Allow}]}`},
	{"flags of host policies", gnp, `{preDNAT: true, ingress: [{action: Allow}, {action: Deny, protocol: TCP}]}`},
	{"name", "", `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: a.b.c}, spec: {ingress: [{action: Allow}]}}`},
	{"staged action", "StagedNetworkPolicy", `{stagedAction: x}`},
	{"staged deletion that says more", "StagedGlobalNetworkPolicy", `{stagedAction: Delete, tier: sec, selector: has(a), egress: [{action: Deny}]}`},
	{"KNP ipBlock", "KNP", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.300/16}}]}]}`},
	{"KNP ipBlock beside another peer", "KNP", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: x}}, {podSelector: {}}]}]}`},
	{"KNP exception", "KNP", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [x]}}]}]}`},
	{"KNP empty peer", "KNP", `{podSelector: {}, ingress: [{from: [{}]}]}`},
	{"KNP peer selector", "KNP", `{podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: [{key: a, operator: X}]}}, {namespaceSelector: {}}]}]}`},
	{"KNP port", "KNP", `{podSelector: {}, ingress: [{ports: [{port: 80}, {port: 0}]}, {ports: [{port: 81}]}]}`},
	{"KNP misspelt peer", "KNP", `{podSelector: {}, ingress: [{from: [{podselector: {}}]}, {form: []}, {}]}`},
	{"KNP podSelector", "KNP", `{podSelector: {matchExpressions: [{key: a, operator: X}]}, ingress: [{}]}`},
	{"KNP misspelt podSelector", "KNP", `{podselector: {matchLabels: {a: b}}, ingress: [{}]}`},
	{"KNP types under another name", "KNP", `{podSelector: {matchLabels: {a: b}}, types: [Ingress], ingress: [{}]}`},
	{"KNP another unknown field", "KNP", `{podSelector: {matchLabels: {a: b}}, egres: [], ingress: [{}]}`},
	{"KNP types", "KNP", `{podSelector: {}, policyTypes: [ingress], ingress: [{}]}`},
	{"CNP action", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Allow, from: [{namespaces: {}}]}]}`},
	{"CNP misspelt Deny", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Drop, from: [{namespaces: {}}]}]}`},
	{"CNP networks", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{networks: [x]}]}, {action: Pass, to: [{networks: [10.0.0.0/8, x]}]}]}`},
	{"CNP peer of an unknown kind", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{pots: {}}]}, {action: Deny, from: [{pots: {}}]}]}`},
	{"CNP rules that are no list", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: {action: Accept}}`},
	{"CNP subject", "CNP", `{tier: Admin, priority: 1, subject: {pots: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`},
	{"CNP priority", "CNP", `{tier: Admin, priority: -1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`},
}

func TestMeaning(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	for _, c := range meanings {
		r := decodeYAML(t, manifest(c.kind, c.spec))
		if len(r.Problems) > 0 {
			t.Errorf("%s: problems\n%s", c.title, lines(r.Problems))
		}
		fmt.Fprintf(&got, "%s\n%s%s", c.title, policyText(asPolicy(r)), lines(r.Warnings))
	}
	golden(t, "testdata/meanings.txt", got.String())
}

func TestFailClosed(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	for _, c := range closed {
		text := c.spec
		if c.kind != "" {
			text = manifest(c.kind, c.spec)
		}
		r := decodeYAML(t, text)
		if len(r.Problems) == 0 {
			t.Errorf("%s: no problems", c.title)
		}
		fmt.Fprintf(&got, "%s\n%s", c.title, policyText(asPolicy(r)))
	}
	golden(t, "testdata/closed.txt", got.String())
}
