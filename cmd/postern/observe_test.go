package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/observe"
)

func TestObserveText(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 25, 12, 0, 1, 2e6, time.Local)
	sport, dport, rule, typ, code := uint16(4000), uint16(80), 2, uint8(8), uint8(0)
	var b strings.Builder
	print := textLines(&b)
	for _, l := range []observe.Line{
		{
			Decided: at, Kind: "flow", Verdict: "deny", Reason: "rule", Direction: "ingress", Proto: "tcp", Src: netip.MustParseAddr("10.0.0.1"), SrcPort: &sport,
			SrcPod: "a/web", SrcAccount: "web", Dst: netip.MustParseAddr("fd00::1"), DstPort: &dport, Tier: "default", PolicyKind: "NetworkPolicy", Policy: "b/db", Rule: &rule,
		},
		{
			Decided: at, Kind: "flow", Verdict: "allow", Reason: "end-of-tier", Direction: "egress", Proto: "icmp", Src: netip.MustParseAddr("10.0.0.1"),
			Dst: netip.MustParseAddr("10.0.0.2"), ICMPType: &typ, ICMPCode: &code, Tier: "t", Pending: "deny", PendingReason: "rule", PendingPolicyKind: "StagedNetworkPolicy", PendingPolicy: "b/soon", PendingRule: &rule,
		},
		{
			Decided: at, Kind: "request", Verdict: "deny", Reason: "invalid-request", Direction: "ingress", Proto: "tcp", Src: netip.MustParseAddr("10.0.0.1"),
			Dst: netip.MustParseAddr("10.0.0.2"), Method: "GET", Path: "/\x1b[31m\u009b\nALLOW\u202e", Problem: "a\x07b",
		},
		{Missed: 7},
	} {
		if err := print(l); err != nil {
			t.Fatal(err)
		}
	}
	want := `12:00:01.002 DENY  tcp a/web (web) 10.0.0.1:4000 -> [fd00::1]:80: ingress rule 2 of NetworkPolicy b/db in tier default
12:00:01.002 ALLOW icmp 10.0.0.1 -> 10.0.0.2 type 8 code 0: egress end-of-tier in tier t; staged policies would deny it: rule 2 of StagedNetworkPolicy b/soon
12:00:01.002 DENY  tcp 10.0.0.1 -> 10.0.0.2 request GET /?[31m? ALLOW?: ingress invalid-request: a?b
(7 decisions missed: they came faster than they could be shown)
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
