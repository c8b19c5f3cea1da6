package flowlog

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
)

// example is a ruleset in which ns/db takes TCP port 5432, logs UDP, and denies
// the rest at the end of the tier.
func example(t testing.TB) *filter.Ruleset {
	t.Helper()
	tcp, udp := flow.TCP, flow.UDP
	info := func(index int, a filter.Action) filter.RuleInfo {
		return filter.RuleInfo{Tier: "default", Kind: "NetworkPolicy", Namespace: "ns", Name: "db", Index: index, Action: a}
	}
	rs, err := filter.New(&filter.Spec{
		Generation: 42,
		Prefixes:   []filter.ClassPrefix{{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Class: 1}},
		Classes:    []filter.Class{{}, {Hosted: true, Programs: [2]int{flow.Ingress: 0, flow.Egress: 1}}},
		Rules: []filter.Rule{
			{Info: info(0, filter.Log), IPv4: true, IPv6: true, Proto: &udp},
			{
				Info: info(1, filter.Allow), IPv4: true, IPv6: true, Proto: &tcp,
				Destination: filter.Side{Ports: &filter.PortMatch{Ranges: []flow.PortRange{{Min: 5432, Max: 5432}}}},
			},
			{Info: filter.RuleInfo{Tier: "default", Index: -1, Action: filter.Deny}, IPv4: true, IPv6: true},
		},
		Programs: []filter.Program{{Segments: []*filter.Segment{{Rules: []filter.RuleID{1, 2}, End: 3}}}, {Final: filter.FinalAllow}},
		Endpoints: []filter.Endpoint{{
			EndpointInfo: filter.EndpointInfo{Namespace: "ns", Name: "db-0", ServiceAccount: "db-sa", Hosted: true},
			Addrs:        []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func record(rs *filter.Ruleset, proto flow.Proto, dport uint16, second int64) *Record {
	t := flow.Tuple{
		Src: netip.MustParseAddr("10.0.0.9"), Dst: netip.MustParseAddr("10.0.0.1"),
		Proto: proto, Ported: proto.HasPorts(), SrcPort: 4000, DstPort: dport, ICMPType: 8,
	}
	if !t.Ported {
		t.SrcPort, t.DstPort = 0, 0
	}
	return &Record{UnixNano: second * int64(time.Second), Tuple: t, Decision: rs.Decide(t), Ruleset: rs, Epoch: 3}
}

func lines(t *testing.T, b []byte) (ls []map[string]any) {
	t.Helper()
	for d := json.NewDecoder(bytes.NewReader(b)); d.More(); {
		var l map[string]any
		if err := d.Decode(&l); err != nil {
			t.Fatal(err)
		}
		delete(l, "decided")
		ls = append(ls, l)
	}
	return ls
}

func TestLine(t *testing.T) {
	t.Parallel()
	rs := example(t)
	common := map[string]any{
		"level": "info", "message": "flow", "src": "10.0.0.9", "dst": "10.0.0.1", "dst_pod": "ns/db-0", "dst_account": "db-sa",
		"direction": "ingress", "generation": 42.0, "epoch": 3.0, "tier": "default",
	}
	rule := map[string]any{"policy_kind": "NetworkPolicy", "policy": "ns/db"}
	with := func(ms ...map[string]any) map[string]any {
		all := map[string]any{}
		for _, m := range append([]map[string]any{common}, ms...) {
			for k, v := range m {
				all[k] = v
			}
		}
		return all
	}
	for _, tc := range []struct {
		name  string
		which Which
		rec   *Record
		want  []map[string]any
	}{
		{"allowed", All, record(rs, flow.TCP, 5432, 0), []map[string]any{with(rule, map[string]any{
			"verdict": "allow", "reason": "rule", "rule": 1.0, "proto": "tcp", "sport": 4000.0, "dport": 5432.0,
		})}},
		{"denied", Denied, record(rs, flow.TCP, 80, 0), []map[string]any{with(map[string]any{
			"verdict": "deny", "reason": "end-of-tier", "proto": "tcp", "sport": 4000.0, "dport": 80.0,
		})}},
		{"denied icmp", Denied, record(rs, flow.ICMP, 0, 0), []map[string]any{with(map[string]any{
			"verdict": "deny", "reason": "end-of-tier", "proto": "icmp", "icmp_type": 8.0, "icmp_code": 0.0,
		})}},
		{"allowed, and only denials wanted", Denied, record(rs, flow.TCP, 5432, 0), nil},
		{"denied, and nothing wanted", None, record(rs, flow.TCP, 80, 0), nil},
		{"a Log rule asks for a line", None, record(rs, flow.UDP, 53, 0), []map[string]any{with(rule, map[string]any{
			"message": "log rule", "verdict": "deny", "reason": "end-of-tier", "proto": "udp", "sport": 4000.0, "dport": 53.0,
			"rule": 0.0, "prefix": "calico-packet default/NetworkPolicy/db/ns/db 100%",
		})}},
		{"before the first ruleset", Denied, &Record{Tuple: record(rs, flow.TCP, 1, 0).Tuple, Decision: filter.Decision{Reason: filter.NotReady}},
			[]map[string]any{{
				"level": "info", "message": "flow", "src": "10.0.0.9", "dst": "10.0.0.1", "direction": "ingress",
				"verdict": "deny", "reason": "not-ready", "proto": "tcp", "sport": 4000.0, "dport": 1.0,
			}}},
	} {
		var buf bytes.Buffer
		ring := NewRing(4)
		ring.Put(tc.rec)
		NewWriter(zerolog.New(&buf), Config{Which: tc.which, LogPrefix: DefaultLogPrefix + " %t/%k/%n/%p 100%%"}, ring).Drain()
		if d := cmp.Diff(tc.want, lines(t, buf.Bytes())); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, d)
		}
	}
}

// TestNothingIsLostUnsaid: what the bound or a full ring keeps from the log is
// counted in the log.
func TestNothingIsLostUnsaid(t *testing.T) {
	t.Parallel()
	rs := example(t)
	var buf bytes.Buffer
	ring := NewRing(8)
	for range 11 {
		ring.Put(record(rs, flow.TCP, 80, 1000))
	}
	w := NewWriter(zerolog.New(&buf), Config{Which: All, PerSecond: 5}, ring)
	w.Drain()
	got := map[string]int{}
	for _, l := range lines(t, buf.Bytes()) {
		n, _ := l["records"].(float64)
		got[l["message"].(string)] += max(int(n), 1)
	}
	want := map[string]int{
		"flow": 5,
		"flow log: suppressed records over the rate limit":                         3,
		"flow log: lost records, decisions came faster than they could be written": 3,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestPending: what staged policies would do is written where it differs, and only
// of the same generation; what they would deny counts as denied.
func TestPending(t *testing.T) {
	t.Parallel()
	rs, closed := example(t), func(generation uint64) *filter.Ruleset {
		rs, err := filter.New(&filter.Spec{
			Generation: generation,
			Prefixes:   []filter.ClassPrefix{{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Class: 1}},
			Classes:    []filter.Class{{}, {Hosted: true}},
			Rules: []filter.Rule{{
				Info: filter.RuleInfo{Tier: "default", Kind: "StagedNetworkPolicy", Namespace: "ns", Name: "closed", Action: filter.Deny},
				IPv4: true, IPv6: true,
			}, {Info: filter.RuleInfo{Tier: "default", Index: -1}, IPv4: true, IPv6: true}},
			Programs: []filter.Program{{Segments: []*filter.Segment{{Rules: []filter.RuleID{1}, End: 2}}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return rs
	}
	for _, tc := range []struct {
		name    string
		pending *filter.Ruleset
		rec     *Record
		want    map[string]any // nil for no line
	}{
		{"would be denied", closed(42), record(rs, flow.TCP, 5432, 0), map[string]any{
			"verdict": "allow", "pending": "deny", "pending_reason": "rule", "pending_policy_kind": "StagedNetworkPolicy", "pending_policy": "ns/closed", "pending_rule": 0.0,
		}},
		{"of another generation", closed(41), record(rs, flow.TCP, 5432, 0), nil},
		{"no difference", closed(42), record(rs, flow.TCP, 80, 0), map[string]any{"verdict": "deny"}},
		{"nothing staged", nil, record(rs, flow.TCP, 5432, 0), nil},
	} {
		var buf bytes.Buffer
		ring := NewRing(1)
		ring.Put(tc.rec)
		w := NewWriter(zerolog.New(&buf), Config{Which: Denied}, ring)
		w.SetPending(tc.pending)
		w.Drain()
		var got map[string]any
		for _, l := range lines(t, buf.Bytes()) {
			got = map[string]any{}
			for k, v := range l {
				if k == "verdict" || strings.HasPrefix(k, "pending") {
					got[k] = v
				}
			}
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, d)
		}
	}
}

// TestLogRuleRate: each rule with action Log has a budget of its own, besides that
// of the flow log.
func TestLogRuleRate(t *testing.T) {
	t.Parallel()
	rs := example(t)
	var buf bytes.Buffer
	ring := NewRing(64)
	for second := range int64(3) {
		for range 10 {
			ring.Put(record(rs, flow.UDP, 53, second))
		}
	}
	NewWriter(zerolog.New(&buf), Config{Which: None, LogRulePerSecond: 4}, ring).Drain()
	logged, suppressed := 0, 0.0
	for _, l := range lines(t, buf.Bytes()) {
		if l["message"] == "log rule" {
			logged++
		} else {
			suppressed += l["records"].(float64)
		}
	}
	if logged != 12 || suppressed != 18 {
		t.Errorf("%d lines and %v suppressed, want 12 and 18", logged, suppressed)
	}
}

// TestRing: one producer and one consumer at once lose and double nothing but what
// is counted, and order is kept.
func TestRing(t *testing.T) {
	t.Parallel()
	const n = 100_000
	r := NewRing(100)
	if len(r.slots) != 128 {
		t.Errorf("room for %d, want the next power of two", len(r.slots))
	}
	var producer sync.WaitGroup
	producer.Go(func() {
		var rec Record
		for i := range int64(n) {
			rec.UnixNano = i
			r.Put(&rec)
		}
	})
	var dst [17]Record
	took, last := 0, int64(-1)
	take := func() {
		k := r.Take(dst[:])
		took += k
		for _, rec := range dst[:k] {
			if rec.UnixNano <= last {
				t.Fatalf("record %d came after %d", rec.UnixNano, last)
			}
			last = rec.UnixNano
		}
	}
	finished := make(chan struct{})
	go func() { producer.Wait(); close(finished) }()
	for done := false; !done; take() {
		select {
		case <-finished:
			done = true
		default:
		}
	}
	for r.put.Load() != r.took.Load() {
		take()
	}
	if uint64(took)+r.Lost() != n {
		t.Errorf("took %d and lost %d of %d", took, r.Lost(), n)
	}
}

func TestPutAllocatesNothing(t *testing.T) {
	r, rec := NewRing(8), record(example(t), flow.TCP, 80, 0)
	if n := testing.AllocsPerRun(100, func() { r.Put(rec) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
