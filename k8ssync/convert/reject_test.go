package convert

import (
	"fmt"
	"strings"
	"testing"
)

// repeat writes a YAML list of n elements; %d in element is its number.
func repeat(n int, element string) string {
	var all []string
	for i := range n {
		if strings.Contains(element, "%d") {
			all = append(all, fmt.Sprintf(element, i))
		} else {
			all = append(all, element)
		}
	}
	return "[" + strings.Join(all, ", ") + "]"
}

const (
	gnp = "GlobalNetworkPolicy"
	np  = "NetworkPolicy"
)

// rejections has at least one case for every constraint of spec section 1. A
// spec that starts with a brace is put into a manifest; anything else is one.
var rejections = []struct {
	title, kind, spec string
}{
	// 1.1 policies
	{"tier name with a dot", gnp, `{tier: a.b}`},
	{"tier name too long", gnp, `{tier: ` + strings.Repeat("a", 64) + `}`},
	{"order is text", gnp, `{order: first}`},
	{"selector does not parse", gnp, `{selector: 'app = "x"'}`},
	{"selector ends in a line break", gnp, `{selector: "app == 'x'\n"}`},
	{"selector too long", gnp, `{selector: "a == '` + strings.Repeat("x", 1018) + `'"}`},
	{"selector with global()", gnp, `{selector: global()}`},
	{"selector with the text global(", gnp, `{selector: "a == 'global('"}`},
	{"serviceAccountSelector with global()", np, `{serviceAccountSelector: global()}`},
	{"serviceAccountSelector does not parse", np, `{serviceAccountSelector: 'a b'}`},
	{"namespaceSelector of a policy with global()", gnp, `{namespaceSelector: global()}`},
	{"namespaceSelector on a NetworkPolicy", np, `{selector: all(), namespaceSelector: all()}`},
	{"types repeated", gnp, `{types: [Ingress, Ingress]}`},
	{"types of the wrong case", gnp, `{types: [ingress]}`},
	{"three types", gnp, `{types: [Ingress, Egress, Ingress]}`},
	{"too many rules", gnp, `{ingress: ` + repeat(1025, "{action: Allow}") + `}`},
	{"preDNAT without applyOnForward", gnp, `{preDNAT: true}`},
	{"doNotTrack without applyOnForward", gnp, `{doNotTrack: true}`},
	{"preDNAT and doNotTrack", gnp, `{preDNAT: true, doNotTrack: true, applyOnForward: true}`},
	{"preDNAT with egress rules", gnp, `{preDNAT: true, applyOnForward: true, egress: [{action: Deny}]}`},
	{"preDNAT with type Egress", gnp, `{preDNAT: true, applyOnForward: true, types: [Egress]}`},
	{"applyOnForward on a NetworkPolicy", np, `{applyOnForward: true}`},
	{"unknown performance hint", gnp, `{performanceHints: [Fast]}`},
	{"performance hint repeated", gnp, `{performanceHints: [AssumeNeededOnEveryNode, AssumeNeededOnEveryNode]}`},
	{"unknown field", gnp, `{selecter: all()}`},
	{"ingress is no list", gnp, `{ingress: {action: Allow}}`},
	{"spec is no mapping", gnp, `[]`},
	// 1.2 rules
	{"action missing", gnp, `{ingress: [{protocol: TCP}]}`},
	{"action of the wrong case", gnp, `{ingress: [{action: allow}]}`},
	{"ipVersion", gnp, `{ingress: [{action: Allow, ipVersion: 5}]}`},
	{"ICMP with IPv6", gnp, `{ingress: [{action: Allow, protocol: ICMP, ipVersion: 6}]}`},
	{"ICMPv6 by number with IPv4", gnp, `{ingress: [{action: Allow, protocol: 58, ipVersion: 4}]}`},
	{"notProtocol ICMP with IPv6", gnp, `{ingress: [{action: Allow, notProtocol: 1, ipVersion: 6}]}`},
	{"unknown protocol", gnp, `{ingress: [{action: Allow, protocol: TCPX}]}`},
	{"protocol of the wrong case", gnp, `{ingress: [{action: Allow, protocol: tcp}]}`},
	{"protocol 0", gnp, `{ingress: [{action: Allow, protocol: 0}]}`},
	{"protocol 256", gnp, `{ingress: [{action: Allow, protocol: 256}]}`},
	{"protocol 0 in quotes", gnp, `{ingress: [{action: Allow, notProtocol: "0"}]}`},
	{"icmp without protocol", gnp, `{ingress: [{action: Allow, icmp: {type: 8}}]}`},
	{"icmp with TCP", gnp, `{ingress: [{action: Allow, protocol: TCP, icmp: {type: 8}}]}`},
	{"notICMP without protocol", gnp, `{ingress: [{action: Allow, notICMP: {type: 8}}]}`},
	{"icmp code without type", gnp, `{ingress: [{action: Allow, protocol: ICMP, icmp: {code: 1}}]}`},
	{"icmp type 255", gnp, `{ingress: [{action: Allow, protocol: ICMP, icmp: {type: 255}}]}`},
	{"icmp type below 0", gnp, `{ingress: [{action: Allow, protocol: ICMP, icmp: {type: -1}}]}`},
	{"icmp code 256", gnp, `{ingress: [{action: Allow, protocol: ICMP, icmp: {type: 1, code: 256}}]}`},
	{"http on Deny", gnp, `{ingress: [{action: Deny, http: {methods: [GET]}}]}`},
	{"http in egress", gnp, `{egress: [{action: Allow, http: {methods: [GET]}}]}`},
	{"http with UDP", gnp, `{ingress: [{action: Allow, protocol: UDP, http: {methods: [GET]}}]}`},
	{"http methods repeated", gnp, `{ingress: [{action: Allow, http: {methods: [GET, GET]}}]}`},
	{"too many http methods", gnp, `{ingress: [{action: Allow, http: {methods: ` + repeat(21, "M%d") + `}}]}`},
	{"too many http paths", gnp, `{ingress: [{action: Allow, http: {paths: ` + repeat(21, "{exact: /%d}") + `}}]}`},
	{"http path exact and prefix", gnp, `{ingress: [{action: Allow, http: {paths: [{exact: /a, prefix: /b}]}}]}`},
	{"http path empty", gnp, `{ingress: [{action: Allow, http: {paths: [{}]}}]}`},
	{"http path without slash", gnp, `{ingress: [{action: Allow, http: {paths: [{exact: a}]}}]}`},
	{"http path with query", gnp, `{ingress: [{action: Allow, http: {paths: [{prefix: "/a?b"}]}}]}`},
	{"http path with space", gnp, `{ingress: [{action: Allow, http: {paths: [{prefix: "/a b"}]}}]}`},
	{"http path with fragment", gnp, `{ingress: [{action: Allow, http: {paths: [{prefix: "/a#b"}]}}]}`},
	{"http path too long", gnp, `{ingress: [{action: Allow, http: {paths: [{exact: /` + strings.Repeat("a", 1024) + `}]}}]}`},
	{"rule annotation key", gnp, `{ingress: [{action: Allow, metadata: {annotations: {"a b": c}}}]}`},
	{"unknown field in a rule", gnp, `{ingress: [{action: Allow, from: []}]}`},
	// 1.3 entity rules
	{"net with host bits", gnp, `{ingress: [{action: Allow, source: {nets: [10.0.0.1/24]}}]}`},
	{"net without mask", gnp, `{ingress: [{action: Allow, source: {nets: [10.0.0.1]}}]}`},
	{"net without mask, IPv6", gnp, `{ingress: [{action: Allow, source: {notNets: ["fd00::1"]}}]}`},
	{"net that is none", gnp, `{ingress: [{action: Allow, source: {nets: [10.0.0.300/16]}}]}`},
	{"net in mapped form", gnp, `{ingress: [{action: Allow, source: {nets: ["::ffff:10.0.0.0/104"]}}]}`},
	{"net repeated", gnp, `{ingress: [{action: Allow, source: {nets: [10.0.0.0/8, 10.0.0.0/8]}}]}`},
	{"too many nets", gnp, `{ingress: [{action: Allow, source: {nets: ` + repeat(257, `"fd00::%d/128"`) + `}}]}`},
	{"nets of two families", gnp, `{ingress: [{action: Allow, source: {nets: [10.0.0.0/8]}, destination: {nets: ["fd00::/8"]}}]}`},
	{"nets against notNets", gnp, `{ingress: [{action: Allow, source: {nets: ["fd00::/8"], notNets: [10.0.0.0/8]}}]}`},
	{"nets against ipVersion", gnp, `{ingress: [{action: Allow, ipVersion: 6, source: {nets: [10.0.0.0/8]}}]}`},
	{"catch-all in notNets", gnp, `{ingress: [{action: Allow, source: {notNets: [0.0.0.0/0]}}]}`},
	{"catch-all in notNets, IPv6", gnp, `{egress: [{action: Allow, destination: {notNets: ["::/0"]}}]}`},
	{"rule selector does not parse", gnp, `{ingress: [{action: Allow, source: {selector: a}}]}`},
	{"rule selector with global()", gnp, `{ingress: [{action: Allow, source: {selector: global()}}]}`},
	{"notSelector too long", gnp, `{ingress: [{action: Allow, source: {notSelector: "a == '` + strings.Repeat("x", 1024) + `'"}}]}`},
	{"notSelector with global()", gnp, `{ingress: [{action: Allow, source: {notSelector: global()}}]}`},
	{"namespaceSelector with global() and more", gnp, `{ingress: [{action: Allow, source: {namespaceSelector: 'global() || has(x)'}}]}`},
	{"namespaceSelector with negated global()", gnp, `{ingress: [{action: Allow, source: {namespaceSelector: '!global()'}}]}`},
	{"service account name repeated", gnp, `{ingress: [{action: Allow, source: {serviceAccounts: {names: [a, b, a]}}}]}`},
	{"service account selector does not parse", gnp, `{ingress: [{action: Allow, source: {serviceAccounts: {selector: 'a b'}}}]}`},
	{"misspelt criterion", gnp, `{ingress: [{action: Allow, source: {serviceAccount: {names: [a]}}}]}`},
	{"services without name", gnp, `{egress: [{action: Allow, destination: {services: {namespace: shop}}}]}`},
	{"services and selector", gnp, `{egress: [{action: Allow, destination: {services: {name: s, namespace: shop}, selector: all()}}]}`},
	{"services and notSelector", gnp, `{egress: [{action: Allow, destination: {services: {name: s, namespace: shop}, notSelector: all()}}]}`},
	{"services and namespaceSelector", gnp, `{egress: [{action: Allow, destination: {services: {name: s, namespace: shop}, namespaceSelector: all()}}]}`},
	{"services and serviceAccounts", gnp, `{egress: [{action: Allow, destination: {services: {name: s, namespace: shop}, serviceAccounts: {names: [x]}}}]}`},
	{"services and nets", gnp, `{egress: [{action: Allow, destination: {services: {name: s, namespace: shop}, nets: [10.0.0.0/8]}}]}`},
	{"services and notNets", gnp, `{egress: [{action: Allow, destination: {services: {name: s, namespace: shop}, notNets: [10.0.0.0/8]}}]}`},
	{"services and ports", gnp, `{egress: [{action: Allow, protocol: TCP, destination: {services: {name: s, namespace: shop}, ports: [80]}}]}`},
	{"services and notPorts", gnp, `{egress: [{action: Allow, protocol: TCP, destination: {services: {name: s, namespace: shop}, notPorts: [80]}}]}`},
	{"services as ingress destination", gnp, `{ingress: [{action: Allow, destination: {services: {name: s, namespace: shop}}}]}`},
	{"services as egress source", gnp, `{egress: [{action: Allow, source: {services: {name: s, namespace: shop}}}]}`},
	{"services without namespace", gnp, `{egress: [{action: Allow, destination: {services: {name: s}}}]}`},
	{"port without protocol", gnp, `{ingress: [{action: Allow, destination: {ports: [80]}}]}`},
	{"name and port without protocol", gnp, `{ingress: [{action: Allow, destination: {ports: [http, 80]}}]}`},
	{"port with ICMP", gnp, `{ingress: [{action: Allow, protocol: ICMP, destination: {ports: [80]}}]}`},
	{"port with UDPLite", gnp, `{ingress: [{action: Allow, protocol: UDPLite, destination: {ports: [80]}}]}`},
	{"named port with protocol 47", gnp, `{ingress: [{action: Allow, protocol: 47, source: {notPorts: [http]}}]}`},
	{"port 0", gnp, `{ingress: [{action: Allow, protocol: TCP, destination: {ports: [0]}}]}`},
	{"port 0 in a range", gnp, `{ingress: [{action: Allow, protocol: TCP, destination: {ports: ["0:80"]}}]}`},
	{"port 65536", gnp, `{ingress: [{action: Allow, protocol: TCP, destination: {ports: [65536]}}]}`},
	{"port range the wrong way round", gnp, `{ingress: [{action: Allow, protocol: TCP, destination: {ports: ["90:80"]}}]}`},
	{"port name in upper case", gnp, `{ingress: [{action: Allow, protocol: TCP, destination: {ports: [HTTP]}}]}`},
	{"port name too long", gnp, `{ingress: [{action: Allow, protocol: TCP, destination: {ports: [abcdefghijklmnop]}}]}`},
	{"port name with two dashes", gnp, `{ingress: [{action: Allow, protocol: TCP, destination: {ports: [a--b]}}]}`},
	{"too many ports", gnp, `{ingress: [{action: Allow, protocol: TCP, destination: {ports: ` + repeat(51, "1%d") + `}}]}`},
	// 1.4 tiers
	{"tier object with a dot in its name", "", `{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a.b}}`},
	{"tier action", "Tier", `{defaultAction: Allow}`},
	{"built-in tier moved", "", `{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: default}, spec: {order: 5, defaultAction: Deny}}`},
	{"built-in tier with another action", "", `{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: kube-admin}, spec: {order: 1000, defaultAction: Deny}}`},
	{"built-in tier without action", "", `{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: kube-baseline}, spec: {order: 10000000}}`},
	// 1.5 profiles
	{"profile rule", "Profile", `{egress: [{action: Allow, protocol: 0}]}`},
	{"profile label value", "Profile", `{labelsToApply: {a: "b c"}}`},
	{"profile label key", "Profile", `{labelsToApply: {"a b": c}}`},
	// 1.6 sets
	{"set net", "GlobalNetworkSet", `{nets: [10.0.0.0/33]}`},
	{"set with the namespace label", "", `{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: s, labels: {projectcalico.org/namespace: x}}}`},
	// 1.7 host endpoints
	{"host endpoint without node", "HostEndpoint", `{interfaceName: eth0}`},
	{"host endpoint of nothing", "HostEndpoint", `{node: host}`},
	{"interface name too long", "HostEndpoint", `{node: host, interfaceName: abcdefghijklmnop}`},
	{"expected address with a mask", "HostEndpoint", `{node: host, expectedIPs: [10.0.0.0/8]}`},
	{"host endpoint port", "HostEndpoint", `{node: host, interfaceName: eth0, ports: [{name: x, protocol: TCP, port: 0}]}`},
	{"host endpoint port protocol", "HostEndpoint", `{node: host, interfaceName: eth0, ports: [{name: x, protocol: ICMP, port: 1}]}`},
	{"host endpoint port name", "HostEndpoint", `{node: host, interfaceName: eth0, ports: [{name: X, protocol: TCP, port: 1}]}`},
	// 1.8 staged
	{"staged deletion that says more", "StagedGlobalNetworkPolicy", `{stagedAction: Delete, selector: all()}`},
	{"staged deletion of a Kubernetes policy that says more", "StagedKubernetesNetworkPolicy", `{stagedAction: Delete, policyTypes: [Ingress]}`},
	{"staged action", "StagedNetworkPolicy", `{stagedAction: set}`},
	// 1.9 metadata
	{"global policy name with two dots", "", `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: a.b.c}}`},
	{"policy name in upper case", "", `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: A}}`},
	{"policy name too long", "", `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: ` + strings.Repeat("a", 254) + `}}`},
	{"label value", "", `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: a, labels: {a: "b c"}}}`},
	{"label that is no string", "", `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: a, labels: {a: yes, b: 1}}}`},
	{"annotation key", "", `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: a, annotations: {"a b": c}}}`},
	{"annotations too large", "", `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: a, annotations: {a: ` + strings.Repeat("a", 256<<10) + `}}}`},
	// 8 Kubernetes policies
	{"KNP type", "KNP", `{podSelector: {}, policyTypes: [ingress]}`},
	{"KNP operator", "KNP", `{podSelector: {matchExpressions: [{key: a, operator: Is, values: [b]}]}}`},
	{"KNP In without values", "KNP", `{podSelector: {matchExpressions: [{key: a, operator: In}]}}`},
	{"KNP Exists with values", "KNP", `{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}`},
	{"KNP label", "KNP", `{podSelector: {matchLabels: {"a b": "c d"}}}`},
	{"KNP ipBlock", "KNP", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.300/16}}]}]}`},
	{"KNP ipBlock exception outside", "KNP", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/16, except: [10.1.0.0/24]}}]}]}`},
	{"KNP ipBlock exception", "KNP", `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/16, except: [x]}}]}]}`},
	{"KNP ipBlock and podSelector", "KNP", `{podSelector: {}, ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/16}}]}]}`},
	{"KNP empty peer", "KNP", `{podSelector: {}, ingress: [{from: [{}]}]}`},
	{"KNP port", "KNP", `{podSelector: {}, ingress: [{ports: [{port: 0}]}]}`},
	{"KNP port name", "KNP", `{podSelector: {}, ingress: [{ports: [{port: "80_"}]}]}`},
	{"KNP endPort", "KNP", `{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 79}]}]}`},
	{"KNP endPort with a name", "KNP", `{podSelector: {}, ingress: [{ports: [{port: http, endPort: 79}]}]}`},
	{"KNP endPort alone", "KNP", `{podSelector: {}, ingress: [{ports: [{endPort: 79}]}]}`},
	{"KNP protocol", "KNP", `{podSelector: {}, ingress: [{ports: [{protocol: ICMP}]}]}`},
	{"CNP tier", "CNP", `{tier: admin, priority: 1, subject: {namespaces: {}}}`},
	{"CNP priority", "CNP", `{tier: Admin, priority: 1001, subject: {namespaces: {}}}`},
	{"CNP without subject", "CNP", `{tier: Admin, priority: 1, subject: {}}`},
	{"CNP with two subjects", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}, pods: {namespaceSelector: {}, podSelector: {}}}}`},
	{"CNP action", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Allow, from: [{namespaces: {}}]}]}`},
	{"CNP without peers", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: []}]}`},
	{"CNP peer of two kinds", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{namespaces: {}, networks: [10.0.0.0/8]}]}]}`},
	{"CNP network", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [10.0.0.1]}]}]}`},
	{"CNP protocols", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{}, {tcp: {}, udp: {}}]}]}`},
	{"CNP port", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 2, end: 1}}}}]}]}`},
	{"CNP number and range", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{udp: {destinationPort: {number: 1, range: {start: 2, end: 3}}}}]}]}`},
	{"CNP port name", "CNP", `{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{destinationNamedPort: A}]}]}`},
}

