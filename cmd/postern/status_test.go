package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/filter/policy"
)

func TestPrintStatus(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, tc := range []struct {
		status control.Status
		want   string
	}{
		{control.Status{Source: "/etc/postern"}, `
NOT enforcing  nothing was put in force yet
source         /etc/postern, not synced
state          0 pods, 0 policies
`},
		{control.Status{
			Node: "n1", Enforcing: true, Since: ago(90 * time.Second), Generation: 7, Applied: ago(1500 * time.Millisecond), Pods: 3, Policies: 2,
			Source: "cluster of in-cluster", Synced: true, Kept: 1, Degraded: []string{"pods.v1: refused: no\x1b[31m"},
			Kinds: []control.Kind{
				{Resource: "namespaces.v1", State: "live", Since: ago(time.Minute), Contact: ago(2 * time.Second), Lists: 1},
				{Resource: "pods.v1", State: "refused", Since: ago(5 * time.Second), Lists: 2, Errors: 12},
			},
			Unusable: []control.Unusable{{Problem: policy.Problem{
				Object: policy.Key{Kind: policy.NetworkPolicy, Namespace: "a", Name: "b"}, Field: "spec.selector", Message: "does not parse"}, Held: true}},
			UnusableTotal: 2,
			Packets: control.Packets{
				Decided: []control.Decided{{Verdict: "allow", Reason: "rule", Count: 4}, {Verdict: "deny", Reason: "end-of-tier", Count: 2}},
				Dropped: map[string]uint64{"queue-full": 3, "policy": 5, "guard": 0}, FailedOpen: map[string]uint64{"spoofed": 1},
				Queues: []control.Queue{{Number: 100, Bound: true, Waiting: 6}, {Number: 101}}, Holds: control.Holds{Now: 2},
			},
			Requests: control.Requests{Decided: []control.Decided{{Verdict: "deny", Reason: "plaintext", Count: 8}}},
		}, `
enforcing    since 2026-11-25T11:58:30Z (1m30s), generation 7 of 1.5s ago
node         n1
source       cluster of in-cluster, synced
state        3 pods, 2 policies
kept         1 deleted objects, until the pods of their namespaces are gone
decided      4 allow (rule), 2 deny (end-of-tier)
dropped      5 policy, 3 queue-full
FAILED OPEN  1 spoofed
queue 100    6 waiting
DEGRADED     queue 101 is not bound
held         2 packets wait for their pod
requests     8 deny (plaintext), 0 denied by a fault
DEGRADED     pods.v1: refused: no?[31m

RESOURCE       STATE    FOR   LAST HEARD  LISTS  ERRORS
namespaces.v1  live     1m0s  2s          1      0
pods.v1        refused  5s    never       2      12

2 problems of objects that cannot be used as they are:
  NetworkPolicy a/b: spec.selector: does not parse (its last valid version is in force)
  and 1 more
`},
	} {
		var b strings.Builder
		if err := printStatus(&b, &tc.status, now); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tc.want, "\n"+b.String()); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
	}
}
