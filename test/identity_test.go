package test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
)

// accounts are names that only an exact comparison tells apart: the longest that
// Kubernetes allows, prefixes and suffixes of each other, dots where a pattern would
// take any character, and names of namespaces and profiles.
var accounts = []string{
	"a", "a.b", "axb", "a-b", "a.b.c", "b", "default", "kns.prod", "ksa.prod.a",
	strings.Repeat("n", 253), strings.Repeat("n", 252), strings.Repeat("n", 63), strings.Repeat("a.", 126) + "b",
}

// TestAccountNamesAreExact: a rule that names one account allows the pods of this
// account and of no other, in its own namespace, whatever stands in the name.
func TestAccountNamesAreExact(t *testing.T) {
	t.Parallel()
	var objects []any
	for _, ns := range []string{"prod", "test"} {
		objects = append(objects, map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": ns}})
	}
	addr := func(ns, i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(ns), byte(i)}) }
	pod := func(ns int, i int, account string, labels map[string]string) map[string]any {
		return map[string]any{
			"apiVersion": "v1", "kind": "Pod",
			"metadata": map[string]any{"namespace": []string{"prod", "test"}[ns], "name": fmt.Sprint("pod-", i), "labels": labels},
			"spec":     map[string]any{"serviceAccountName": account},
			"status":   map[string]any{"podIPs": []any{map[string]any{"ip": addr(ns, i).String()}}},
		}
	}
	for i, name := range accounts {
		for ns := range 2 {
			// Forged labels make no difference.
			objects = append(objects, pod(ns, i, name, map[string]string{"projectcalico.org/serviceaccount": "a", "pcsa.projectcalico.org/name": "a"}))
		}
	}
	const db = 200
	objects = append(objects, pod(0, db, "db", map[string]string{"app": "db"}))

	names := append([]string{"", "A", "a ", " a", "a\n", `a"`, `a" || all() || x == "`, "a' || has(x) || y == 'z", "a*", "a.*", "prod/a", "ksa.prod.a.b"}, accounts...)
	for _, named := range names {
		snapshot := parse(t, append([]any{map[string]any{
			"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy", "metadata": map[string]any{"namespace": "prod", "name": "p"},
			"spec": map[string]any{
				"selector": `app == "db"`,
				"ingress":  []any{map[string]any{"action": "Allow", "source": map[string]any{"serviceAccounts": map[string]any{"names": []string{named}}}}},
			},
		}}, objects...))
		rs, _ := compile.Compile(snapshot, compile.Options{})
		oracle := explain.New(snapshot, explain.Options{})
		for i, account := range accounts {
			for ns := range 2 {
				f := flow.Tuple{Src: addr(ns, i), Dst: addr(0, db), Proto: flow.TCP, Ported: true, SrcPort: 4000, DstPort: 1}
				want := ns == 0 && account == named
				if got := rs.Decide(f).Verdict == filter.Accept; got != want {
					t.Errorf("engine: names [%.20q], account %.20s of namespace %d: %v, want %v", named, account, ns, got, want)
				}
				if got := oracle.Decide(f).Verdict == explain.Allow; got != want {
					t.Errorf("explain: names [%.20q], account %.20s of namespace %d: %v, want %v", named, account, ns, got, want)
				}
			}
		}
	}
}

func parse(t *testing.T, objects []any) *policy.Snapshot {
	t.Helper()
	var text strings.Builder
	for _, o := range objects {
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "---\n%s\n", b)
	}
	parsed, err := file.Parse("test.yaml", []byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	store := k8ssync.NewStore()
	store.Replace(parsed)
	return store.Snapshot()
}
