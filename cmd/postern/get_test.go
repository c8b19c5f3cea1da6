package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/inventory"
)

// TestGet prints what is in the examples.
func TestGet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(replayPolicy)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "more.yaml"), []byte(`
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: office, labels: {where: here}}
spec: {nets: [198.51.100.0/24, 203.0.113.0/24, 2001:db8::/32, 192.0.2.0/24]}
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: soon, namespace: prod-engineering}
spec: {order: 10, selector: 'app == "db"', ingress: [{action: Deny}]}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"endpoints db", 0, `
NAMESPACE         NAME  ACCOUNT  ADDRESSES                 INGRESS    EGRESS  POLICIES
prod-engineering  db    db-sa    10.244.0.10,fd00:244::10  protected  open    default prod-engineering/allow-web-frontend, default prod-engineering/demo-calico, default:10 prod-engineering/soon (staged)
`},
		{"pod staging/api -o wide", 0, `
NAMESPACE  NAME  ACCOUNT      ADDRESSES                 INGRESS  EGRESS  POLICIES  NODE  LABELS
staging    api   api-service  10.244.0.21,fd00:244::21  open     open    -         -     app=api
`},
		{"policies", 0, `
TIER     ORDER  KIND                       NAME                                     TYPES           RULES  SUBJECTS
default  10     StagedNetworkPolicy (Set)  prod-engineering/soon                    ingress         1      prod-engineering/db
default  -      NetworkPolicy              prod-engineering/allow-web-frontend      ingress         1      prod-engineering/db
default  -      NetworkPolicy              prod-engineering/demo-calico             ingress         1      prod-engineering/db
default  -      NetworkPolicy              prod-engineering/restrict-intern-access  ingress,egress  1,1    prod-engineering/intern-1, prod-engineering/intern-2
`},
		{"sa web-sa", 0, `
NAMESPACE         NAME    LABELS            PODS  NAMED BY
prod-engineering  web-sa  app=web-frontend  web   ingress rule 0 of prod-engineering/allow-web-frontend (Allow, source, by label)
`},
		{"sets", 0, `
NAMESPACE  NAME    LABELS      PREFIXES  WHICH
-          office  where=here  4         198.51.100.0/24, 203.0.113.0/24, 2001:db8::/32, +1
`},
		{"policies nothing", 1, ""},
		{"endpoints -n nowhere", 0, ""},
		{"endpoints a/b -n c", 2, ""},
		{"endpoints a b", 2, ""},
		{"endpoints a/b/c", 2, ""},
		{"endpoints -o xml", 2, ""},
		{"nonsense", 2, ""},
		{"flows", 2, ""}, // these are the daemon's, and of no manifest
	} {
		out, errs, code := command(append([]string{"get"}, append(strings.Fields(tc.args), "--source", dir)...)...)
		if code != tc.code {
			t.Errorf("%s: exit code %d, want %d: %s", tc.args, code, tc.code, errs)
		}
		if d := cmp.Diff(strings.TrimPrefix(tc.want, "\n"), out); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.args, d)
		}
	}
	out, errs, code := command("get", "endpoints", "-o", "json", "-n", "prod-engineering", "--source", dir)
	var list []inventory.Endpoint
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list) != 7 || list[2].Name != "db" || len(list[2].Policies) != 2 || !list[2].Ingress {
		t.Errorf("%v, exit code %d: %s%s", err, code, out, errs)
	}
	if out, _, code := command("get", "sets", "-n", "nowhere", "-o", "json", "--source", dir); code != 0 || out != "[]\n" {
		t.Errorf("an empty list: exit code %d, %q", code, out)
	}
}
