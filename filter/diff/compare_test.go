package diff

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
)

var update = flag.Bool("update", false, "rewrite golden files")

// cluster is what both sides of every case have: two namespaces, four pods, of
// which two have IPv6 too.
const cluster = `
{apiVersion: v1, kind: Namespace, metadata: {name: prod, labels: {env: prod}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: test, labels: {env: test}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: web, namespace: prod, labels: {role: front}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: prod, labels: {app: db}}, spec: {serviceAccountName: db, containers: [{name: c, ports: [{name: pg, containerPort: 5432}]}]}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: prod, labels: {app: web, hash: one}}, spec: {serviceAccountName: web}, status: {phase: Running, podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-2, namespace: prod, labels: {app: web, hash: two}}, spec: {serviceAccountName: web}, status: {phase: Running, podIPs: [{ip: 10.0.0.3}, {ip: "fd00::3"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: probe, namespace: test, labels: {app: web}}, spec: {serviceAccountName: default}, status: {phase: Running, podIPs: [{ip: 10.0.1.1}]}}
---
`

// dbPolicy gives a policy of db's with these ingress rules.
func dbPolicy(rules string) string {
	return `{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: p, namespace: prod}, spec: {selector: 'app == "db"', types: [Ingress], ingress: [` + rules + "]}}\n---\n"
}

