package vectors

import (
	"strings"
	"testing"
)

// TestRun runs vectors that are right, and vectors with one mistake each: the
// runner must find it and name the layer.
func TestRun(t *testing.T) {
	t.Parallel()
	const world = `ns: {n: {}}
sa: {n/default: {}}
pods:
- {name: a, ns: n, labels: {app: a}, ips: [10.0.0.1, "fd00::1"]}
- {name: b, ns: n, labels: {app: b}, ips: [10.0.0.2], ports: [{name: http, proto: tcp, port: 80}]}
- {name: twin, ns: n, ips: [10.0.0.3]}
- {name: twin, ns: m, ips: [10.0.0.4]}
`
	const deny = `{NP: n/p, selector: 'app == "b"', ingress: [{action: Allow, protocol: TCP, http: {methods: [GET]}, destination: {ports: [http]}}]}`
	for _, c := range []struct{ name, vector, want string }{
		{"right", `objs: [` + deny + `], flows: [a -> b tcp/80 => allow, a -> b tcp/81 => deny !allow, a -> b tcp/81 @ingress => deny, a -> b tcp/81 @egress => allow]`, ""},
		{"qualified name", `flows: [a -> n/twin tcp/1 => allow]`, ""},
		{"verdict in the engine", `objs: [` + deny + `], flows: [a -> b tcp/80 => deny]`, "engine: expected deny, got allow"},
		{"verdict in the explainer", `objs: [` + deny + `], flows: [a -> b tcp/80 => deny]`, "explain: expected deny, got allow"},
		{"one side", `objs: [` + deny + `], flows: [a -> b tcp/81 @ingress => allow]`, "engine: expected allow, got deny"},
		{"host chain", `objs: [{HEP: h, node: node1, interfaceName: eth0}], flows: [192.0.2.1 -> 192.0.2.2 tcp/1 @hep-in:h => none]`, "engine: expected none, got deny"},
		{"unknown host endpoint", `flows: [192.0.2.1 -> 192.0.2.2 tcp/1 @hep-in:h => deny]`, "explain: expected deny, got no answer"},
		{"request", `objs: [` + deny + `], flows: [a -> b tcp/80 @l7 m=GET p=/ => PERMISSION_DENIED]`, "explain: expected PERMISSION_DENIED, got OK"},
		{"request through the socket", `objs: [` + deny + `], flows: [a -> b tcp/80 @l7 m=GET p=/ => PERMISSION_DENIED]`, "proxy: expected PERMISSION_DENIED, got OK"},
		{"request refused", `objs: [` + deny + `], flows: [a -> b tcp/80 @l7 m=PUT p=/ => PERMISSION_DENIED]`, ""},
		{"unknown pod", `flows: [a -> nobody tcp/1 => allow]`, `no pod is named "nobody"`},
		{"two pods of a name", `flows: [a -> twin tcp/1 => allow]`, "m/twin, n/twin"},
		{"family", `flows: [a.6 -> b tcp/1 => allow]`, "two families"},
		{"must be refused", `rejects: [{GNP: g}]`, "must be refused"},
		{"one must be refused", `reject: true, objs: [{GNP: g}]`, "one of objs must be refused"},
		{"must be accepted", `objs: [{GNP: g, selector: 'a ='}]`, "GNP g: must be accepted"},
		{"refused", `reject: true, objs: [{GNP: g, selector: 'a ='}], flows: [a -> b tcp/1 => allow]`, ""},
		{"not validated", `noValidate: true, objs: [{GNP: g, ingress: [{action: Allow, source: {nets: [x]}}]}], flows: [a -> b tcp/1 => deny]`, ""},
		{"in a step", `steps: [{flows: [a -> b tcp/1 => allow]}, {flows: [a -> b tcp/1 => deny]}]`, "step 2"},
		{"selector", `sel: ['a == "x" @ {a: x} => false']`, "selector: "},
		{"bad world object", `pods: [{name: x, ns: n, ips: [ten]}], flows: [a -> b tcp/1 => allow]`, "convert: "},
	} {
		f, err := Parse("x.yaml", world+"---\n- {id: V, "+c.vector+"}\n")
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got []string
		for _, err := range Run(f.World, f.Vectors[0]) {
			got = append(got, err.Error())
		}
		text := strings.Join(got, "\n")
		if c.want == "" && text != "" || !strings.Contains(text, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, text, c.want)
		}
	}
}

// A vector that does not parse fails instead of being left out.
func TestRunBroken(t *testing.T) {
	t.Parallel()
	f, err := Parse("x.yaml", "- {id: V, flows: [a b]}\n")
	if err != nil {
		t.Fatal(err)
	}
	if errs := Run(f.World, f.Vectors[0]); len(errs) == 0 {
		t.Error("it passes")
	}
}