// The golden file holds the text that users read; review it as such.
func TestRejections(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	for _, c := range rejections {
		text := c.spec
		if c.kind != "" {
			text = manifest(c.kind, c.spec)
		}
		r := decodeYAML(t, text)
		if len(r.Problems) == 0 {
			t.Errorf("%s: not rejected", c.title)
		}
		for _, p := range r.Problems {
			if p.Object != r.Key {
				t.Errorf("%s: problem of %v in object %v", c.title, p.Object, r.Key)
			}
		}
		fmt.Fprintf(&got, "%s\n%s", c.title, lines(r.Problems))
	}
	golden(t, "testdata/rejections.txt", got.String())
}

// What stands right at the limits is valid.
func TestAccepted(t *testing.T) {
	t.Parallel()
	tests := []struct{ title, kind, spec string }{
		{"empty", gnp, `{}`},
		{"tier name of 63", gnp, `{tier: ` + strings.Repeat("a", 63) + `}`},
		{"fractional negative order", gnp, `{order: -2.5}`},
		{"selector of 1024", gnp, `{selector: "a == '` + strings.Repeat("x", 1017) + `'"}`},
		{"1024 rules", gnp, `{egress: ` + repeat(1024, "{action: Log}") + `}`},
		{"hint", np, `{performanceHints: [AssumeNeededOnEveryNode]}`},
		{"protocols", gnp, `{ingress: [{action: Allow, protocol: 255}, {action: Allow, protocol: "6"}, {action: Pass, notProtocol: UDPLite}, {action: Allow, protocol: ICMP, ipVersion: 4}]}`},
		{"icmp", gnp, `{ingress: [{action: Allow, protocol: ICMPv6, icmp: {type: 254, code: 255}}, {action: Allow, protocol: 1, notICMP: {type: 0}}, {action: Allow, protocol: ICMP, icmp: {}}]}`},
		{"http", gnp, `{ingress: [{action: Allow, protocol: 6, http: {methods: ` + repeat(20, "M%d") + `, paths: [{exact: /` + strings.Repeat("a", 1023) + `}]}}]}`},
		{"256 nets", gnp, `{ingress: [{action: Allow, source: {nets: ` + repeat(256, "10.0.%d.0/24") + `}}]}`},
		{"catch-all in nets", gnp, `{ingress: [{action: Allow, source: {nets: [0.0.0.0/0]}}]}`},
		{"upper-case IPv6", gnp, `{ingress: [{action: Allow, source: {nets: ["FD00::/8"]}}]}`},
		{"global() alone", gnp, `{ingress: [{action: Allow, source: {namespaceSelector: " global() ", selector: has(a)}}]}`},
		{"global( in a literal of notSelector", gnp, `{ingress: [{action: Allow, source: {notSelector: "a == 'global('"}}]}`},
		{"service account names are not checked", gnp, `{ingress: [{action: Allow, source: {serviceAccounts: {names: ["a b", "'"]}}}]}`},
		{"50 ports", gnp, `{ingress: [{action: Allow, protocol: SCTP, destination: {ports: ` + repeat(50, "1%d") + `}}]}`},
		{"port forms", gnp, `{ingress: [{action: Allow, protocol: TCP, destination: {ports: [1, 65535, "80", "1:65535", abcdefghijklmn1, a-b]}}]}`},
		{"names need no protocol", gnp, `{ingress: [{action: Allow, destination: {ports: [http]}}]}`},
		{"service source with destination ports", np, `{ingress: [{action: Allow, protocol: TCP, source: {services: {name: s}}, destination: {ports: [80]}}]}`},
		{"built-in tier as it is", "", `{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: default}, spec: {}}`},
		{"built-in tier in full", "", `{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: kube-baseline}, spec: {order: 10000000, defaultAction: Pass}}`},
		{"tier-prefixed name", "", `{apiVersion: crd.projectcalico.org/v1, kind: NetworkPolicy, metadata: {name: default.foo, namespace: a}}`},
		{"derived name", "", `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: knp.default.a.b.c, namespace: a}}`},
		{"annotation in upper case", "", `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: a, annotations: {EXAMPLE.com/A: "x y"}}}`},
		{"unknown metadata and status", "", `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, clusterName: x}, spec: {podSelector: {}}, status: {conditions: []}}`},
		{"unknown field of a pod", "", `{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {newInThisRelease: 1}}`},
		{"set with host bits and bare addresses", "NetworkSet", `{nets: [10.0.0.1/8, 10.0.0.1, "fd00::1"]}`},
		{"staged deletion", "StagedNetworkPolicy", `{stagedAction: Delete, tier: sec}`},
		{"null is not stated", gnp, `{selector: null, order: null, ingress: null, types: [Ingress]}`},
	}
	for _, tt := range tests {
		text := tt.spec
		if tt.kind != "" {
			text = manifest(tt.kind, tt.spec)
		}
		if r := decodeYAML(t, text); len(r.Problems) > 0 || len(r.Warnings) > 0 {
			t.Errorf("%s:\n%s%s", tt.title, lines(r.Problems), lines(r.Warnings))
		}
	}
}