// snapshotOf reads manifests; later objects take the place of earlier ones.
func snapshotOf(t *testing.T, texts ...string) *policy.Snapshot {
	t.Helper()
	var objects []k8ssync.Object
	for _, text := range texts {
		more, err := file.Parse("test.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, more...)
	}
	store := k8ssync.NewStore()
	store.Replace(objects)
	for _, p := range store.Problems() {
		t.Fatal(p)
	}
	return store.Snapshot()
}

// lines gives a report in short.
func lines(r *Report) []string {
	out := []string{}
	for _, c := range r.Changes {
		out = append(out, c.Now+": "+strings.Join(c.FromText, " + ")+" -> "+strings.Join(c.ToText, " + ")+": "+c.TrafficText)
	}
	for _, id := range r.OnlyBefore {
		out = append(out, "only before: "+id.text())
	}
	for _, id := range r.OnlyAfter {
		out = append(out, "only after: "+id.text())
	}
	return out
}

func TestCompare(t *testing.T) {
	t.Parallel()
	const (
		allow  = `{action: Allow}`
		tcp    = `{action: Allow, protocol: TCP}`
		anyone = "every pod + every address that is no pod's"
		db     = "account prod/db"
		ext    = "every address that is no pod's"
	)
	set := func(nets string) string {
		return `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: s, labels: {kind: office}}, spec: {nets: [` + nets + "]}}\n---\n"
	}
	slice := func(ip string, port string) string {
		return `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: {name: s, namespace: prod, labels: {kubernetes.io/service-name: svc}}, endpoints: [{addresses: [` + ip + `]}], ports: [{port: ` + port + "}]}\n---\n"
	}
	pod := func(name, ns, account, labels, ip string) string {
		return `{apiVersion: v1, kind: Pod, metadata: {name: ` + name + `, namespace: ` + ns + `, labels: {` + labels + `}}, spec: {serviceAccountName: ` + account + `}, status: {phase: Running, podIPs: [{ip: ` + ip + "}]}}\n---\n"
	}
	global := func(name, spec string) string {
		return `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: ` + name + `}, spec: {` + spec + "}}\n---\n"
	}
	host := func(port string) string {
		return `{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}, spec: {node: node1, interfaceName: "*", expectedIPs: [203.0.113.9], ports: [{name: adm, protocol: TCP, port: ` + port + "}]}}\n---\n"
	}
	tests := []struct {
		name          string
		before, after string
		want          []string
	}{
		{"equal", dbPolicy(tcp), dbPolicy(tcp), nil},
		{"no policy on either side", "", "", nil},
		{"said in another way", dbPolicy(`{action: Allow, source: {serviceAccounts: {names: [web]}}}`),
			dbPolicy(`{action: Allow, source: {serviceAccounts: {selector: 'role == "front"'}}}`), nil},
		{"a rule split in two", dbPolicy(`{action: Allow, protocol: TCP, destination: {ports: ["80:90"]}}`),
			dbPolicy(`{action: Allow, protocol: TCP, destination: {ports: ["80:85"]}}, {action: Allow, protocol: TCP, destination: {ports: ["86:90"]}}`), nil},
		{"a first policy", "", dbPolicy(tcp), []string{"deny: " + anyone + " -> " + db + ": any protocol except tcp"}},
		{"a policy less", dbPolicy(tcp), "", []string{"allow: " + anyone + " -> " + db + ": any protocol except tcp"}},
		{"one port less", dbPolicy(`{action: Allow, protocol: TCP, destination: {ports: ["80:90"]}}`), dbPolicy(`{action: Allow, protocol: TCP, destination: {ports: ["81:90"]}}`),
			[]string{"deny: " + anyone + " -> " + db + ": tcp/80"}},
		{"all ports but one", dbPolicy(""), dbPolicy(`{action: Allow, protocol: TCP, destination: {notPorts: [80]}}`),
			[]string{"allow: " + anyone + " -> " + db + ": tcp except 80"}},
		{"all but one port", dbPolicy(allow), dbPolicy(`{action: Deny, protocol: TCP, destination: {ports: [80]}}, {action: Allow}`),
			[]string{"deny: " + anyone + " -> " + db + ": tcp/80"}},
		{"everything except", dbPolicy(""), dbPolicy(`{action: Deny, protocol: TCP, destination: {ports: [80]}}, {action: Allow}`),
			[]string{"allow: " + anyone + " -> " + db + ": any protocol except tcp/80"}},
		{"a protocol that no other rule names", dbPolicy(tcp), dbPolicy(tcp + `, {action: Allow, protocol: 47}`),
			[]string{"allow: " + anyone + " -> " + db + ": protocol 47"}},
		{"named port", dbPolicy(""), dbPolicy(`{action: Allow, protocol: TCP, destination: {ports: [pg]}}`),
			[]string{"allow: " + anyone + " -> " + db + ": tcp/5432"}},
		{"source ports", dbPolicy(""), dbPolicy(`{action: Allow, protocol: UDP, source: {ports: ["1024:65535"]}, destination: {ports: [53]}}`),
			[]string{"allow: " + anyone + " -> " + db + ": udp/53 from source port 1024-65535"}},
		{"ICMP type", dbPolicy(tcp), dbPolicy(tcp + `, {action: Allow, protocol: ICMP, icmp: {type: 8}}`),
			[]string{"allow: every pod + every IPv4 address that is no pod's -> " + db + ": icmp type 8"}},
		{"ICMP but one code", dbPolicy(tcp), dbPolicy(tcp + `, {action: Allow, protocol: ICMPv6, notICMP: {type: 1, code: 4}}`),
			[]string{"allow: every pod of namespace prod + every IPv6 address that is no pod's -> " + db + ": icmpv6 except type 1 code 4"}},
		{"ICMP code of both", dbPolicy(tcp), dbPolicy(tcp + `, {action: Allow, protocol: ICMP, icmp: {type: 3, code: 4}}, {action: Allow, protocol: ICMPv6, icmp: {type: 2}}`),
			[]string{
				"allow: every pod + every IPv4 address that is no pod's -> " + db + ": icmp type 3 code 4",
				"allow: every pod of namespace prod + every IPv6 address that is no pod's -> " + db + ": icmpv6 type 2",
			}},
		{"prefix", dbPolicy(""), dbPolicy(`{action: Allow, source: {nets: [192.0.2.0/24]}}`), []string{"allow: 192.0.2.0/24 -> " + db + ": any protocol"}},
		{"prefix without a part", dbPolicy(""), dbPolicy(`{action: Allow, source: {nets: [192.0.2.0/24], notNets: [192.0.2.8/29]}}`),
			[]string{"allow: 192.0.2.0/24 except 192.0.2.8/29 -> " + db + ": any protocol"}},
		{"prefix of pods", dbPolicy(""), dbPolicy(`{action: Allow, source: {nets: [10.0.0.0/24]}}`),
			[]string{"allow: every pod of namespace prod -> " + db + ": IPv4: any protocol", "allow: 10.0.0.0/24 -> " + db + ": any protocol"}},
		{"service account by label", dbPolicy(`{action: Allow, source: {serviceAccounts: {selector: 'role == "front"'}}}`),
			`{apiVersion: v1, kind: ServiceAccount, metadata: {name: web, namespace: prod, labels: {role: back}}}` + "\n---\n" + dbPolicy(`{action: Allow, source: {serviceAccounts: {selector: 'role == "front"'}}}`),
			[]string{"deny: account prod/web -> " + db + ": any protocol"}},
		{"namespace by label", dbPolicy(`{action: Allow, source: {namespaceSelector: 'env == "test"'}}`),
			`{apiVersion: v1, kind: Namespace, metadata: {name: test}}` + "\n---\n" + dbPolicy(`{action: Allow, source: {namespaceSelector: 'env == "test"'}}`),
			[]string{"deny: every pod of namespace test -> " + db + ": any protocol"}},
		{"a label that a pod loses", dbPolicy(`{action: Allow, source: {selector: 'app == "web"'}}`),
			strings.Replace(pod("web-2", "prod", "web", "app: other", "10.0.0.3"), "{ip: 10.0.0.3}", `{ip: 10.0.0.3}, {ip: "fd00::3"}`, 1) + dbPolicy(`{action: Allow, source: {selector: 'app == "web"'}}`),
			[]string{"deny: account prod/web with app=other: prod/web-2 -> " + db + ": any protocol"}},
		{"a set that grows", set("192.0.2.0/24") + dbPolicy(`{action: Allow, source: {selector: 'kind == "office"', namespaceSelector: global()}}`),
			set("192.0.2.0/24, 198.51.100.7") + dbPolicy(`{action: Allow, source: {selector: 'kind == "office"', namespaceSelector: global()}}`),
			[]string{"allow: 198.51.100.7 -> " + db + ": any protocol"}},
		{"a service that moves", slice("203.0.113.5", "80") + global("e", `selector: 'app == "db"', types: [Egress], egress: [{action: Allow, destination: {services: {name: svc, namespace: prod}}}]`),
			slice("203.0.113.5", "81") + global("e", `selector: 'app == "db"', types: [Egress], egress: [{action: Allow, destination: {services: {name: svc, namespace: prod}}}]`),
			[]string{"allow: " + db + " -> 203.0.113.5: tcp/81", "deny: " + db + " -> 203.0.113.5: tcp/80"}},
		{"egress of a namespace", "", `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: e, namespace: prod}, spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}}`,
			[]string{"deny: every pod of namespace prod -> every pod of namespace test + " + ext + ": any protocol"}},
		{"the order of policies", global("a", `order: 1, selector: 'app == "db"', ingress: [{action: Allow}]`) + global("b", `order: 2, selector: 'app == "db"', ingress: [{action: Deny}]`),
			global("a", `order: 3, selector: 'app == "db"', ingress: [{action: Allow}]`) + global("b", `order: 2, selector: 'app == "db"', ingress: [{action: Deny}]`),
			[]string{"deny: " + anyone + " -> " + db + ": any protocol"}},
		{"the default action of a tier", `{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: sec}, spec: {order: 1, defaultAction: Pass}}` + "\n---\n" + global("sec.a", `tier: sec, selector: 'app == "db"', ingress: [{action: Allow, protocol: TCP}]`),
			`{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: sec}, spec: {order: 1, defaultAction: Deny}}` + "\n---\n" + global("sec.a", `tier: sec, selector: 'app == "db"', ingress: [{action: Allow, protocol: TCP}]`),
			[]string{"deny: " + anyone + " -> " + db + ": any protocol except tcp"}},
		{"a label that only notSelector reads", dbPolicy(`{action: Allow, source: {notSelector: 'hash == "two"'}}`), dbPolicy(`{action: Allow, source: {notSelector: 'hash == "one"'}}`),
			[]string{
				"allow: account prod/web with app=web,hash=two: prod/web-2 -> " + db + ": any protocol",
				"deny: account prod/web with app=web,hash=one: prod/web-1 -> " + db + ": any protocol",
			}},
		{"a host's named port", host("80") + global("e", `selector: 'app == "db"', types: [Egress], egress: [{action: Allow, protocol: TCP, destination: {ports: [adm]}}]`),
			host("81") + global("e", `selector: 'app == "db"', types: [Egress], egress: [{action: Allow, protocol: TCP, destination: {ports: [adm]}}]`),
			[]string{"allow: " + db + " -> 203.0.113.9: tcp/81", "deny: " + db + " -> 203.0.113.9: tcp/80"}},
		{"staged policies do nothing", "", `{apiVersion: projectcalico.org/v3, kind: StagedGlobalNetworkPolicy, metadata: {name: s}, spec: {ingress: [{action: Deny}]}}`, nil},
		{"a pod replaced by its like", pod("job-1", "test", "job", "hash: one", "10.0.1.8") + dbPolicy(`{action: Allow, source: {serviceAccounts: {names: [job]}, namespaceSelector: all()}}`),
			pod("job-2", "test", "job", "hash: two", "10.0.1.9") + dbPolicy(""),
			[]string{"deny: account test/job -> " + db + ": any protocol"}},
		{"pods of one side", pod("old", "test", "old", "", "10.0.1.8") + dbPolicy(tcp), pod("new", "test", "new", "", "10.0.1.9") + dbPolicy(tcp),
			[]string{"only before: account test/old: test/old", "only after: account test/new: test/new"}},
		{"a pod that moves out of a prefix", pod("mover", "test", "m", "", "10.0.2.1") + dbPolicy(`{action: Allow, source: {nets: [10.0.2.0/24]}}`),
			pod("mover", "test", "m", "", "10.0.3.1") + dbPolicy(`{action: Allow, source: {nets: [10.0.2.0/24]}}`),
			[]string{"deny: account test/m -> " + db + ": any protocol"}},
		{"two pods with one address", "", pod("thief", "test", "t", "", "10.0.1.1"),
			[]string{
				"deny: every pod of namespace test -> every pod + every IPv4 address that is no pod's: any protocol",
				"deny: every pod of namespace prod + every IPv4 address that is no pod's -> every pod of namespace test: any protocol",
				"only after: account test/t: test/thief",
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := Compare(context.Background(), snapshotOf(t, cluster, tt.before), snapshotOf(t, cluster, tt.after), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == nil {
				tt.want = []string{}
			}
			if d := cmp.Diff(tt.want, lines(r)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	before := snapshotOf(t, cluster, dbPolicy(`{action: Allow, protocol: TCP, destination: {ports: ["80:90"]}}`))
	after := snapshotOf(t, cluster, dbPolicy(`{action: Allow, protocol: TCP, destination: {ports: [85]}}, {action: Allow, protocol: ICMP}`))
	tests := []struct {
		name string
		o    Options
		want []string
	}{
		{"pod", Options{From: &End{Pod: policy.Key{Namespace: "prod", Name: "web-2"}}},
			[]string{"allow: account prod/web -> account prod/db: icmp", "deny: account prod/web -> account prod/db: tcp/80-84,86-90"}},
		{"account and one port", Options{From: &End{Account: policy.Key{Namespace: "prod", Name: "web"}}, Port: &Port{flow.TCP, flow.PortRange{Min: 90, Max: 90}}},
			[]string{"deny: account prod/web -> account prod/db: tcp/90"}},
		{"a range that is half in", Options{From: &End{Namespace: "test"}, Port: &Port{flow.TCP, flow.PortRange{Min: 88, Max: 100}}},
			[]string{"deny: every pod of namespace test -> account prod/db: tcp/88-90"}},
		{"address outside", Options{From: &End{Address: netip.MustParseAddr("203.0.113.1")}, Port: &Port{flow.ICMP, flow.PortRange{Min: 8 << 8, Max: 8<<8 | 255}}},
			[]string{"allow: every IPv4 address that is no pod's -> account prod/db: icmp type 8"}},
		{"address of a pod", Options{From: &End{Address: netip.MustParseAddr("10.0.1.1")}, Port: &Port{flow.TCP, whole}},
			[]string{"deny: every pod of namespace test -> account prod/db: tcp/80-84,86-90"}},
		{"a receiver that is not concerned", Options{To: &End{Namespace: "test"}}, []string{}},
		{"a protocol that is not named", Options{Port: &Port{47, whole}}, []string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := Compare(context.Background(), before, after, tt.o)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, lines(r)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// A protocol that the filter asks for and no rule names is part of the other ones.
func TestFilterOfOtherProtocols(t *testing.T) {
	t.Parallel()
	r, err := Compare(context.Background(), snapshotOf(t, cluster), snapshotOf(t, cluster, dbPolicy("")),
		Options{From: &End{Namespace: "test"}, Port: &Port{47, whole}})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"deny: every pod of namespace test -> account prod/db: protocol 47"}, lines(r)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	some, all := snapshotOf(t, cluster), snapshotOf(t, cluster, dbPolicy(""))
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	var limit *LimitError
	if _, err := Compare(context.Background(), some, all, Options{Limit: 10}); !errors.As(err, &limit) || limit.Limit != 10 || limit.Decisions <= 10 {
		t.Errorf("over the limit: %v", err)
	}
	if _, err := Compare(context.Background(), some, all, Options{Limit: limit.Decisions}); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	var end *EndError
	if _, err := Compare(context.Background(), some, all, Options{To: &End{Namespace: "none"}}); !errors.As(err, &end) || end.Side != "to" {
		t.Errorf("unknown receiver: %v", err)
	}
	var none *NoPodsError
	if _, err := Compare(context.Background(), some, new(policy.Snapshot), Options{}); !errors.As(err, &none) || none.Before != 4 || none.After != 0 {
		t.Errorf("no pods: %v", err)
	}
	if _, err := Compare(cancelled, some, all, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// What cannot differ is not decided, and what is decided is told.
func TestPlan(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		after   string
		decided int64
	}{
		{"equal sides", dbPolicy(""), 0},
		{"a policy of db", dbPolicy(`{action: Allow}`), 5}, // from 3 identities of pods and 2 regions
		{"a label of an account that is read", dbPolicy("") + `{apiVersion: v1, kind: ServiceAccount, metadata: {name: web, namespace: prod, labels: {role: x}}}`, 0},
	}
	before := snapshotOf(t, cluster, dbPolicy(""))
	for _, tt := range tests {
		var done, total int64
		r, err := Compare(context.Background(), before, snapshotOf(t, cluster, tt.after), Options{Progress: func(d, n int64) { done, total = d, n }})
		if err != nil {
			t.Fatal(err)
		}
		if r.PairsDecided != tt.decided || done != r.Decisions || total != r.Decisions {
			t.Errorf("%s: %d pairs decided, want %d; progress %d of %d, %d decisions", tt.name, r.PairsDecided, tt.decided, done, total, r.Decisions)
		}
	}
}

// A disagreement between engine and oracle is an error, not a report.
func TestDisagreement(t *testing.T) {
	t.Parallel()
	before, after := snapshotOf(t, cluster), snapshotOf(t, cluster, dbPolicy(""))
	c, err := prepare(before, after, Options{})
	if err != nil {
		t.Fatal(err)
	}
	c.oracles[1] = c.oracles[0]
	if err := c.plan(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.run(context.Background()); err == nil || !strings.Contains(err.Error(), "the engine says deny (end-of-tier)") {
		t.Errorf("got %v", err)
	}
}

// The documented examples with one account exchanged in a list of names.
func TestTextOfTheExamples(t *testing.T) {
	t.Parallel()
	const examples = "../../docs/examples/service-accounts"
	r, err := file.Read(examples)
	if err != nil || len(r.Errors) > 0 {
		t.Fatal(err, r.Errors)
	}
	var before, after []k8ssync.Object
	for _, o := range r.Objects {
		before = append(before, o)
		if p, ok := o.Value.(*policy.Policy); ok && p.Name == "demo-calico" {
			changed := *p
			changed.Ingress = []policy.Rule{p.Ingress[0]}
			changed.Ingress[0].Source.ServiceAccounts = &policy.ServiceAccountMatch{Names: []string{"api-service", "reports-sa"}}
			o.Value = &changed
		}
		if sa, ok := o.Value.(*policy.ServiceAccount); ok && sa.Name == "intern-b" {
			o.Value = &policy.ServiceAccount{Namespace: sa.Namespace, Name: sa.Name}
		}
		after = append(after, o)
	}
	var snapshots [2]*policy.Snapshot
	for i, objects := range [][]k8ssync.Object{before, after} {
		store := k8ssync.NewStore()
		store.Replace(objects)
		snapshots[i] = store.Snapshot()
	}
	report, err := Compare(context.Background(), snapshots[0], snapshots[1], Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := report.Text(&got); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "examples.txt")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("(-want +got), rewrite with -update:\n%s", d)
	}
}

// Nothing from a manifest reaches the terminal as more than text.
func TestTextIsSafe(t *testing.T) {
	t.Parallel()
	id := &Identity{Namespace: "a\x1b[31m", ServiceAccount: "x\ny", Pods: []string{"a/\u009bp"}}
	r := &Report{OnlyAfter: []*Identity{id}, Changes: []Change{{Now: "deny", FromText: []string{id.text()}, ToText: []string{"b\rc"}, Example: Example{From: "\x07"}}}}
	var b bytes.Buffer
	if err := r.Text(&b); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\r\x07\u009b") || strings.Contains(b.String(), "\ny:") {
		t.Errorf("%q", b.String())
	}
}
