package assertion

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy/selector"
)

// file gives a file whose only assertion, named a, starts at line 6 and has this
// below its name.
func file(assertion string) string {
	return "apiVersion: postern.dev/v1alpha1\nkind: Assertions\nmetadata: {name: s}\nspec:\n  assertions:\n  - name: a\n" + assertion
}

func TestParse(t *testing.T) {
	t.Parallel()
	_, err := Parse("db.yaml", []byte(`# A comment.
---
apiVersion: postern.dev/v1alpha1
kind: Assertions
metadata: {name: db-access}
spec:
  assertions:
  - name: only the API reaches the database
    allow:
    - {from: prod/api, to: "pod:prod/db", port: tcp/5432}
    deny:
    - {from: [prod/web, 203.0.113.7, fd00::1, 2001:db8::/32], to: prod/db, ports: [tcp/5432, icmp:8, 112], family: 6}
  - name: on
    deny:
    - from: {serviceAccount: prod/a.b, selector: 'app == "db"', orNone: true}
      to: {namespace: 8, namespaceSelector: has(env), serviceAccountSelector: all(), orNone: false}
      port: sctp/9
`))
	if err == nil {
		t.Fatal("icmp and family 6 do not go together, and nothing was said")
	}
	if want := `db.yaml:12: assertion "only the API reaches the database": deny[0]: icmp is a protocol of IPv4, and family is 6`; err.Error() != want {
		t.Errorf("got %v, want %v", err, want)
	}
	got, err := Parse("db.yaml", []byte(`
apiVersion: postern.dev/v1alpha1
kind: Assertions
metadata: {name: db-access}
spec:
  assertions:
  - name: only the API reaches the database
    allow:
    - {from: prod/api, to: "pod:prod/db", port: tcp/5432}
    deny:
    - {from: [prod/web, 203.0.113.7, fd00::1, 2001:db8::/32, '::ffff:10.0.0.1'], to: prod/db, ports: [tcp/5432, icmpv6:128, 112], family: 6}
  - name: on
    deny:
    - from: {serviceAccount: prod/a.b, selector: 'app == "db"', orNone: true}
      to: {namespace: 8, namespaceSelector: has(env), serviceAccountSelector: all(), orNone: false}
      port: sctp/9
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Set{Path: "db.yaml", Name: "db-access", Assertions: []Assertion{
		{Name: "only the API reaches the database", Line: 7, Flows: []Flow{
			{
				Line: 9, Want: explain.Allow, From: []End{{Namespace: "prod", Name: "api"}}, To: []End{{Namespace: "prod", Name: "db"}},
				Ports: []Port{{Proto: flow.TCP, Number: 5432}},
			},
			{
				Line: 11, Want: explain.Deny,
				From: []End{
					{Namespace: "prod", Name: "web"}, {Addr: netip.MustParseAddr("203.0.113.7")}, {Addr: netip.MustParseAddr("fd00::1")},
					{Prefix: netip.MustParsePrefix("2001:db8::/32")}, {Addr: netip.MustParseAddr("10.0.0.1")},
				},
				To:    []End{{Namespace: "prod", Name: "db"}},
				Ports: []Port{{Proto: flow.TCP, Number: 5432}, {Proto: flow.ICMPv6, Type: 128}, {Proto: 112}}, Family: 6,
			},
		}},
		{Name: "on", Line: 12, Flows: []Flow{{
			Line: 14, Want: explain.Deny,
			From:  []End{{Selection: &Selection{Namespace: "prod", Account: "a.b", Selector: selector.Equals("app", "db"), OrNone: true}}},
			To:    []End{{Selection: &Selection{Namespace: "8", NamespaceSelector: selector.Has("env"), AccountSelector: selector.All()}}},
			Ports: []Port{{Proto: flow.SCTP, Number: 9}},
		}}},
	}}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	const flows = "    deny:\n    - " // line 8
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "# nothing\n---\n", "f.yaml: nothing is written here; want apiVersion, kind, metadata and spec"},
		{"not YAML", "a: [", "f.yaml: line 1: did not find expected node content"},
		{"scalar", "hello", "f.yaml:1: is a text; want a mapping"},
		{"two documents", file(flows+"{from: a/b, to: a/c, port: tcp/1}\n") + "---\nkind: x\n", "f.yaml: line 10: a second document; write one to a file"},
		{"text after the document", "{kind: Assertions}\nkind: x\n", "f.yaml: line 1: did not find expected <document start>"},
		{"tag", "kind: !secret x", "f.yaml: line 1: tag !secret is not used here"},
		{"binary", "kind: !!binary aGVsbG8=", "f.yaml: line 1: tag !!binary is not used here"},
		{"repeated field", "kind: Assertions\nkind: Assertions", `f.yaml: line 2: key "kind" is written twice`},
		{
			"manifest", "apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: y}\nspec: {containers: []}\n",
			"f.yaml:1: apiVersion: \"v1\": want postern.dev/v1alpha1\nf.yaml:2: kind: \"Pod\": want Assertions\n" +
				"f.yaml:3: metadata.namespace: no such field; want name\n" +
				"f.yaml:4: spec.containers: no such field; want assertions\nf.yaml:4: spec.assertions: is required",
		},
		{"nothing but a kind", "kind: Assertions", "f.yaml:1: apiVersion: is required\nf.yaml:1: metadata: is required, with a name\nf.yaml:1: spec: is required, with assertions"},
		{"no assertions", "apiVersion: postern.dev/v1alpha1\nkind: Assertions\nmetadata: {name: s}\nspec: {assertions: []}", "f.yaml:4: spec.assertions: is empty"},
		{"null assertions", "apiVersion: postern.dev/v1alpha1\nkind: Assertions\nmetadata: {name: s}\nspec:\n  assertions:\n", "f.yaml:5: spec.assertions: is empty"},
		{"null assertion", "apiVersion: postern.dev/v1alpha1\nkind: Assertions\nmetadata: {name: s}\nspec: {assertions: [null]}", "f.yaml: assertion 1: is nothing; want a mapping"},
		{"no name", strings.Replace(file(flows+"{from: a/b, to: a/c, port: tcp/1}"), "name: a", "name:", 1), "f.yaml:6: assertion 1: name: is empty"},
		{"name of two lines", strings.Replace(file(flows+"{from: a/b, to: a/c, port: tcp/1}"), "name: a", `name: "a\nok b"`, 1), `f.yaml:6: assertion 1: name: "a\nok b" holds characters that cannot be printed`},
		{"long name", strings.Replace(file(flows+"{from: a/b, to: a/c, port: tcp/1}"), "name: a", "name: "+strings.Repeat("x", 201), 1), `f.yaml:6: assertion 1: name: 201 bytes; want at most 200`},
		{"same name", file(flows+"{from: a/b, to: a/c, port: tcp/1}\n") + "  - name: a\n" + flows + "{from: a/b, to: a/c, port: tcp/1}\n", `f.yaml:9: assertion "a": name: line 6 has an assertion of this name already`},
		{"no flows", file("    description: x\n"), "f.yaml:7: assertion \"a\": description: no such field; want name, allow, deny\nf.yaml:6: assertion \"a\": says nothing; want flows under allow, deny or both"},
		{"null flows", file("    deny:\n"), "f.yaml:6: assertion \"a\": deny: is empty\nf.yaml:6: assertion \"a\": says nothing; want flows under allow, deny or both"},
		{"flow without list", file("    deny: {from: a/b}\n"), `f.yaml:7: assertion "a": deny: is a mapping; want a list`},
		{"misspelt field", file(flows + "{from: a/b, to: a/c, prot: tcp/1}"), "f.yaml:8: assertion \"a\": deny[0].prot: no such field; want from, to, port, ports, family\nf.yaml:8: assertion \"a\": deny[0]: want either port or ports"},
		{"field of other case", file(flows + "{From: a/b, to: a/c, port: tcp/1}"), "f.yaml:8: assertion \"a\": deny[0].From: no such field; want from, to, port, ports, family\nf.yaml:8: assertion \"a\": deny[0].from: is required"},
		{"port and ports", file(flows + "{from: a/b, to: a/c, port: tcp/1, ports: [tcp/2]}"), `f.yaml:8: assertion "a": deny[0]: want either port or ports`},
		{"no ports", file(flows + "{from: a/b, to: a/c, ports: []}"), `f.yaml:8: assertion "a": deny[0].ports: is empty`},
		{"bad port", file(flows + "{from: a/b, to: a/c, ports: [tcp/1, tcp/65536]}"), `f.yaml:8: assertion "a": deny[0].ports[1]: "tcp/65536": want tcp/80, udp/53, sctp/9, icmp:8/0, icmpv6:128 or a protocol number`},
		{"port of wrong shape", file(flows + "{from: a/b, to: a/c, port: {tcp: 1}}"), `f.yaml:8: assertion "a": deny[0].port: is a mapping; want a text`},
		{"bad family", file(flows + "{from: a/b, to: a/c, port: tcp/1, family: ipv4}"), `f.yaml:8: assertion "a": deny[0].family: "ipv4": want 4 or 6`},
		{"empty end", file(flows + "{from: , to: a/c, port: tcp/1}"), `f.yaml:8: assertion "a": deny[0].from: is nothing; want a pod as namespace/name, an address, a prefix, or a selection of pods in braces`},
		{"no ends", file(flows + "{from: a/b, to: [], port: tcp/1}"), `f.yaml:8: assertion "a": deny[0].to: is empty`},
		{"bad end", file(flows + "{from: [a/b, web], to: a/c, port: tcp/1}"), `f.yaml:8: assertion "a": deny[0].from[1]: "web": want a pod as namespace/name, an address, a prefix, or a selection of pods in braces`},
		{"bits after the prefix", file(flows + "{from: 10.0.0.1/8, to: a/c, port: tcp/1}"), `f.yaml:8: assertion "a": deny[0].from: 10.0.0.1/8: has bits after the prefix; write 10.0.0.0/8`},
		{"mapped prefix", file(flows + "{from: '::ffff:10.0.0.0/104', to: a/c, port: tcp/1}"), `f.yaml:8: assertion "a": deny[0].from: ::ffff:10.0.0.0/104: write an IPv4 prefix as IPv4`},
		{"two prefixes", file(flows + "{from: 10.0.0.0/8, to: 10.0.0.0/8, port: tcp/1}"), `f.yaml:8: assertion "a": deny[0]: from and to are prefixes; one end has to be a pod, or nobody decides the flow`},
		{"empty selection", file(flows + "{from: {orNone: true}, to: a/c, port: tcp/1}"), `f.yaml:8: assertion "a": deny[0].from: selects by nothing; for every pod write {selector: all()}`},
		{"bad selector", file(flows + "{from: {selector: 'a = \"b\"'}, to: a/c, port: tcp/1}"), `f.yaml:8: assertion "a": deny[0].from.selector: parse selector: column 3 (byte offset 2): expected ==, !=, in, not in, contains, starts with or ends with after the label, found "="; equality is written ==`},
		{"global()", file(flows + "{from: {namespaceSelector: global()}, to: a/c, port: tcp/1}"), `f.yaml:8: assertion "a": deny[0].from.namespaceSelector: global() selects what has no namespace, and pods have one`},
		{"account without namespace", file(flows + "{from: {serviceAccount: x}, to: a/c, port: tcp/1}"), `f.yaml:8: assertion "a": deny[0].from.serviceAccount: "x": want namespace/name`},
		{"account of another namespace", file(flows + "{from: {namespace: y, serviceAccount: x/z}, to: a/c, port: tcp/1}"), `f.yaml:8: assertion "a": deny[0].from.serviceAccount: "x/z" is not of namespace y`},
		{"orNone", file(flows + "{from: {namespace: y, orNone: yes}, to: a/c, port: tcp/1}"), `f.yaml:8: assertion "a": deny[0].from.orNone: "yes": want true or false`},
		{"too large", strings.Repeat("#", MaxBytes+1), "f.yaml: 1048577 bytes; at most 1048576 are read, so split the file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			set, err := Parse("f.yaml", []byte(tc.text))
			if err == nil {
				t.Fatal("accepted")
			}
			if d := cmp.Diff(tc.want, err.Error()); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			if set.Assertions != nil || set.Name != "" {
				t.Errorf("a bad file gave %+v", set)
			}
			var e *Error
			if !errors.As(err, &e) || e.Path != "f.yaml" {
				t.Errorf("%T is no *Error with a path", err)
			}
		})
	}
}

// TestParseTellsSoManyErrors: a file that is all wrong is not answered with a page
// for each line.
func TestParseTellsSoManyErrors(t *testing.T) {
	t.Parallel()
	_, err := Parse("f.yaml", []byte(file("    deny:\n"+strings.Repeat("    - {}\n", 1000))))
	if n := len(strings.Split(err.Error(), "\n")); n != maxErrors {
		t.Errorf("%d lines, want %d", n, maxErrors)
	}
}

func TestParsePort(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Port{
		"tcp/80": {Proto: flow.TCP, Number: 80}, "UDP/0": {Proto: flow.UDP}, "sctp:9": {Proto: flow.SCTP, Number: 9}, "6/443": {Proto: flow.TCP, Number: 443},
		"icmp": {Proto: flow.ICMP}, "icmp:8": {Proto: flow.ICMP, Type: 8}, "icmp:3/4": {Proto: flow.ICMP, Type: 3, Code: 4}, "icmpv6:128": {Proto: flow.ICMPv6, Type: 128},
		"47": {Proto: 47}, "udplite": {Proto: flow.UDPLite},
	} {
		got, err := ParsePort(text)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
		if again, err := ParsePort(got.String()); err != nil || again != got {
			t.Errorf("%s prints as %s, which is read as %v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "tcp", "tcp/", "tcp/-1", "tcp/65536", "tcp/http", "tcp/80/1", "icmp:256", "icmp:8/", "icmp:8/256", "icmp:", "47/1", "256", "http/80"} {
		if got, err := ParsePort(text); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(file("    deny:\n    - {from: [a/b, 10.0.0.0/8, {selector: all()}], to: a/c, ports: [tcp/1, icmp:8], family: 4}\n")))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("a: &a {<<: *a}\n"))
	f.Add([]byte("? [x]\n: y\n---\n...\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := Parse("f.yaml", text)
		if (err == nil) != (len(set.Assertions) > 0) {
			t.Errorf("%d assertions, error %v", len(set.Assertions), err)
		}
		for _, a := range set.Assertions {
			if a.Name == "" || len(a.Flows) == 0 {
				t.Errorf("an assertion without name or flows: %+v", a)
			}
			for _, f := range a.Flows {
				if len(f.From) == 0 || len(f.To) == 0 || len(f.Ports) == 0 {
					t.Errorf("a flow that stands for nothing: %+v", f)
				}
			}
		}
	})
}
